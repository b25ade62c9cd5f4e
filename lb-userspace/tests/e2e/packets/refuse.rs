//! What clients are told where nobody serves them, and pings.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::{LISTEN, ways, web};
use crate::harness::lan::EXTERNAL;
use crate::harness::status::Op;
use crate::harness::{Lan, cases};
use crate::probe::{Errno, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_service_without_endpoints_refuses_at_once,
        an_unknown_port_is_refused_and_an_unallocated_address_unreachable,
        pings_to_services_are_answered,
    ]
}

/// Less than it takes to find that a neighbour does not answer. An ICMP error that comes back while `connect` still sends,
/// as it does where no real wire lies between, is noted only when a second has passed and the SYN is sent again.
const AT_ONCE: Duration = Duration::from_millis(2_500);

/// That a refusal comes by a packet, not by waiting: of three, on a busy machine.
#[track_caller]
fn assert_at_once(what: &str, attempt: impl Fn()) {
    let took = (0..3).map(|_| {
        let start = Instant::now();
        attempt();
        start.elapsed()
    });
    let fastest = took.min().unwrap_or_default();
    assert!(fastest < AT_ONCE, "{what}: refused after {fastest:?}");
}

fn a_service_without_endpoints_refuses_at_once() {
    let lan = Lan::start();
    lan.apply(&[&web("web", "web", "")]);
    let probe = lan.probe();
    for to in ways(&lan, "web") {
        assert_at_once(&format!("{to}"), || {
            assert_refused(&format!("TCP to {to}"), probe.tcp(to), Errno::REFUSED);
        });
        assert_refused(&format!("UDP to {to}"), probe.udp(to), Errno::REFUSED);
    }
    let refused = lan.agent.status().counter(Op::Ingress, "noEndpoints");
    assert_eq!(refused, 8 * 4, "each by the packet programs");
}

fn an_unknown_port_is_refused_and_an_unallocated_address_unreachable() {
    let mut lan = Lan::start();
    let pod = lan.near_pod("near", "web", &LISTEN);
    lan.apply(&[&pod.manifest(), &web("web", "web", "")]);
    let probe = lan.probe();
    for ip in lan.vips("web") {
        let to = SocketAddr::new(ip, 81);
        assert_at_once(&format!("{to}"), || {
            assert_refused(&format!("TCP to {to}"), probe.tcp(to), Errno::REFUSED);
        });
        assert_refused(&format!("UDP to {to}"), probe.udp(to), Errno::REFUSED);
        let nobody = SocketAddr::new(neighbour(ip), 80);
        assert_at_once(&format!("{nobody}"), || {
            assert_refused(&format!("TCP to {nobody}"), probe.tcp(nobody), Errno::HOST_UNREACHABLE);
        });
    }
    let status = lan.agent.status();
    assert_eq!(status.counter(Op::Ingress, "unknownPort"), 2 * 4, "by the packet programs");
    let unreachable = status.counter(Op::Ingress, "unallocated");
    assert!((2 * 3..=2 * 6).contains(&unreachable), "a SYN or two each: {unreachable}");
}

/// Another address of the range, which no Service has.
fn neighbour(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() ^ 0x100).into()),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() ^ 0x100).into()),
    }
}

fn pings_to_services_are_answered() {
    let lan = Lan::start();
    lan.apply(&[&web("web", "web", "")]);
    let before = lan.agent.status().counter(Op::Ingress, "echoReply");
    for ip in EXTERNAL.into_iter().chain(lan.vips("web")) {
        // The second has fragments.
        for size in [56, 8000] {
            let arguments = format!("-n -q -c 3 -i 0.2 -W 5 -s {size} {ip}");
            let answered = lan.client.command("ping", &arguments).ok();
            answered.mentions(&["3 received", " 0% packet loss"]);
        }
    }
    let answered = lan.agent.status().counter(Op::Ingress, "echoReply") - before;
    assert!(answered >= 4 * (3 + 3), "the packet programs did: {answered}");
}
