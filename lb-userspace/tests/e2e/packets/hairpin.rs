//! Workloads on a bridge of the node whose sockets it does not see: they reach themselves, and each other.

use std::net::SocketAddr;

use libtest_mimic::Trial;

use super::{LISTEN, visits, web};
use crate::harness::lan::EXTERNAL;
use crate::harness::netns::Namespace;
use crate::harness::{Lan, Pod, cases, eventually, service};
use crate::probe::Visit;

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_guest_reaches_itself,
        a_guest_reaches_its_neighbour_on_the_bridge,
        a_guest_reaches_pods_behind_other_devices,
    ]
}

/// Guests of the node, each with a server of its own name.
fn guests(lan: &mut Lan) -> [(Namespace, Pod); 2] {
    lan.node.ip("link add br0 type bridge
        link set br0 up
        addr add 10.244.3.254/24 dev br0
        addr add fd00:10:244:3::fe/64 dev br0 nodad");
    let guests = ["guest1", "guest2"].map(|name| {
        let number = name.as_bytes()[5] - b'0';
        let namespace = Namespace::new();
        lan.node.wire(name, &namespace);
        lan.node.ip(&format!("link set {name} master br0"));
        namespace.ip(&format!(
            "addr add 10.244.3.{number}/24 dev eth0
            addr add fd00:10:244:3::{number}/64 dev eth0 nodad
            route add default via 10.244.3.254
            route add default via fd00:10:244:3::fe"
        ));
        let mut pod = Pod::new(name, name, number);
        pod.v4 = [10, 244, 3, number].into();
        pod.v6 = format!("fd00:10:244:3::{number}").parse().expect("an address");
        pod.node = Some("node");
        lan.serve_in(&namespace, &pod, &LISTEN);
        let spec = format!(
            "ipFamilyPolicy: RequireDualStack, selector: {{app: {name}}}, ports: [
             {{name: tcp, port: 80}}, {{name: udp, port: 80, protocol: UDP}}]"
        );
        lan.apply(&[&pod.manifest(), &service(name, &spec)]);
        (namespace, pod)
    });
    eventually("the bridge has the programs", || match lan.agent.status().devices() {
        Some(devices) if devices.iter().any(|d| d == "br0 tcx inside") => Ok(()),
        devices => Err(format!("{devices:?}")),
    });
    guests
}

#[track_caller]
fn assert_reaches(lan: &Lan, from: &Namespace, service: &str) {
    let probe = lan.probe_in(from);
    for ip in lan.vips(service) {
        let to = SocketAddr::new(ip, 80);
        let expected = Ok(Visit { pod: service.to_owned(), peer: to });
        for (how, visit) in visits(&probe, to) {
            assert_eq!(visit, expected, "{how} to {to}");
        }
        assert_eq!(probe.transfer(to, 1 << 20), Ok(()), "much data to {to}");
    }
}

fn a_guest_reaches_itself() {
    let mut lan = Lan::start();
    let [(guest, pod), _] = guests(&mut lan);
    assert_reaches(&lan, &guest, &pod.name);
    let seen = lan.guest_of(&pod.name).ip();
    assert_eq!(seen.to_string(), "fd00:10:244:3::fe", "the node stands in for the client");
}

fn a_guest_reaches_its_neighbour_on_the_bridge() {
    let mut lan = Lan::start();
    let [(guest, _), (_, neighbour)] = guests(&mut lan);
    assert_reaches(&lan, &guest, &neighbour.name);
}

fn a_guest_reaches_pods_behind_other_devices() {
    let mut lan = Lan::start();
    let [(guest, pod), _] = guests(&mut lan);
    let near = lan.near_pod("near", "near", &LISTEN).manifest();
    let far = lan.far_pod("far", "far", &LISTEN).manifest();
    let both = ["near", "far"].map(|name| super::node_port(name, name, 0, ""));
    let both = both.map(|service| service.replace(", nodePort: 0", ""));
    lan.apply(&[&near, &far, &both[0], &both[1]]);
    assert_reaches(&lan, &guest, "near");
    assert_eq!(lan.guest_of("near").ip(), pod.v6, "a pod on this node sees the guest");
    assert_reaches(&lan, &guest, "far");
    // What keeps clients from outside on this node does not concern those that are inside.
    lan.apply(&[&web("kept", "far", "externalTrafficPolicy: Local,")]);
    let probe = lan.probe_in(&guest);
    for ip in EXTERNAL {
        let to = SocketAddr::new(ip, 80);
        assert_eq!(probe.tcp(to), Ok(Visit { pod: "far".to_owned(), peer: to }), "TCP to {to}");
    }
}
