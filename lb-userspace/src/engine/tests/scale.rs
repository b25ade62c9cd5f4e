//! 10,000 Services with ten endpoints each.

use std::fmt::Write as _;
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

/// Anonymous memory of this process in KiB.
fn anonymous() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a figure");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}

async fn fill(objects: Vec<Submitted>) -> Rig {
    let rig = Rig::with_sources(1);
    let started = Instant::now();
    rig.engine.replace_file("/m/big.yaml".into(), objects, Vec::new()).await;
    println!("admitted, committed and planned in {:?}", started.elapsed());
    assert_eq!(rig.held().table.len(), SERVICES);
    assert!(rig.held().table.values().all(|wanted| wanted.backends.len() == 10));
    rig.engine.stop().await;
    rig
}

/// What a start costs besides reading: planning everything and handing it over.
fn plan_all(rig: &Rig) -> Duration {
    let before = anonymous();
    let pools = Pools::new(&config(rig.folder.path(), 1).service_cidrs).expect("ranges");
    let started = Instant::now();
    let store = Store::open(rig.folder.path(), "us", pools).expect("it was closed");
    println!("read in {:?}, {} KiB", started.elapsed(), anonymous().saturating_sub(before));
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

/// The budget is a release build's; without optimization the test only proves the work is done.
fn within_budget(took: Duration) {
    assert!(cfg!(debug_assertions) || took < Duration::from_millis(100), "planned in {took:?}");
}

#[tokio::test]
async fn ten_thousand_services_with_slices() {
    let rig = fill(with_slices()).await;
    within_budget(plan_all(&rig));
}

/// Slow without optimization; `cargo test --release -- --ignored --nocapture scale` shows figures.
#[tokio::test]
#[ignore = "a minute without optimization"]
async fn ten_thousand_services_with_pods() {
    let rig = fill(with_pods()).await;
    within_budget(plan_all(&rig));
}

/// The agent's memory at that size, in a process that did nothing else: run it alone.
#[tokio::test]
#[ignore = "needs a process of its own: give its folder in LB_SCALE_DIR"]
async fn memory_of_ten_thousand_services() {
    let Some(folder) = std::env::var_os("LB_SCALE_DIR") else { return };
    let table = Table::default();
    let started = Instant::now();
    let _engine = start(Path::new(&folder), 1, &table).expect("a store");
    let mut line = String::new();
    write!(line, "ready in {:?}, anonymous {} KiB", started.elapsed(), anonymous())
        .expect("a string");
    table.0.lock().expect("no test panics with it").table.clear();
    println!("{line}; the recording table included");
}
