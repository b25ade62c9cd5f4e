//! The agent's heart: one thread that owns store, plan and datapath, and the handle to it.

use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::api::types::{Origin, Outcome, SourceStatus, Status, Submitted, WatchEvent};
use crate::object::{Key, Kind};

/// What the engine needs to know at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the embedded store.
    pub state_dir: PathBuf,
    /// Pins, cgroup, ranges.
    pub datapath: crate::datapath::Config,
    /// `--service-cidr`; at most one of each family.
    pub service_cidrs: Vec<IpNet>,
    /// This node.
    pub node_name: String,
    /// Number of sources that must sync before anything is pruned.
    pub sources: usize,
}

/// Sends work to the engine's thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {}

impl Engine {
    /// Opens store and datapath, brings the kernel in step with the store, and starts the thread.
    pub fn start(_config: Config) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Admits objects, one outcome each, in order. With `dry_run` nothing is kept.
    pub async fn apply(&self, _objects: Vec<Submitted>, _dry_run: bool) -> Vec<Outcome> {
        Vec::new()
    }

    /// The complete content of one manifest file. Objects that it brought earlier and no longer
    /// holds are deleted; `problems` (documents that could not be decoded) are shown by `lb status`, and
    /// while there are any, nothing of this file is deleted.
    pub async fn replace_file(
        &self,
        _path: PathBuf,
        _objects: Vec<Submitted>,
        _problems: Vec<String>,
    ) -> Vec<Outcome> {
        Vec::new()
    }

    /// A source's state. When every source has synced once, objects of files that are gone are
    /// deleted and the datapath is pruned.
    pub async fn source(&self, _status: SourceStatus) {}

    /// Deletes objects, one outcome each, in order.
    pub async fn delete(&self, _keys: Vec<Key>, _dry_run: bool) -> Vec<Outcome> {
        Vec::new()
    }

    /// Stored objects as JSON, sorted by namespace and name. EndpointSlices include those derived
    /// from a Service's selector. `None` means all.
    pub async fn list(
        &self,
        _kind: Kind,
        _namespace: Option<&str>,
        _name: Option<&str>,
    ) -> Vec<Arc<Value>> {
        Vec::new()
    }

    /// Objects as in [`Self::list`], and every change of that kind from that very state on.
    pub async fn watch(
        &self,
        _kind: Kind,
    ) -> (Vec<Arc<Value>>, broadcast::Receiver<Arc<WatchEvent>>) {
        (Vec::new(), broadcast::channel(1).1)
    }

    /// What `lb status` shows.
    pub async fn status(&self) -> Status {
        unreachable!("replaced with the engine")
    }

    /// Finishes what is under way, makes the store durable, and ends the thread. Programs and maps stay.
    pub async fn stop(&self) {}
}

/// Where an [`Origin`] is shown to a person.
pub fn describe(origin: &Origin) -> String {
    match origin {
        Origin::Applied => "lb apply".to_owned(),
        Origin::File(path) => path.display().to_string(),
    }
}
