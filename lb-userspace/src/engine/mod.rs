//! The agent's heart: one thread that owns store, plan and datapath, and the handle to it.
//!
//! A command's road: [`Engine`] → queue → [`thread`] → [`core::Core`] → store, plan, [`Sink`] → reply.

mod attempt;
mod clock;
mod closing;
mod cluster;
mod core;
mod files;
mod sink;
#[cfg(test)]
mod tests;
mod thread;
mod watch;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot};

use self::closing::Closing;
pub use self::cluster::{Notice, Observed};
use self::core::Core;
use crate::api::types::{
    AgentStatus, CloseReport, ObjectCounts, Origin, Outcome, SourceStatus, Status, Submitted,
    Verdict, WatchEvent,
};
use crate::datapath::{self, Datapath, Devices};
use crate::dns::Zones;
use crate::flows::{self, Lifetimes};
use crate::health::{self, Checks};
use crate::host::ExemptCgroup;
use crate::object::{Key, Kind};
use crate::observe::SyncMetrics;
use crate::plan::Algorithm;
use crate::sockets::{self, CloseRequest};
use crate::source;
use crate::store::allocate::Pools;
use crate::store::{Authority, Store};
use sink::Sink;
use thread::{Command, Queued};

/// Commands that may wait. More than that, and whoever sends waits too.
const QUEUE: usize = 256;

/// What the engine needs to know at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the embedded store.
    pub state_dir: PathBuf,
    /// Pins, cgroup, ranges.
    pub datapath: datapath::Config,
    /// Who decides what objects there are.
    pub authority: Authority,
    /// `--service-cidr`; at most one of each family.
    pub service_cidrs: Vec<IpNet>,
    /// This node.
    pub node_name: String,
    /// How sockets to backends that are gone are treated.
    pub sockets: sockets::Config,
    /// How long connections of the packet path may be idle.
    pub flows: Lifetimes,
    /// The addresses that this node has now; [`Engine::node_addresses`] follows them.
    pub node_addresses: BTreeSet<IpAddr>,
    /// `--nodeport-addresses`; none selects all.
    pub nodeport_addresses: Vec<IpNet>,
    /// `--service-proxy-name`
    pub service_proxy_name: Option<String>,
    /// `--lb-algorithm`
    pub algorithm: Algorithm,
    /// Where names are looked up.
    pub zones: Zones,
    /// Where health checks are answered from.
    pub checks: Checks,
    /// Number of sources that must sync before anything is pruned.
    pub sources: usize,
    /// Who is to hear what of an object is not served.
    pub notices: Option<mpsc::Sender<Notice>>,
    /// Where it is told how long changes take.
    pub metrics: SyncMetrics,
}

/// Sends work to the engine's thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    queue: mpsc::Sender<Queued>,
}

impl Engine {
    /// Opens store and datapath, brings the kernel in step with the store, and starts the thread.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        let datapath = config.datapath.clone();
        Self::start_on(config, move || Datapath::open(&datapath))
    }

    /// As [`Self::start`], on another sink. It is opened in the thread, where it stays.
    fn start_on<S: Sink>(
        config: Config,
        open: impl FnOnce() -> anyhow::Result<S> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (queue, commands) = mpsc::channel(QUEUE);
        let (report, ready) = std::sync::mpsc::channel();
        // The thread that closes sockets does not keep the engine from stopping.
        let asking = queue.downgrade();
        let start = move || {
            // The store first: it says if another agent is at work, before the kernel is touched.
            let (folder, node) = (&config.state_dir, &config.node_name);
            let mut store = match config.authority {
                Authority::Agent => {
                    let pools = Pools::new(&config.service_cidrs).context("--service-cidr")?;
                    Store::open(folder, node, pools)?
                }
                Authority::Cluster => Store::open_copy(folder, node)?,
            };
            store.set_proxy_name(config.service_proxy_name.as_deref());
            store.set_algorithm(config.algorithm);
            let mut sink = open()?;
            let closing = Closing::start(&config, &mut sink, asking)?;
            let flows = sink.take_flows().map(|flows| flows::start(config.flows, flows));
            let flows =
                flows.transpose().context("no thread can be started that collects flows")?;
            Ok(Core::new(&config, store, sink, closing, flows))
        };
        thread::spawn(start, report, commands)?;
        ready.recv().context("the engine's thread ended before it was ready")??;
        Ok(Self { queue })
    }

    /// Admits objects, one outcome each, in order. With `dry_run` nothing is kept.
    pub async fn apply(&self, objects: Vec<Submitted>, dry_run: bool) -> Vec<Outcome> {
        let count = objects.len();
        let asked = self.ask(|reply| Command::Apply { objects, dry_run, reply }).await;
        asked.unwrap_or_else(|| vec![stopped(None); count])
    }

    /// The complete content of one manifest file. Objects that it brought earlier and no longer
    /// holds are deleted; `problems` (documents that could not be decoded) are shown by `lb status`,
    /// and while there are any, nothing of this file is deleted. A file that is gone has neither.
    pub async fn replace_file(
        &self,
        path: PathBuf,
        objects: Vec<Submitted>,
        problems: Vec<String>,
    ) -> Vec<Outcome> {
        let count = objects.len();
        let asked = self.ask(|reply| Command::ReplaceFile { path, objects, problems, reply }).await;
        asked.unwrap_or_else(|| vec![stopped(None); count])
    }

    /// Objects that the Kubernetes API changed, in order.
    pub async fn observe(&self, changes: Vec<Observed>) {
        self.ask(|reply| Command::Observe { changes, reply }).await.unwrap_or_default();
    }

    /// The Kubernetes API has listed all objects of a kind: what is not `present` is gone.
    pub async fn listed(&self, kind: Kind, present: BTreeSet<Key>) {
        self.ask(|reply| Command::Listed { kind, present, reply }).await.unwrap_or_default();
    }

    /// The ranges in which an address without a Service is unreachable, in place of those before.
    pub async fn service_cidrs(&self, cidrs: Vec<IpNet>) {
        self.ask(|reply| Command::ServiceCidrs { cidrs, reply }).await.unwrap_or_default();
    }

    /// A source's state. When every source has synced once, objects of files that are gone are
    /// deleted and the datapath is pruned.
    pub async fn source(&self, status: SourceStatus) {
        self.ask(|reply| Command::Source { status, reply }).await.unwrap_or_default();
    }

    /// The addresses that this node has, if they are others than before.
    pub async fn node_addresses(&self, addresses: BTreeSet<IpAddr>) {
        let asked = self.ask(|reply| Command::NodeAddresses { addresses, reply }).await;
        asked.unwrap_or_default();
    }

    /// Deletes objects, one outcome each, in order. What a manifest file holds is refused: it would
    /// come back with the file.
    pub async fn delete(&self, keys: Vec<Key>, dry_run: bool) -> Vec<Outcome> {
        let refused: Vec<_> = keys.iter().map(|key| stopped(Some(key.clone()))).collect();
        let asked = self.ask(|reply| Command::Delete { keys, dry_run, reply }).await;
        asked.unwrap_or(refused)
    }

    /// Stored objects as JSON, sorted by namespace and name. EndpointSlices include those derived
    /// from a Service's selector. `None` means all.
    pub async fn list(
        &self,
        kind: Kind,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Vec<Arc<Value>> {
        let (namespace, name) = (namespace.map(str::to_owned), name.map(str::to_owned));
        let asked = self.ask(|reply| Command::List { kind, namespace, name, reply }).await;
        asked.unwrap_or_default()
    }

    /// Looks at once for sockets whose backends are gone, and closes them.
    pub async fn close(&self, request: CloseRequest) -> CloseReport {
        let report = self.ask(|reply| Command::Close { request, reply }).await;
        let stopping = "the agent is stopping; no socket was closed".to_owned();
        report.unwrap_or_else(|| CloseReport { problems: vec![stopping], sockets: Vec::new() })
    }

    /// Objects as in [`Self::list`], and every change of that kind from that very state on. A
    /// receiver that lags (`RecvError::Lagged`) has missed changes: it must list again.
    pub async fn watch(
        &self,
        kind: Kind,
    ) -> (Vec<Arc<Value>>, broadcast::Receiver<Arc<WatchEvent>>) {
        let asked = self.ask(|reply| Command::Watch { kind, reply }).await;
        asked.unwrap_or_else(|| (Vec::new(), broadcast::channel(1).1))
    }

    /// The cgroups whose processes are left alone from now on, in place of those before.
    pub async fn exempt(&self, cgroups: Vec<ExemptCgroup>) {
        self.ask(|reply| Command::Exempt { cgroups, reply }).await.unwrap_or_default();
    }

    /// The network devices whose packets are translated from now on, in place of those before.
    pub async fn devices(&self, devices: Devices) {
        self.ask(|reply| Command::Devices { devices, reply }).await.unwrap_or_default();
    }

    /// What `lb status` shows.
    pub async fn status(&self) -> Status {
        let asked = self.ask(|reply| Command::Status { reply }).await;
        asked.unwrap_or_else(|| Status {
            agent: AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                ..AgentStatus::default()
            },
            datapath: datapath::Status::default(),
            sockets: sockets::Status::default(),
            flows: flows::Status::default(),
            dns: None,
            health_checks: health::Status::default(),
            sources: Vec::new(),
            refused: Vec::new(),
            objects: ObjectCounts::default(),
        })
    }

    /// Finishes what is under way, makes the store durable, and ends the thread. Programs and maps
    /// stay. What is asked afterwards is refused.
    pub async fn stop(&self) {
        self.ask(|reply| Command::Stop { reply }).await.unwrap_or_default();
    }

    /// `None` if the engine was stopped.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Queued::new(command(reply))).await.ok()?;
        answer.await.ok()
    }
}

fn stopped(key: Option<Key>) -> Outcome {
    let reason = "the agent is stopping; nothing was changed".to_owned();
    Outcome { key, result: Verdict::Refused(reason), warnings: Vec::new() }
}

/// Where an [`Origin`] is shown to a person.
pub fn describe(origin: &Origin) -> String {
    match origin {
        Origin::Applied => "lb apply".to_owned(),
        Origin::File(path) if path == Path::new(source::OWN) => {
            format!("{} (`lb agent --no-dns` does without it)", source::OWN)
        }
        Origin::File(path) => path.display().to_string(),
        Origin::Cluster => "the Kubernetes API".to_owned(),
    }
}
