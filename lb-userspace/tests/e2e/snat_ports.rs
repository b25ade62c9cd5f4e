//! Ports that packets to endpoints elsewhere get: local sockets are kept away from them.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{Stage, cases};
use crate::probe::{Errno, Kind, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        ports_are_reserved_beside_those_of_others_and_given_back,
        ports_are_given_back_after_a_kill,
        what_others_have_reserved_is_left_to_them,
        a_changed_range_replaces_the_former_one,
        sockets_do_not_get_a_port_by_themselves,
        binding_a_port_is_refused_on_the_node_alone,
        it_is_said_if_local_clients_have_no_port_left,
    ]
}

const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";
const CHOICE: &str = "net/ipv4/ip_local_port_range";

/// A setting of the node's network namespace.
fn setting(stage: &Stage, name: &'static str) -> String {
    let text = stage.node.run(move || fs::read_to_string(format!("/proc/sys/{name}")));
    text.expect("a setting of every namespace").trim().to_owned()
}

fn set(stage: &Stage, name: &'static str, value: &'static str) {
    let written = stage.node.run(move || fs::write(format!("/proc/sys/{name}"), value));
    written.expect("root may");
}

/// A stage whose agent is not running, with these ports reserved by somebody else.
fn stage(reserved: &'static str) -> Stage {
    let stage = Stage::without_agent();
    set(&stage, RESERVED, reserved);
    stage
}

fn ports_are_reserved_beside_those_of_others_and_given_back() {
    let mut stage = stage("8080,62000-62001");
    stage.agent.start();
    assert_eq!(setting(&stage, RESERVED), "8080,61000-65535");
    assert_eq!(stage.agent.status().snat_ports(), Some("61000-65535"));
    assert_eq!(stage.agent.stop(Signal::TERM), 0);
    assert_eq!(setting(&stage, RESERVED), "8080,61000-65535", "traffic goes on without an agent");
    stage.agent.start();
    assert_eq!(stage.agent.stop(Signal::TERM), 0);
    stage
        .agent
        .cleanup(&[])
        .ok()
        .says("took the ports 61000-61999,62002-65535 out of net.ipv4.ip_local_reserved_ports");
    assert_eq!(setting(&stage, RESERVED), "8080,62000-62001");
    stage.agent.cleanup(&["--state"]).ok();
    assert!(!stage.agent.paths.state.exists());
}

fn ports_are_given_back_after_a_kill() {
    let mut stage = stage("9148");
    stage.agent.start();
    stage.agent.kill_nine();
    stage.agent.start();
    stage.agent.kill_nine();
    assert_eq!(setting(&stage, RESERVED), "9148,61000-65535");
    stage.agent.cleanup(&["--state"]).ok();
    assert_eq!(setting(&stage, RESERVED), "9148");
    assert!(!stage.agent.paths.state.exists(), "no record is left");
}

fn what_others_have_reserved_is_left_to_them() {
    let mut stage = stage("40000-65535");
    stage.agent.start();
    assert_eq!(stage.agent.status().snat_ports(), Some("61000-65535"));
    stage.agent.kill_nine();
    stage.agent.cleanup(&[]).ok();
    assert_eq!(setting(&stage, RESERVED), "40000-65535");
}

fn a_changed_range_replaces_the_former_one() {
    let mut stage = stage("8080");
    stage.agent.start();
    stage.agent.kill_nine();
    stage.agent.set_options(&["--snat-ports", "40000-50000"]);
    stage.agent.start();
    assert_eq!(setting(&stage, RESERVED), "8080,40000-50000");
    let probe = stage.probe();
    let bound = |port| probe.open(Kind::Tcp4).bind(at("0.0.0.0", port));
    assert_refused("the new range", bound(40_000), Errno::IN_USE);
    assert_eq!(bound(61_001), Ok(()), "the former one");
    stage.agent.kill_nine();
    stage.agent.cleanup(&[]).ok();
    assert_eq!(setting(&stage, RESERVED), "8080");
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse::<IpAddr>().expect("an address"), port)
}

/// The kernel chooses from 200 ports that are not reserved, and 201 that are.
fn sockets_do_not_get_a_port_by_themselves() {
    let mut stage = stage("");
    set(&stage, CHOICE, "60800 61200");
    stage.agent.start();
    let ports = stage.node.run(|| {
        let tcp: Vec<_> = (0..140).map_while(|_| TcpListener::bind("0.0.0.0:0").ok()).collect();
        let udp: Vec<_> = (0..140).map_while(|_| UdpSocket::bind("[::]:0").ok()).collect();
        let port = |at: std::io::Result<SocketAddr>| at.expect("it is bound").port();
        let mut ports: Vec<u16> = tcp.iter().map(|socket| port(socket.local_addr())).collect();
        ports.extend(udp.iter().map(|socket| port(socket.local_addr())));
        ports
    });
    assert_eq!(ports.len(), 280, "there are enough");
    assert!(ports.iter().all(|port| (60_800..61_000).contains(port)), "{ports:?}");
    // Nor does the guard, which sees ports that the kernel chose as well, refuse any of them.
    let probe = stage.probe();
    for (kind, any) in [Kind::Tcp4, Kind::Udp4, Kind::Tcp6, Kind::Udp6].into_iter().zip(ANY) {
        for attempt in 0..100 {
            let bound = probe.open(kind).bind(at(any, 0));
            assert_eq!(bound, Ok(()), "{kind:?}, attempt {attempt}");
        }
    }
}

const ANY: [&str; 4] = ["0.0.0.0", "0.0.0.0", "::", "::"];

fn binding_a_port_is_refused_on_the_node_alone() {
    let stage = Stage::start();
    let (node, pods) = (stage.probe(), stage.probe_among_pods());
    let v4 = [[Kind::Tcp4, Kind::Udp4], [Kind::Tcp6, Kind::Udp6]];
    for address in ["0.0.0.0", "127.0.0.1", "10.244.0.1", "::", "::1", "fd00:10:244::1"] {
        for kind in v4[usize::from(address.contains(':'))] {
            for port in [61_000, 63_333, 65_535] {
                let bound = node.open(kind).bind(at(address, port));
                assert_refused(&format!("{kind:?} {address}:{port}"), bound, Errno::IN_USE);
            }
            assert_eq!(node.open(kind).bind(at(address, 60_999)), Ok(()), "{kind:?} {address}");
        }
    }
    for (kind, any) in [Kind::Tcp4, Kind::Udp4, Kind::Tcp6, Kind::Udp6].into_iter().zip(ANY) {
        assert_eq!(pods.open(kind).bind(at(any, 63_333)), Ok(()), "{kind:?} in a pod");
    }
    assert!(stage.agent.status().counters("snatPort") > 0, "refusals are counted");
}

fn it_is_said_if_local_clients_have_no_port_left() {
    let mut stage = stage("");
    set(&stage, CHOICE, "62000 63000");
    stage.agent.start();
    let said = "net.ipv4.ip_local_port_range (62000 63000) lies inside of --snat-ports 61000-65535";
    stage.agent.lb(&["status"]).ok().mentions(&[said]);
}
