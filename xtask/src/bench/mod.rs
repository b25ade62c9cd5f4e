//! Benchmarks: lb and something that people use today, on the same machine in the same run, taking
//! turns. What counts is the ratio of the two; absolute numbers belong to the machine.
//!
//! A scenario is a module with a function that returns a [`Comparison`], or one for each thing that lb is compared
//! with; [`pairs`] holds how it is measured, [`report`] how it is shown. [`sides`] are networks with a balancer in
//! the middle, [`load`] is what goes through them.

pub(crate) mod dns;
mod forwarding;
pub(crate) mod load;
mod machine;
mod packets;
mod pairs;
mod report;
mod sides;

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
    /// What the programs of the packet path take for a packet, against the shortest path through them
    Packets,
    /// NodePorts for clients on other hosts, against nftables and against forwarding alone
    Forwarding,
}

impl Scenario {
    fn needs(self) -> Vec<setup::Need> {
        match self {
            Self::Dns => setup::for_bench_dns(),
            Self::Packets => setup::for_namespaces(),
            Self::Forwarding => setup::for_bench_forwarding(),
        }
    }

    /// Whether it runs `lb`.
    fn runs_lb(self) -> bool {
        match self {
            Self::Dns | Self::Forwarding => true,
            Self::Packets => false,
        }
    }

    fn measure(self, plan: &Plan) -> Result<Vec<Comparison>> {
        match self {
            Self::Dns => Ok(vec![dns::measure(plan)?]),
            Self::Packets => Ok(vec![packets::measure(plan)?]),
            Self::Forwarding => forwarding::measure(plan),
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
    let runs_lb = !self_check && scenarios.iter().any(|scenario| scenario.runs_lb());
    let lb = if runs_lb { Some(userspace::build(true)?) } else { None };
    let machine = machine::describe(lb.as_deref());
    let (pairs, seconds) = if quick { (3, 1.0) } else { (7, 3.0) };
    let plan = Plan { lb, pairs, seconds };

    process::catch_interrupts()?;
    let mut comparisons = Vec::new();
    for scenario in scenarios {
        comparisons.extend(scenario.measure(&plan)?);
    }
    report::show(&machine, &comparisons)
}
