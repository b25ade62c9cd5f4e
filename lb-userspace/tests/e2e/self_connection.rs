//! The connection that an agent makes at its start to see whether its programs work.

use std::fs;
use std::path::PathBuf;

use libtest_mimic::Trial;

use crate::harness::refuser::{NAME, Refuser};
use crate::harness::{Agent, Listen, Stage, cases, eventually, sandbox, service};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_started_agent_has_tested_itself_and_left_nothing,
        a_program_that_refuses_is_named_and_the_agent_goes_on,
        a_takeover_is_tested_when_it_is_complete,
        what_a_killed_test_left_is_removed,
    ]
}

/// The result, which is there a moment after the agent answers.
#[track_caller]
fn result(agent: &Agent) -> Result<(), String> {
    eventually("the agent has tested itself", || {
        agent.status().self_test().ok_or_else(|| "no result in the status".to_owned())
    })
}

fn leaves(agent: &Agent) -> Vec<PathBuf> {
    let entries = fs::read_dir(&agent.paths.cgroup).expect("the cgroup").flatten();
    let paths = entries.map(|entry| entry.path());
    paths.filter(|path| path.is_dir() && path.to_string_lossy().contains("self-test")).collect()
}

fn a_started_agent_has_tested_itself_and_left_nothing() {
    let stage = Stage::start();
    assert_eq!(result(&stage.agent), Ok(()), "the self-test");
    stage.agent.lb(&["status"]).ok().says("Self-test:      ok");
    assert_eq!(leaves(&stage.agent), Vec::<PathBuf>::new(), "cgroups of the test");
    for map in ["FRONTENDS", "SERVICES", "BACKENDS", "RUNS"] {
        let used = || match stage.agent.status().used(map) {
            0 => Ok(()),
            used => Err(format!("{used} used")),
        };
        eventually(&format!("{map} is empty again"), used);
    }
    let log = stage.agent.log();
    assert!(log.contains("self-test: connections are translated"), "log:\n{log}");
}

fn a_program_that_refuses_is_named_and_the_agent_goes_on() {
    let mut stage = Stage::without_agent();
    let inner = stage.cgroup.child("inner");
    stage.agent.paths.cgroup.clone_from(&inner.path);
    let refuser = Refuser::at(&stage.cgroup.path);
    stage.agent.start();
    let error = result(&stage.agent).expect_err("every connect is refused");
    let cgroup = inner.path.display().to_string();
    let named =
        [NAME, "Operation not permitted", "127.0.0.1", "--cgroup", "process 1 is in", &cgroup];
    for text in named {
        assert!(error.contains(text), "it must name {text}: {error}");
    }
    stage.agent.lb(&["status"]).ok().mentions(&["Self-test:      failed", NAME]);
    let log = stage.agent.log();
    assert!(log.contains("ERROR self-test: "), "log:\n{log}");
    assert_eq!(leaves(&stage.agent), Vec::<PathBuf>::new(), "cgroups of the test");

    drop(refuser);
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let web = service("web", "selector: {app: web}, ports: [{port: 80}]");
    stage.apply(&[&pod.manifest(), &web]);
    let to = stage.frontend("web", 80);
    let seen = stage.probe_in(&inner.path).tcp(to).map(|visit| visit.peer);
    assert_eq!(seen, Ok(to), "the agent has gone on");
    stage.agent.kill_nine();
    stage.agent.start();
    assert_eq!(result(&stage.agent), Ok(()), "with the program gone");
}

fn a_takeover_is_tested_when_it_is_complete() {
    let mut stage = Stage::start();
    let folder = stage.agent.paths.manifests.clone();
    let away = folder.with_extension("away");
    fs::rename(&folder, &away).expect("the manifests directory is the test's own");
    stage.agent.kill_nine();
    stage.agent.binary = sandbox::next_lb();
    stage.agent.start();
    assert_eq!(stage.agent.status().self_test(), None, "the programs are not attached yet");
    fs::rename(&away, &folder).expect("the manifests directory is the test's own");
    assert_eq!(result(&stage.agent), Ok(()), "after the takeover");
    assert_eq!(stage.agent.status().taking_over(), None, "it is complete");
}

fn what_a_killed_test_left_is_removed() {
    let mut stage = Stage::without_agent();
    // Process ids end at 2^22.
    let left = stage.cgroup.path.join("lb-self-test-4194999");
    fs::create_dir(&left).expect("a cgroup");
    stage.agent.start();
    assert_eq!(result(&stage.agent), Ok(()));
    assert!(!left.exists(), "the next agent removes it");
    stage.agent.kill_nine();
    fs::create_dir(&left).expect("a cgroup");
    stage.agent.cleanup(&[]).ok();
    assert!(!left.exists(), "cleanup removes it");
}
