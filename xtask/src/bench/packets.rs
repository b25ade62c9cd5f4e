//! The packet path: nanoseconds per packet, by test runs of the loaded programs (lb-userspace/tests/packets/bench.rs).

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Plan;
use super::pairs::{Comparison, Row};
use crate::progress::Steps;
use crate::stage::process;
use crate::{userspace, workspace};

/// What is measured has this processor, before everything else.
const PROCESSOR: usize = 1;

/// Measures each case as often as there are pairs.
pub(super) fn measure(plan: &Plan) -> Result<Comparison> {
    workspace::run(bench()?.arg("--no-run"), "building the benchmark of the packet programs")?;
    let steps = Steps::new(plan.pairs);
    let mut rows = Vec::new();
    for number in 1..=plan.pairs {
        steps.next(&format!("packet programs: pair {number} of {}", plan.pairs));
        let mut bench = bench()?;
        process::pin(&mut bench, PROCESSOR);
        add(&mut rows, &process::capture(&mut bench)?)?;
    }
    Ok(Comparison {
        scenario: "packets",
        reference: "the same program's shortest path, that of a frame for another host".to_owned(),
        conditions: vec![
            "tc_ingress on TCP packets with 64 bytes of data, in Ethernet frames.".to_owned(),
            "Known flows, and no Service's packets: 512,000 in one test run, which no system call interrupts; of many \
             flows, one after the other in random order, in a table with room for 262,144 entries."
                .to_owned(),
            "New flows: a test run for each, by the kernel's statistics of the program. These include two readings of the \
             clock and cold caches; the reference is measured likewise."
                .to_owned(),
        ],
        rows,
    })
}

/// What is compiled for BPF is optimized in any profile, and nothing else is measured.
fn bench() -> Result<Command> {
    let mut cargo = userspace::cargo("bench")?;
    cargo.args(["--profile", "dev", "-p", "lb-userspace", "--bench", "packet-path"]);
    Ok(cargo)
}

/// Adds one run's numbers to the rows.
fn add(rows: &mut Vec<Row>, output: &str) -> Result<()> {
    let cases: Vec<Value> = serde_json::from_str(output)
        .with_context(|| format!("the benchmark of the packet programs said {output:?}"))?;
    for (index, case) in cases.iter().enumerate() {
        let name = case["case"].as_str().context("a case without name")?;
        let number = |name: &str| case[name].as_f64().with_context(|| format!("{case}: {name}?"));
        let pair = [number("nanoseconds")?, number("least")?];
        if rows.len() == index {
            let quantity = "ns for each packet".to_owned();
            rows.push(Row { case: name.to_owned(), quantity, pairs: Vec::new(), goal: None });
        }
        ensure!(rows[index].case == name, "{name} comes where {} was", rows[index].case);
        rows[index].pairs.push(pair);
    }
    Ok(())
}
