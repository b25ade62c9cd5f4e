//! `--kubernetes`: the objects of a cluster, as its API server tells them.
//!
//! An object's road: [`reflector`] lists and watches one resource → [`receive`] hands what it tells to
//! the engine. Nothing is written to the API but Events ([`events`]).

mod backoff;
mod client;
mod events;
mod health;
mod ranges;
mod receive;
mod reflector;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::engine::{Engine, Notice};
use crate::store::model::SERVICE_PROXY_NAME_LABEL;
use client::Connector;
pub(crate) use ranges::FILE as RANGES_FILE;
use ranges::Ranges;
pub use ranges::remembered;
use receive::{Kept, Objects};
use reflector::{Absence, Listed, Reflector, Selection};

/// The label of a headless Service's slices, whose endpoints no proxy serves.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// What to follow, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// `--kubeconfig`; without it, what a Pod is given.
    pub kubeconfig: Option<PathBuf>,
    /// Folder of what is remembered.
    pub state_dir: PathBuf,
    /// This node.
    pub node_name: String,
    /// `--service-proxy-name`
    pub proxy_name: Option<String>,
    /// Whether service CIDRs are the cluster's to say.
    pub follow_service_cidrs: bool,
    /// `--watch-pods`
    pub watch_pods: bool,
}

/// The API server of a cluster.
#[derive(Debug)]
pub struct Kubernetes {
    config: Config,
    connector: Arc<Connector>,
}

impl Kubernetes {
    /// Reads the credentials. The server need not answer yet.
    ///
    /// # Errors
    ///
    /// If there are none, or they cannot be understood.
    pub async fn open(config: Config) -> Result<Self> {
        let connector = Connector::new(config.kubeconfig.clone(), &config.node_name);
        connector.client().await?;
        Ok(Self { config, connector: Arc::new(connector) })
    }

    /// How many resources must have been listed before anything is pruned.
    pub fn sources(&self) -> usize {
        3 + usize::from(self.config.follow_service_cidrs) + usize::from(self.config.watch_pods)
    }

    /// Follows every resource, and tells the cluster of `notices`, until `stop` becomes true.
    pub async fn follow(
        self,
        engine: Engine,
        notices: mpsc::Receiver<Notice>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let mut tasks = JoinSet::new();
        let slices = Selection::labels(slice_selector(self.config.proxy_name.as_deref()));
        let own = Selection::fields(format!("metadata.name={}", self.config.node_name));
        tasks.spawn(self.keep::<Service>(&engine, Selection::default(), Absence::Fails));
        tasks.spawn(self.keep::<EndpointSlice>(&engine, slices, Absence::Fails));
        tasks.spawn(self.keep::<Node>(&engine, own, Absence::IsEmpty));
        if self.config.watch_pods {
            // One that has finished has no connections and may have given its address away.
            let running = "status.phase!=Failed,status.phase!=Succeeded".to_owned();
            tasks.spawn(self.keep::<Pod>(&engine, Selection::fields(running), Absence::Fails));
        }
        if self.config.follow_service_cidrs {
            let ranges = Ranges::new(engine.clone(), self.config.state_dir.clone());
            let all =
                self.reflector::<ServiceCIDR>(&engine, Selection::default(), Absence::IsEmpty);
            tasks.spawn(all.follow(ranges));
        }
        let node = self.config.node_name.clone();
        let teller = events::Teller::new(Arc::clone(&self.connector), engine, node);
        tasks.spawn(teller.tell(notices));
        // An error means that the sender is gone, which is a stop as well.
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Ok(()),
            ended = tasks.join_next() => ended.map_or(Ok(()), |ended| Ok(ended?)),
        }
    }

    /// Follows the objects of one resource, which the engine keeps.
    fn keep<K: Kept>(
        &self,
        engine: &Engine,
        selection: Selection,
        absence: Absence,
    ) -> impl Future<Output = ()> + Send + use<K> {
        let objects = Objects::<K>::new(engine.clone());
        self.reflector::<K>(engine, selection, absence).follow(objects)
    }

    fn reflector<K: Listed>(
        &self,
        engine: &Engine,
        selection: Selection,
        absence: Absence,
    ) -> Reflector<K> {
        Reflector::new(Arc::clone(&self.connector), engine.clone(), selection, absence)
    }
}

/// Which slices are listed: as kube-proxy does (`cmd/kube-proxy/app/server.go`), none of headless
/// Services, nor those of another proxy's. The endpoint slice controller copies the labels of a Service.
///
/// Services themselves are all listed: the ClusterIPs of another proxy's must be known, so that they are
/// not taken for unallocated addresses.
fn slice_selector(proxy_name: Option<&str>) -> String {
    match proxy_name {
        None => format!("!{SERVICE_PROXY_NAME_LABEL},!{HEADLESS_LABEL}"),
        // "Absent, or of this value" is no selector.
        Some(_) => format!("!{HEADLESS_LABEL}"),
    }
}
