//! The harness itself: what the other tests rely on holds without any load balancer.

use libtest_mimic::Trial;

use crate::harness::statistics::chi_square;
use crate::harness::{Listen, Stage, cases};
use crate::probe::{Errno, Kind, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_direct_connection_reaches_the_pod_and_getpeername_shows_it,
        an_untranslated_cluster_ip_is_unreachable,
        a_direct_burst_counts_every_visit,
        an_uneven_spread_is_noticed,
    ]
}

fn a_direct_connection_reaches_the_pod_and_getpeername_shows_it() {
    let mut stage = Stage::without_agent();
    let listen = [Listen::Tcp(80), Listen::Udp(53), Listen::Mptcp(81)];
    let pod = stage.pod("pod-a", "web", &listen);
    let probe = stage.probe();
    for like in [pod.v4.into(), pod.v6.into()] {
        let (tcp, mptcp, udp) =
            (pod.address(like, 80), pod.address(like, 81), pod.address(like, 53));
        let seen = |peer| Ok(Visit { pod: "pod-a".to_owned(), peer });
        assert_eq!(probe.tcp(tcp), seen(tcp));
        assert_eq!(probe.tcp(mptcp), seen(mptcp));
        assert_eq!(probe.udp(udp), seen(udp));
        assert_eq!(probe.udp_unconnected(udp), seen(udp));
        let kind = if tcp.is_ipv4() { Kind::Mptcp4 } else { Kind::Mptcp6 };
        assert_eq!(probe.stream(kind, tcp), seen(tcp), "MPTCP to a TCP server");
        assert_eq!(probe.stream(kind, mptcp), seen(mptcp), "MPTCP to an MPTCP server");
    }
}

fn an_untranslated_cluster_ip_is_unreachable() {
    let stage = Stage::without_agent();
    let probe = stage.probe();
    for vip in ["10.96.0.10:80", "[fd00:10:96::10]:80"] {
        let to = vip.parse().expect("an address");
        assert_refused(vip, probe.tcp(to), Errno::NET_UNREACHABLE);
        assert_refused(vip, probe.udp(to), Errno::NET_UNREACHABLE);
        assert_refused(vip, probe.udp_unconnected(to), Errno::NET_UNREACHABLE);
    }
}

fn a_direct_burst_counts_every_visit() {
    let mut stage = Stage::without_agent();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let probe = stage.probe();
    let there = pod.address(pod.v4.into(), 80);
    let nobody = pod.address(pod.v4.into(), 81);

    let tally = probe.burst(Kind::Tcp4, there, 500);
    tally.assert_all_answered("500 visits to a pod");
    assert_eq!(tally.by("pod-a"), 500);
    let tally = probe.burst(Kind::Tcp4, nobody, 10);
    assert_eq!(
        tally.failures.get("ECONNREFUSED"),
        Some(&10),
        "a port nobody listens on: {tally:?}"
    );
}

fn an_uneven_spread_is_noticed() {
    assert!(chi_square(&[1000, 1000, 1000]) < 0.1);
    // Two of three backends get everything: what a biased choice would do.
    assert!(chi_square(&[1500, 1500, 0]) > 1000.0);
    // A bias of a few per cent shows in 3,000 connections.
    assert!(chi_square(&[1150, 950, 900]) > 2.0 * 1e6_f64.ln());
}
