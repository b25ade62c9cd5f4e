//! UDP through a ClusterIP, connected and not.

use std::collections::BTreeMap;

use libtest_mimic::Trial;

use crate::harness::statistics::assert_even_thirds;
use crate::harness::{Listen, Stage, cases, service};
use crate::probe::{Kind, Visit};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_connected_socket_is_answered_by_the_vip,
        an_unconnected_socket_is_answered_by_the_vip,
        two_vips_on_one_socket_each_answer_as_themselves,
        many_vips_on_one_socket_each_answer_as_themselves,
        two_vips_of_one_backend_each_answer_as_themselves,
        an_unconnected_socket_keeps_its_backend,
        an_unconnected_socket_leaves_a_backend_that_was_removed,
        a_pod_reached_directly_answers_as_itself_beside_a_vip,
        connected_sockets_spread_evenly_over_the_endpoints,
        unconnected_sockets_spread_over_the_endpoints,
    ]
}

const DNS: &str = "selector: {app: dns}, ports: [{port: 53, protocol: UDP}]";

/// A UDP Service on port 53 for the pods labelled `app`.
fn dns(name: &str, app: &str) -> String {
    service(name, &format!("selector: {{app: {app}}}, ports: [{{port: 53, protocol: UDP}}]"))
}

fn a_connected_socket_is_answered_by_the_vip() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "dns", &[Listen::Udp(53)]);
    stage.apply(&[&pod.manifest(), &service("dns", DNS)]);
    let vip = stage.frontend("dns", 53);
    assert_eq!(stage.probe().udp(vip), Ok(Visit { pod: "pod-a".to_owned(), peer: vip }));
}

fn an_unconnected_socket_is_answered_by_the_vip() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "dns", &[Listen::Udp(53)]);
    stage.apply(&[&pod.manifest(), &service("dns", DNS)]);
    let vip = stage.frontend("dns", 53);
    assert_eq!(
        stage.probe().udp_unconnected(vip),
        Ok(Visit { pod: "pod-a".to_owned(), peer: vip })
    );
}

fn two_vips_on_one_socket_each_answer_as_themselves() {
    let mut stage = Stage::start();
    let (a, b) = (
        stage.pod("pod-a", "one", &[Listen::Udp(53)]),
        stage.pod("pod-b", "two", &[Listen::Udp(53)]),
    );
    stage.apply(&[&a.manifest(), &b.manifest(), &dns("one", "one"), &dns("two", "two")]);
    let (one, two) = (stage.frontend("one", 53), stage.frontend("two", 53));
    let probe = stage.probe();
    let socket = probe.open(Kind::Udp4);
    for round in 0..3 {
        for (vip, pod) in [(one, "pod-a"), (two, "pod-b")] {
            socket.send_to(vip, "?").expect("sendto a ClusterIP");
            let wanted = Ok(Visit { pod: pod.to_owned(), peer: vip });
            assert_eq!(socket.receive(), wanted, "round {round}, {vip}");
        }
    }
    // Both questions first: the answers must not be taken for one another.
    socket.send_to(one, "?").expect("sendto a ClusterIP");
    socket.send_to(two, "?").expect("sendto a ClusterIP");
    for _ in 0..2 {
        let Visit { pod, peer } = socket.receive().expect("an answer");
        let wanted = if pod == "pod-a" { one } else { two };
        assert_eq!(peer, wanted, "the answer of {pod}");
    }
}

/// As a resolver does with its list of servers; up to 16 Services per socket are remembered.
fn many_vips_on_one_socket_each_answer_as_themselves() {
    let mut stage = Stage::start();
    let names: Vec<_> = (0..16).map(|number| format!("dns-{number}")).collect();
    let mut objects = Vec::new();
    for name in &names {
        objects.push(stage.pod(name, name, &[Listen::Udp(53)]).manifest());
        objects.push(dns(name, name));
    }
    stage.apply(&objects.iter().map(String::as_str).collect::<Vec<_>>());
    let vips: BTreeMap<_, _> =
        names.iter().map(|name| (name.clone(), stage.frontend(name, 53))).collect();
    let probe = stage.probe();
    let socket = probe.open(Kind::Udp4);
    for round in 0..2 {
        vips.values().for_each(|vip| socket.send_to(*vip, "?").expect("sendto a ClusterIP"));
        for _ in &vips {
            let Visit { pod, peer } = socket.receive().expect("an answer");
            assert_eq!(Some(&peer), vips.get(&pod), "round {round}, the answer of {pod}");
        }
    }
}

fn two_vips_of_one_backend_each_answer_as_themselves() {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "dns", &[Listen::Udp(53)]);
    stage.apply(&[&pod.manifest(), &dns("one", "dns"), &dns("two", "dns")]);
    let vips = [stage.frontend("one", 53), stage.frontend("two", 53)];
    let probe = stage.probe();
    let sockets = vips.map(|vip| (vip, probe.open(Kind::Udp4)));
    for _ in 0..3 {
        sockets.iter().for_each(|(vip, socket)| socket.send_to(*vip, "?").expect("sendto"));
        for (vip, socket) in &sockets {
            let wanted = Ok(Visit { pod: "pod-a".to_owned(), peer: *vip });
            assert_eq!(socket.receive(), wanted, "the socket that asked {vip}");
        }
    }
}

fn an_unconnected_socket_keeps_its_backend() {
    let mut stage = Stage::start();
    let pods = ["pod-a", "pod-b", "pod-c"].map(|name| stage.pod(name, "dns", &[Listen::Udp(53)]));
    let pods = pods.map(|pod| pod.manifest());
    stage.apply(&[&pods[0], &pods[1], &pods[2], &service("dns", DNS)]);
    let vip = stage.frontend("dns", 53);
    let probe = stage.probe();
    let socket = probe.open(Kind::Udp4);
    let answers: Vec<_> = (0..30)
        .map(|_| {
            socket.send_to(vip, "?").expect("sendto the ClusterIP");
            socket.receive().expect("an answer")
        })
        .collect();
    // By chance alone: 3 × 3^-30.
    assert!(answers.iter().all(|visit| *visit == answers[0]), "one backend: {answers:?}");
}

fn an_unconnected_socket_leaves_a_backend_that_was_removed() {
    let mut stage = Stage::start();
    let pods = ["pod-a", "pod-b"].map(|name| stage.pod(name, "dns", &[Listen::Udp(53)]));
    stage.apply(&[&pods[0].manifest(), &pods[1].manifest(), &service("dns", DNS)]);
    let vip = stage.frontend("dns", 53);
    let probe = stage.probe();
    let socket = probe.open(Kind::Udp4);
    socket.send_to(vip, "?").expect("sendto the ClusterIP");
    let first = socket.receive().expect("an answer").pod;
    stage.agent.delete("pod", &first);
    for _ in 0..10 {
        socket.send_to(vip, "?").expect("sendto the ClusterIP");
        let Visit { pod, peer } = socket.receive().expect("an answer of the other pod");
        assert_ne!(pod, first, "the removed pod answers no more");
        assert_eq!(peer, vip, "the answer's source");
    }
}

fn a_pod_reached_directly_answers_as_itself_beside_a_vip() {
    let mut stage = Stage::start();
    let (a, b) = (
        stage.pod("pod-a", "dns", &[Listen::Udp(53)]),
        stage.pod("pod-b", "other", &[Listen::Udp(53)]),
    );
    stage.apply(&[&a.manifest(), &b.manifest(), &service("dns", DNS)]);
    let vip = stage.frontend("dns", 53);
    let direct = b.address(vip.ip(), 53);
    let probe = stage.probe();
    let socket = probe.open(Kind::Udp4);
    for (to, pod) in [(vip, "pod-a"), (direct, "pod-b"), (vip, "pod-a"), (direct, "pod-b")] {
        socket.send_to(to, "?").expect("sendto");
        assert_eq!(socket.receive(), Ok(Visit { pod: pod.to_owned(), peer: to }));
    }
}

fn connected_sockets_spread_evenly_over_the_endpoints() {
    let mut stage = Stage::start();
    let pods = ["pod-a", "pod-b", "pod-c"].map(|name| stage.pod(name, "dns", &[Listen::Udp(53)]));
    let pods = pods.map(|pod| pod.manifest());
    stage.apply(&[&pods[0], &pods[1], &pods[2], &service("dns", DNS)]);
    let tally = stage.probe().burst(Kind::Udp4, stage.frontend("dns", 53), 3000);
    tally.assert_all_answered("3,000 connected UDP sockets");
    let counts = ["pod-a", "pod-b", "pod-c"].map(|pod| tally.by(pod));
    assert_even_thirds("connected UDP sockets to three pods", counts);
}

fn unconnected_sockets_spread_over_the_endpoints() {
    let mut stage = Stage::start();
    let pods = ["pod-a", "pod-b"].map(|name| stage.pod(name, "dns", &[Listen::Udp(53)]));
    stage.apply(&[&pods[0].manifest(), &pods[1].manifest(), &service("dns", DNS)]);
    let vip = stage.frontend("dns", 53);
    let probe = stage.probe();
    let mut answers = BTreeMap::new();
    for _ in 0..64 {
        let visit = probe.udp_unconnected(vip).expect("an answer");
        assert_eq!(visit.peer, vip, "the source of {}'s answer", visit.pod);
        *answers.entry(visit.pod).or_insert(0) += 1;
    }
    // All 64 at one of two pods: 2 × 2^-64.
    assert_eq!(answers.len(), 2, "both pods are used by fresh sockets: {answers:?}");
}
