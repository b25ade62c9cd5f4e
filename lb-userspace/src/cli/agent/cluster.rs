//! Flags of an agent in a cluster, in kube-proxy's place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::net::TcpListener;

use super::super::dns::parse_socket_address;
use crate::source::kubernetes::{Config, Kubernetes};
use crate::{health, observe};

#[derive(Args, Debug)]
pub(super) struct ClusterArgs {
    /// Serve the Services of the cluster that this node belongs to, in kube-proxy's place
    #[arg(long, env = "LB_KUBERNETES", conflicts_with_all = ["manifests", "dns_listen", "dns_allow", "dns_upstream"])]
    pub(super) kubernetes: bool,
    /// How to reach the API server [default: the credentials of the Pod that the agent runs in]
    #[arg(long, env = "LB_KUBECONFIG", value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Know the Pods of all nodes, so that TCP connections to deleted ones are closed
    #[arg(long, env = "LB_WATCH_PODS", requires = "kubernetes")]
    watch_pods: bool,
    /// Where to answer /healthz and /livez [default with --kubernetes: 0.0.0.0:10256]
    #[arg(long, env = "LB_HEALTH_LISTEN", value_name = "ADDRESS:PORT", value_parser = parse_socket_address)]
    health_listen: Option<SocketAddr>,
    /// Where to serve metrics for Prometheus, besides the agent's socket (`/metrics` on both)
    /// [default with --kubernetes: 127.0.0.1:10249]
    #[arg(long, env = "LB_METRICS_LISTEN", value_name = "ADDRESS:PORT", value_parser = parse_socket_address)]
    metrics_listen: Option<SocketAddr>,
}

/// Sockets at which others ask how the agent is.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) health: Option<TcpListener>,
    pub(super) metrics: Option<TcpListener>,
}

impl ClusterArgs {
    /// Where `/healthz` and `/livez` are answered.
    pub(super) fn health_listen(&self) -> Option<SocketAddr> {
        let usual = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), health::PORT);
        self.health_listen.or_else(|| self.kubernetes.then_some(usual))
    }

    /// Where metrics are served.
    pub(super) fn metrics_listen(&self) -> Option<SocketAddr> {
        let usual = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), observe::PORT);
        self.metrics_listen.or_else(|| self.kubernetes.then_some(usual))
    }

    /// Takes both places.
    pub(super) async fn listen(&self) -> Result<Listeners> {
        Ok(Listeners {
            health: bind("--health-listen", self.health_listen()).await?,
            metrics: bind("--metrics-listen", self.metrics_listen()).await?,
        })
    }

    /// The API server, if it is the source.
    pub(super) async fn open(
        &self,
        state_dir: &Path,
        node_name: &str,
        proxy_name: Option<&String>,
        service_cidrs_are_given: bool,
    ) -> Result<Option<Kubernetes>> {
        if !self.kubernetes {
            return Ok(None);
        }
        let config = Config {
            kubeconfig: self.kubeconfig.clone(),
            state_dir: state_dir.to_owned(),
            node_name: node_name.to_owned(),
            proxy_name: proxy_name.cloned(),
            follow_service_cidrs: !service_cidrs_are_given,
            watch_pods: self.watch_pods,
        };
        Kubernetes::open(config).await.map(Some)
    }
}

async fn bind(flag: &str, at: Option<SocketAddr>) -> Result<Option<TcpListener>> {
    let Some(at) = at else { return Ok(None) };
    let listener = TcpListener::bind(at).await;
    let context =
        || format!("{flag} {at} (a kube-proxy of this node may have it; another port will do)");
    listener.with_context(context).map(Some)
}
