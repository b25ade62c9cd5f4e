//! Connections to the API server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{ClientBuilder, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::sync::Mutex;
use tower::{BoxError, ServiceExt as _};

/// A server that does not answer to a connection is tried again.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that is gone without a word is missed after `IDLE + PROBES × INTERVAL`: a quiet watch has no
/// traffic of its own.
const IDLE: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

/// Makes clients, anew when credentials may have changed.
#[derive(Debug)]
pub(super) struct Connector {
    kubeconfig: Option<PathBuf>,
    user_agent: String,
    client: Mutex<Option<Shared>>,
}

/// A client, and where its server is.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) server: Arc<str>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.server)
    }
}

impl Connector {
    pub(super) fn new(kubeconfig: Option<PathBuf>, node: &str) -> Self {
        let user_agent = format!("lb/{} ({node})", env!("CARGO_PKG_VERSION"));
        Self { kubeconfig, user_agent, client: Mutex::new(None) }
    }

    /// The client. It is made at the first call, and after [`Self::renew`].
    ///
    /// # Errors
    ///
    /// If there are no credentials, or they cannot be understood.
    pub(super) async fn client(&self) -> Result<Shared> {
        let mut client = self.client.lock().await;
        if let Some(shared) = client.as_ref() {
            return Ok(shared.clone());
        }
        let shared = self.connect().await?;
        Ok(client.insert(shared).clone())
    }

    /// Reads the credentials again before the next request: the server has refused those.
    pub(super) async fn renew(&self) {
        *self.client.lock().await = None;
    }

    async fn connect(&self) -> Result<Shared> {
        let mut config = match &self.kubeconfig {
            Some(path) => from_file(path).await?,
            None => Config::incluster().context(
                "the credentials of a Pod, which --kubernetes uses without --kubeconfig FILE \
                 (KUBERNETES_SERVICE_HOST, KUBERNETES_SERVICE_PORT and the Pod's token)",
            )?,
        };
        let agent = self.user_agent.parse().context("the node's name in a header")?;
        config.headers.push((http::header::USER_AGENT, agent));
        let server = config.cluster_url.to_string();
        Ok(Shared { client: build(&config)?, server: server.trim_end_matches('/').into() })
    }
}

async fn from_file(path: &Path) -> Result<Config> {
    let context = || format!("--kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(context)?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(kubeconfig, &options).await.with_context(context)
}

/// As kube-rs does it, but with keepalive, and without a line of log for every failure: the reflector
/// says once that the server is away.
fn build(config: &Config) -> kube::Result<Client> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(IDLE));
    connector.set_keepalive_interval(Some(INTERVAL));
    connector.set_keepalive_retries(Some(PROBES));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let http = HttpClient::builder(TokioExecutor::new()).build(connector);
    let http = http.map_err(BoxError::from);
    let builder = ClientBuilder::new(http, config.default_namespace.clone())
        .with_layer(&config.base_uri_layer())
        .with_layer(&config.extra_headers_layer()?);
    Ok(match config.auth_layer()? {
        Some(auth) => builder.with_layer(&auth).build(),
        None => builder.build(),
    })
}
