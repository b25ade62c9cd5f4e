//! `--health-listen`: `/healthz` for load balancers elsewhere, `/livez` for who restarts the agent. In
//! kube-proxy's words (`pkg/proxy/healthcheck/proxy_health.go`).

use anyhow::Result;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, body::Body};
use jiff::Timestamp;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Checks;
use crate::observe::SyncMetrics;
use crate::serving;

/// Kubernetes' default port of `--healthz-bind-address`.
pub const PORT: u16 = 10_256;

/// What is answered. It does not say more than kube-proxy: anybody may ask.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
}

/// Answers until `stop` becomes true.
///
/// # Errors
///
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    checks: Checks,
    metrics: SyncMetrics,
    stop: watch::Receiver<bool>,
) -> Result<()> {
    let app = Router::new()
        .route("/healthz", get(|State(agent): State<Agent>| async move { healthz(&agent) }))
        .route("/livez", get(|State(agent): State<Agent>| async move { livez(&agent) }))
        .with_state(Agent { checks, metrics });
    serving::answer("health", listener, app, stop).await
}

/// Who is asked about.
#[derive(Clone, Debug)]
struct Agent {
    checks: Checks,
    metrics: SyncMetrics,
}

/// Whether this node should get traffic from outside.
fn healthz(agent: &Agent) -> Response<Body> {
    let checks = &agent.checks;
    let eligible = !checks.is_leaving();
    let healthy = checks.is_healthy() && checks.pulse().is_serving() && eligible;
    let answer = answer(checks, healthy, Some(eligible));
    agent.metrics.healthz(answer.status().as_u16());
    answer
}

/// Whether the agent works, whatever becomes of the node and of its sources.
fn livez(agent: &Agent) -> Response<Body> {
    let answer = answer(&agent.checks, agent.checks.is_healthy(), None);
    agent.metrics.livez(answer.status().as_u16());
    answer
}

fn answer(checks: &Checks, healthy: bool, node_eligible: Option<bool>) -> Response<Body> {
    let now = Timestamp::now();
    // A healthy agent is up to date, however long nothing has changed.
    let updated = if healthy { now } else { checks.pulse().last_done() };
    let answer =
        Answer { last_updated: updated.to_string(), current_time: now.to_string(), node_eligible };
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(CONTENT_TYPE, "application/json"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    let body = serde_json::to_string(&answer).unwrap_or_default();
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statuses(checks: &Checks) -> (u16, u16) {
        let agent = Agent { checks: checks.clone(), metrics: SyncMetrics::default() };
        (healthz(&agent).status().as_u16(), livez(&agent).status().as_u16())
    }

    #[test]
    fn load_balancers_hear_of_the_node_and_supervisors_of_the_agent_alone() {
        let checks = Checks::default();
        assert_eq!(statuses(&checks), (503, 503), "no engine");
        let healthy = checks.healthy();
        assert_eq!(statuses(&checks), (503, 200), "nothing is served yet");
        checks.pulse().serving();
        assert_eq!(statuses(&checks), (200, 200));
        checks.set_leaving(true);
        assert_eq!(statuses(&checks), (503, 200), "the node is being deleted");
        checks.set_leaving(false);
        drop(healthy);
        assert_eq!(statuses(&checks), (503, 503), "the engine has ended");
    }
}
