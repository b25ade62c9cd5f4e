//! The engine's part in following the Kubernetes API: what arrives, and what is told back.

use std::collections::BTreeMap;

use tokio::sync::mpsc;

use crate::api::types::{Origin, RefusedObject};
use crate::engine::describe;
use crate::object::{Key, Object};

/// What `lb apply` and `lb delete` are told by an agent that changes nothing in the cluster.
pub(super) const FOLLOWS: &str =
    "this agent follows the Kubernetes API and keeps no objects of its own; use kubectl";

/// One change in the Kubernetes API.
#[derive(Clone, Debug)]
pub enum Observed {
    /// An object as it is now.
    Is(Object),
    /// There is no such object any more.
    Gone(Key),
}

/// Something that the people of the cluster should hear of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The object.
    pub key: Key,
    /// One sentence.
    pub message: String,
    /// Whether it is so on this node, and perhaps on no other.
    pub here: bool,
}

/// What of the API's objects is not served, whatever the node.
#[derive(Debug, Default)]
pub(super) struct Shortfalls {
    known: BTreeMap<Key, Vec<String>>,
    notices: Option<mpsc::Sender<Notice>>,
}

impl Shortfalls {
    /// Tells `notices`, if there are any to be told.
    pub(super) fn new(notices: Option<mpsc::Sender<Notice>>) -> Self {
        Self { known: BTreeMap::new(), notices }
    }

    /// Sets what of an object is not served. What is new is told.
    pub(super) fn set(&mut self, key: &Key, found: Vec<String>) {
        if found.is_empty() {
            self.forget(key);
            return;
        }
        let before = self.known.insert(key.clone(), found.clone()).unwrap_or_default();
        for message in found.into_iter().filter(|message| !before.contains(message)) {
            tracing::warn!("{key} in namespace {}: {message}", key.namespace);
            self.tell(Notice { key: key.clone(), message, here: false });
        }
    }

    /// The object is gone, or served whole.
    pub(super) fn forget(&mut self, key: &Key) {
        self.known.remove(key);
    }

    /// Tells the people of the cluster. Who cannot keep up misses it: `lb status` shows it anyway.
    pub(super) fn tell(&self, notice: Notice) {
        if let Some(notices) = &self.notices {
            drop(notices.try_send(notice));
        }
    }

    /// For `lb status`.
    pub(super) fn refused(&self) -> impl Iterator<Item = RefusedObject> {
        let all = self.known.iter().flat_map(|(key, found)| found.iter().map(move |m| (key, m)));
        all.map(|(key, message)| RefusedObject {
            source: describe(&Origin::Cluster),
            object: key.to_string(),
            namespace: key.namespace.to_string(),
            message: message.clone(),
        })
    }
}
