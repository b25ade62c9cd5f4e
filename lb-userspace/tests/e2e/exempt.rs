//! Workloads that are left alone.

use std::fs;

use libtest_mimic::Trial;

use crate::harness::{Listen, Stage, cases, eventually, service};
use crate::probe::{Errno, Kind, Probe};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        processes_of_an_exempt_cgroup_and_those_below_it_are_left_alone,
        an_exempt_cgroup_is_followed_as_it_comes_and_goes,
        connections_made_before_stay_as_they_are,
        an_exempt_cgroup_that_cannot_be_one_is_refused_by_name,
    ]
}

const WEB: &str = "selector: {app: web}, ports: [{port: 80}]";

/// A stage with the Service `web`, whose agent leaves the cgroup `quiet` alone, made or not.
fn stage_with_web(quiet: &str) -> Stage {
    let mut stage = Stage::without_agent();
    let quiet = stage.cgroup.path.join(quiet).display().to_string();
    stage.agent.set_options(&["--exempt-cgroup", &quiet]);
    stage.agent.start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    stage
}

/// What an untranslated connect to a ClusterIP gives here: nothing leads there.
fn is_left_alone(probe: &Probe, stage: &Stage) -> Result<(), String> {
    match probe.tcp(stage.frontend("web", 80)) {
        Err(errno) if errno == Errno::NET_UNREACHABLE => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn processes_of_an_exempt_cgroup_and_those_below_it_are_left_alone() {
    let mut stage = Stage::without_agent();
    let quiet = stage.cgroup.child("quiet");
    let inner = quiet.child("a");
    let deep = inner.child("b");
    let argument = quiet.path.display().to_string();
    stage.agent.set_options(&["--exempt-cgroup", &argument]);
    stage.agent.start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.apply(&[&pod.manifest(), &service("web", WEB)]);
    for cgroup in [&quiet, &inner, &deep] {
        let probe = stage.probe_in(&cgroup.path);
        is_left_alone(&probe, &stage).unwrap_or_else(|what| panic!("{:?}: {what}", cgroup.path));
        let unknown = probe.tcp(stage.frontend("web", 81));
        assert_eq!(unknown.err(), Some(Errno::NET_UNREACHABLE), "an unknown port");
    }
    let sibling = stage.cgroup.child("quieter");
    let served = stage.probe_in(&sibling.path).tcp(stage.frontend("web", 80));
    assert_eq!(served.map(|visit| visit.pod).as_deref(), Ok("pod-a"), "a sibling");
    let served = stage.probe().tcp(stage.frontend("web", 80));
    assert_eq!(served.map(|visit| visit.pod).as_deref(), Ok("pod-a"), "the cgroup above");
    let status = stage.agent.lb(&["status"]).ok();
    assert!(status.stdout.contains(&format!("Left alone:     {}", quiet.path.display())));
}

fn an_exempt_cgroup_is_followed_as_it_comes_and_goes() {
    let stage = stage_with_web("later/quiet");
    let status = stage.agent.lb(&["status"]).ok();
    assert!(status.stdout.contains("(does not exist yet)"), "{status}");
    for round in 0..3 {
        let later = stage.cgroup.child("later");
        let quiet = later.child("quiet");
        let probe = stage.probe_in(&quiet.path);
        eventually(&format!("it is left alone, round {round}"), || is_left_alone(&probe, &stage));
        drop(probe);
        drop(quiet);
        drop(later);
    }
    // Another cgroup of that name is another cgroup, and whoever is outside was never meant.
    let other = stage.cgroup.child("other");
    let served = stage.probe_in(&other.path).tcp(stage.frontend("web", 80));
    assert_eq!(served.map(|visit| visit.pod).as_deref(), Ok("pod-a"));
}

fn connections_made_before_stay_as_they_are() {
    let stage = stage_with_web("quiet");
    let web = stage.frontend("web", 80);
    let probe = stage.probe();
    let held = probe.open(Kind::Tcp4);
    held.connect(web).expect("connect");
    held.greeting().expect("a greeting");
    let quiet = stage.cgroup.child("quiet");
    fs::write(quiet.path.join("cgroup.procs"), probe.pid().to_string()).expect("moved");
    eventually("it is left alone from now on", || is_left_alone(&probe, &stage));
    assert_eq!(held.echo("still there?").as_deref(), Ok("still there?"));
    assert_eq!(held.peer(), Ok(web), "getpeername");
}

fn an_exempt_cgroup_that_cannot_be_one_is_refused_by_name() {
    let mut stage = Stage::without_agent();
    stage.agent.set_options(&["--exempt-cgroup", "/proc"]);
    stage.agent.spawn();
    assert_eq!(stage.agent.gives_up(), 1);
    let log = stage.agent.log();
    assert!(log.contains("--exempt-cgroup") && log.contains("/proc is not a folder"), "{log}");
}
