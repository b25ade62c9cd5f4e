//! Starting where something is in the way: the agent names it and leaves it as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::harness::{Agent, Listen, Stage, cases, service};
use crate::probe::Visit;

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        the_socket_is_for_root_only,
        a_socket_left_by_a_killed_agent_is_taken_over,
        a_socket_in_use_is_named_and_its_agent_goes_on,
        a_state_in_use_is_named_and_its_agent_goes_on,
        a_truncated_state_file_is_named_and_traffic_goes_on,
        an_emptied_state_file_is_named_and_traffic_goes_on,
        a_state_file_of_garbage_is_named_and_traffic_goes_on,
        a_cgroup_that_does_not_exist_is_named,
        a_manifests_folder_that_does_not_exist_is_named,
        a_service_range_that_is_none_is_named,
    ]
}

/// A stage with the Service `web`, served by `pod-a`.
fn stage_with_web() -> Stage {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let web = service("web", "selector: {app: web}, ports: [{port: 80}]");
    stage.apply(&[&pod.manifest(), &web]);
    stage
}

#[track_caller]
fn assert_serves(stage: &Stage) {
    let web = stage.frontend("web", 80);
    assert_eq!(stage.probe().tcp(web), Ok(Visit { pod: "pod-a".to_owned(), peer: web }));
}

/// The agent ends by itself, with a message that has the text and is no panic.
#[track_caller]
fn assert_gives_up_naming(agent: &mut Agent, text: &str) {
    agent.spawn();
    let code = agent.gives_up();
    let log = agent.log();
    assert_eq!(code, 1, "the exit code of an agent that cannot start; log:\n{log}");
    assert!(log.contains(text), "the message must name {text}; log:\n{log}");
    assert!(!log.contains("panicked"), "the agent must not panic; log:\n{log}");
}

/// One that gives up must not leave programs behind that nobody looks after.
#[track_caller]
fn assert_attached_nothing(agent: &Agent) {
    let pins: Vec<_> = fs::read_dir(&agent.paths.bpffs).into_iter().flatten().flatten().collect();
    assert!(pins.is_empty(), "the agent gave up and left pins: {pins:?}");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn the_socket_is_for_root_only() {
    let stage = Stage::start();
    let socket = fs::metadata(stage.agent.paths.run.join("lb.sock")).expect("RUN_DIR/lb.sock");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600, "the socket's mode");
}

fn a_socket_left_by_a_killed_agent_is_taken_over() {
    let mut stage = stage_with_web();
    stage.agent.kill_nine();
    assert!(stage.agent.paths.run.join("lb.sock").exists(), "a killed agent leaves its socket");
    stage.agent.start();
    assert_serves(&stage);
}

fn a_socket_in_use_is_named_and_its_agent_goes_on() {
    let stage = stage_with_web();
    let cgroup = stage.cgroup.child("second");
    let mut second = stage.another_agent(&cgroup.path);
    second.paths.run.clone_from(&stage.agent.paths.run);
    assert_gives_up_naming(&mut second, &text(&stage.agent.paths.run));
    second.leave_as_it_is();
    assert_attached_nothing(&second);
    assert_serves(&stage);
    stage.apply(&[&service("more", "ports: [{port: 80}]")]);
}

fn a_state_in_use_is_named_and_its_agent_goes_on() {
    let stage = stage_with_web();
    let cgroup = stage.cgroup.child("second");
    let mut second = stage.another_agent(&cgroup.path);
    second.paths.state.clone_from(&stage.agent.paths.state);
    assert_gives_up_naming(&mut second, &text(&stage.agent.paths.state));
    second.leave_as_it_is();
    assert_attached_nothing(&second);
    assert_serves(&stage);
    stage.apply(&[&service("more", "ports: [{port: 80}]")]);
}

/// The store: the largest file of the state directory.
fn state_file(stage: &Stage) -> PathBuf {
    let files = fs::read_dir(&stage.agent.paths.state).expect("the state directory");
    let files = files.flatten().filter(|entry| entry.path().is_file());
    let largest = files.max_by_key(|entry| entry.metadata().map_or(0, |data| data.len()));
    largest.expect("the state directory has a file").path()
}

/// With its store spoiled the agent may give up or begin anew, but it names the file, does not
/// panic, and takes no traffic down. Mended, it has everything again.
fn assert_spoiled_state_is_named(spoil: fn(&Path, &[u8])) {
    let mut stage = stage_with_web();
    let web = stage.frontend("web", 80);
    assert_eq!(stage.agent.stop(Signal::TERM), 0, "exit code after SIGTERM");
    let store = state_file(&stage);
    let good = fs::read(&store).expect("readable");
    spoil(&store, &good);
    assert_gives_up_naming(&mut stage.agent, &text(&store));
    let visit = stage.probe().tcp(web);
    assert_eq!(visit, Ok(Visit { pod: "pod-a".to_owned(), peer: web }), "with no agent running");
    fs::write(&store, good).expect("writable");
    stage.agent.start();
    assert_eq!(stage.frontend("web", 80), web, "with the good store back");
    assert_serves(&stage);
}

fn a_truncated_state_file_is_named_and_traffic_goes_on() {
    assert_spoiled_state_is_named(|store, good| {
        fs::write(store, &good[..good.len() / 2]).expect("writable");
    });
}

/// An empty file must not pass for a new store: every ClusterIP would change.
fn an_emptied_state_file_is_named_and_traffic_goes_on() {
    assert_spoiled_state_is_named(|store, _| fs::write(store, "").expect("writable"));
}

fn a_state_file_of_garbage_is_named_and_traffic_goes_on() {
    assert_spoiled_state_is_named(|store, good| {
        fs::write(store, vec![0xa5; good.len()]).expect("writable");
    });
}

fn a_cgroup_that_does_not_exist_is_named() {
    let mut stage = Stage::without_agent();
    stage.agent.paths.cgroup = stage.cgroup.path.join("nosuch");
    let cgroup = text(&stage.agent.paths.cgroup);
    assert_gives_up_naming(&mut stage.agent, &cgroup);
}

/// It may come later (a mount, a package): the agent starts and says what it misses, or gives up.
fn a_manifests_folder_that_does_not_exist_is_named() {
    let mut stage = Stage::without_agent();
    stage.agent.paths.manifests = stage.agent.paths.manifests.join("nosuch");
    let folder = text(&stage.agent.paths.manifests);
    stage.agent.spawn();
    crate::harness::eventually("the missing folder is named", || {
        let log = stage.agent.log();
        let exited = stage.agent.exited();
        assert!(exited.is_none_or(|code| code == Some(1)), "ended with {exited:?}; log:\n{log}");
        if log.contains(&folder) { Ok(()) } else { Err(format!("the log has no {folder}:\n{log}")) }
    });
}

fn a_service_range_that_is_none_is_named() {
    for cidr in ["10.96.0.0/33", "nonsense", "10.96.0.0/12,10.200.0.0/16", "fd00::/48"] {
        let mut stage = Stage::without_agent();
        cidr.clone_into(&mut stage.agent.service_cidrs);
        stage.agent.spawn();
        let code = stage.agent.gives_up();
        let log = stage.agent.log();
        assert!(code == 1 || code == 2, "{cidr}: exit code {code}; log:\n{log}");
        assert!(log.contains(cidr.split(',').next_back().unwrap_or(cidr)), "{cidr}: log:\n{log}");
        assert!(!log.contains("panicked"), "{cidr}: the agent must not panic; log:\n{log}");
    }
}
