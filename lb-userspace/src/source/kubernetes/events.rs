//! Events: what the people of the cluster should know of an object is written where they look.
//!
//! All agents find the same wrong with the same object. So an Event has a name that they all come to:
//! the first one creates it, the others hear that it exists.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Error};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::client::Connector;
use crate::engine::{Engine, Notice};

/// One Event in so long at the most.
const PACE: Duration = Duration::from_secs(1);
/// What was told is remembered, up to so many notices.
const REMEMBERED: usize = 4_096;
/// A note is no longer (`NoteLengthLimit` in Kubernetes' validation).
const NOTE: usize = 1_024;
/// How often the server is asked again, and how long it is waited before.
const TRIES: u32 = 3;
const RETRY: Duration = Duration::from_secs(20);

/// Writes Events.
#[derive(Debug)]
pub(super) struct Teller {
    connector: Arc<Connector>,
    engine: Engine,
    node: String,
}

impl Teller {
    pub(super) fn new(connector: Arc<Connector>, engine: Engine, node: String) -> Self {
        Self { connector, engine, node }
    }

    /// Tells every notice once, until there are no more.
    pub(super) async fn tell(self, mut notices: mpsc::Receiver<Notice>) {
        let mut told = BTreeSet::new();
        while let Some(notice) = notices.recv().await {
            if told.len() >= REMEMBERED {
                told.clear();
            }
            if !told.insert(fingerprint(&notice, &self.node)) {
                continue;
            }
            for again in 0..TRIES {
                match self.create(&notice).await {
                    Ok(()) => break,
                    Err(Error::Api(status)) if status.code == 409 => break,
                    Err(Error::Api(status)) if status.code == 403 => {
                        tracing::warn!(
                            "Events cannot be created, and none is tried again: {}",
                            status.message
                        );
                        return;
                    }
                    Err(error) => {
                        tracing::debug!("an Event for {} was not created: {error}", notice.key);
                        if again + 1 < TRIES {
                            sleep(RETRY).await;
                        }
                    }
                }
            }
            sleep(PACE).await;
        }
    }

    async fn create(&self, notice: &Notice) -> kube::Result<()> {
        let key = &notice.key;
        let found = self.engine.list(key.kind, Some(&key.namespace), Some(&key.name)).await;
        // It may be gone by now.
        let Some(object) = found.first() else { return Ok(()) };
        let uid = object["metadata"]["uid"].as_str().map(str::to_owned);
        let event = event(notice, uid, &self.node);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let client = self.connector.client().await;
        let shared = client.map_err(|error| Error::Service(error.into()))?;
        let api = Api::<Event>::namespaced(shared.client, &namespace);
        api.create(&PostParams::default(), &event).await.map(drop)
    }
}

/// What tells one notice from another, the same in every agent.
fn fingerprint(notice: &Notice, node: &str) -> u64 {
    // Its keys are fixed.
    let mut hasher = DefaultHasher::new();
    (&notice.key, &notice.message).hash(&mut hasher);
    if notice.here {
        node.hash(&mut hasher);
    }
    hasher.finish()
}

fn event(notice: &Notice, uid: Option<String>, node: &str) -> Event {
    let key = &notice.key;
    // Events of what has no namespace are in `default`, as client-go's are.
    let namespace = if key.namespace.is_empty() { "default" } else { &key.namespace };
    let place = if notice.here { format!("on node {node}: ") } else { String::new() };
    let mut note = format!("{place}{}", notice.message);
    let end = (0..=NOTE.min(note.len())).rev().find(|end| note.is_char_boundary(*end));
    note.truncate(end.unwrap_or_default());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.lb-{:016x}", key.name, fingerprint(notice, node))),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        regarding: Some(ObjectReference {
            api_version: Some(key.kind.api_version().to_owned()),
            kind: Some(key.kind.name().to_owned()),
            namespace: (!key.namespace.is_empty()).then(|| key.namespace.to_string()),
            name: Some(key.name.to_string()),
            uid,
            ..ObjectReference::default()
        }),
        action: Some("Serve".to_owned()),
        reason: Some("NotServed".to_owned()),
        note: Some(note),
        type_: Some("Warning".to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        reporting_controller: Some("lb".to_owned()),
        reporting_instance: Some(format!("lb-{node}")),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Key, Kind};

    fn notice(message: &str, here: bool) -> Notice {
        let key = Key::new(Kind::Service, "shop", "db");
        Notice { key, message: message.to_owned(), here }
    }

    #[test]
    fn agents_come_to_the_same_event_unless_it_is_about_their_node() {
        let name = |notice: &Notice, node: &str| event(notice, None, node).metadata.name;
        let (sctp, full) = (notice("no SCTP", false), notice("RUNS is full", true));
        assert_eq!(name(&sctp, "a"), name(&sctp, "b"));
        assert_ne!(name(&full, "a"), name(&full, "b"));
        assert_ne!(name(&sctp, "a"), name(&notice("no SCTP", true), "a"));
    }

    #[test]
    fn an_event_says_what_where_and_fits() {
        let long = event(&notice(&"ä".repeat(2_000), true), Some("u".to_owned()), "a");
        let note = long.note.expect("a note");
        assert!(note.starts_with("on node a: ä") && note.len() <= NOTE, "{}", note.len());
        let regarding = long.regarding.expect("an object");
        assert_eq!((regarding.uid.as_deref(), regarding.name.as_deref()), (Some("u"), Some("db")));
        assert_eq!(long.metadata.namespace.as_deref(), Some("shop"));
    }
}
