//! The agent's end of the socket.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};

use super::types::{
    ApplyRequest, CloseReport, DeleteRequest, Failure, List, Outcome, Selection, Status,
    WatchEvent, WatchLine,
};
use crate::dns;
use crate::engine::Engine;
use crate::object::Kind;
use crate::observe::Metrics;
use crate::sockets::CloseRequest;

/// The largest request. Ten thousand Services with their Pods are about a tenth of it.
pub const MAX_BODY: usize = 256 << 20;

/// How long requests under way may take once the agent is asked to stop.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Shared {
    engine: Engine,
    dns: Option<dns::Monitor>,
    metrics: Metrics,
    /// True once the agent is asked to stop; ends the streams.
    stop: watch::Receiver<bool>,
}

/// Answers until `stop` becomes true, and then finishes what is under way.
pub async fn serve(
    listener: UnixListener,
    engine: Engine,
    dns: Option<dns::Monitor>,
    metrics: Metrics,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let app = router(Shared { engine, dns, metrics, stop: stop.clone() });
    let mut stopping = stop.clone();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopping.wait_for(|stop| *stop).await;
    });
    let mut server = std::pin::pin!(server.into_future());
    tokio::select! {
        result = &mut server => result.context("the API failed"),
        _ = async {
            let _ = stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(PATIENCE).await;
        } => {
            tracing::warn!("gave up on requests that took longer than {PATIENCE:?} to finish");
            Ok(())
        }
    }
}

/// The API's routes.
fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/v1/apply", post(apply))
        .route("/v1/delete", post(delete))
        .route("/v1/close", post(close))
        .route("/v1/{kind}", get(list))
        .fallback(|| async { failure(StatusCode::NOT_FOUND, "lb's API has no such path") })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

async fn status(State(shared): State<Shared>) -> Json<Status> {
    let status = shared.engine.status().await;
    Json(Status { dns: shared.dns.as_ref().map(dns::Monitor::status), ..status })
}

async fn metrics(State(shared): State<Shared>) -> Response {
    shared.metrics.response()
}

async fn apply(
    State(shared): State<Shared>,
    Json(request): Json<ApplyRequest>,
) -> Json<Vec<Outcome>> {
    Json(shared.engine.apply(request.objects, request.dry_run).await)
}

async fn delete(
    State(shared): State<Shared>,
    Json(request): Json<DeleteRequest>,
) -> Json<Vec<Outcome>> {
    Json(shared.engine.delete(request.keys, request.dry_run).await)
}

async fn close(
    State(shared): State<Shared>,
    Json(request): Json<CloseRequest>,
) -> Json<CloseReport> {
    Json(shared.engine.close(request).await)
}

async fn list(
    State(shared): State<Shared>,
    Path(plural): Path<String>,
    Query(selection): Query<Selection>,
) -> Response {
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.plural() == plural) else {
        return failure(StatusCode::NOT_FOUND, &format!("lb serves no resource \"{plural}\""));
    };
    if selection.watch {
        return watch(shared, kind, selection).await;
    }
    let Selection { namespace, name, .. } = &selection;
    let items = shared.engine.list(kind, namespace.as_deref(), name.as_deref()).await;
    Json(List::new(items)).into_response()
}

async fn watch(shared: Shared, kind: Kind, selection: Selection) -> Response {
    let (existing, changes) = shared.engine.watch(kind).await;
    let lines = existing_lines(existing, selection.clone())
        .chain(changed_lines(changes, selection))
        .map(Ok::<_, Infallible>)
        .take_until(stopped(shared.stop));
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn existing_lines(existing: Vec<Arc<Value>>, selection: Selection) -> impl Stream<Item = Bytes> {
    let bookmark = line(&WatchLine::Bookmark);
    let added = existing
        .into_iter()
        .filter(move |object| selection.selects(object))
        .map(|object| line(&WatchLine::Added(object)));
    stream::iter(added.chain([bookmark]))
}

fn changed_lines(
    changes: broadcast::Receiver<Arc<WatchEvent>>,
    selection: Selection,
) -> impl Stream<Item = Bytes> {
    stream::unfold(Some(changes), move |changes| {
        let selection = selection.clone();
        async move {
            let mut changes = changes?;
            loop {
                match changes.recv().await {
                    Ok(event) if selection.selects(&event.object) => {
                        return Some((line(&*event), Some(changes)));
                    }
                    Ok(_) => {}
                    Err(RecvError::Closed) => return None,
                    Err(RecvError::Lagged(missed)) => {
                        let message = format!(
                            "the watch fell behind and missed {missed} changes; start it again"
                        );
                        return Some((line(&WatchLine::Error(Failure { message })), None));
                    }
                }
            }
        }
    })
}

fn line(event: &impl serde::Serialize) -> Bytes {
    let mut line = serde_json::to_vec(event).expect("JSON values and strings always serialize");
    line.push(b'\n');
    line.into()
}

impl Selection {
    /// Whether an object is asked for.
    fn selects(&self, object: &Value) -> bool {
        let is = |field: &str, wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| object["metadata"][field] == wanted)
        };
        is("namespace", &self.namespace) && is("name", &self.name)
    }
}

fn failure(status: StatusCode, message: &str) -> Response {
    (status, Json(Failure { message: message.to_owned() })).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::types::WatchChange;

    fn object(name: &str) -> Value {
        json!({"metadata": {"namespace": "default", "name": name}})
    }

    async fn lines(stream: impl Stream<Item = Bytes>) -> Vec<WatchLine> {
        stream.map(|line| serde_json::from_slice(&line).expect("JSON")).collect().await
    }

    #[tokio::test]
    async fn a_watch_begins_with_what_exists_and_a_bookmark() {
        let selection = Selection { name: Some("a".into()), ..Selection::default() };
        let existing = vec![Arc::new(object("a")), Arc::new(object("b"))];
        let lines = lines(existing_lines(existing, selection)).await;
        assert_eq!(lines, [WatchLine::Added(Arc::new(object("a"))), WatchLine::Bookmark]);
    }

    #[tokio::test]
    async fn a_watch_that_fell_behind_says_so_and_ends() {
        let (sender, changes) = broadcast::channel(2);
        for name in ["a", "b", "c"] {
            let event = WatchEvent { change: WatchChange::Added, object: object(name) };
            sender.send(Arc::new(event)).expect("someone listens");
        }
        let lines = lines(changed_lines(changes, Selection::default())).await;
        let [WatchLine::Error(failure)] = &lines[..] else { panic!("{lines:?}") };
        assert!(failure.message.contains("fell behind"), "{failure:?}");
    }

    #[tokio::test]
    async fn changes_read_as_lines() {
        let (sender, changes) = broadcast::channel(2);
        let event = WatchEvent { change: WatchChange::Deleted, object: object("a") };
        sender.send(Arc::new(event)).expect("someone listens");
        drop(sender);
        let lines = lines(changed_lines(changes, Selection::default())).await;
        assert_eq!(lines, [WatchLine::Deleted(Arc::new(object("a")))]);
    }
}
