//! Who follows which kind of object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::broadcast;

use crate::api::types::{WatchChange, WatchEvent};
use crate::object::{Key, Kind};
use crate::store::{Committed, Store};

/// Events that a slow reader may be behind before it has to list again.
const BACKLOG: usize = 16_384;

type Sender = broadcast::Sender<Arc<WatchEvent>>;

/// The channels that somebody listens to.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    channels: BTreeMap<Kind, Sender>,
    /// While `EndpointSlice`s are watched: those made from pods, as last shown, by Service.
    shown: BTreeMap<Key, BTreeMap<String, Value>>,
}

impl Watchers {
    /// A receiver of every change of `kind` from now on.
    pub(super) fn subscribe(
        &mut self,
        kind: Kind,
        store: &Store,
    ) -> broadcast::Receiver<Arc<WatchEvent>> {
        if let Some(channel) = self.channels.get(&kind) {
            return channel.subscribe();
        }
        if kind == Kind::EndpointSlice {
            let shown = |key: &Key| (key.clone(), store.unstored_slices(key));
            self.shown = store.services().map(shown).collect();
        }
        let (channel, receiver) = broadcast::channel(BACKLOG);
        self.channels.insert(kind, channel);
        receiver
    }

    /// Tells everybody what a batch did.
    pub(super) fn publish(&mut self, committed: &Committed, store: &Store) {
        self.channels.retain(|_, channel| channel.receiver_count() > 0);
        for event in &committed.events {
            if let Some(channel) = self.channels.get(&event.key.kind) {
                match serde_json::from_slice(&event.body) {
                    Ok(object) => send(channel, event.change, object),
                    Err(error) => tracing::error!("cannot show {}: {error}", event.key),
                }
            }
        }
        if let Some(channel) = self.channels.get(&Kind::EndpointSlice) {
            for service in &committed.affected {
                let now = store.unstored_slices(service);
                let before = self.shown.insert(service.clone(), now.clone()).unwrap_or_default();
                differences(channel, &before, &now);
            }
        } else {
            self.shown.clear();
        }
    }
}

fn differences(channel: &Sender, before: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) {
    let names: BTreeSet<_> = before.keys().chain(now.keys()).collect();
    for name in names {
        match (before.get(name), now.get(name)) {
            (None, Some(slice)) => send(channel, WatchChange::Added, slice.clone()),
            (Some(slice), None) => send(channel, WatchChange::Deleted, slice.clone()),
            (Some(old), Some(new)) if old != new => {
                send(channel, WatchChange::Modified, new.clone());
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

/// The last receiver may have gone a moment ago.
fn send(channel: &Sender, change: WatchChange, object: Value) {
    drop(channel.send(Arc::new(WatchEvent { change, object })));
}
