//! The client over real sockets, against answers that are spelled out.

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, RawQuery};
use axum::http::StatusCode;
use axum::routing::{get, post};
use futures_util::stream;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::api::RunDir;
use crate::api::types::Submitted;

struct Agent {
    folder: TempDir,
    _run_dir: RunDir,
}

impl Agent {
    fn answering(app: Router) -> (Self, Client) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let run_dir = RunDir::claim(folder.path()).expect("free");
        let listener = run_dir.listen().expect("opened");
        tokio::spawn(axum::serve(listener, app).into_future());
        let client = Client::new(folder.path());
        (Self { folder, _run_dir: run_dir }, client)
    }
}

#[tokio::test]
async fn names_arrive_as_they_were_given() {
    let echo = |RawQuery(query): RawQuery| async move {
        axum::Json(json!({"apiVersion": "v1", "kind": "List", "items": [query]}))
    };
    let (_agent, client) = Agent::answering(Router::new().route("/v1/services", get(echo)));
    let list = client.list(Kind::Service, Some("a b"), Some("x&y/ü")).await.expect("an answer");
    assert_eq!(*list[0], json!("namespace=a%20b&name=x%26y%2F%C3%BC"));
    let list = client.list(Kind::Service, None, None).await.expect("an answer");
    assert_eq!(*list[0], json!(null));
}

#[tokio::test]
async fn a_refusal_is_told_in_the_agents_words() {
    let json = || async { (StatusCode::BAD_REQUEST, r#"{"message": "because"}"#) };
    let text = |_: Bytes| async { StatusCode::OK };
    let app = Router::new()
        .route("/v1/status", get(json))
        .route("/v1/apply", post(text))
        .layer(DefaultBodyLimit::max(16));
    let (_agent, client) = Agent::answering(app);
    assert_eq!(client.status().await.expect_err("refused").to_string(), "because");
    let request = ApplyRequest {
        objects: vec![Submitted { object: json!("x".repeat(100)), position: String::new() }],
        dry_run: false,
    };
    let error = client.apply(&request).await.expect_err("too large").to_string();
    assert!(error.contains("length limit exceeded"), "{error}");
}

/// The lines of a watch, cut into pieces at awkward places.
fn watch_of(pieces: &'static [&'static str]) -> Router {
    let answer = move || async move {
        Body::from_stream(stream::iter(
            pieces.iter().copied().map(Ok::<_, std::convert::Infallible>),
        ))
    };
    Router::new().route("/v1/pods", get(answer))
}

#[tokio::test]
async fn a_watch_gives_what_exists_then_changes_then_the_end() {
    let app = watch_of(&[
        "{\"type\":\"ADDED\",\"obj",
        "ect\":1}\n{\"type\":\"BOOKMARK\"}\n{\"type\":\"MODIFIED\",\"object\":2}",
        "\n",
        "{\"type\":\"DELETED\",\"object\":3}\n",
    ]);
    let (_agent, client) = Agent::answering(app);
    let (existing, mut watch) = client.watch(Kind::Pod, None, None).await.expect("an answer");
    assert_eq!(existing, [json!(1).into()]);
    assert_eq!(watch.next().await.expect("a line"), Some(json!(2).into()));
    assert_eq!(watch.next().await.expect("a line"), Some(json!(3).into()));
    assert_eq!(watch.next().await.expect("an end"), None);
}

#[tokio::test]
async fn a_watch_that_fell_behind_fails_with_the_reason() {
    let app = watch_of(&[
        "{\"type\":\"BOOKMARK\"}\n{\"type\":\"ERROR\",\"object\":{\"message\":\"behind\"}}\n",
    ]);
    let (_agent, client) = Agent::answering(app);
    let (_, mut watch) = client.watch(Kind::Pod, None, None).await.expect("an answer");
    assert_eq!(watch.next().await.expect_err("an error").to_string(), "behind");
}

#[tokio::test]
async fn without_an_agent_the_remedy_is_named() {
    let (agent, client) = Agent::answering(Router::new());
    let socket = agent.folder.path().join(SOCKET_FILE);
    // Nobody listens on it any more, as after a crash; then there is none at all.
    std::fs::remove_file(&socket).expect("removed");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    for _ in 0..2 {
        let error = client.status().await.expect_err("no agent");
        assert!(matches!(error, ClientError::NotRunning { .. }), "{error:?}");
        let message = error.to_string();
        for text in ["lb agent", "--run-dir", &socket.display().to_string()] {
            assert!(message.contains(text), "{message}");
        }
        let _ = std::fs::remove_file(&socket);
    }
}
