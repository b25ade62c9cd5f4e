//! Sockets with the priority of the agent's own are left alone.

use std::net::SocketAddr;

use lb_common::abi::OWN_SOCKET_PRIORITY;
use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, service};
use crate::probe::{Errno, Kind, Probe, ProbeSocket, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        own_sockets_are_not_translated_and_others_are,
        own_sockets_are_not_refused_what_others_are,
    ]
}

const PORTS: &str = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [
    {name: tcp, port: 80}, {name: udp, port: 53, protocol: UDP}]";

/// The ways to name a destination, each on a new socket.
type Call = (&'static str, fn(&Probe, SocketAddr) -> ProbeSocket<'_>, Reach);
type Reach = fn(&ProbeSocket<'_>, SocketAddr) -> Result<(), Errno>;

const CALLS: [Call; 3] = [
    ("connect by TCP", |probe, to| probe.open(Kind::tcp(to)), |socket, to| socket.connect(to)),
    ("connect by UDP", |probe, to| probe.open(Kind::udp(to)), |socket, to| socket.connect(to)),
    ("sendto", |probe, to| probe.open(Kind::udp(to)), |socket, to| socket.send_to(to, "who")),
];

fn own_sockets_are_not_translated_and_others_are() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Udp(53)]);
    stage.apply(&[&pod.manifest(), &service("web", PORTS)]);
    let probe = stage.probe();
    for vip in stage.vips("web") {
        for ((call, open, reach), port) in CALLS.into_iter().zip([80, 53, 53]) {
            let to = SocketAddr::new(vip, port);
            let socket = open(&probe, to);
            assert_eq!(reach(&socket, to), Ok(()), "{call} {to}: translated");
            let own = open(&probe, to);
            own.set_priority(OWN_SOCKET_PRIORITY).expect("the probe is privileged");
            // Nothing leads to an address of the Service range here.
            assert_refused(&format!("{call} {to}"), reach(&own, to), Errno::NET_UNREACHABLE);
            own.set_priority(0).expect("anyone may");
            assert_eq!(reach(&own, to), Ok(()), "{call} {to}: no longer one of the agent's own");
        }
    }
}

fn own_sockets_are_not_refused_what_others_are() {
    let stage = Stage::start();
    stage.apply(&[&service("web", PORTS)]);
    let probe = stage.probe();
    let vip = stage.vip("web");
    for (what, port) in [("no endpoints", 53), ("an unknown port", 81)] {
        for (call, open, reach) in CALLS {
            let to = SocketAddr::new(vip, port);
            assert_refused(
                &format!("{call}: {what}"),
                reach(&open(&probe, to), to),
                Errno::REFUSED,
            );
            let own = open(&probe, to);
            own.set_priority(OWN_SOCKET_PRIORITY).expect("the probe is privileged");
            assert_refused(&format!("{call}: {what}"), reach(&own, to), Errno::NET_UNREACHABLE);
        }
    }
}
