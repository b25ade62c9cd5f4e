//! The memory of where a socket meant to go: one slot per socket, given back with it.

use std::net::SocketAddr;

use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, eventually, service};
use crate::probe::{Errno, Kind, Probe, ProbeSocket, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        open_tcp_sockets_hold_a_slot_each_and_give_it_back,
        open_udp_sockets_hold_a_slot_each_and_give_it_back,
        unconnected_udp_sockets_give_their_slots_back,
        mptcp_sockets_give_their_slots_back,
        a_burst_of_connections_leaves_no_slot,
        refused_connects_leave_no_slot,
        a_killed_process_leaves_no_slot,
        connecting_to_a_pod_afterwards_gives_the_slot_back,
    ]
}

const SOCKETS: u16 = 200;

/// A stage with the Service `web` on port 80, both protocols and families.
fn stage_with_web() -> Stage {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Udp(80), Listen::Mptcp(81)]);
    let spec = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [
        {name: tcp, port: 80}, {name: udp, port: 80, protocol: UDP}, {name: mptcp, port: 81}]";
    stage.apply(&[&pod.manifest(), &service("web", spec)]);
    stage
}

fn used(stage: &Stage) -> u64 {
    stage.agent.status().used("ORIGIN")
}

/// `cgroup/sock_release` runs when the last reference to a socket goes, which may be a moment after
/// `close`.
#[track_caller]
fn assert_given_back(stage: &Stage, what: &str, before: u64) {
    eventually(what, || match used(stage) {
        now if now == before => Ok(()),
        now => Err(format!("ORIGIN used {now}, {before} before")),
    });
}

fn connected<'probe>(probe: &'probe Probe, kind: Kind, to: SocketAddr) -> Vec<ProbeSocket<'probe>> {
    let connect = |_| {
        let socket = probe.open(kind);
        socket.connect(to).unwrap_or_else(|errno| panic!("{kind:?} to {to}: {errno:?}"));
        socket
    };
    (0..SOCKETS).map(connect).collect()
}

fn assert_one_slot_each(kinds: [Kind; 2]) {
    let stage = stage_with_web();
    let probe = stage.probe();
    let before = used(&stage);
    for (kind, vip) in kinds.into_iter().zip(stage.vips("web")) {
        let sockets = connected(&probe, kind, SocketAddr::new(vip, 80));
        assert_eq!(
            used(&stage) - before,
            u64::from(SOCKETS),
            "ORIGIN while they are open: {kind:?}"
        );
        drop(sockets);
        assert_given_back(&stage, &format!("{SOCKETS} closed {kind:?} sockets"), before);
    }
}

fn open_tcp_sockets_hold_a_slot_each_and_give_it_back() {
    assert_one_slot_each([Kind::Tcp4, Kind::Tcp6]);
}

fn open_udp_sockets_hold_a_slot_each_and_give_it_back() {
    assert_one_slot_each([Kind::Udp4, Kind::Udp6]);
}

fn unconnected_udp_sockets_give_their_slots_back() {
    let stage = stage_with_web();
    let probe = stage.probe();
    let before = used(&stage);
    for vip in stage.vips("web") {
        let to = SocketAddr::new(vip, 80);
        for _ in 0..SOCKETS {
            probe.udp_unconnected(to).unwrap_or_else(|errno| panic!("sendto {to}: {errno:?}"));
        }
    }
    assert_given_back(&stage, "closed unconnected UDP sockets", before);
}

/// The kernel's subflow sockets have other cookies than the socket the application holds, and
/// `sock_release` does not run for them.
fn mptcp_sockets_give_their_slots_back() {
    let stage = stage_with_web();
    let probe = stage.probe();
    let before = used(&stage);
    for (vip, kind) in stage.vips("web").into_iter().zip([Kind::Mptcp4, Kind::Mptcp6]) {
        for port in [80, 81] {
            let sockets = connected(&probe, kind, SocketAddr::new(vip, port));
            drop(sockets);
            assert_given_back(&stage, &format!("closed {kind:?} sockets, port {port}"), before);
        }
    }
}

fn a_burst_of_connections_leaves_no_slot() {
    let stage = stage_with_web();
    let probe = stage.probe();
    let before = used(&stage);
    let tally = probe.burst(Kind::Tcp4, stage.frontend("web", 80), 2000);
    tally.assert_all_answered("2,000 connections");
    assert_given_back(&stage, "2,000 connections made and closed", before);
}

fn refused_connects_leave_no_slot() {
    let stage = stage_with_web();
    let probe = stage.probe();
    let before = used(&stage);
    let unknown = stage.frontend("web", 79);
    let sockets: Vec<_> = (0..50).map(|_| probe.open(Kind::Tcp4)).collect();
    for socket in &sockets {
        assert_refused("an unknown port", socket.connect(unknown), Errno::REFUSED);
    }
    assert_eq!(used(&stage), before, "ORIGIN while 50 refused sockets are open");
}

fn a_killed_process_leaves_no_slot() {
    let stage = stage_with_web();
    let before = used(&stage);
    let probe = stage.probe();
    let sockets = connected(&probe, Kind::Tcp4, stage.frontend("web", 80));
    assert_eq!(used(&stage) - before, u64::from(SOCKETS), "ORIGIN while the process lives");
    // The sockets close with their process, not one by one.
    sockets.into_iter().for_each(std::mem::forget);
    drop(probe);
    assert_given_back(&stage, "the sockets of a killed process", before);
}

fn connecting_to_a_pod_afterwards_gives_the_slot_back() {
    let stage = stage_with_web();
    let probe = stage.probe();
    let before = used(&stage);
    let socket = probe.open(Kind::Udp4);
    socket.connect(stage.frontend("web", 80)).expect("connect to the ClusterIP");
    assert_eq!(used(&stage) - before, 1, "ORIGIN, connected to the ClusterIP");
    socket.connect("10.244.1.1:80".parse().expect("an address")).expect("connect to the pod");
    assert_eq!(used(&stage), before, "ORIGIN, connected to the pod itself");
}
