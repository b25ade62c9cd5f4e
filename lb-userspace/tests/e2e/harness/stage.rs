//! One test's world: a node, the pods behind it, an agent.
//!
//! ```text
//!   client's namespace (the node)          server's namespace (the pods)
//!   eth0 10.244.0.1, fd00:10:244::1 <veth> eth0 10.244.1.x, fd00:10:244:1::x
//!   agent, probes in the stage's cgroup    an echo server on each pod's addresses
//! ```
//!
//! No route leads to the Service ranges or out: an untranslated connect to a ClusterIP fails with
//! `ENETUNREACH`, which no rule of the load balancer gives.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use super::agent::{Agent, Paths};
use super::cgroup::Cgroup;
use super::echo::{GuestBook, Listen, Server};
use super::manifest::Pod;
use super::netns::Namespace;
use super::sandbox;
use crate::probe::{Probe, Setup};

/// What a test plays on. Fields are dropped in this order: processes before their namespaces.
pub(crate) struct Stage {
    pub(crate) agent: Agent,
    servers: BTreeMap<String, Vec<Server>>,
    pub(crate) node: Arc<Namespace>,
    pods: Namespace,
    pub(crate) cgroup: Cgroup,
    next_pod: u8,
}

impl Stage {
    /// A stage whose agent is running and has no objects.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let mut stage = Self::without_agent();
        stage.agent.start();
        stage
    }

    /// A stage whose agent has not been started.
    #[track_caller]
    pub(crate) fn without_agent() -> Self {
        let node = Arc::new(Namespace::new());
        let pods = Namespace::new();
        node.wire_to(&pods);
        node.ip("addr add 10.244.0.1/32 dev eth0
            addr add fd00:10:244::1/128 dev eth0 nodad
            route add 10.244.1.0/24 dev eth0 src 10.244.0.1
            route add fd00:10:244:1::/64 dev eth0 src fd00:10:244::1");
        pods.ip("route add 10.244.0.0/24 dev eth0\nroute add fd00:10:244::/64 dev eth0");
        let sandbox = sandbox::get();
        let cgroup = Cgroup::new(&sandbox.cgroup_root, sandbox.next_number());
        let agent = Agent::new(&node, new_paths(&cgroup.path));
        Self { agent, servers: BTreeMap::new(), node, pods, cgroup, next_pod: 1 }
    }

    /// A second agent on this node, with a place of its own, attached to `cgroup`.
    pub(crate) fn another_agent(&self, cgroup: &Path) -> Agent {
        Agent::new(&self.node, new_paths(cgroup))
    }

    /// A ready pod with the label `app`, its servers running on both its addresses. No agent
    /// knows it yet.
    #[track_caller]
    pub(crate) fn pod(&mut self, name: &str, app: &str, listen: &[Listen]) -> Pod {
        let pod = Pod::new(name, app, self.next_pod);
        self.next_pod += 1;
        let (v4, v6) = (pod.v4, pod.v6);
        self.pods.ip(&format!("addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad"));
        let started: Vec<_> = [IpAddr::V4(v4), IpAddr::V6(v6)]
            .into_iter()
            .flat_map(|address| listen.iter().map(move |listen| (address, *listen)))
            .map(|(address, listen)| server(&self.pods, name, address, listen))
            .collect();
        self.servers.insert(name.to_owned(), started);
        pod
    }

    /// A server in the node's own namespace that says it is `name`.
    #[track_caller]
    pub(crate) fn server_on_node(&self, name: &str, address: IpAddr, listen: Listen) -> Server {
        server(&self.node, name, address, listen)
    }

    /// A server in the pods' namespace that says it is `name`.
    #[track_caller]
    pub(crate) fn server_among_pods(&self, name: &str, address: IpAddr, listen: Listen) -> Server {
        server(&self.pods, name, address, listen)
    }

    /// Ends the pod's servers and closes their connections; its addresses stay.
    pub(crate) fn stop_servers(&mut self, pod: &Pod) {
        self.servers.remove(&pod.name);
    }

    /// Applies manifests, which must succeed.
    #[track_caller]
    pub(crate) fn apply(&self, manifests: &[&str]) {
        self.agent.apply(manifests);
    }

    /// A workload in the node's namespace and the stage's cgroup.
    #[track_caller]
    pub(crate) fn probe(&self) -> Probe {
        self.probe_in(&self.cgroup.path)
    }

    /// A workload on the pods' side: in another network namespace than the agent's.
    #[track_caller]
    pub(crate) fn probe_among_pods(&self) -> Probe {
        Probe::start(&self.pods, Setup { cgroup: self.cgroup.path.clone(), hosts: None })
    }

    /// The pods' side: another network namespace of this machine.
    pub(crate) const fn pods(&self) -> &Namespace {
        &self.pods
    }

    /// A workload in another cgroup.
    #[track_caller]
    pub(crate) fn probe_in(&self, cgroup: &Path) -> Probe {
        Probe::start(&self.node, Setup { cgroup: cgroup.to_owned(), hosts: None })
    }

    /// A workload whose `/etc/hosts` has this text.
    #[track_caller]
    pub(crate) fn probe_with_hosts(&self, hosts: &str) -> Probe {
        let setup = Setup { cgroup: self.cgroup.path.clone(), hosts: Some(hosts.to_owned()) };
        Probe::start(&self.node, setup)
    }

    /// The Service's first ClusterIP.
    #[track_caller]
    pub(crate) fn vip(&self, service: &str) -> IpAddr {
        self.vips(service)[0]
    }

    /// The Service's first ClusterIP with a port.
    #[track_caller]
    pub(crate) fn frontend(&self, service: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip(service), port)
    }

    /// The Service's ClusterIPs.
    #[track_caller]
    pub(crate) fn vips(&self, service: &str) -> Vec<IpAddr> {
        let object = self.agent.get("svc", service);
        let addresses = object["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
        let addresses: Vec<IpAddr> =
            addresses.iter().filter_map(|address| address.as_str()?.parse().ok()).collect();
        assert!(!addresses.is_empty(), "Service {service} has no ClusterIP: {object}");
        addresses
    }

    /// Writes a file into the watched directory as an editor does: all at once, by a rename.
    #[track_caller]
    pub(crate) fn write_manifest(&self, file: &str, text: &str) {
        let path = self.agent.paths.manifests.join(file);
        let draft = path.with_extension("draft");
        fs::write(&draft, text).expect("the manifests directory is writable");
        fs::rename(&draft, &path).expect("the manifests directory is writable");
    }
}

#[track_caller]
fn server(namespace: &Namespace, name: &str, address: IpAddr, listen: Listen) -> Server {
    let its_name = name.to_owned();
    let server =
        namespace.run(move || Server::start(&its_name, address, listen, GuestBook::default()));
    server.unwrap_or_else(|error| panic!("{name}: {listen:?} on {address}: {error}"))
}

/// A new place for an agent that serves the cgroup.
pub(super) fn new_paths(cgroup: &Path) -> Paths {
    let sandbox = sandbox::get();
    let number = sandbox.next_number();
    let home = sandbox.directory(number);
    let manifests = home.join("manifests");
    fs::create_dir(&manifests).expect("the scratch file system is writable");
    Paths {
        state: home.join("state"),
        run: home.join("run"),
        bpffs: sandbox.bpffs(number),
        cgroup: cgroup.to_owned(),
        manifests,
        log: home.join("agent.log"),
    }
}
