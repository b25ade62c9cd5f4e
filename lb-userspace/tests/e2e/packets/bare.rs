//! Devices whose packets have no link header.

use std::net::{IpAddr, SocketAddr};

use libtest_mimic::Trial;

use super::{LISTEN, NODE_PORT, assert_stood_in, node_port, visits};
use crate::harness::lan::NODE;
use crate::harness::netns::Namespace;
use crate::harness::tun::Tunnel;
use crate::harness::{Lan, cases, eventually};
use crate::probe::{Errno, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![packets_without_a_link_header_are_translated_refused_and_answered]
}

fn packets_without_a_link_header_are_translated_refused_and_answered() {
    let mut lan = Lan::start_with(&["--device", "tun*,eth0"]);
    let caller = Namespace::new();
    let _tunnel = Tunnel::between(&lan.node, &caller);
    lan.node.ip("route add 172.16.0.0/24 dev tun0\nroute add 2001:db8:16::/64 dev tun0");
    caller.ip("addr add 172.16.0.9/24 dev tun0
        addr add 2001:db8:16::9/64 dev tun0 nodad
        route add 0.0.0.0/0 dev tun0
        route add ::/0 dev tun0");
    let near = lan.near_pod("near", "near", &LISTEN).manifest();
    let far = lan.far_pod("far", "far", &LISTEN).manifest();
    let [here, elsewhere, nowhere] = [("near", 0), ("far", 1), ("nobody", 2)]
        .map(|(app, offset)| node_port(app, app, NODE_PORT + offset, ""));
    lan.apply(&[&near, &far, &here, &elsewhere, &nowhere]);
    eventually("both devices have the programs", || match lan.agent.status().devices() {
        Some(devices) if devices.iter().filter(|d| d.contains(" tcx")).count() == 2 => Ok(()),
        devices => Err(format!("{devices:?}")),
    });

    let probe = lan.probe_in(&caller);
    let itself: [IpAddr; 2] = ["172.16.0.9", "2001:db8:16::9"].map(|ip| ip.parse().expect("one"));
    for ip in NODE {
        for (offset, pod) in [(0, "near"), (1, "far")] {
            let to = SocketAddr::new(ip, NODE_PORT + offset);
            for (how, visit) in visits(&probe, to) {
                assert_eq!(visit, Ok(Visit { pod: pod.to_owned(), peer: to }), "{how} to {to}");
                match pod {
                    "near" => assert!(itself.contains(&lan.guest_of(pod).ip()), "{how} to {to}"),
                    _ => assert_stood_in(lan.guest_of(pod), to, how),
                }
            }
            assert_eq!(probe.transfer(to, 1 << 20), Ok(()), "much data to {to}");
            assert_eq!(probe.datagrams(to, 8000, 5), Ok(()), "fragments to {to}");
        }
        let nobody = SocketAddr::new(ip, NODE_PORT + 2);
        assert_refused("TCP to nobody", probe.tcp(nobody), Errno::REFUSED);
        assert_refused("UDP to nobody", probe.udp(nobody), Errno::REFUSED);
    }
    for ip in lan.vips("near") {
        let answered = caller.command("ping", &format!("-n -q -c 2 -i 0.2 -W 5 {ip}")).ok();
        answered.mentions(&["2 received"]);
    }
}
