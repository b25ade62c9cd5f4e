//! The sizes of maps: chosen by a flag, changed without a gap, named when they do not suffice.

use std::fs;
use std::path::PathBuf;

use aya::maps::{Array, MapData};
use libtest_mimic::Trial;

use crate::harness::manifest::endpoint_slice;
use crate::harness::{Listen, Pod, Stage, cases, service};
use crate::probe::{Kind, Visit};
use crate::upgrade::{Load, assert_only_one_layout_is_left, stage_with_web, take_over};

pub(crate) fn tests() -> Vec<Trial> {
    cases![
        maps_are_resized_without_a_failed_connection,
        a_change_that_does_not_fit_names_the_flag_that_makes_it_fit,
        a_pinned_map_of_another_size_is_refused_by_name,
        a_size_that_cannot_be_is_refused,
    ]
}

fn choose(stage: &mut Stage, sizes: &str) {
    stage.agent.set_options(&["--map-size", sizes]);
}

#[track_caller]
fn assert_capacity(stage: &Stage, sizes: [(&str, u64); 2]) {
    let status = stage.agent.status();
    for (map, entries) in sizes {
        assert_eq!(status.capacity(map), entries, "entries of {map}");
    }
}

fn maps_are_resized_without_a_failed_connection() {
    let mut stage = stage_with_web();
    let load = Load::start(&stage);
    for (sizes, expected) in [
        ("RUNS=64,ORIGIN=1024", [("RUNS", 64), ("ORIGIN", 1024)]),
        ("ORIGIN=262144", [("RUNS", 524_288), ("ORIGIN", 262_144)]),
    ] {
        stage.agent.kill_nine();
        choose(&mut stage, sizes);
        take_over(&mut stage, sizes);
        assert_capacity(&stage, expected);
    }
    load.stop("connections while maps change their sizes");
    assert_only_one_layout_is_left(&stage);
}

fn a_change_that_does_not_fit_names_the_flag_that_makes_it_fit() {
    let mut stage = Stage::without_agent();
    choose(&mut stage, "RUNS=16");
    stage.agent.start();
    let pod = stage.pod("pod-a", "web", &[Listen::Tcp(80)]);
    let web = service("web", "selector: {app: web}, ports: [{port: 80}]");
    stage.apply(&[&pod.manifest(), &web]);
    let name = |number: usize| format!("many-{number}");
    let many: Vec<Pod> =
        (0..17).map(|number| stage.pod(&name(number), "many", &[Listen::Tcp(80)])).collect();
    let slice = endpoint_slice("many-1", "many", "port: 80", &many.iter().collect::<Vec<_>>());
    let refused = stage.agent.try_apply(&[&service("many", "ports: [{port: 80}]"), &slice]);
    let remedy = "restart the agent with --map-size RUNS=32";
    refused.complains(&[
        "map RUNS is full",
        "17 more entries are needed",
        "of 16 are free",
        remedy,
    ]);
    stage.agent.status().refusal_with(&["service/many", remedy]).expect("it is in the status");
    let (many, web) = (stage.frontend("many", 80), stage.frontend("web", 80));
    let probe = stage.probe();
    let seen = Ok(Visit { pod: "pod-a".to_owned(), peer: web });
    assert_eq!(probe.tcp(web), seen, "everything else runs on");

    stage.agent.kill_nine();
    choose(&mut stage, "RUNS=32");
    take_over(&mut stage, "with the larger map");
    assert!(stage.agent.status().refused().is_empty(), "nothing is refused any more");
    let tally = probe.burst(Kind::Tcp4, many, 300);
    tally.assert_all_answered("what had not fitted");
    assert!(tally.answers.len() > 8, "many of the seventeen answer: {tally:?}");
    assert_eq!(stage.agent.status().used("RUNS"), 18, "both Services' endpoints");
    assert_eq!(probe.tcp(web), seen, "everything else runs on");
}

fn a_pinned_map_of_another_size_is_refused_by_name() {
    let mut stage = stage_with_web();
    let web = stage.frontend("web", 80);
    stage.agent.kill_nine();
    let runs = pinned(&stage, "RUNS");
    fs::remove_file(&runs).expect("a pin");
    let other = Array::<MapData, u32>::create(77, 0).expect("a map");
    other.pin(&runs).expect("a pin");
    stage.agent.spawn();
    assert_eq!(stage.agent.gives_up(), 1, "the exit code");
    let log = stage.agent.log();
    let named = runs.display().to_string();
    for text in [&named, "entries: 77, where 524288", "flags: 0, where 1024", "lb cleanup"] {
        assert!(log.contains(text), "the message must name {text}; log:\n{log}");
    }
    assert_eq!(stage.probe().tcp(web).map(|visit| visit.peer), Ok(web), "served on");
    stage.agent.cleanup(&[]).ok();
    stage.agent.start();
    assert_eq!(stage.probe().tcp(web).map(|visit| visit.peer), Ok(web), "after the remedy");
}

/// The pin of a map.
fn pinned(stage: &Stage, map: &str) -> PathBuf {
    let folders = fs::read_dir(&stage.agent.paths.bpffs).expect("the folder of pins");
    let mut pins = folders.flatten().map(|folder| folder.path().join(map));
    pins.find(|pin| pin.exists()).unwrap_or_else(|| panic!("{map} is pinned"))
}

fn a_size_that_cannot_be_is_refused() {
    for (sizes, message) in [
        ("RUNS=16777217", "RUNS can have 16 to 16777216 entries"),
        ("ORIGIN=1000", "ORIGIN needs a power of two, such as 1024"),
        ("RUN=1000", "there is no map RUN"),
        ("RUNS=64,RUNS=128", "RUNS has two sizes"),
    ] {
        let mut stage = Stage::without_agent();
        choose(&mut stage, sizes);
        stage.agent.spawn();
        let code = stage.agent.gives_up();
        let log = stage.agent.log();
        assert!(code == 1 || code == 2, "{sizes}: exit code {code}; log:\n{log}");
        assert!(log.contains(message), "{sizes}: the message must say {message:?}; log:\n{log}");
    }
}
