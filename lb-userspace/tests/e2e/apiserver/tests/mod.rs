//! The double itself, asked by kube's own client: what the other tests rely on holds.

mod faults;
mod list;
mod watch;

use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, TryStreamExt as _};
use hyper::header::{HeaderValue, USER_AGENT};
use kube::api::{Api, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use libtest_mimic::Trial;

use super::ApiServer;
use super::objects::service;
use crate::harness::netns::Namespace;

pub(crate) fn tests() -> Vec<Trial> {
    [list::tests(), watch::tests(), faults::tests()].into_iter().flatten().collect()
}

/// A server, and a client in its namespace.
#[track_caller]
fn with_client(test: impl AsyncFnOnce(ApiServer, Client) + Send + 'static) {
    let namespace = Namespace::new();
    let server = ApiServer::start(&namespace);
    let thread = namespace.run(move || {
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let client = client(&server).await;
                test(server, client).await;
            });
        })
    });
    if let Err(panic) = thread.join() {
        // Once more on the test's own thread, whose panics are reported.
        panic!("{}", panic.downcast_ref::<String>().map_or("see above", String::as_str));
    }
}

async fn client(server: &ApiServer) -> Client {
    let file = Kubeconfig::read_from(server.kubeconfig()).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let mut config = config.expect("a proper kubeconfig");
    // A refusal is to be seen, not to be asked about again.
    config.default_retry = false;
    config.headers.push((USER_AGENT, HeaderValue::from_static("test/1")));
    Client::try_from(config).expect("a client")
}

/// Events as `ADDED web@1001`, so that a test says all of it in a line.
fn shown<K: kube::Resource>(event: &WatchEvent<K>) -> String {
    let object = |kind: &str, object: &K| {
        let version = object.meta().resource_version.clone().unwrap_or_default();
        format!("{kind} {}@{version}", object.name_any())
    };
    match event {
        WatchEvent::Added(it) => object("ADDED", it),
        WatchEvent::Modified(it) => object("MODIFIED", it),
        WatchEvent::Deleted(it) => object("DELETED", it),
        WatchEvent::Bookmark(it) => {
            let end = if it.metadata.annotations.is_empty() { "" } else { " end" };
            format!("BOOKMARK {}{end}", it.metadata.resource_version)
        }
        WatchEvent::Error(status) => format!("ERROR {} {}", status.code, status.reason),
    }
}

type Events<K> = Pin<Box<dyn Stream<Item = kube::Result<WatchEvent<K>>> + Send>>;

async fn watch<K>(api: &Api<K>, parameters: &WatchParams, version: &str) -> Events<K>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + 'static + Send,
{
    Box::pin(api.watch(parameters, version).await.expect("a watch"))
}

/// The next event, or how it ends. For kube a connection that breaks ends like any other.
async fn next<K: kube::Resource>(events: &mut Events<K>) -> String {
    let next = tokio::time::timeout(Duration::from_secs(20), events.try_next());
    match next.await.expect("it must not take so long") {
        Ok(Some(event)) => shown(&event),
        Ok(None) => "end".to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

async fn is_silent<K>(events: &mut Events<K>) -> bool {
    tokio::time::timeout(Duration::from_millis(300), events.try_next()).await.is_err()
}

fn names<K: kube::Resource>(items: &[K]) -> Vec<String> {
    items.iter().map(K::name_any).collect()
}

/// The code and the reason of a refusal.
#[track_caller]
fn refusal<T>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason.clone()),
        Err(other) => panic!("no Status: {other}"),
        Ok(_) => panic!("it is not refused"),
    }
}

fn web(name: &str) -> serde_json::Value {
    service(name, &["10.96.0.10"])
}
