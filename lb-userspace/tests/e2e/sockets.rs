//! Sockets used in less usual ways: connected again, MPTCP, by the resolver.

use std::net::{IpAddr, SocketAddr};

use libtest_mimic::Trial;

use crate::harness::status::Op;
use crate::harness::{Listen, Stage, cases, service};
use crate::probe::{Errno, Kind, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_udp_socket_can_be_connected_to_another_vip_and_to_a_pod,
        a_udp_socket_connected_to_a_vip_loses_its_peer_when_disconnected,
        a_tcp_socket_can_be_disconnected_and_connected_to_another_vip_and_to_a_pod,
        a_backend_reached_directly_is_not_taken_for_the_vip,
        an_mptcp_socket_reaches_a_tcp_backend,
        an_mptcp_socket_reaches_an_mptcp_backend,
        getaddrinfo_returns_both_addresses_and_its_probes_are_counted_apart,
        getaddrinfo_of_a_service_without_endpoints_returns_both_addresses,
    ]
}

/// Two Services, `one` served by `pod-one` and `two` by `pod-two`, on port 80 of both protocols.
fn two_services() -> (Stage, [SocketAddr; 2], SocketAddr) {
    let mut stage = Stage::start();
    let listen = [Listen::Tcp(80), Listen::Udp(80)];
    let mut objects = Vec::new();
    let mut direct = None;
    for name in ["one", "two"] {
        let pod = stage.pod(&format!("pod-{name}"), name, &listen);
        objects.push(pod.manifest());
        let ports = "ports: [{name: tcp, port: 80}, {name: udp, port: 80, protocol: UDP}]";
        objects.push(service(name, &format!("selector: {{app: {name}}}, {ports}")));
        direct = Some(SocketAddr::new(pod.v4.into(), 80));
    }
    stage.apply(&objects.iter().map(String::as_str).collect::<Vec<_>>());
    let vips = [stage.frontend("one", 80), stage.frontend("two", 80)];
    (stage, vips, direct.expect("two pods"))
}

fn a_udp_socket_can_be_connected_to_another_vip_and_to_a_pod() {
    let (stage, [one, two], pod_two) = two_services();
    let probe = stage.probe();
    let socket = probe.open(Kind::Udp4);
    let road = [(one, "pod-one"), (two, "pod-two"), (pod_two, "pod-two"), (one, "pod-one")];
    for (to, pod) in road {
        socket.connect(to).unwrap_or_else(|errno| panic!("connect again, to {to}: {errno:?}"));
        assert_eq!(socket.peer(), Ok(to), "getpeername after connecting to {to}");
        socket.send("?").expect("send");
        assert_eq!(socket.receive(), Ok(Visit { pod: pod.to_owned(), peer: to }));
    }
}

fn a_udp_socket_connected_to_a_vip_loses_its_peer_when_disconnected() {
    let (stage, [one, two], _) = two_services();
    let probe = stage.probe();
    let socket = probe.open(Kind::Udp4);
    socket.connect(one).expect("connect");
    socket.disconnect().expect("connect with AF_UNSPEC");
    assert_refused("getpeername", socket.peer(), Errno(libc::ENOTCONN));
    socket.send_to(two, "?").expect("sendto, as the socket is unconnected again");
    assert_eq!(socket.receive(), Ok(Visit { pod: "pod-two".to_owned(), peer: two }));
}

fn a_tcp_socket_can_be_disconnected_and_connected_to_another_vip_and_to_a_pod() {
    let (stage, [one, two], pod_two) = two_services();
    let probe = stage.probe();
    let socket = probe.open(Kind::Tcp4);
    for (to, pod) in [(one, "pod-one"), (two, "pod-two"), (pod_two, "pod-two")] {
        socket.connect(to).unwrap_or_else(|errno| panic!("connect again, to {to}: {errno:?}"));
        assert_eq!(socket.peer(), Ok(to), "getpeername after connecting to {to}");
        assert_eq!(socket.greeting().as_deref(), Ok(pod), "who answers at {to}");
        socket.disconnect().expect("connect with AF_UNSPEC");
    }
}

fn a_backend_reached_directly_is_not_taken_for_the_vip() {
    let (stage, [_, two], pod_two) = two_services();
    let probe = stage.probe();
    let (through, direct) = (probe.open(Kind::Tcp4), probe.open(Kind::Tcp4));
    through.connect(two).expect("connect to the ClusterIP");
    direct.connect(pod_two).expect("connect to the pod");
    assert_eq!((through.peer(), direct.peer()), (Ok(two), Ok(pod_two)));
}

/// MPTCP's `getpeername` is a stated exception: only who answers is judged here. That no origin
/// slot is left behind is judged in `slots`.
fn assert_mptcp_is_served(listen: Listen) {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[listen]);
    let spec = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80}]";
    stage.apply(&[&pod.manifest(), &service("web", spec)]);
    let probe = stage.probe();
    for vip in stage.vips("web") {
        let to = SocketAddr::new(vip, 80);
        let kind = if vip.is_ipv4() { Kind::Mptcp4 } else { Kind::Mptcp6 };
        let socket = probe.open(kind);
        socket.connect(to).unwrap_or_else(|errno| panic!("{kind:?} to {to}: {errno:?}"));
        assert_eq!(socket.greeting().as_deref(), Ok("pod-a"), "{kind:?} to {to}");
        assert_eq!(socket.echo("still there?").as_deref(), Ok("still there?"));
        let nobody = SocketAddr::new(vip, 81);
        assert_refused("an unknown port", probe.stream(kind, nobody), Errno::REFUSED);
    }
}

fn an_mptcp_socket_reaches_a_tcp_backend() {
    assert_mptcp_is_served(Listen::Tcp(80));
}

fn an_mptcp_socket_reaches_an_mptcp_backend() {
    assert_mptcp_is_served(Listen::Mptcp(80));
}

/// The C library connects a UDP socket to each address of a name, to sort them by the route. These
/// sockets send nothing; for a TCP-only Service each is an unknown port.
fn assert_resolves(stage: &Stage, reason: &str) {
    let vips = stage.vips("web");
    let lines: Vec<_> = vips.iter().map(|vip| format!("{vip} web.default.svc\n")).collect();
    let probe = stage.probe_with_hosts(&lines.concat());

    let before = stage.agent.status();
    let mut found: Vec<IpAddr> = probe.resolve("web.default.svc", "80");
    let after = stage.agent.status();
    found.sort();
    assert_eq!(found, vips, "getaddrinfo returns both addresses of the Service");

    let moved = |op| after.counter(op, reason) - before.counter(op, reason);
    if cfg!(target_env = "gnu") {
        assert_eq!(moved(Op::UdpConnect), 2, "udpConnect.{reason}: one probe per address");
    }
    for reason in ["translated", "kept", "noEndpoints", "unknownPort", "unallocated"] {
        let moved = after.counter(Op::TcpConnect, reason) - before.counter(Op::TcpConnect, reason);
        assert_eq!(moved, 0, "tcpConnect.{reason} must not count a resolver's probes");
    }
}

fn getaddrinfo_returns_both_addresses_and_its_probes_are_counted_apart() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let spec = "ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80}]";
    stage.apply(&[&pod.manifest(), &service("web", spec)]);
    assert_resolves(&stage, "unknownPort");
    let probe = stage.probe();
    for vip in stage.vips("web") {
        let to = SocketAddr::new(vip, 80);
        assert_eq!(probe.tcp(to), Ok(Visit { pod: "pod-a".to_owned(), peer: to }));
    }
}

fn getaddrinfo_of_a_service_without_endpoints_returns_both_addresses() {
    let stage = Stage::start();
    let spec = "ipFamilyPolicy: RequireDualStack, selector: {app: nobody},
        ports: [{port: 80, protocol: UDP}]";
    stage.apply(&[&service("web", spec)]);
    assert_resolves(&stage, "noEndpoints");
}
