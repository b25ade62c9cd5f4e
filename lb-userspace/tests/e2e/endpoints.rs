//! Endpoints come and go while clients connect.

use libtest_mimic::Trial;

use crate::harness::manifest::endpoint_slice;
use crate::harness::{Listen, Pod, Stage, cases, eventually, service};
use crate::probe::{Errno, Kind, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        an_endpoint_added_while_connecting_is_used_and_nothing_fails,
        an_endpoint_removed_while_connecting_gets_nothing_more_and_nothing_fails,
        a_pod_that_stops_being_ready_gets_nothing_more,
        endpoints_swapped_again_and_again_never_fail_a_connection,
        the_last_endpoint_removed_while_connecting_leaves_refusals_only,
        a_pod_replaced_by_one_with_another_address_is_reached_by_the_same_vip,
        a_relabelled_pod_leaves_one_service_and_joins_the_other,
        an_established_connection_survives_its_endpoints_removal,
        a_service_without_a_selector_follows_its_endpoint_slice,
        a_terminating_pod_serves_only_when_no_other_is_left,
    ]
}

const WEB: &str = "selector: {app: web}, ports: [{port: 80}]";
const LISTEN: [Listen; 1] = [Listen::Tcp(80)];

/// A stage with the Service `web` and these ready pods.
fn stage_with(names: &[&str]) -> (Stage, Vec<Pod>) {
    let mut stage = Stage::start();
    let pods: Vec<_> = names.iter().map(|name| stage.pod(name, "web", &LISTEN)).collect();
    let manifests: Vec<_> = pods.iter().map(Pod::manifest).collect();
    let web = service("web", WEB);
    let mut objects: Vec<_> = manifests.iter().map(String::as_str).collect();
    objects.push(&web);
    stage.apply(&objects);
    (stage, pods)
}

fn an_endpoint_added_while_connecting_is_used_and_nothing_fails() {
    let (mut stage, _) = stage_with(&["pod-a"]);
    let web = stage.frontend("web", 80);
    let (load, observer) = (stage.probe(), stage.probe());
    load.load_start(Kind::Tcp4, web);
    let new = stage.pod("pod-b", "web", &LISTEN);
    stage.apply(&[&new.manifest()]);
    eventually("the new pod is reached", || {
        let tally = observer.burst(Kind::Tcp4, web, 20);
        if tally.by("pod-b") > 0 { Ok(()) } else { Err(format!("{tally:?}")) }
    });
    let tallies = load.load_stop();
    tallies[0].assert_all_answered("connections while a pod was added");
}

fn an_endpoint_removed_while_connecting_gets_nothing_more_and_nothing_fails() {
    let (stage, _) = stage_with(&["pod-a", "pod-b", "pod-c"]);
    let web = stage.frontend("web", 80);
    let (load, observer) = (stage.probe(), stage.probe());
    load.load_start(Kind::Tcp4, web);
    observer.burst(Kind::Tcp4, web, 50).assert_all_answered("before the removal");
    stage.agent.delete("pod", "pod-b");
    load.load_mark();
    let after = observer.burst(Kind::Tcp4, web, 300);
    let tallies = load.load_stop();
    for (what, tally) in
        [("before", &tallies[0]), ("after", &tallies[1]), ("a burst after", &after)]
    {
        tally.assert_all_answered(&format!("connections {what} pod-b was removed"));
    }
    assert_eq!(tallies[1].by("pod-b"), 0, "begun after the removal: {:?}", tallies[1]);
    assert_eq!(after.by("pod-b"), 0, "a burst after the removal: {after:?}");
}

fn a_pod_that_stops_being_ready_gets_nothing_more() {
    let (stage, mut pods) = stage_with(&["pod-a", "pod-b"]);
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    pods[1].ready = false;
    stage.apply(&[&pods[1].manifest()]);
    let tally = probe.burst(Kind::Tcp4, web, 100);
    tally.assert_all_answered("with one ready pod of two");
    assert_eq!(tally.by("pod-b"), 0, "pod-b is not ready: {tally:?}");
    pods[1].ready = true;
    stage.apply(&[&pods[1].manifest()]);
    let tally = probe.burst(Kind::Tcp4, web, 100);
    assert!(tally.by("pod-b") > 0, "pod-b is ready again: {tally:?}");
}

fn endpoints_swapped_again_and_again_never_fail_a_connection() {
    let (stage, mut pods) = stage_with(&["pod-a", "pod-b", "pod-c"]);
    let web = stage.frontend("web", 80);
    let load = stage.probe();
    load.load_start(Kind::Tcp4, web);
    for round in 0..30 {
        for (number, pod) in pods.iter_mut().enumerate() {
            pod.ready = (round + number) % 3 != 0;
        }
        let manifests: Vec<_> = pods.iter().map(Pod::manifest).collect();
        // Two of three are ready; while one change follows the other, at least one.
        stage.apply(&manifests.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let tallies = load.load_stop();
    tallies[0].assert_all_answered("connections during 30 changes of the endpoints");
}

fn the_last_endpoint_removed_while_connecting_leaves_refusals_only() {
    let (stage, pods) = stage_with(&["pod-a"]);
    let web = stage.frontend("web", 80);
    let load = stage.probe();
    load.load_start(Kind::Tcp4, web);
    for _ in 0..10 {
        stage.agent.delete("pod", "pod-a");
        stage.apply(&[&pods[0].manifest()]);
    }
    stage.agent.delete("pod", "pod-a");
    load.load_mark();
    let refused = stage.probe().burst(Kind::Tcp4, web, 50);
    let tallies = load.load_stop();
    assert_eq!(refused.failures.get("ECONNREFUSED"), Some(&50), "no pod is left: {refused:?}");
    for tally in &tallies {
        let other: Vec<_> = tally.failures.keys().filter(|what| *what != "ECONNREFUSED").collect();
        assert!(other.is_empty(), "answered or ECONNREFUSED, nothing else: {tally:?}");
    }
    assert_eq!(tallies[1].answered(), 0, "begun after the last pod went: {:?}", tallies[1]);
}

fn a_pod_replaced_by_one_with_another_address_is_reached_by_the_same_vip() {
    let (mut stage, pods) = stage_with(&["pod-a"]);
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    assert_eq!(probe.tcp(web).map(|visit| visit.pod).as_deref(), Ok("pod-a"));
    stage.stop_servers(&pods[0]);
    // The same Pod object with the address of a new one: the tutorial's replaced pod.
    let replacement = stage.pod("pod-a2", "web", &LISTEN);
    let object = Pod { name: "pod-a".to_owned(), ..replacement };
    stage.apply(&[&object.manifest()]);
    assert_eq!(stage.frontend("web", 80), web, "the ClusterIP stays");
    assert_eq!(probe.tcp(web), Ok(Visit { pod: "pod-a2".to_owned(), peer: web }));
}

fn a_relabelled_pod_leaves_one_service_and_joins_the_other() {
    let (stage, mut pods) = stage_with(&["pod-a", "pod-b"]);
    stage.apply(&[&service("other", "selector: {app: other}, ports: [{port: 80}]")]);
    let (web, other) = (stage.frontend("web", 80), stage.frontend("other", 80));
    let probe = stage.probe();
    assert_refused("no pod yet", probe.tcp(other), Errno::REFUSED);
    "other".clone_into(&mut pods[1].app);
    stage.apply(&[&pods[1].manifest()]);
    let tally = probe.burst(Kind::Tcp4, web, 100);
    assert_eq!(tally.by("pod-a"), 100, "the Service the pod left: {tally:?}");
    assert_eq!(probe.tcp(other), Ok(Visit { pod: "pod-b".to_owned(), peer: other }));
}

fn an_established_connection_survives_its_endpoints_removal() {
    let (stage, mut pods) = stage_with(&["pod-a"]);
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    let socket = probe.open(Kind::Tcp4);
    socket.connect(web).expect("connect");
    assert_eq!(socket.greeting().as_deref(), Ok("pod-a"));
    pods[0].ready = false;
    stage.apply(&[&pods[0].manifest()]);
    assert_refused("a new connection", probe.tcp(web), Errno::REFUSED);
    assert_eq!(socket.echo("still there?").as_deref(), Ok("still there?"), "the established one");
    assert_eq!(socket.peer(), Ok(web), "getpeername of the established one");
}

fn a_service_without_a_selector_follows_its_endpoint_slice() {
    let mut stage = Stage::start();
    let a = stage.pod("pod-a", "none", &[Listen::Tcp(8080)]);
    let b = stage.pod("pod-b", "none", &[Listen::Tcp(8080)]);
    let slice = |pods: &[&Pod]| endpoint_slice("ext-1", "ext", "port: 8080", pods);
    stage.apply(&[&service("ext", "ports: [{port: 80, targetPort: 8080}]")]);
    let ext = stage.frontend("ext", 80);
    let probe = stage.probe();
    assert_refused("without a slice", probe.tcp(ext), Errno::REFUSED);
    stage.apply(&[&slice(&[&a])]);
    assert_eq!(probe.tcp(ext), Ok(Visit { pod: "pod-a".to_owned(), peer: ext }));
    stage.apply(&[&slice(&[&b])]);
    assert_eq!(probe.tcp(ext), Ok(Visit { pod: "pod-b".to_owned(), peer: ext }));
    stage.agent.delete("endpointslice", "ext-1");
    assert_refused("the slice is deleted", probe.tcp(ext), Errno::REFUSED);
}

fn a_terminating_pod_serves_only_when_no_other_is_left() {
    let (stage, pods) = stage_with(&["pod-a", "pod-b"]);
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    let terminating = pods[1].manifest().replace(
        "metadata: {",
        "metadata: {deletionTimestamp: \"2026-01-01T00:00:00Z\", deletionGracePeriodSeconds: 30, ",
    );
    stage.apply(&[&terminating]);
    let tally = probe.burst(Kind::Tcp4, web, 100);
    assert_eq!(tally.by("pod-a"), 100, "pod-b is terminating: {tally:?}");
    stage.agent.delete("pod", "pod-a");
    let tally = probe.burst(Kind::Tcp4, web, 20);
    assert_eq!(tally.by("pod-b"), 20, "only the terminating pod is left, still ready: {tally:?}");
}
