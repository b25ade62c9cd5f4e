//! The agent's counters in OpenMetrics' text form, on its socket and, if asked for, on an address.

use std::fmt;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::SyncMetrics;
use crate::{dns, serving};

/// kube-proxy's default port of `--metrics-bind-address`.
pub const PORT: u16 = 10_249;

/// The media type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All counters of one agent. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Registry>);

impl Metrics {
    /// The counters of an agent with these parts.
    pub fn new(sync: &SyncMetrics, dns: Option<&dns::Monitor>) -> Self {
        let mut registry = Registry::default();
        let own = registry.sub_registry_with_prefix("lb");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        own.register("build", "What this agent is", version);
        if let Some(dns) = dns {
            dns.register(own);
        }
        sync.register(registry.sub_registry_with_prefix("kubeproxy"));
        Self(Arc::new(registry))
    }

    /// They as text, in answer to a request.
    pub fn response(&self) -> Response {
        let mut text = String::new();
        match encode(&mut text, &self.0) {
            Ok(()) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Answers `GET /metrics` until `stop` becomes true.
///
/// # Errors
///
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let show = |State(metrics): State<Metrics>| async move { metrics.response() };
    let app = Router::new().route("/metrics", get(show)).with_state(metrics);
    serving::answer("metrics", listener, app, stop).await
}
