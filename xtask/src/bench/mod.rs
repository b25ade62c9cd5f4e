//! Benchmarks: lb and something that people use today, on the same machine in the same run, taking
//! turns. What counts is the ratio of the two; absolute numbers belong to the machine.
//!
//! A scenario is a module with a function that returns [`Comparison`]s; [`pairs`] holds how it is
//! measured, [`report`] how it is shown.

pub(crate) mod dns;
mod machine;
pub(crate) mod packets;
mod pairs;
mod report;

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;

use crate::stage::process;
use crate::{setup, userspace};
use pairs::Comparison;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Answers of the agent's DNS server, against unbound
    Dns,
    /// The packet path, against nftables
    Packets,
}

impl Scenario {
    fn needs(self) -> Vec<setup::Need> {
        match self {
            Self::Dns => setup::for_bench_dns(),
            Self::Packets => setup::for_bench_packets(),
        }
    }

    fn measure(self, plan: &Plan) -> Result<Vec<Comparison>> {
        match self {
            Self::Dns => Ok(vec![dns::measure(plan)?]),
            Self::Packets => packets::measure(plan),
        }
    }
}

/// How a scenario is to be measured.
struct Plan {
    /// The binary of lb; without one, what lb is compared with takes lb's place, too.
    lb: Option<PathBuf>,
    /// How often the two take turns.
    pairs: usize,
    /// How long one measurement takes, in seconds.
    seconds: f64,
}

/// Measures these scenarios, or all if none is named, and writes the report. With `self_check` the
/// reference is compared with itself.
pub(crate) fn run(scenarios: &[Scenario], quick: bool, self_check: bool) -> Result<()> {
    let scenarios = if scenarios.is_empty() { Scenario::value_variants() } else { scenarios };
    for scenario in scenarios {
        setup::install(&scenario.needs())?;
    }
    let lb = if self_check { None } else { Some(userspace::build(true)?) };
    let machine = machine::describe(lb.as_deref());
    let (pairs, seconds) = if quick { (3, 1.0) } else { (7, 3.0) };
    let plan = Plan { lb, pairs, seconds };

    process::catch_interrupts()?;
    let comparisons: Result<Vec<Vec<Comparison>>> =
        scenarios.iter().map(|scenario| scenario.measure(&plan)).collect();
    let comparisons: Vec<Comparison> = comparisons?.into_iter().flatten().collect();
    report::show(&machine, &comparisons)
}
