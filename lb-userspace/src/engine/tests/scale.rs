//! 10,000 Services with ten endpoints each.

use std::time::{Duration, Instant};

use super::*;
use crate::store::Store;
use crate::store::allocate::Pools;

const SERVICES: usize = 10_000;

fn address(i: usize) -> String {
    format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255)
}

fn with_slices() -> Vec<Submitted> {
    let mut yaml = String::new();
    for i in 0..SERVICES {
        yaml.push_str(&service(&format!("s{i}"), "", ""));
        let list: Vec<_> =
            (0..10).map(|j| format!("{{addresses: [{}]}}", address(i * 10 + j))).collect();
        let one = slice(&format!("s{i}-x"), &format!("s{i}"), "X");
        yaml.push_str(&one.replace("{addresses: [X]}", &list.join(", ")));
    }
    submitted(&yaml, "big.yaml")
}

fn with_pods() -> Vec<Submitted> {
    let mut yaml = String::new();
    for i in 0..SERVICES {
        yaml.push_str(&service(&format!("s{i}"), "", &format!("app: a{i}")));
        for j in 0..10 {
            let labels = format!("app: a{i}, pod-template-hash: h{i}");
            yaml.push_str(&pod(&format!("a{i}-{j}"), &labels, &address(i * 10 + j), true));
        }
    }
    submitted(&yaml, "big.yaml")
}

/// What the agent may have as a whole, its runtime and the datapath's tables included.
const AGENT_KIB: usize = 64 * 1024;
/// Names the folder to the child that is measured.
const FOLDER: &str = "LB_SCALE_FOLDER";

/// Anonymous memory of this process in KiB.
fn anonymous() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a figure");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

/// How many backends each service port has.
fn backends(rig: &Rig) -> Vec<usize> {
    let held = rig.held();
    let ports = held.table.iter().filter(|(id, _)| id.part != Part::Addresses);
    ports.map(|(_, wanted)| wanted.backends.len()).collect()
}

async fn fill(objects: Vec<Submitted>) -> Rig {
    let rig = Rig::with_sources(1);
    let started = Instant::now();
    rig.engine.replace_file("/m/big.yaml".into(), objects, Vec::new()).await;
    println!("admitted, committed and planned in {:?}", started.elapsed());
    assert_eq!(backends(&rig), [10; SERVICES]);
    rig.engine.stop().await;
    rig
}

/// What a start costs besides reading: planning everything and handing it over.
fn plan_all(rig: &Rig) -> Duration {
    let pools = Pools::new(&config(rig.folder.path(), 1).service_cidrs).expect("ranges");
    let started = Instant::now();
    let store = Store::open(rig.folder.path(), "us", pools).expect("it was closed");
    println!("read in {:?}", started.elapsed());
    let started = Instant::now();
    let mut planned = 0;
    for key in store.services() {
        let wanted = store.plan(key).expect("it is there");
        planned += wanted.iter().map(|(_, wanted)| wanted.backends.len()).sum::<usize>();
    }
    let took = started.elapsed();
    assert_eq!(planned, 10 * SERVICES);
    println!("planned in {took:?}");
    took
}

/// An idle machine takes 20 to 80 ms in a release build; the limit leaves room for busy ones. Without
/// optimization the test only proves that the work is done.
fn within_budget(took: Duration) {
    assert!(cfg!(debug_assertions) || took < Duration::from_secs(1), "planned in {took:?}");
}

/// The memory of an engine that serves what `rig` has stored, in a process that did nothing else.
fn memory_within_budget(rig: &Rig) {
    let this = std::env::current_exe().expect("this test");
    let output = std::process::Command::new(this)
        .args(["--exact", "engine::tests::scale::measured_engine", "--ignored", "--nocapture"])
        .env(FOLDER, rig.folder.path())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let used = text.lines().find_map(|line| line.strip_prefix("anonymous KiB: "));
    let used: usize =
        used.unwrap_or_else(|| panic!("no figure: {text}")).parse().expect("a number");
    println!("anonymous memory {used} KiB");
    assert!(used < AGENT_KIB, "{used} KiB of {AGENT_KIB}");
}

/// Not a test of its own: the child of [`memory_within_budget`].
#[tokio::test]
#[ignore = "started by the tests of memory"]
async fn measured_engine() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let _engine = start(Path::new(&folder), 1, &Forget).expect("a store");
    println!("\nanonymous KiB: {}", anonymous());
}

/// What the kernel holds is not the agent's memory.
#[derive(Clone, Copy, Debug)]
struct Forget;

impl Sink for Forget {
    fn apply(&mut self, _: Vec<Change>) -> Vec<Refused> {
        Vec::new()
    }

    fn has_adopted(&self) -> bool {
        false
    }

    fn prune(&mut self) {}

    fn exempt(&mut self, _: Vec<ExemptCgroup>) {}

    fn status(&self) -> datapath::Status {
        datapath::Status::default()
    }
}

#[tokio::test]
async fn ten_thousand_services_with_slices() {
    let rig = fill(with_slices()).await;
    within_budget(plan_all(&rig));
    memory_within_budget(&rig);
}

/// `cargo test --release --lib -- --ignored --nocapture scale` shows figures.
#[tokio::test]
#[ignore = "a minute without optimization"]
async fn ten_thousand_services_with_pods() {
    let rig = fill(with_pods()).await;
    within_budget(plan_all(&rig));
    memory_within_budget(&rig);
}
