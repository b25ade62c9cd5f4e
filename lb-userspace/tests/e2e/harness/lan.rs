//! Nodes on a network, and clients that are on none of them.
//!
//! ```text
//!   client ─── router ─┬─ node ─── near    203.0.113.10 ─── 192.0.2.254 ─┬─ 192.0.2.1 ─── 10.244.1.x
//!                      └─ other ── far                                   └─ 192.0.2.2 ─── 10.244.2.x
//! ```
//!
//! Each is a network namespace; IPv6 is everywhere beside IPv4. The router sends what is for a Service to `node`,
//! on which the agent runs. It serves no workload: clients and servers are in other cgroups, so that nothing but
//! packets is translated.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::agent::Agent;
use super::capture::Capture;
use super::cgroup::Cgroup;
use super::echo::{GuestBook, Listen, Server};
use super::manifest::Pod;
use super::netns::Namespace;
use super::sandbox;
use super::stage::new_paths;
use crate::probe::{Probe, Setup};

/// The node's addresses.
pub(crate) const NODE: [IpAddr; 2] = both(Ipv4Addr::new(192, 0, 2, 1), 2, 1);
/// The client's.
pub(crate) const CLIENT: [IpAddr; 2] = both(Ipv4Addr::new(203, 0, 113, 10), 0x113, 0x10);
/// Addresses that the router sends to the node, and that no host has.
pub(crate) const EXTERNAL: [IpAddr; 2] = both(Ipv4Addr::new(198, 51, 100, 7), 0x198, 7);
/// The same.
pub(crate) const BALANCER: [IpAddr; 2] = both(Ipv4Addr::new(198, 51, 100, 8), 0x198, 8);

const fn both(v4: Ipv4Addr, network: u16, host: u16) -> [IpAddr; 2] {
    [IpAddr::V4(v4), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, 0, 0, 0, 0, host))]
}

/// What a test plays on. Fields are dropped in this order: processes before their namespaces.
pub(crate) struct Lan {
    pub(crate) agent: Agent,
    _capture: Option<Capture>,
    servers: BTreeMap<String, (GuestBook, Vec<Server>)>,
    pub(crate) client: Namespace,
    pub(crate) node: Arc<Namespace>,
    /// Where the node's own pods are.
    pub(crate) near: Namespace,
    pub(crate) other: Arc<Namespace>,
    /// Where the other node's pods are.
    pub(crate) far: Namespace,
    pub(crate) router: Namespace,
    /// What the agents serve, and nobody is in.
    _served: [Cgroup; 2],
    /// Where clients are.
    outside: Cgroup,
    next_pod: u8,
}

impl Lan {
    /// A network whose agent is running and has no objects.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The agent has these options.
    #[track_caller]
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let mut lan = Self::without_agent();
        lan.agent.set_options(&[&["--node-name", "node"], options].concat());
        lan.agent.start();
        lan
    }

    /// A network whose agent has not been started.
    #[track_caller]
    pub(crate) fn without_agent() -> Self {
        let [client, near, far, router] = std::array::from_fn(|_| Namespace::new());
        let [node, other] = std::array::from_fn(|_| Arc::new(Namespace::new()));
        wire(&router, &client, [&node, &other]);
        connect_pods(&node, &near, 1);
        connect_pods(&other, &far, 2);
        let sandbox = sandbox::get();
        let [served, elsewhere, outside] =
            std::array::from_fn(|_| Cgroup::new(&sandbox.cgroup_root, sandbox.next_number()));
        let agent = Agent::new(&node, new_paths(&served.path));
        let capture = Capture::of(&node);
        let served = [served, elsewhere];
        Self {
            agent,
            _capture: capture,
            servers: BTreeMap::new(),
            client,
            node,
            near,
            other,
            far,
            router,
            _served: served,
            outside,
            next_pod: 1,
        }
    }

    /// An agent on the other node, not started.
    #[track_caller]
    pub(crate) fn agent_on_other_node(&self) -> Agent {
        let mut agent = Agent::new(&self.other, new_paths(&self._served[1].path));
        agent.set_options(&["--node-name", "other"]);
        agent
    }

    /// A ready pod on the node, its servers running.
    #[track_caller]
    pub(crate) fn near_pod(&mut self, name: &str, app: &str, listen: &[Listen]) -> Pod {
        let mut pod = Pod::new(name, app, self.next_pod);
        pod.node = Some("node");
        self.start_pod(pod, listen)
    }

    /// A ready pod on the other node.
    #[track_caller]
    pub(crate) fn far_pod(&mut self, name: &str, app: &str, listen: &[Listen]) -> Pod {
        let pod = Pod::elsewhere(name, app, self.next_pod);
        self.start_pod(pod, listen)
    }

    #[track_caller]
    fn start_pod(&mut self, pod: Pod, listen: &[Listen]) -> Pod {
        self.next_pod += 1;
        let place = if pod.node == Some("other") { &self.far } else { &self.near };
        let (v4, v6) = (pod.v4, pod.v6);
        place.ip(&format!("addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad"));
        let guests = GuestBook::default();
        let servers = serve(place, &pod, listen, &guests);
        self.servers.insert(pod.name.clone(), (guests, servers));
        pod
    }

    /// Starts servers of a pod elsewhere than in the usual place.
    #[track_caller]
    pub(crate) fn serve_in(&mut self, place: &Namespace, pod: &Pod, listen: &[Listen]) {
        let guests = GuestBook::default();
        let servers = serve(place, pod, listen, &guests);
        self.servers.insert(pod.name.clone(), (guests, servers));
    }

    /// The source of the latest connection or datagram that the pod has got.
    #[track_caller]
    pub(crate) fn guest_of(&self, pod: &str) -> SocketAddr {
        self.servers[pod].0.latest()
    }

    /// Applies manifests, which must succeed.
    #[track_caller]
    pub(crate) fn apply(&self, manifests: &[&str]) {
        self.agent.apply(manifests);
    }

    /// A workload in the client's namespace.
    #[track_caller]
    pub(crate) fn probe(&self) -> Probe {
        self.probe_in(&self.client)
    }

    /// A workload in any namespace, whose sockets are not translated.
    #[track_caller]
    pub(crate) fn probe_in(&self, namespace: &Namespace) -> Probe {
        Probe::start(namespace, Setup { cgroup: self.outside.path.clone(), hosts: None })
    }

    /// The Service's ClusterIPs.
    #[track_caller]
    pub(crate) fn vips(&self, service: &str) -> Vec<IpAddr> {
        let object = self.agent.get("svc", service);
        let addresses = object["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
        addresses.iter().filter_map(|address| address.as_str()?.parse().ok()).collect()
    }

    /// Every namespace, by what it is called here.
    pub(crate) fn namespaces(&self) -> [(&'static str, &Namespace); 6] {
        [
            ("client", &self.client),
            ("router", &self.router),
            ("node", &self.node),
            ("near", &self.near),
            ("other", &self.other),
            ("far", &self.far),
        ]
    }
}

/// Connects everybody to the router, the nodes by a bridge.
fn wire(router: &Namespace, client: &Namespace, nodes: [&Namespace; 2]) {
    router.wire("client0", client);
    router.ip("link add br0 type bridge\nlink set br0 up");
    for (number, node) in (1..).zip(nodes) {
        let port = format!("node{number}");
        router.wire(&port, node);
        router.ip(&format!("link set {port} master br0"));
        node.forward_packets();
        node.ip(&format!(
            "addr add 192.0.2.{number}/24 dev eth0
            addr add 2001:db8:2::{number}/64 dev eth0 nodad
            route add default via 192.0.2.254
            route add default via 2001:db8:2::fe
            route add 10.244.{0}.0/24 via 192.0.2.{0}
            route add fd00:10:244:{0}::/64 via 2001:db8:2::{0}",
            3 - number
        ));
    }
    router.forward_packets();
    router.ip("addr add 203.0.113.1/24 dev client0
        addr add 2001:db8:113::1/64 dev client0 nodad
        addr add 192.0.2.254/24 dev br0
        addr add 2001:db8:2::fe/64 dev br0 nodad
        route add 10.96.0.0/12 via 192.0.2.1
        route add fd00:10:96::/112 via 2001:db8:2::1
        route add 198.51.100.0/24 via 192.0.2.1
        route add 2001:db8:198::/64 via 2001:db8:2::1");
    client.ip("addr add 203.0.113.10/24 dev eth0
        addr add 2001:db8:113::10/64 dev eth0 nodad
        route add default via 203.0.113.1
        route add default via 2001:db8:113::1");
    // Below the ports by which the node stands in for it: so a pod sees whose port it is.
    client.run(|| {
        let file = "/proc/sys/net/ipv4/ip_local_port_range";
        fs::write(file, "32768 49151").expect("a namespace of our own");
    });
}

/// Gives a node a device behind which its pods are.
fn connect_pods(node: &Namespace, pods: &Namespace, number: u8) {
    node.wire("pods0", pods);
    node.ip(&format!(
        "route add 10.244.{number}.0/24 dev pods0
        route add fd00:10:244:{number}::/64 dev pods0
        addr add 169.254.1.1/32 dev pods0
        addr add fe80::1/64 dev pods0 nodad"
    ));
    pods.ip("route add 169.254.1.1 dev eth0
        route add default via 169.254.1.1
        route add default via fe80::1 dev eth0");
}

#[track_caller]
fn serve(place: &Namespace, pod: &Pod, listen: &[Listen], guests: &GuestBook) -> Vec<Server> {
    let addresses = [IpAddr::V4(pod.v4), IpAddr::V6(pod.v6)].into_iter();
    let all = addresses.flat_map(|address| listen.iter().map(move |listen| (address, *listen)));
    all.map(|(address, listen)| {
        let (name, guests) = (pod.name.clone(), guests.clone());
        let server = place.run(move || Server::start(&name, address, listen, guests));
        server.unwrap_or_else(|error| panic!("{}: {listen:?} on {address}: {error}", pod.name))
    })
    .collect()
}
