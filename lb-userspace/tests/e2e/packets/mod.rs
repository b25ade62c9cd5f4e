//! The packet path: clients whose sockets the node does not see, from other machines and other namespaces.

mod bare;
mod checksums;
mod crowd;
mod hairpin;
mod mtu;
mod policy;
mod reach;
mod refuse;
mod short;
mod survive;
mod throughput;

use std::net::{IpAddr, SocketAddr};

use libtest_mimic::Trial;

use crate::harness::lan::{BALANCER, CLIENT, EXTERNAL, NODE};
use crate::harness::{Lan, Listen, service};
use crate::probe::{Errno, Probe, Visit};

pub(crate) fn tests() -> Vec<Trial> {
    let all = [
        reach::tests(),
        refuse::tests(),
        checksums::tests(),
        mtu::tests(),
        survive::tests(),
        policy::tests(),
        crowd::tests(),
        hairpin::tests(),
        throughput::tests(),
        bare::tests(),
        short::tests(),
    ];
    all.into_iter().flatten().collect()
}

/// What pods of these tests run.
pub(crate) const LISTEN: [Listen; 2] = [Listen::Tcp(80), Listen::Udp(80)];
/// The NodePort of the Service's port, of both protocols.
pub(crate) const NODE_PORT: u16 = 30_080;
/// The ports by which the node stands in for clients, unless told otherwise.
const SNAT_PORTS: std::ops::RangeInclusive<u16> = 61_000..=65_535;

/// A Service of type LoadBalancer that is reached in every way, with `more` in its spec.
fn web(name: &str, app: &str, more: &str) -> String {
    let [external, external6] = EXTERNAL;
    let [balancer, balancer6] = BALANCER;
    let spec = format!(
        "type: LoadBalancer, ipFamilyPolicy: RequireDualStack, {more}
         externalIPs: [{external}, \"{external6}\"], selector: {{app: {app}}}, ports: [
         {{name: tcp, port: 80, nodePort: {NODE_PORT}}},
         {{name: udp, port: 80, protocol: UDP, nodePort: {NODE_PORT}}}]"
    );
    let status = format!("[{{ip: {balancer}}}, {{ip: \"{balancer6}\"}}]");
    service(name, &spec) + &format!("status: {{loadBalancer: {{ingress: {status}}}}}\n")
}

/// A Service of type NodePort, of both protocols.
pub(crate) fn node_port(name: &str, app: &str, port: u16, more: &str) -> String {
    let spec = format!(
        "type: NodePort, ipFamilyPolicy: RequireDualStack, {more} selector: {{app: {app}}}, ports: [
         {{name: tcp, port: 80, nodePort: {port}}},
         {{name: udp, port: 80, protocol: UDP, nodePort: {port}}}]"
    );
    service(name, &spec)
}

/// Every way to a [`web`].
fn ways(lan: &Lan, name: &str) -> Vec<SocketAddr> {
    let at = |port: u16| move |ip: IpAddr| SocketAddr::new(ip, port);
    let own_port = [EXTERNAL, BALANCER].concat().into_iter().chain(lan.vips(name)).map(at(80));
    own_port.chain(NODE.map(at(NODE_PORT))).collect()
}

/// The ways in to a NodePort, of each family.
fn node_ports() -> [SocketAddr; 2] {
    NODE.map(|ip| SocketAddr::new(ip, NODE_PORT))
}

/// One visit by each protocol.
pub(crate) fn visits(probe: &Probe, to: SocketAddr) -> [(&'static str, Result<Visit, Errno>); 3] {
    [
        ("TCP", probe.tcp(to)),
        ("connected UDP", probe.udp(to)),
        ("unconnected UDP", probe.udp_unconnected(to)),
    ]
}

/// The address of the same family.
fn like(addresses: [IpAddr; 2], to: SocketAddr) -> IpAddr {
    addresses[usize::from(to.is_ipv6())]
}

/// Whom the client is to its pod: itself.
#[track_caller]
fn assert_itself(guest: SocketAddr, to: SocketAddr, how: &str) {
    assert_eq!(guest.ip(), like(CLIENT, to), "{how} to {to}: the pod sees the client's address");
    // The client takes none of these by itself (`Lan`).
    let port = guest.port();
    assert!(
        !SNAT_PORTS.contains(&port),
        "{how} to {to}: the pod sees the client's port, not {port}"
    );
}

/// Whom the client is to its pod: the node.
#[track_caller]
fn assert_stood_in(guest: SocketAddr, to: SocketAddr, how: &str) {
    assert_eq!(guest.ip(), like(NODE, to), "{how} to {to}: the pod sees the node's address");
    let port = guest.port();
    assert!(SNAT_PORTS.contains(&port), "{how} to {to}: the pod sees a port of ours, not {port}");
}
