//! Who is let in, to which pods.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use libtest_mimic::Trial;

use super::{LISTEN, NODE_PORT, assert_itself, like, node_ports, visits, ways, web};
use crate::harness::lan::{BALANCER, CLIENT, EXTERNAL};
use crate::harness::status::Op;
use crate::harness::{Lan, cases, eventually};
use crate::probe::{Errno, Kind, Probe, Visit};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        traffic_that_stays_here_keeps_its_client_and_is_dropped_without_a_pod_here,
        source_ranges_let_in_by_the_load_balancers_address_only_whom_they_name,
        a_client_sticks_to_its_pod,
        two_nodes_choose_alike,
    ]
}

const LOCAL: &str = "externalTrafficPolicy: Local,";

fn traffic_that_stays_here_keeps_its_client_and_is_dropped_without_a_pod_here() {
    let mut lan = Lan::start();
    let far = lan.far_pod("far", "web", &LISTEN);
    lan.apply(&[&far.manifest(), &web("web", "web", LOCAL)]);
    let probe = lan.probe();
    let dropped = || lan.agent.status().counter(Op::Ingress, "noLocalEndpoints");
    let vips = lan.vips("web");
    let (inside, outside): (Vec<_>, Vec<_>) =
        ways(&lan, "web").into_iter().partition(|to| vips.contains(&to.ip()));
    for to in inside {
        let expected = Ok(Visit { pod: "far".to_owned(), peer: to });
        for (how, visit) in visits(&probe, to) {
            assert_eq!(visit, expected, "{how} to {to}");
        }
    }
    assert_eq!(dropped(), 0, "a ClusterIP leads anywhere");
    for to in &outside {
        probe.open(Kind::udp(*to)).send_to(*to, "?").expect("sent");
    }
    eventually("datagrams are dropped", || match dropped() {
        6 => Ok(()),
        count => Err(format!("{count} of 6")),
    });
    // Both wait until they give up.
    let probes = node_ports().map(|to| (lan.probe(), to));
    thread::scope(|scope| {
        let waiting = probes.map(|(probe, to)| scope.spawn(move || silent(&probe, to)));
        waiting.into_iter().for_each(|waiting| waiting.join().expect("no panic"));
    });
    assert!(dropped() > 6 + 2, "SYNs are dropped, again and again: {}", dropped());

    let near = lan.near_pod("near", "web", &LISTEN);
    lan.apply(&[&near.manifest()]);
    for to in outside {
        let expected = Ok(Visit { pod: "near".to_owned(), peer: to });
        for (how, visit) in visits(&probe, to) {
            assert_eq!(visit, expected, "{how} to {to}");
            assert_itself(lan.guest_of("near"), to, how);
        }
    }
}

fn silent(probe: &Probe, to: SocketAddr) {
    let outcome = probe.tcp(to);
    assert_eq!(outcome, Err(Errno(libc::EINPROGRESS)), "a connect to {to} is not answered");
}

fn source_ranges_let_in_by_the_load_balancers_address_only_whom_they_name() {
    let mut lan = Lan::start();
    let pod = lan.near_pod("near", "web", &LISTEN);
    let ranges =
        "loadBalancerSourceRanges: [203.0.113.0/28, 192.168.0.0/16, \"2001:db8:113::10/124\"],";
    lan.apply(&[&pod.manifest(), &web("web", "web", ranges)]);
    let strangers = strangers(&lan);
    let probe = lan.probe();
    for to in ways(&lan, "web") {
        let let_in = Ok(Visit { pod: "near".to_owned(), peer: to });
        let from = |ips| {
            let socket = probe.open(Kind::udp(to));
            socket.bind(SocketAddr::new(like(ips, to), 0)).expect("an address of the client");
            socket.send_to(to, "?").expect("sent");
            socket
        };
        assert_eq!(from(CLIENT).receive(), let_in, "the client to {to}");
        let before = lan.agent.status().counter(Op::Ingress, "filtered");
        let socket = from(strangers);
        if BALANCER.contains(&to.ip()) {
            eventually(&format!("a stranger is dropped at {to}"), || {
                match lan.agent.status().counter(Op::Ingress, "filtered") - before {
                    1 => Ok(()),
                    count => Err(format!("{count} were")),
                }
            });
        } else {
            assert_eq!(socket.receive(), let_in, "a stranger to {to}");
        }
    }
}

/// More addresses of the client's.
fn strangers(lan: &Lan) -> [IpAddr; 2] {
    lan.client.ip("addr add 203.0.113.99/24 dev eth0
        addr add 2001:db8:113::99/64 dev eth0 nodad");
    ["203.0.113.99", "2001:db8:113::99"].map(|ip| ip.parse().expect("an address"))
}

fn a_client_sticks_to_its_pod() {
    let mut lan = Lan::start();
    let pods = ["a", "b", "c", "d"].map(|name| lan.near_pod(name, "web", &LISTEN).manifest());
    lan.apply(&pods.each_ref().map(String::as_str));
    lan.apply(&[&web("web", "web", "sessionAffinity: ClientIP,")]);
    let probe = lan.probe();
    for family in [0, 1] {
        let of_family = |to: &SocketAddr| usize::from(to.is_ipv6()) == family;
        let ways: Vec<_> = ways(&lan, "web").into_iter().filter(of_family).collect();
        let first = probe.tcp(ways[0]).expect("a connection").pod;
        for to in ways.iter().cycle().take(24) {
            let pod = probe.tcp(*to).expect("a connection").pod;
            assert_eq!(pod, first, "TCP to {to}");
        }
    }
}

fn two_nodes_choose_alike() {
    let mut lan = Lan::start();
    let mut pods = vec![];
    for name in ["a", "b", "c"] {
        pods.push(lan.near_pod(name, "web", &LISTEN).manifest());
        pods.push(lan.far_pod(&format!("{name}-far"), "web", &LISTEN).manifest());
    }
    let service = web("web", "web", "");
    let manifests: Vec<&str> = pods.iter().chain([&service]).map(String::as_str).collect();
    lan.apply(&manifests);
    let mut other = lan.agent_on_other_node();
    other.start();
    other.apply(&manifests);
    let probe = lan.probe();
    for family in [0, 1] {
        let to = SocketAddr::new(EXTERNAL[family], 80);
        let ask = |port: u16| {
            let socket = probe.open(Kind::udp(to));
            let own = SocketAddr::new(CLIENT[family], port);
            socket.bind(own).expect("a free port");
            socket.send_to(to, "?").expect("sent");
            socket.receive().expect("an answer").pod
        };
        let ports = NODE_PORT + 1000..NODE_PORT + 1024;
        let by_node: Vec<_> = ports.clone().map(ask).collect();
        let before = other.status().counter(Op::Ingress, "translated");
        lan.router.ip("route replace 198.51.100.0/24 via 192.0.2.2
            route replace 2001:db8:198::/64 via 2001:db8:2::2");
        let by_other: Vec<_> = ports.map(ask).collect();
        lan.router.ip("route replace 198.51.100.0/24 via 192.0.2.1
            route replace 2001:db8:198::/64 via 2001:db8:2::1");
        assert_eq!(by_node, by_other, "for the same flows to {to}");
        let chosen = other.status().counter(Op::Ingress, "translated") - before;
        assert_eq!(chosen, 24, "the other node has chosen");
    }
}
