//! The engine over a table instead of a kernel: which plans arrive, in which order of events.

mod cluster;
mod disk;
mod files;
mod frontends;
mod orders;
mod scale;
mod serving;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::sink::Sink;
use super::{Config, Engine};
use crate::api::types::{Outcome, SourceStatus, Submitted, Verdict};
use crate::datapath::{self, Change, Refused};
use crate::dns::Zones;
use crate::flows::Lifetimes;
use crate::health::Checks;
use crate::host::{ExemptCgroup, ReservedPorts};
use crate::object::{Key, Kind, decode};
use crate::observe::SyncMetrics;
use crate::plan::{Algorithm, Part, Protocol, ServicePortId, Wanted};
use crate::sockets;
use crate::store::Authority;

/// What a kernel would hold.
#[derive(Debug, Default)]
struct Held {
    table: BTreeMap<ServicePortId, Wanted>,
    /// More service ports than this are refused.
    capacity: Option<usize>,
    /// What was refused; tried again with every call, as the datapath does.
    unfinished: BTreeMap<ServicePortId, Wanted>,
    applied: usize,
    /// What the last call was about.
    changed: Vec<ServicePortId>,
    pruned: usize,
}

#[derive(Clone, Debug, Default)]
struct Table(Arc<Mutex<Held>>);

impl Sink for Table {
    fn apply(&mut self, changes: Vec<Change>) -> Vec<Refused> {
        let mut held = self.0.lock().expect("no test panics with it");
        held.applied += 1;
        held.changed = changes.iter().map(|(id, _)| id.clone()).collect();
        let earlier = std::mem::take(&mut held.unfinished);
        let mut batch: BTreeMap<_, _> =
            earlier.into_iter().map(|(id, wanted)| (id, Some(wanted))).collect();
        batch.extend(changes);
        held.table.retain(|id, _| batch.get(id).is_none_or(Option::is_some));
        let mut refused = Vec::new();
        for (id, wanted) in batch {
            let full = held.capacity.is_some_and(|capacity| held.table.len() >= capacity);
            match wanted {
                None => {}
                Some(wanted) if full && !held.table.contains_key(&id) => {
                    held.unfinished.insert(id.clone(), wanted);
                    refused
                        .push(Refused { id, message: "SERVICES is full; --max-services".into() });
                }
                Some(wanted) => drop(held.table.insert(id, wanted)),
            }
        }
        refused
    }

    fn has_adopted(&self) -> bool {
        false
    }

    fn prune(&mut self) {
        self.0.lock().expect("no test panics with it").pruned += 1;
    }

    fn exempt(&mut self, _: Vec<ExemptCgroup>) {}

    fn status(&self) -> datapath::Status {
        datapath::Status::default()
    }
}

/// An engine with a folder and a table of its own.
struct Rig {
    engine: Engine,
    table: Table,
    folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        Self::with_sources(0)
    }

    fn with_sources(sources: usize) -> Self {
        let folder = TempDir::new().expect("a folder");
        let table = Table::default();
        let engine = start(folder.path(), sources, &table).expect("an engine");
        Self { engine, table, folder }
    }

    async fn apply(&self, yaml: &str) -> Vec<String> {
        verdicts(self.engine.apply(submitted(yaml, "stdin"), false).await)
    }

    async fn file(&self, path: &str, yaml: &str) -> Vec<String> {
        let file = self.engine.replace_file(path.into(), submitted(yaml, path), Vec::new());
        verdicts(file.await)
    }

    async fn delete(&self, kind: Kind, name: &str) -> Vec<String> {
        verdicts(self.engine.delete(vec![Key::new(kind, "default", name)], false).await)
    }

    async fn synced(&self) {
        self.engine.source(manifests(true)).await;
    }

    async fn get(&self, kind: Kind, name: &str) -> Option<Arc<Value>> {
        self.engine.list(kind, None, Some(name)).await.into_iter().next()
    }

    async fn cluster_ip(&self, name: &str) -> String {
        let service = self.get(Kind::Service, name).await.expect("the Service is there");
        service["spec"]["clusterIP"].as_str().expect("it has an address").to_owned()
    }

    /// A line for each service port, sorted: `web tcp/80 10.96.0.10 -> 10.0.0.1:8080 (10.0.0.2:8080)`;
    /// those in parentheses get no new connections from this node.
    fn dump(&self) -> Vec<String> {
        dump(&self.table)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.table.0.lock().expect("no test panics with it")
    }

    /// An agent that finds the state as a crash would leave it now.
    fn after_crash(&self) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = "lb.redb";
        std::fs::copy(self.folder.path().join(file), folder.path().join(file)).expect("a copy");
        let table = Table::default();
        let engine = start(folder.path(), 0, &table).expect("an engine");
        Self { engine, table, folder }
    }
}

fn start<S>(folder: &Path, sources: usize, sink: &S) -> anyhow::Result<Engine>
where
    S: Sink + Clone + Send,
{
    let sink = sink.clone();
    Engine::start_on(config(folder, sources), move || Ok(sink))
}

fn config(folder: &Path, sources: usize) -> Config {
    let service_cidrs: Vec<_> =
        ["10.96.0.0/12", "fd00:96::/108"].map(|range| range.parse().expect("a range")).into();
    Config {
        sockets: sockets::Config { close_tcp: false, reclaim_after: Duration::ZERO },
        flows: Lifetimes {
            established: Duration::ZERO,
            opening: Duration::ZERO,
            closed: Duration::ZERO,
            udp: Duration::ZERO,
        },
        state_dir: folder.join("."),
        datapath: datapath::Config {
            bpffs: folder.into(),
            cgroup: folder.into(),
            service_cidrs: service_cidrs.clone(),
            exempt: Vec::new(),
            sizes: datapath::Sizes::default(),
            devices: None,
            tc_attach: datapath::TcAttach::default(),
            snat_ports: None,
            reserved_ports: ReservedPorts::new(folder),
        },
        authority: Authority::Agent,
        service_cidrs,
        node_name: "us".into(),
        node_addresses: ["192.0.2.1".parse().expect("an address")].into(),
        nodeport_addresses: Vec::new(),
        service_proxy_name: None,
        algorithm: Algorithm::default(),
        zones: Zones::new(&"cluster.local.".parse().expect("a name"), 5, Vec::new()),
        checks: Checks::default(),
        sources,
        notices: None,
        metrics: SyncMetrics::default(),
    }
}

fn manifests(synced: bool) -> SourceStatus {
    SourceStatus { kind: "manifests".into(), path: Some("/m".into()), synced, error: None }
}

fn submitted(yaml: &str, file: &str) -> Vec<Submitted> {
    let documents = decode(yaml.as_bytes(), file).into_iter();
    documents
        .map(|document| {
            let document = document.expect("the test's manifest is well-formed");
            Submitted {
                object: document.object.to_value(),
                position: format!("{file}:{}", document.position.line),
            }
        })
        .collect()
}

fn verdicts(outcomes: Vec<Outcome>) -> Vec<String> {
    outcomes
        .into_iter()
        .map(|outcome| {
            let key = outcome.key.map(|key| key.to_string()).unwrap_or_default();
            match outcome.result {
                Verdict::Created => format!("{key} created"),
                Verdict::Configured => format!("{key} configured"),
                Verdict::Unchanged => format!("{key} unchanged"),
                Verdict::Deleted => format!("{key} deleted"),
                Verdict::NotFound => format!("{key} not found"),
                Verdict::Refused(message) => message,
            }
        })
        .collect()
}

fn dump(table: &Table) -> Vec<String> {
    let held = table.0.lock().expect("no test panics with it");
    held.table
        .iter()
        .filter_map(|(id, wanted)| {
            let (protocol, port) = match id.part {
                Part::Port(Protocol::Tcp, port) => ("tcp", port),
                Part::Port(Protocol::Udp, port) => ("udp", port),
                Part::Addresses => return None,
            };
            let vips: Vec<_> = wanted.frontends.iter().map(|f| f.address.to_string()).collect();
            let backends: Vec<_> = wanted
                .backends
                .iter()
                .map(|backend| {
                    let address = std::net::SocketAddr::new(backend.address, backend.port);
                    if backend.cluster { address.to_string() } else { format!("({address})") }
                })
                .collect();
            let name = &id.service.name;
            let (vips, backends) = (vips.join(","), backends.join(" "));
            Some(format!("{name} {protocol}/{port} {vips} -> {backends}"))
        })
        .collect()
}

fn service(name: &str, ip: &str, selector: &str) -> String {
    let ip = if ip.is_empty() { String::new() } else { format!("clusterIP: {ip}, ") };
    let selector =
        if selector.is_empty() { String::new() } else { format!("selector: {{{selector}}}, ") };
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{{ip}{selector}ports: [{{port: 80, targetPort: 8080}}]}}\n"
    )
}

fn pod(name: &str, labels: &str, ip: &str, ready: bool) -> String {
    let ready = if ready { "True" } else { "False" };
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n\
         spec: {{containers: [{{name: c, image: i}}]}}\n\
         status: {{podIP: {ip}, podIPs: [{{ip: {ip}}}], conditions: [{{type: Ready, status: \"{ready}\"}}]}}\n"
    )
}

fn slice(name: &str, service: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {service}}}}}\n\
         addressType: IPv4\nports: [{{name: \"\", port: 8080}}]\nendpoints: [{{addresses: [{ip}]}}]\n"
    )
}

fn endpoints(name: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Endpoints\nmetadata: {{name: {name}}}\n\
         subsets: [{{addresses: [{{ip: {ip}}}], ports: [{{port: 8080}}]}}]\n"
    )
}
