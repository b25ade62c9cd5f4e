//! What crosses the agent's socket. Also the engine's vocabulary, so that nothing is translated twice.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::datapath;
use crate::dns;
use crate::flows;
use crate::health;
use crate::object::Key;
use crate::plan::Protocol;
use crate::sockets::{self, Cause};

/// Who handed an object to the agent. It belongs to the one who brought it first, until that one
/// gives it up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// `lb apply`.
    Applied,
    /// A file in a `--manifests` folder; it leaves with the file.
    File(PathBuf),
    /// The Kubernetes API, which alone changes it.
    Cluster,
}

/// One object on its way in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Submitted {
    /// The object as JSON, with `apiVersion` and `kind`; `metadata.namespace` may be absent.
    pub object: Value,
    /// `file:line`, for messages.
    pub position: String,
}

/// What became of one submitted object or of one deletion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The object; `None` if it was too broken to have a name.
    pub key: Option<Key>,
    /// What happened.
    pub result: Verdict,
    /// Things worth saying that stopped nothing.
    pub warnings: Vec<String>,
}

/// The result of one submission or deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "verdict", content = "message")]
pub enum Verdict {
    /// It is new.
    Created,
    /// It replaced an older version.
    Configured,
    /// Nothing to do.
    Unchanged,
    /// It is gone.
    Deleted,
    /// It was refused; kubectl's form of the reason, with `file:line:` where there is one.
    Refused(String),
    /// No such object (deletion).
    NotFound,
}

/// A change of a stored object, as `lb get -w` streams it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WatchEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub change: WatchChange,
    /// The object after the change; for a deletion as it was.
    pub object: Value,
}

/// The kinds of [`WatchEvent`], named as in the Kubernetes API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names say it")]
pub enum WatchChange {
    Added,
    Modified,
    Deleted,
}

/// `lb status -o json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The process.
    pub agent: AgentStatus,
    /// Programs, maps, counters.
    pub datapath: datapath::Status,
    /// Sockets closed and slots freed.
    pub sockets: sockets::Status,
    /// Connections of the packet path.
    #[serde(default)]
    pub flows: flows::Status,
    /// Names, unless the agent does not answer for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<dns::Status>,
    /// Answers to load balancers elsewhere.
    #[serde(default)]
    pub health_checks: health::Status,
    /// Where objects come from.
    pub sources: Vec<SourceStatus>,
    /// Objects that could not be served, and why.
    pub refused: Vec<RefusedObject>,
    /// How many objects are served.
    pub objects: ObjectCounts,
}

/// The agent's process in [`Status`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// Version of lb.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// `--node-name`.
    pub node: String,
    /// RFC 3339.
    pub started: String,
    /// Whether it follows a Kubernetes API.
    #[serde(default)]
    pub kubernetes: bool,
    /// `--service-cidr`, or what a cluster says.
    pub service_cidrs: Vec<String>,
    /// `--cluster-domain`: the zone of the Services' names, without a dot at the end.
    pub cluster_domain: String,
    /// Where NodePorts are served, sorted; 127.0.0.1 and ::1 stand for their loopback range.
    pub node_port_addresses: Vec<IpAddr>,
}

/// One source in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// `manifests`, or `kubernetes` and a resource.
    pub kind: String,
    /// Folder of manifests.
    pub path: Option<PathBuf>,
    /// Whether everything it held at the start has been seen.
    pub synced: bool,
    /// Why it cannot be read at the moment.
    pub error: Option<String>,
}

/// One refused object in [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedObject {
    /// `file:line`.
    pub source: String,
    /// `service/mysql`, or empty if it has no name.
    pub object: String,
    /// Its namespace, or empty.
    pub namespace: String,
    /// kubectl's form of the reason.
    pub message: String,
}

/// Counts in [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct ObjectCounts {
    pub services: usize,
    pub pods: usize,
    pub endpoint_slices: usize,
}

/// Body of `POST /v1/apply`; answered with one [`Outcome`] per object, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyRequest {
    /// The objects, in the order of their documents.
    pub objects: Vec<Submitted>,
    /// Say what would happen, and keep nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST /v1/delete`; answered with one [`Outcome`] per key, in order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteRequest {
    /// What to delete.
    pub keys: Vec<Key>,
    /// Say what would happen, and delete nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Answer to `POST /v1/close`, whose body is a [`sockets::CloseRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloseReport {
    /// The sockets that were closed; in a dry run, those that would be.
    pub sockets: Vec<ClosedSocket>,
    /// Where sockets could not be looked at.
    pub problems: Vec<String>,
}

/// One socket in [`CloseReport`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClosedSocket {
    /// Its network namespace, as `lsns` shows it.
    pub namespace: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Its own address.
    pub local: SocketAddr,
    /// What the application connected to.
    pub frontend: SocketAddr,
    /// Where the connection led.
    pub backend: SocketAddr,
    /// Why it is closed.
    pub cause: Cause,
    /// Why the kernel did not close it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Query of `GET /v1/{plural}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// Only this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Only objects of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A stream of [`WatchEvent`]s instead of a [`List`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watch: bool,
}

/// Objects of one or several kinds, as Kubernetes wraps them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// `v1`
    pub api_version: String,
    /// `List`
    pub kind: String,
    /// The objects.
    pub items: Vec<Arc<Value>>,
}

impl List {
    /// A list of these.
    pub fn new(items: Vec<Arc<Value>>) -> Self {
        Self { api_version: "v1".to_owned(), kind: "List".to_owned(), items }
    }
}

/// One line of a watch, named as in the Kubernetes API. A [`WatchEvent`] reads as one of the first three.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
pub enum WatchLine {
    /// It exists, or it is new.
    Added(Arc<Value>),
    /// It replaced an older version.
    Modified(Arc<Value>),
    /// It is gone; this is how it was.
    Deleted(Arc<Value>),
    /// Everything that existed at the start has been sent.
    Bookmark,
    /// The stream ends early.
    Error(Failure),
}

/// Body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One sentence for a person.
    pub message: String,
}
