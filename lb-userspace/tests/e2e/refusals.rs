//! Connections that must fail, each with the error an application understands, and counted.

use std::net::SocketAddr;

use libtest_mimic::Trial;

use crate::harness::status::Op;
use crate::harness::{Listen, Stage, cases, service};
use crate::probe::{Errno, Kind, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_service_without_endpoints_refuses,
        a_service_whose_pods_are_not_ready_refuses,
        a_port_no_service_defines_refuses,
        an_unallocated_address_is_unreachable,
        a_deleted_service_is_unreachable,
        a_refused_socket_can_be_used_for_another_address,
        an_address_outside_the_service_range_is_left_alone,
        every_outcome_is_counted_once,
    ]
}

const DUAL: &str = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [
    {name: tcp, port: 80}, {name: udp, port: 53, protocol: UDP}]";
const LISTEN: [Listen; 2] = [Listen::Tcp(80), Listen::Udp(53)];

/// All three ways to address a Service, on both its addresses, fail with this error.
#[track_caller]
fn assert_all_refused(stage: &Stage, what: &str, [tcp, udp]: [u16; 2], wanted: Errno) {
    let vips = stage.vips("web");
    assert_eq!(vips.len(), 2, "the Service is dual-stack");
    let probe = stage.probe();
    for vip in vips {
        let (tcp, udp) = (SocketAddr::new(vip, tcp), SocketAddr::new(vip, udp));
        assert_refused(&format!("{what}: TCP to {tcp}"), probe.tcp(tcp), wanted);
        assert_refused(&format!("{what}: UDP connect to {udp}"), probe.udp(udp), wanted);
        assert_refused(&format!("{what}: UDP sendto {udp}"), probe.udp_unconnected(udp), wanted);
    }
}

fn a_service_without_endpoints_refuses() {
    let stage = Stage::start();
    stage.apply(&[&service("web", DUAL)]);
    assert_all_refused(&stage, "no pod matches", [80, 53], Errno::REFUSED);
}

fn a_service_whose_pods_are_not_ready_refuses() {
    let mut stage = Stage::start();
    let mut pod = stage.pod("pod-a", "web", &LISTEN);
    pod.ready = false;
    stage.apply(&[&pod.manifest(), &service("web", DUAL)]);
    assert_all_refused(&stage, "the pod is not ready", [80, 53], Errno::REFUSED);
    pod.ready = true;
    stage.apply(&[&pod.manifest()]);
    let web = stage.frontend("web", 80);
    assert_eq!(stage.probe().tcp(web), Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
}

fn a_port_no_service_defines_refuses() {
    let mut stage = Stage::start();
    // The pod does listen on these ports: only the Service decides.
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(81), Listen::Udp(80), Listen::Tcp(53)]);
    stage.apply(&[&pod.manifest(), &service("web", DUAL)]);
    assert_all_refused(&stage, "ports of no Service", [81, 54], Errno::REFUSED);
    assert_all_refused(&stage, "the other protocol's ports", [53, 80], Errno::REFUSED);
}

fn an_unallocated_address_is_unreachable() {
    let stage = Stage::start();
    let probe = stage.probe();
    for address in ["10.96.77.77:80", "10.111.255.254:80", "[fd00:10:96::7777]:80"] {
        let to = address.parse().expect("an address");
        assert_refused(address, probe.tcp(to), Errno::HOST_UNREACHABLE);
        assert_refused(address, probe.udp(to), Errno::HOST_UNREACHABLE);
        assert_refused(address, probe.udp_unconnected(to), Errno::HOST_UNREACHABLE);
    }
}

fn a_deleted_service_is_unreachable() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &LISTEN);
    stage.apply(&[&pod.manifest(), &service("web", DUAL)]);
    let vips = stage.vips("web");
    let probe = stage.probe();
    vips.iter().for_each(|vip| {
        probe.tcp(SocketAddr::new(*vip, 80)).expect("served before it is deleted");
    });
    stage.agent.delete("svc", "web");
    for vip in vips {
        let (tcp, udp) = (SocketAddr::new(vip, 80), SocketAddr::new(vip, 53));
        assert_refused("TCP, deleted", probe.tcp(tcp), Errno::HOST_UNREACHABLE);
        assert_refused("UDP, deleted", probe.udp(udp), Errno::HOST_UNREACHABLE);
        assert_refused("sendto, deleted", probe.udp_unconnected(udp), Errno::HOST_UNREACHABLE);
    }
}

fn a_refused_socket_can_be_used_for_another_address() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &LISTEN);
    stage.apply(&[&pod.manifest(), &service("web", DUAL)]);
    let (web, closed) = (stage.frontend("web", 80), stage.frontend("web", 81));
    let probe = stage.probe();
    let socket = probe.open(Kind::Tcp4);
    assert_refused("the unknown port", socket.connect(closed), Errno::REFUSED);
    assert_eq!(socket.connect(web), Ok(()), "the same socket to a port that is served");
    assert_eq!((socket.peer(), socket.greeting()), (Ok(web), Ok("pod-a".to_owned())));
}

fn an_address_outside_the_service_range_is_left_alone() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &LISTEN);
    stage.apply(&[&pod.manifest(), &service("web", DUAL)]);
    let probe = stage.probe();
    for address in ["10.112.0.1:80", "10.95.255.255:80", "[fd00:10:97::1]:80"] {
        let to = address.parse().expect("an address");
        assert_refused(address, probe.tcp(to), Errno::NET_UNREACHABLE);
    }
    for like in stage.vips("web") {
        let (tcp, udp) = (pod.address(like, 80), pod.address(like, 53));
        let seen = |peer| Ok(Visit { pod: "pod-a".to_owned(), peer });
        assert_eq!(probe.tcp(tcp), seen(tcp), "the pod itself");
        assert_eq!(probe.udp(udp), seen(udp), "the pod itself");
        assert_eq!(probe.udp_unconnected(udp), seen(udp), "the pod itself");
    }
}

fn every_outcome_is_counted_once() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &LISTEN);
    let empty = service("empty", "selector: {app: nobody}, ports: [{port: 80}]");
    stage.apply(&[&pod.manifest(), &service("web", DUAL), &empty]);
    let (tcp, udp) = (stage.frontend("web", 80), stage.frontend("web", 53));
    let (empty, unknown) = (stage.frontend("empty", 80), stage.frontend("web", 81));
    let nobody: SocketAddr = "10.96.77.77:80".parse().expect("an address");
    let direct = pod.address(tcp.ip(), 80);
    let probe = stage.probe();

    let before = stage.agent.status();
    probe.tcp(tcp).expect("translated");
    probe.tcp(direct).expect("left alone, and not counted");
    assert_refused("no endpoints", probe.tcp(empty), Errno::REFUSED);
    assert_refused("unknown port", probe.tcp(unknown), Errno::REFUSED);
    assert_refused("unallocated", probe.tcp(nobody), Errno::HOST_UNREACHABLE);
    probe.udp(udp).expect("translated");
    assert_refused("unknown port", probe.udp(unknown), Errno::REFUSED);
    let socket = probe.open(Kind::Udp4);
    for _ in 0..2 {
        socket.send_to(udp, "?").expect("translated, then kept");
        socket.receive().expect("an answer");
    }
    assert_refused("unknown port", probe.udp_unconnected(unknown), Errno::REFUSED);
    let after = stage.agent.status();

    let deltas = [
        (Op::TcpConnect, "translated", 1),
        (Op::TcpConnect, "noEndpoints", 1),
        (Op::TcpConnect, "unknownPort", 1),
        (Op::TcpConnect, "unallocated", 1),
        (Op::TcpConnect, "originFull", 0),
        (Op::UdpConnect, "translated", 1),
        (Op::UdpConnect, "unknownPort", 1),
        (Op::UdpSend, "translated", 1),
        // The second datagram of the same socket goes to the backend it has.
        (Op::UdpSend, "kept", 1),
        (Op::UdpSend, "unknownPort", 1),
        // The answers to the connected and to the unconnected socket.
        (Op::UdpReceive, "reversed", 3),
        // `getpeername` of the translated TCP and of the connected UDP socket.
        (Op::PeerName, "reversed", 2),
    ];
    for (op, reason, wanted) in deltas {
        let moved = after.counter(op, reason) - before.counter(op, reason);
        assert_eq!(moved, wanted, "{op:?}.{reason}: {after:?}");
    }
}
