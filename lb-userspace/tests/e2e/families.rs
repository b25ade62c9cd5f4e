//! IPv6, dual-stack Services, and IPv4 through IPv6 sockets.

use std::net::{IpAddr, SocketAddr};

use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, service};
use crate::probe::{Errno, Kind, Probe, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        an_ipv6_service_is_reached_by_tcp_and_udp,
        a_dual_stack_service_is_reached_by_both_addresses,
        an_ipv6_vip_spreads_over_the_pods_and_always_shows_itself,
        an_ipv6_socket_reaches_an_ipv4_vip_by_its_mapped_address,
        a_refusal_is_the_same_by_a_mapped_address,
        prefer_dual_stack_takes_the_one_family_there_is,
        require_dual_stack_is_refused_where_there_is_one_family,
        the_first_family_asked_for_gives_the_first_address,
    ]
}

const PORTS: &str = "selector: {app: web}, ports: [
    {name: tcp, port: 80}, {name: udp, port: 53, protocol: UDP}]";
const LISTEN: [Listen; 2] = [Listen::Tcp(80), Listen::Udp(53)];

/// The Service `web` with families as given.
fn web(families: &str) -> String {
    service("web", &format!("{families}, {PORTS}"))
}

/// TCP, connected UDP and unconnected UDP all reach `pod-a` and show the address asked for.
#[track_caller]
fn assert_serves(probe: &Probe, vip: IpAddr) {
    let (tcp, udp) = (SocketAddr::new(vip, 80), SocketAddr::new(vip, 53));
    let seen = |peer| Ok(Visit { pod: "pod-a".to_owned(), peer });
    assert_eq!(probe.tcp(tcp), seen(tcp), "TCP");
    assert_eq!(probe.udp(udp), seen(udp), "connected UDP");
    assert_eq!(probe.udp_unconnected(udp), seen(udp), "unconnected UDP");
}

fn an_ipv6_service_is_reached_by_tcp_and_udp() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &LISTEN);
    stage.apply(&[&pod.manifest(), &web("ipFamilies: [IPv6]")]);
    let vips = stage.vips("web");
    assert!(vips.len() == 1 && vips[0].is_ipv6(), "one IPv6 address: {vips:?}");
    assert_serves(&stage.probe(), vips[0]);
}

fn a_dual_stack_service_is_reached_by_both_addresses() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &LISTEN);
    stage.apply(&[&pod.manifest(), &web("ipFamilyPolicy: RequireDualStack")]);
    let vips = stage.vips("web");
    assert_eq!(vips.len(), 2, "two addresses: {vips:?}");
    assert!(vips[0].is_ipv4() && vips[1].is_ipv6(), "one of each family: {vips:?}");
    let probe = stage.probe();
    vips.into_iter().for_each(|vip| assert_serves(&probe, vip));
}

fn an_ipv6_vip_spreads_over_the_pods_and_always_shows_itself() {
    let mut stage = Stage::start();
    let pods = ["pod-a", "pod-b"].map(|name| stage.pod(name, "web", &LISTEN).manifest());
    stage.apply(&[&pods[0], &pods[1], &web("ipFamilies: [IPv6]")]);
    let probe = stage.probe();
    for (kind, port) in [(Kind::Tcp6, 80), (Kind::Udp6, 53)] {
        let tally = probe.burst(kind, stage.frontend("web", port), 200);
        tally.assert_all_answered(&format!("200 visits by {kind:?}"));
        // All 200 at one of two pods: 2 × 2^-200.
        assert_eq!(tally.answers.len(), 2, "both pods are used by {kind:?}: {tally:?}");
    }
}

/// `::ffff:a.b.c.d`, which a dual-stack socket uses for IPv4.
fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => panic!("{address} is not IPv4"),
    }
}

fn an_ipv6_socket_reaches_an_ipv4_vip_by_its_mapped_address() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &LISTEN);
    stage.apply(&[&pod.manifest(), &service("web", PORTS)]);
    let vip = mapped(stage.frontend("web", 80)).ip();
    assert_serves(&stage.probe(), vip);
}

fn a_refusal_is_the_same_by_a_mapped_address() {
    let stage = Stage::start();
    stage.apply(&[&service("web", PORTS)]);
    let probe = stage.probe();
    let empty = mapped(stage.frontend("web", 80));
    let no_port = mapped(stage.frontend("web", 81));
    let nobody = mapped("10.96.200.200:80".parse().expect("an address"));
    for (what, to, errno) in [
        ("no endpoints", empty, Errno::REFUSED),
        ("unknown port", no_port, Errno::REFUSED),
        ("unallocated address", nobody, Errno::HOST_UNREACHABLE),
    ] {
        assert_refused(&format!("{what}, TCP to {to}"), probe.tcp(to), errno);
    }
    let no_port = mapped(stage.frontend("web", 54));
    assert_refused("unknown port, UDP", probe.udp(no_port), Errno::REFUSED);
    assert_refused("unknown port, sendto", probe.udp_unconnected(no_port), Errno::REFUSED);
}

/// A stage whose agent has an IPv4 range only.
fn single_stack() -> Stage {
    let mut stage = Stage::without_agent();
    "10.96.0.0/12".clone_into(&mut stage.agent.service_cidrs);
    stage.agent.start();
    stage
}

fn prefer_dual_stack_takes_the_one_family_there_is() {
    let mut stage = single_stack();
    let pod = stage.pod("pod-a", "web", &LISTEN);
    stage.apply(&[&pod.manifest(), &web("ipFamilyPolicy: PreferDualStack")]);
    let vips = stage.vips("web");
    assert!(vips.len() == 1 && vips[0].is_ipv4(), "one IPv4 address: {vips:?}");
    assert_serves(&stage.probe(), vips[0]);
}

fn require_dual_stack_is_refused_where_there_is_one_family() {
    let stage = single_stack();
    let output = stage.agent.try_apply(&[&web("ipFamilyPolicy: RequireDualStack")]).refused();
    output.complains(&["Service \"web\" is invalid: spec.ipFamilyPolicy", "RequireDualStack"]);
}

fn the_first_family_asked_for_gives_the_first_address() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &LISTEN);
    let families = "ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6, IPv4]";
    stage.apply(&[&pod.manifest(), &web(families)]);
    let vips = stage.vips("web");
    assert!(vips.len() == 2 && vips[0].is_ipv6(), "IPv6 first: {vips:?}");
    assert_eq!(
        stage.agent.get("svc", "web")["spec"]["clusterIP"].as_str(),
        Some(vips[0].to_string().as_str()),
        "clusterIP is the first of clusterIPs"
    );
    let probe = stage.probe();
    vips.into_iter().for_each(|vip| assert_serves(&probe, vip));
}
