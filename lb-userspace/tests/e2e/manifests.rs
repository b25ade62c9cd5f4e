//! The watched directory: what its files say is in force within a second.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::time::Duration;

use libtest_mimic::Trial;

use crate::harness::manifest::documents;
use crate::harness::{Listen, Stage, cases, service, within};
use crate::probe::{Errno, Kind, Probe, assert_refused};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        a_file_added_is_served,
        a_file_there_at_the_start_is_served,
        a_file_changed_in_place_takes_effect,
        a_file_replaced_by_a_rename_takes_effect,
        a_file_removed_takes_its_objects_away,
        an_object_that_leaves_its_file_is_deleted,
        a_file_removed_while_the_agent_is_dead_takes_its_objects_away,
        a_file_renamed_interrupts_nothing,
        a_broken_edit_leaves_what_was_served,
        files_that_cannot_be_read_leave_the_others_served,
        a_file_of_ten_megabytes_leaves_the_others_served,
        an_invalid_service_leaves_the_others_of_its_file_served,
        other_kinds_and_other_files_are_skipped,
    ]
}

/// A second is promised; the rest is for a busy machine.
const PROMISE: Duration = Duration::from_secs(4);

/// The Service `name` with the ClusterIP 10.96.0.`number`, on port 80 of the app `web`.
fn web(name: &str, number: u8) -> String {
    service(
        name,
        &format!("clusterIP: 10.96.0.{number}, selector: {{app: web}}, ports: [{{port: 80}}]"),
    )
}

fn frontend(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, number], 80))
}

/// A stage with `pod-a` of the app `web`, known by the file `pods.yaml`.
fn stage_with_pod() -> (Stage, Probe) {
    let mut stage = Stage::start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.write_manifest("pods.yaml", &pod.manifest());
    let probe = stage.probe();
    (stage, probe)
}

#[track_caller]
fn assert_served_soon(probe: &Probe, what: &str, to: SocketAddr) {
    within(PROMISE, &format!("{what}: {to} is served"), || {
        probe.tcp(to).map(drop).map_err(|errno| format!("{errno:?}"))
    });
}

#[track_caller]
fn assert_gone_soon(probe: &Probe, what: &str, to: SocketAddr) {
    within(PROMISE, &format!("{what}: {to} is gone"), || match probe.tcp(to) {
        Err(Errno::HOST_UNREACHABLE) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[track_caller]
fn assert_named_as_refused(stage: &Stage, texts: &[&str]) {
    within(PROMISE, "`lb status` names what it refuses", || {
        stage.agent.status().refusal_with(texts).map(drop)
    });
}

fn a_file_added_is_served() {
    let (stage, probe) = stage_with_pod();
    stage.write_manifest("web.yaml", &web("web", 10));
    assert_served_soon(&probe, "a new .yaml", frontend(10));
    stage.write_manifest("more.yml", &web("more", 11));
    assert_served_soon(&probe, "a new .yml", frontend(11));
    let json = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "json"}, "spec":
        {"clusterIP": "10.96.0.12", "selector": {"app": "web"}, "ports": [{"port": 80}]}}"#;
    stage.write_manifest("more.json", json);
    assert_served_soon(&probe, "a new .json", frontend(12));
}

fn a_file_there_at_the_start_is_served() {
    let mut stage = Stage::without_agent();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    stage.write_manifest("all.yaml", &documents([web("web", 10), pod.manifest()]));
    stage.agent.start();
    assert_served_soon(&stage.probe(), "a file from before", frontend(10));
}

fn a_file_changed_in_place_takes_effect() {
    let (stage, probe) = stage_with_pod();
    let path = stage.agent.paths.manifests.join("web.yaml");
    fs::write(&path, web("web", 10)).expect("writable");
    assert_served_soon(&probe, "written", frontend(10));
    fs::write(&path, documents([web("web", 10), web("second", 11)])).expect("writable");
    assert_served_soon(&probe, "written again", frontend(11));
    let port = web("web", 10).replace("{port: 80}", "{port: 81, targetPort: 80}");
    fs::write(&path, documents([port, web("second", 11)])).expect("writable");
    assert_served_soon(&probe, "another port", SocketAddr::new(frontend(10).ip(), 81));
    assert_refused("the former port", probe.tcp(frontend(10)), Errno::REFUSED);
}

fn a_file_replaced_by_a_rename_takes_effect() {
    let (stage, probe) = stage_with_pod();
    for number in 10..14 {
        stage.write_manifest("web.yaml", &web(&format!("web-{number}"), number));
        assert_served_soon(&probe, "the file's new Service", frontend(number));
        if number > 10 {
            assert_gone_soon(&probe, "the file's former Service", frontend(number - 1));
        }
    }
}

fn a_file_removed_takes_its_objects_away() {
    let (stage, probe) = stage_with_pod();
    stage.write_manifest("web.yaml", &web("web", 10));
    stage.write_manifest("stays.yaml", &web("stays", 11));
    assert_served_soon(&probe, "added", frontend(10));
    assert_served_soon(&probe, "added", frontend(11));
    fs::remove_file(stage.agent.paths.manifests.join("web.yaml")).expect("removable");
    assert_gone_soon(&probe, "its file is removed", frontend(10));
    assert_served_soon(&probe, "the other file's", frontend(11));
}

fn an_object_that_leaves_its_file_is_deleted() {
    let (stage, probe) = stage_with_pod();
    stage.write_manifest("web.yaml", &documents([web("one", 10), web("two", 11)]));
    assert_served_soon(&probe, "first of the file", frontend(10));
    assert_served_soon(&probe, "second of the file", frontend(11));
    stage.write_manifest("web.yaml", &web("two", 11));
    assert_gone_soon(&probe, "no more in its file", frontend(10));
    assert_served_soon(&probe, "still in its file", frontend(11));
}

fn a_file_removed_while_the_agent_is_dead_takes_its_objects_away() {
    let (mut stage, probe) = stage_with_pod();
    stage.write_manifest("web.yaml", &web("web", 10));
    stage.write_manifest("stays.yaml", &web("stays", 11));
    assert_served_soon(&probe, "added", frontend(10));
    assert_served_soon(&probe, "added", frontend(11));
    stage.apply(&[&web("applied", 12)]);
    stage.agent.kill_nine();
    fs::remove_file(stage.agent.paths.manifests.join("web.yaml")).expect("removable");
    stage.write_manifest("new.yaml", &web("new", 13));
    stage.agent.start();
    assert_gone_soon(&probe, "its file went while the agent was dead", frontend(10));
    assert_served_soon(&probe, "its file stayed", frontend(11));
    assert_served_soon(&probe, "applied by command", frontend(12));
    assert_served_soon(&probe, "its file came while the agent was dead", frontend(13));
}

fn a_file_renamed_interrupts_nothing() {
    let (stage, probe) = stage_with_pod();
    stage.write_manifest("web.yaml", &web("web", 10));
    assert_served_soon(&probe, "added", frontend(10));
    let manifests = &stage.agent.paths.manifests;
    fs::rename(manifests.join("web.yaml"), manifests.join("renamed.yaml")).expect("renamable");
    // A second file shows that the agent has seen the first one's new name.
    stage.write_manifest("later.yaml", &web("later", 11));
    assert_served_soon(&probe, "added after the rename", frontend(11));
    assert_served_soon(&probe, "its file was renamed", frontend(10));
}

fn a_broken_edit_leaves_what_was_served() {
    let (stage, probe) = stage_with_pod();
    stage.write_manifest("web.yaml", &web("web", 10));
    assert_served_soon(&probe, "added", frontend(10));
    let load = stage.probe();
    load.load_start(Kind::Tcp4, frontend(10));
    stage
        .write_manifest("web.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: web\nspec: [");
    assert_named_as_refused(&stage, &["web.yaml:"]);
    load.load_stop()[0].assert_all_answered("connections over a broken edit of the file");
    // Mended: served anew, and no more named as refused.
    let mended = documents([web("web", 10), web("second", 11)]);
    stage.write_manifest("web.yaml", &mended);
    assert_served_soon(&probe, "mended", frontend(11));
    within(PROMISE, "nothing is refused any more", || match stage.agent.status().refused() {
        [] => Ok(()),
        refused => Err(format!("{refused:?}")),
    });
}

fn files_that_cannot_be_read_leave_the_others_served() {
    let (stage, probe) = stage_with_pod();
    let manifests = &stage.agent.paths.manifests;
    let binary: Vec<u8> = (0..=255).cycle().take(4096).collect();
    fs::write(manifests.join("binary.yaml"), binary).expect("writable");
    symlink("/nonexistent/target.yaml", manifests.join("dangling.yaml")).expect("writable");
    fs::create_dir(manifests.join("folder.yaml")).expect("writable");
    // A naive reader waits here for a writer for ever.
    let fifo = std::process::Command::new("mkfifo").arg(manifests.join("fifo.yaml")).status();
    assert!(fifo.is_ok_and(|status| status.success()), "mkfifo (coreutils)");
    stage.write_manifest("web.yaml", &web("web", 10));
    assert_served_soon(&probe, "beside unreadable files", frontend(10));
    assert_named_as_refused(&stage, &["binary.yaml"]);
}

fn a_file_of_ten_megabytes_leaves_the_others_served() {
    let (stage, probe) = stage_with_pod();
    let padding = format!("# {}\n", "x".repeat(1022)).repeat(10 * 1024);
    stage.write_manifest("big.yaml", &format!("{padding}{}", web("big", 10)));
    stage.write_manifest("web.yaml", &web("web", 11));
    assert_served_soon(&probe, "beside a file of 10 MB", frontend(11));
    within(Duration::from_secs(30), "the big file is served, or named as refused", || {
        let served = probe.tcp(frontend(10)).map(drop).map_err(|errno| format!("{errno:?}"));
        served.or_else(|_| stage.agent.status().refusal_with(&["big.yaml"]).map(drop))
    });
}

fn an_invalid_service_leaves_the_others_of_its_file_served() {
    let (stage, probe) = stage_with_pod();
    let invalid = service("bad", "selector: {app: web}, ports: [{port: 70000}]");
    stage.write_manifest("web.yaml", &documents([web("one", 10), invalid, web("two", 11)]));
    assert_served_soon(&probe, "before the invalid one", frontend(10));
    assert_served_soon(&probe, "after the invalid one", frontend(11));
    let message =
        "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive";
    assert_named_as_refused(&stage, &["web.yaml:", "bad", message]);
}

fn other_kinds_and_other_files_are_skipped() {
    let (stage, probe) = stage_with_pod();
    let manifests = &stage.agent.paths.manifests;
    fs::write(manifests.join("README.md"), "{ not: a manifest").expect("writable");
    fs::write(manifests.join(".hidden.yaml.swp"), [0; 64]).expect("writable");
    let config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}\n";
    stage.write_manifest("web.yaml", &documents([config.to_owned(), web("web", 10)]));
    assert_served_soon(&probe, "beside a ConfigMap", frontend(10));
    let status = stage.agent.status();
    assert!(
        status.refusal_with(&["README.md"]).is_err() && status.refusal_with(&[".swp"]).is_err(),
        "files that are no manifests are not complained of: {:?}",
        status.refused()
    );
}
