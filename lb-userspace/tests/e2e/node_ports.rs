//! NodePorts, from the node itself and from the pods on it.

use std::net::{IpAddr, SocketAddr};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{Listen, Stage, cases, eventually, service};
use crate::probe::{Errno, Kind, Probe, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_node_port_is_served_on_the_nodes_addresses,
        an_address_is_served_while_the_node_has_it,
        a_flood_of_changes_is_survived,
        addresses_may_change_while_no_agent_is_there,
        loopback_is_served_on_the_node,
        loopback_of_another_namespace_is_its_own,
        a_node_port_cannot_be_bound_on_the_node,
        a_wildcard_of_ipv6_stands_for_ipv4_too,
        a_port_that_was_given_up_can_be_bound,
        other_ports_of_the_node_stay_as_they_are,
        ranges_narrow_the_addresses,
        policies_of_outside_and_inside_traffic_do_not_narrow_it,
        a_new_agent_goes_on_without_a_gap,
    ]
}

const TCP: u16 = 30080;
const UDP: u16 = 30053;
const NODE: [&str; 2] = ["10.244.0.1", "fd00:10:244::1"];

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

fn ip(address: &str) -> IpAddr {
    address.parse().expect("an address")
}

/// The Service `web` of both families with a NodePort of each protocol.
fn web() -> String {
    service(
        "web",
        &format!(
            "type: NodePort, ipFamilyPolicy: RequireDualStack, selector: {{app: web}}, ports: [
             {{name: tcp, port: 80, nodePort: {TCP}}},
             {{name: udp, port: 53, protocol: UDP, nodePort: {UDP}}}]"
        ),
    )
}

/// A stage with `pod-a` behind the Service `web`.
fn stage() -> Stage {
    stage_with(&[])
}

/// The agent has these options.
fn stage_with(options: &[&str]) -> Stage {
    let mut stage = Stage::without_agent();
    stage.agent.set_options(options);
    stage.agent.start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Udp(53)]);
    stage.apply(&[&web(), &pod.manifest()]);
    stage
}

/// TCP, connected UDP and unconnected UDP all reach `pod-a` and show the address asked for.
#[track_caller]
fn assert_served(probe: &Probe, address: &str) {
    let (tcp, udp) = (at(address, TCP), at(address, UDP));
    let seen = |peer| Ok(Visit { pod: "pod-a".to_owned(), peer });
    assert_eq!(probe.tcp(tcp), seen(tcp), "TCP to {tcp}");
    assert_eq!(probe.udp(udp), seen(udp), "connected UDP to {udp}");
    assert_eq!(probe.udp_unconnected(udp), seen(udp), "unconnected UDP to {udp}");
}

fn bind(probe: &Probe, kind: Kind, to: SocketAddr) -> Result<(), Errno> {
    probe.open(kind).bind(to)
}

fn a_node_port_is_served_on_the_nodes_addresses() {
    let stage = stage();
    for probe in [stage.probe(), stage.probe_among_pods()] {
        for address in NODE {
            assert_served(&probe, address);
        }
    }
    let status = stage.agent.status();
    let shown = status.node_port_addresses();
    assert_eq!(shown, ["10.244.0.1", "127.0.0.1", "::1", "fd00:10:244::1"]);
}

fn an_address_is_served_while_the_node_has_it() {
    let stage = stage();
    let probe = stage.probe();
    let (v4, v6) = ("10.244.0.77", "fd00:10:244::77");
    for _ in 0..3 {
        stage.node.ip(&format!("addr add {v4}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad"));
        for address in [v4, v6] {
            assert_served_soon(&probe, address);
        }
        stage.node.ip(&format!("addr del {v4}/32 dev eth0\naddr del {v6}/128 dev eth0"));
        for address in [v4, v6] {
            assert_gone_soon(&probe, address);
        }
    }
    assert_served(&probe, NODE[0]);
}

#[track_caller]
fn assert_served_soon(probe: &Probe, address: &str) {
    eventually(&format!("{address} is served"), || {
        probe.tcp(at(address, TCP)).map_err(|errno| format!("{errno:?}"))
    });
    assert_served(probe, address);
}

#[track_caller]
fn assert_gone_soon(probe: &Probe, address: &str) {
    eventually(&format!("{address} is not served"), || match probe.tcp(at(address, TCP)) {
        Err(Errno::NET_UNREACHABLE) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// More announcements than the agent's socket holds.
fn a_flood_of_changes_is_survived() {
    let stage = stage();
    let probe = stage.probe();
    stage.agent.signal(Signal::STOP);
    let flood = "addr add 192.0.2.200/32 dev eth0\naddr del 192.0.2.200/32 dev eth0\n".repeat(2000);
    stage.node.ip(&format!("{flood}addr add 10.244.0.77/32 dev eth0"));
    stage.agent.signal(Signal::CONT);
    assert_served_soon(&probe, "10.244.0.77");
    assert_gone_soon(&probe, "192.0.2.200");
    stage.node.ip("addr del 10.244.0.77/32 dev eth0");
    assert_gone_soon(&probe, "10.244.0.77");
}

fn addresses_may_change_while_no_agent_is_there() {
    let mut stage = stage();
    let probe = stage.probe();
    stage.node.ip("addr add 10.244.0.77/32 dev eth0");
    assert_served_soon(&probe, "10.244.0.77");
    stage.agent.kill_nine();
    stage.node.ip("addr del 10.244.0.77/32 dev eth0\naddr add 10.244.0.78/32 dev eth0");
    stage.agent.start();
    assert_served_soon(&probe, "10.244.0.78");
    assert_gone_soon(&probe, "10.244.0.77");
}

fn loopback_is_served_on_the_node() {
    let stage = stage();
    let probe = stage.probe();
    for address in ["127.0.0.1", "127.0.0.5", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"] {
        assert_served(&probe, address);
    }
}

fn loopback_of_another_namespace_is_its_own() {
    let stage = stage();
    let probe = stage.probe_among_pods();
    for address in ["127.0.0.1", "::1"] {
        let to = at(address, TCP);
        assert_refused("nobody listens", probe.tcp(to), Errno::REFUSED);
        let _own = stage.server_among_pods("own", ip(address), Listen::Tcp(TCP));
        assert_eq!(probe.tcp(to), Ok(Visit { pod: "own".to_owned(), peer: to }), "{to}");
    }
    for (kind, address) in [(Kind::Udp4, "127.0.0.1"), (Kind::Udp4, "0.0.0.0"), (Kind::Udp6, "::")]
    {
        assert_eq!(bind(&probe, kind, at(address, UDP)), Ok(()), "binding {address}");
    }
}

fn a_node_port_cannot_be_bound_on_the_node() {
    let stage = stage();
    let probe = stage.probe();
    let v4 = ["0.0.0.0", "127.0.0.1", "127.0.0.9", NODE[0]];
    let v6 = ["::", "::1", NODE[1]];
    let of = |kinds: [Kind; 2], addresses: &[&str]| -> Vec<_> {
        addresses.iter().map(|&address| (kinds, address.to_owned())).collect()
    };
    let v4 = of([Kind::Tcp4, Kind::Udp4], &v4);
    for ([tcp, udp], address) in v4.into_iter().chain(of([Kind::Tcp6, Kind::Udp6], &v6)) {
        let bound = |kind, port| bind(&probe, kind, at(&address, port));
        assert_refused(&format!("TCP {address}"), bound(tcp, TCP), Errno::IN_USE);
        assert_refused(&format!("UDP {address}"), bound(udp, UDP), Errno::IN_USE);
        assert_eq!(bound(tcp, UDP), Ok(()), "{address}: a port of the other protocol");
        assert_eq!(bound(udp, TCP), Ok(()), "{address}: a port of the other protocol");
        assert_eq!(bound(tcp, 80), Ok(()), "{address}: the Service's own port");
        assert_eq!(bound(tcp, 0), Ok(()), "{address}: any port");
    }
}

fn a_wildcard_of_ipv6_stands_for_ipv4_too() {
    let stage = Stage::start();
    let spec = format!("type: NodePort, ports: [{{port: 80, nodePort: {TCP}}}]");
    stage.apply(&[&service("web", &spec)]);
    let probe = stage.probe();
    assert_refused("::", bind(&probe, Kind::Tcp6, at("::", TCP)), Errno::IN_USE);
    assert_eq!(bind(&probe, Kind::Tcp6, at("::1", TCP)), Ok(()), "an address of IPv6 alone");
}

fn a_port_that_was_given_up_can_be_bound() {
    let stage = stage();
    let probe = stage.probe();
    let bound = || bind(&probe, Kind::Tcp4, at("0.0.0.0", TCP));
    assert_refused("the NodePort", bound(), Errno::IN_USE);
    stage.apply(&[&web().replace("30080", "30081")]);
    assert_eq!(bound(), Ok(()), "the Service has another NodePort");
    stage.apply(&[&web()]);
    assert_refused("the NodePort again", bound(), Errno::IN_USE);
    stage.agent.delete("svc", "web");
    assert_eq!(bound(), Ok(()), "the Service is gone");
    assert_refused("and nobody listens", probe.tcp(at("127.0.0.1", TCP)), Errno::REFUSED);
}

fn other_ports_of_the_node_stay_as_they_are() {
    let stage = stage();
    let probes = [stage.probe(), stage.probe_among_pods()];
    for address in NODE {
        let to = at(address, 22);
        let _server = stage.server_on_node("sshd", to.ip(), Listen::Tcp(22));
        for probe in &probes {
            assert_eq!(probe.tcp(to), Ok(Visit { pod: "sshd".to_owned(), peer: to }), "{to}");
        }
    }
}

fn ranges_narrow_the_addresses() {
    let stage = stage_with(&["--nodeport-addresses", "10.244.0.0/16,fd00:10:244::1/128"]);
    stage.node.ip("addr add 192.0.2.1/32 dev eth0");
    let probe = stage.probe();
    NODE.iter().for_each(|address| assert_served(&probe, address));
    for address in ["127.0.0.1", "::1", "192.0.2.1"] {
        let to = at(address, TCP);
        assert_refused("not selected, and nobody listens", probe.tcp(to), Errno::REFUSED);
        assert_eq!(bind(&probe, Kind::tcp(to), to), Ok(()), "binding {to}");
    }
    let all = at("0.0.0.0", TCP);
    assert_refused("all addresses", bind(&probe, Kind::Tcp4, all), Errno::IN_USE);
}

fn policies_of_outside_and_inside_traffic_do_not_narrow_it() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80), Listen::Udp(53)]);
    let elsewhere = pod.manifest().replace("spec: {", "spec: {nodeName: elsewhere, ");
    let policies = "spec: {externalTrafficPolicy: Local, internalTrafficPolicy: Local, ";
    stage.apply(&[&web().replace("spec: {", policies), &elsewhere]);
    let probe = stage.probe();
    NODE.iter().for_each(|address| assert_served(&probe, address));
    let cluster_ip = stage.frontend("web", 80);
    assert_refused("the ClusterIP", probe.tcp(cluster_ip), Errno::REFUSED);
}

fn a_new_agent_goes_on_without_a_gap() {
    let mut stage = stage();
    let (address, loopback) = (stage.probe(), stage.probe());
    address.load_start(Kind::Tcp4, at(NODE[0], TCP));
    loopback.load_start(Kind::Tcp6, at("::1", TCP));
    for _ in 0..3 {
        stage.agent.kill_nine();
        stage.agent.start();
    }
    for load in [address, loopback] {
        load.load_stop()[0].assert_all_answered("connections to a NodePort over restarts");
    }
    assert_served(&stage.probe(), "127.0.0.1");
}
