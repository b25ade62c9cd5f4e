//! `sessionAffinity: ClientIP`: a client, that is, a network namespace, keeps its pod.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::{Listen, Pod, Stage, cases, eventually, service};
use crate::probe::{Errno, Kind, Probe, Tally, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_client_keeps_its_pod_over_connections_protocols_apart,
        each_network_namespace_is_a_client_of_its_own,
        an_affinity_runs_out_after_its_seconds_without_use,
        a_pod_that_left_is_replaced_and_the_next_one_kept,
        an_affinity_outlives_the_agent,
        an_affinity_that_is_taken_away_ends,
        a_service_whose_last_pod_left_refuses_in_spite_of_affinity,
        unconnected_udp_sockets_of_one_client_share_its_pod,
    ]
}

const LISTEN: [Listen; 2] = [Listen::Tcp(80), Listen::Udp(80)];

fn web(affinity: &str) -> String {
    service(
        "web",
        &format!(
            "{affinity}, selector: {{app: web}}, ports: [
            {{name: tcp, port: 80}}, {{name: udp, port: 80, protocol: UDP}}]"
        ),
    )
}

fn sticky(seconds: u32) -> String {
    web(&format!(
        "sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
    ))
}

/// Six pods: by chance, ten connections reach one and the same once in ten million times.
fn stage_with(web: &str) -> (Stage, Vec<Pod>) {
    let mut stage = Stage::start();
    let names = ["pod-a", "pod-b", "pod-c", "pod-d", "pod-e", "pod-f"];
    let pods: Vec<Pod> = names.iter().map(|name| stage.pod(name, "web", &LISTEN)).collect();
    let manifests: Vec<String> = pods.iter().map(Pod::manifest).collect();
    let mut objects: Vec<&str> = manifests.iter().map(String::as_str).collect();
    objects.push(web);
    stage.apply(&objects);
    (stage, pods)
}

/// The only pod that answers a client.
#[track_caller]
fn only_pod(probe: &Probe, kind: Kind, to: SocketAddr) -> String {
    let tally: Tally = probe.burst(kind, to, 10);
    tally.assert_all_answered("a client with affinity");
    let pods: Vec<_> = tally.answers.into_keys().collect();
    assert_eq!(pods.len(), 1, "one client, several pods");
    pods[0].clone()
}

fn a_client_keeps_its_pod_over_connections_protocols_apart() {
    let (stage, _) = stage_with(&sticky(100));
    let (to, probe) = (stage.frontend("web", 80), stage.probe());
    let tcp = only_pod(&probe, Kind::Tcp4, to);
    let udp = only_pod(&probe, Kind::Udp4, to);
    for _ in 0..5 {
        let (another, again) = (stage.probe(), stage.probe());
        assert_eq!(only_pod(&another, Kind::Tcp4, to), tcp, "another process");
        assert_eq!(only_pod(&again, Kind::Udp4, to), udp, "another process");
    }
}

fn each_network_namespace_is_a_client_of_its_own() {
    let (stage, _) = stage_with(&sticky(100));
    let spec = "sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80}]";
    let names: Vec<String> = (0..12).map(|number| format!("web-{number}")).collect();
    let services: Vec<String> = names.iter().map(|name| service(name, spec)).collect();
    stage.apply(&services.iter().map(String::as_str).collect::<Vec<_>>());
    let (node, pod) = (stage.probe(), stage.probe_among_pods());
    let choices: Vec<_> = names
        .iter()
        .map(|name| {
            let to = stage.frontend(name, 80);
            (only_pod(&node, Kind::Tcp4, to), only_pod(&pod, Kind::Tcp4, to))
        })
        .collect();
    // By chance all twelve pairs agree once in two thousand million times.
    assert!(choices.iter().any(|(node, pod)| node != pod), "two clients: {choices:?}");
}

fn an_affinity_runs_out_after_its_seconds_without_use() {
    let (stage, _) = stage_with(&sticky(4));
    let (to, probe) = (stage.frontend("web", 80), stage.probe());
    let first = only_pod(&probe, Kind::Tcp4, to);
    for _ in 0..3 {
        sleep(Duration::from_millis(2_000));
        assert_eq!(only_pod(&probe, Kind::Tcp4, to), first, "each use begins the time anew");
    }
    eventually("another pod, after a pause", || {
        sleep(Duration::from_millis(4_100));
        let next = only_pod(&probe, Kind::Tcp4, to);
        if next == first { Err(format!("{next} again")) } else { Ok(()) }
    });
}

fn a_pod_that_left_is_replaced_and_the_next_one_kept() {
    let (stage, mut pods) = stage_with(&sticky(100));
    let (to, probe) = (stage.frontend("web", 80), stage.probe());
    let first = only_pod(&probe, Kind::Tcp4, to);
    let pod = pods.iter_mut().find(|pod| pod.name == first).expect("one of them");
    pod.ready = false;
    stage.apply(&[&pod.manifest()]);
    let second = only_pod(&probe, Kind::Tcp4, to);
    assert_ne!(second, first, "not ready");
    pod.ready = true;
    stage.apply(&[&pod.manifest()]);
    assert_eq!(only_pod(&probe, Kind::Tcp4, to), second, "the new one stays");
    stage.agent.delete("pod", &second);
    assert_ne!(only_pod(&probe, Kind::Tcp4, to), second, "gone");
}

fn an_affinity_outlives_the_agent() {
    let (mut stage, _) = stage_with(&sticky(100));
    let (to, probe) = (stage.frontend("web", 80), stage.probe());
    let pod = only_pod(&probe, Kind::Tcp4, to);
    stage.agent.kill_nine();
    assert_eq!(only_pod(&probe, Kind::Tcp4, to), pod, "with no agent running");
    stage.agent.start();
    assert_eq!(only_pod(&probe, Kind::Tcp4, to), pod, "after the restart");
}

fn an_affinity_that_is_taken_away_ends() {
    let (stage, _) = stage_with(&sticky(100));
    let (to, probe) = (stage.frontend("web", 80), stage.probe());
    only_pod(&probe, Kind::Tcp4, to);
    stage.apply(&[&web("sessionAffinity: None")]);
    let tally = probe.burst(Kind::Tcp4, to, 60);
    assert!(tally.answers.len() > 2, "without affinity: {tally:?}");
    stage.apply(&[&sticky(100)]);
    only_pod(&probe, Kind::Tcp4, to);
}

fn a_service_whose_last_pod_left_refuses_in_spite_of_affinity() {
    let (stage, pods) = stage_with(&sticky(100));
    let (to, probe) = (stage.frontend("web", 80), stage.probe());
    only_pod(&probe, Kind::Tcp4, to);
    pods.iter().for_each(|pod| drop(stage.agent.delete("pod", &pod.name)));
    assert_refused("no pod is left", probe.tcp(to), Errno::REFUSED);
}

fn unconnected_udp_sockets_of_one_client_share_its_pod() {
    let (stage, _) = stage_with(&sticky(100));
    let (to, probe) = (stage.frontend("web", 80), stage.probe());
    let pod = only_pod(&probe, Kind::Udp4, to);
    for _ in 0..10 {
        let visit = probe.udp_unconnected(to).expect("an answer");
        assert_eq!((visit.pod, visit.peer), (pod.clone(), to));
    }
}
