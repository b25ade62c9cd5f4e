//! From the first start to the last trace; and much to do in between.

use std::fs;
use std::net::SocketAddr;

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::manifest::documents;
use crate::harness::{Listen, Stage, cases, service};
use crate::probe::{Errno, Kind, Visit, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        sigterm_and_sigint_end_the_agent_in_order,
        cleanup_leaves_nothing,
        cleanup_after_a_kill_leaves_nothing,
        cleanup_with_state_forgets_the_objects,
        cleanup_beside_a_running_agent_is_refused,
        cleanup_without_anything_to_clean_succeeds,
        an_agent_started_after_cleanup_serves,
        ten_thousand_services_are_served,
    ]
}

const WEB: &str = "selector: {app: web}, ports: [{port: 80}]";

/// A stage with the Service `web`, served by `pod-a`.
fn stage_with_web() -> Stage {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    stage
}

fn sigterm_and_sigint_end_the_agent_in_order() {
    let mut stage = stage_with_web();
    let socket = stage.agent.paths.run.join("lb.sock");
    for signal in [Signal::TERM, Signal::INT] {
        assert_eq!(stage.agent.stop(signal), 0, "exit code after {signal:?}");
        assert!(!socket.exists(), "the socket is removed after {signal:?}");
        stage.agent.start();
    }
}

/// No pin, no program: what was translated is left alone, and the connections live on.
#[track_caller]
fn assert_nothing_is_left(stage: &mut Stage) {
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    let held = probe.open(Kind::Tcp4);
    held.connect(web).expect("connect before the cleanup");
    held.greeting().expect("a greeting");

    stage.agent.kill_nine();
    assert_eq!(probe.tcp(web).map(|visit| visit.peer), Ok(web), "served with the agent dead");
    stage.agent.cleanup(&[]).ok();

    assert_refused("after the cleanup", probe.tcp(web), Errno::NET_UNREACHABLE);
    assert_refused("after the cleanup", probe.udp(web), Errno::NET_UNREACHABLE);
    assert_eq!(held.echo("still there?").as_deref(), Ok("still there?"), "an old connection");
    let paths = &stage.agent.paths;
    for gone in [&paths.bpffs, &paths.run] {
        let left: Vec<_> = fs::read_dir(gone).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{} has nothing left: {left:?}", gone.display());
    }
    let children = fs::read_dir(&paths.cgroup).expect("the stage's cgroup").flatten();
    let children: Vec<_> = children.filter(|entry| entry.path().is_dir()).collect();
    assert!(children.is_empty(), "no cgroup of the agent's is left: {children:?}");
}

fn cleanup_leaves_nothing() {
    let mut stage = stage_with_web();
    assert_eq!(stage.agent.stop(Signal::TERM), 0);
    stage.agent.start();
    assert_nothing_is_left(&mut stage);
}

fn cleanup_after_a_kill_leaves_nothing() {
    let mut stage = stage_with_web();
    assert_nothing_is_left(&mut stage);
}

fn cleanup_with_state_forgets_the_objects() {
    let mut stage = stage_with_web();
    let state = stage.agent.paths.state.clone();
    stage.agent.kill_nine();
    stage.agent.cleanup(&[]).ok();
    assert!(state.exists(), "without --state the objects are kept");
    stage.agent.cleanup(&["--state"]).ok();
    assert!(!state.exists(), "{} is gone", state.display());
    stage.agent.start();
    assert_eq!(stage.agent.status().objects("services"), 0, "a new agent knows nothing");
}

fn cleanup_beside_a_running_agent_is_refused() {
    let mut stage = stage_with_web();
    let web = stage.frontend("web", 80);
    let output = stage.agent.cleanup(&["--state"]).refused();
    output.complains(&["running"]);
    let seen = stage.probe().tcp(web);
    assert_eq!(seen, Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
    stage.apply(&[&service("more", "ports: [{port: 80}]")]);
}

fn cleanup_without_anything_to_clean_succeeds() {
    let mut stage = Stage::without_agent();
    stage.agent.cleanup(&[]).ok();
    stage.agent.cleanup(&[]).ok();
}

fn an_agent_started_after_cleanup_serves() {
    let mut stage = stage_with_web();
    stage.agent.kill_nine();
    stage.agent.cleanup(&[]).ok();
    stage.agent.start();
    let pod = stage.pod("pod-b", "fresh", &[Listen::Tcp(80)]);
    let fresh = service("fresh", "selector: {app: fresh}, ports: [{port: 80}]");
    stage.apply(&[&pod.manifest(), &fresh]);
    let to = stage.frontend("fresh", 80);
    assert_eq!(stage.probe().tcp(to), Ok(Visit { pod: "pod-b".to_owned(), peer: to }));
}

fn ten_thousand_services_are_served() {
    const COUNT: usize = 10_000;
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let none = stage.agent.status().used("FRONTENDS");
    stage.apply(&[&service("one", WEB)]);
    let one = stage.agent.status().used("FRONTENDS") - none;
    assert!(one > 0, "a Service has frontends");
    stage.agent.delete("svc", "one");
    let all = documents((0..COUNT).map(|number| service(&format!("many-{number}"), WEB)));
    let output = stage.agent.try_apply(&[&pod.manifest(), &all]).ok();
    assert_eq!(output.stdout.matches(" created").count(), COUNT + 1, "each is reported");

    let list = stage.agent.get_all("svc");
    assert_eq!(list.len(), COUNT, "each is kept");
    let used = stage.agent.status().used("FRONTENDS") - none;
    assert_eq!(used, one * COUNT as u64, "FRONTENDS: each Service as many entries as one alone");
    let probe = stage.probe();
    // Primes' distance: early and late, low and high addresses.
    for item in list.iter().step_by(997) {
        let vip = item["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
        let to = SocketAddr::new(vip.expect("a ClusterIP"), 80);
        let name = &item["metadata"]["name"];
        assert_eq!(probe.tcp(to), Ok(Visit { pod: "pod-a".to_owned(), peer: to }), "{name}");
    }

    // One change among so many, and a restart, interrupt nothing.
    let some = stage.frontend("many-5000", 80);
    let load = stage.probe();
    load.load_start(Kind::Tcp4, some);
    stage.apply(&[&service("many-7", "selector: {app: web}, ports: [{port: 81, targetPort: 80}]")]);
    let changed = stage.frontend("many-7", 81);
    assert_eq!(probe.tcp(changed).map(|visit| visit.peer), Ok(changed), "the changed one");
    assert_eq!(stage.agent.stop(Signal::TERM), 0);
    stage.agent.start();
    assert_eq!(stage.frontend("many-5000", 80), some, "its ClusterIP after the restart");
    load.load_stop()[0].assert_all_answered("connections over a change and a restart");
}
