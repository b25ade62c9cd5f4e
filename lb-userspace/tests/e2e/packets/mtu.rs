//! Paths that are narrower than the devices at their ends: what tells so reaches whom it concerns.

use std::net::SocketAddr;

use libtest_mimic::Trial;

use super::{LISTEN, NODE_PORT, node_port};
use crate::harness::lan::NODE;
use crate::harness::{Lan, cases};

pub(crate) fn tests() -> Vec<Trial> {
    cases![a_narrow_path_to_the_client_is_found, a_narrow_path_to_a_pod_elsewhere_is_found,]
}

fn lan() -> Lan {
    let mut lan = Lan::start();
    let near = lan.near_pod("near", "near", &LISTEN).manifest();
    let far = lan.far_pod("far", "far", &LISTEN).manifest();
    let here = node_port("near", "near", NODE_PORT, "");
    let elsewhere = node_port("far", "far", NODE_PORT + 1, "");
    lan.apply(&[&near, &far, &here, &elsewhere]);
    lan
}

/// The router tells pods, in the client's name.
fn a_narrow_path_to_the_client_is_found() {
    let lan = lan();
    lan.router.ip("route add 203.0.113.10/32 dev client0 mtu 1400
        route add 2001:db8:113::10/128 dev client0 mtu 1400");
    for port in [NODE_PORT, NODE_PORT + 1] {
        assert_data_gets_through(&lan, port);
    }
}

/// The other node tells the client, who knows nothing of pods.
fn a_narrow_path_to_a_pod_elsewhere_is_found() {
    let lan = lan();
    lan.other.ip("route replace 10.244.2.0/24 dev pods0 mtu 1400
        route replace fd00:10:244:2::/64 dev pods0 mtu 1400");
    assert_data_gets_through(&lan, NODE_PORT + 1);
}

#[track_caller]
fn assert_data_gets_through(lan: &Lan, port: u16) {
    let probe = lan.probe();
    for ip in NODE {
        let to = SocketAddr::new(ip, port);
        let before = lan.agent.status().counters("related");
        assert_eq!(probe.transfer(to, 3 << 20), Ok(()), "TCP to {to}");
        let told = lan.agent.status().counters("related") - before;
        assert!(told > 0, "nobody was told of the narrow path to {to}");
        assert_eq!(probe.datagrams(to, 8000, 10), Ok(()), "large datagrams to {to}");
        assert_eq!(probe.datagrams(to, 1440, 10), Ok(()), "datagrams to {to}");
    }
}
