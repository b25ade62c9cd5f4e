//! DNS: answers of the agent's server against unbound answering the same names as local data.
//!
//! Both servers run in one network namespace, on the same processor, and are asked by the same
//! process on another; the one that is not asked is idle.

pub(crate) mod load;
mod questions;
mod unbound;

use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Plan;
use super::pairs::{self, Comparison, Goal, Row, Side};
use crate::progress::Steps;
use crate::stage::Stage;
use crate::stage::agent::Agent;
use crate::stage::pod::Pod;
use crate::stage::process;
use questions::Services;
use unbound::Unbound;

const SERVICES: u16 = 1_000;
/// Where lb listens, and unbound, on the address of the node.
const SUBJECT_PORT: u16 = 5_301;
const REFERENCE_PORT: u16 = 5_302;
/// Where clients of a cluster find DNS.
const CLUSTER_IP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 53);
/// The load's processor, and the one that both servers take turns on.
const LOAD_PROCESSOR: usize = 0;
const SERVER_PROCESSOR: usize = 1;
/// Seconds before each measurement in which nothing is counted.
const WARM_UP: f64 = 0.3;
/// How long a server may take to answer its first question.
const START: Duration = Duration::from_secs(30);
/// The share of what the slower of the two can do at which latencies are compared.
const PACE: f64 = 0.5;

/// Measures, and takes everything down.
pub(super) fn measure(plan: &Plan) -> Result<Comparison> {
    let processors = thread::available_parallelism().context("cannot count processors")?;
    ensure!(processors.get() > SERVER_PROCESSOR, "the DNS benchmark needs two processors");
    let mut arena = Arena::set_up(plan.lb.as_deref())?;
    let cases = arena.cases()?;
    let steps = Steps::new(cases.len() * (plan.pairs + 1));
    let mut rows = Vec::new();
    for case in &cases {
        rows.extend(arena.compare(case, plan, &steps)?);
    }
    Ok(Comparison {
        scenario: "dns",
        reference: unbound::version()?,
        conditions: vec![
            format!(
                "{SERVICES} Services, asked at random over UDP, in the same order on both sides."
            ),
            format!(
                "Load on processor {LOAD_PROCESSOR}, both servers on processor {SERVER_PROCESSOR}, \
                 all at nice −20, unbound with one thread, neither with a log of queries."
            ),
            "Queries/s: as many as the server answers, 100 outstanding.".to_owned(),
            "p99 at a rate: of questions due at fixed times, the same rate for both; without those \
             that were outstanding while the load itself was kept from its processor."
                .to_owned(),
            "Every answer is checked; unanswered means: not within a second.".to_owned(),
        ],
        rows,
    })
}

/// What is asked, and where.
struct Case {
    name: &'static str,
    /// lb's address.
    subject: SocketAddr,
    questions: PathBuf,
}

/// A number of questions asked of one server.
struct Seen {
    rate: f64,
    /// In microseconds.
    p99: f64,
    /// Microseconds of the server's processor time for each answer.
    cost: f64,
    timeouts: f64,
}

/// Both servers, and the place they run in. The order is that in which they are taken down.
struct Arena {
    subject: Subject,
    reference: Unbound,
    node: Pod,
    stage: Stage,
}

/// What is in lb's place.
enum Subject {
    Lb(Agent),
    /// The reference once more.
    Unbound(Unbound),
}

impl Arena {
    fn set_up(lb: Option<&Path>) -> Result<Self> {
        let stage = Stage::set_up("lb-bench")?;
        // Before other groups, too, where cgroups share the processors between them.
        let _ = fs::write(stage.cgroup.join("cpu.weight"), "10000");
        let node = stage.add_pod("node", 1)?;
        let services = Services::new(SERVICES);
        let at = |port| SocketAddr::new(IpAddr::V4(node.address), port);
        let place = |command: &mut Command| {
            process::pin(command, SERVER_PROCESSOR);
            node.place(command)
        };
        let subject = match lb {
            Some(lb) => Subject::Lb(start_agent(lb, &stage, &services, |command| {
                command.args(["--dns-listen", &at(SUBJECT_PORT).to_string()]);
                place(command)
            })?),
            None => {
                Subject::Unbound(Unbound::start(&stage.folder, at(SUBJECT_PORT), &services, place)?)
            }
        };
        let reference = Unbound::start(&stage.folder, at(REFERENCE_PORT), &services, place)?;
        for (name, questions) in [("addresses", services.addresses()), ("mix", services.mix())] {
            let file = stage.folder.join(name);
            fs::write(&file, questions)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(Self { subject, reference, node, stage })
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.node.address), port)
    }

    /// What is measured, once both servers answer.
    fn cases(&mut self) -> Result<Vec<Case>> {
        let listener = self.at(SUBJECT_PORT);
        let questions = |name: &str| self.stage.folder.join(name);
        let case = |name, subject, questions| Case { name, subject, questions };
        let mut cases = vec![
            case("A, listener", listener, questions("addresses")),
            case("mix, listener", listener, questions("mix")),
        ];
        if matches!(self.subject, Subject::Lb(_)) {
            cases.insert(1, case("A, ClusterIP", CLUSTER_IP, questions("addresses")));
        }
        for case in &cases {
            for side in Side::BOTH {
                self.wait_until_ready(case, side)?;
            }
        }
        Ok(cases)
    }

    fn wait_until_ready(&mut self, case: &Case, side: Side) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            match self.ask(case, side, 0.1, None) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    let log = match (side, &self.subject) {
                        (Side::Subject, Subject::Lb(_)) => {
                            process::tail(&self.stage.folder.join("agent.log"), 10)
                        }
                        (Side::Subject, Subject::Unbound(_)) => {
                            unbound::log(&self.stage.folder, self.at(SUBJECT_PORT))
                        }
                        (Side::Reference, _) => {
                            unbound::log(&self.stage.folder, self.at(REFERENCE_PORT))
                        }
                    };
                    return Err(error).with_context(|| {
                        format!("{}: no answers; the end of the server's log:\n{log}", case.name)
                    });
                }
                Err(_) => process::pause()?,
            }
        }
    }

    /// The rows of one case.
    fn compare(&mut self, case: &Case, plan: &Plan, steps: &Steps) -> Result<Vec<Row>> {
        steps.next(&format!("{}: finding a rate that both can answer", case.name));
        let mut slowest = f64::INFINITY;
        for side in Side::BOTH {
            slowest = slowest.min(self.ask(case, side, plan.seconds / 2.0, None)?.rate);
        }
        let rate = (slowest * PACE / 1e3).floor().max(1.0) * 1e3;
        let quantities = pairs::alternate(Side::BOTH, plan.pairs, case.name, steps, |side| {
            let most = self.ask(case, side, plan.seconds, None)?;
            let paced = self.ask(case, side, plan.seconds, Some(rate))?;
            Ok(vec![most.rate, most.p99, paced.p99, most.cost, most.timeouts + paced.timeouts])
        })?;
        let names = [
            ("queries/s".to_owned(), Some(Goal::AtLeast(0.5))),
            ("p99 of these, µs".to_owned(), None),
            (format!("p99 at {rate} queries/s, µs"), Some(Goal::AtMost(1.0))),
            ("processor time for each, µs".to_owned(), None),
            ("unanswered".to_owned(), None),
        ];
        let rows = names.into_iter().zip(quantities);
        Ok(rows
            .map(|((quantity, goal), pairs)| Row {
                case: case.name.to_owned(),
                quantity,
                pairs,
                goal,
            })
            .collect())
    }

    /// Asks one server for so many seconds. A wrong answer, or none at all, is an error.
    fn ask(&mut self, case: &Case, side: Side, seconds: f64, rate: Option<f64>) -> Result<Seen> {
        let reference = self.at(REFERENCE_PORT);
        let (server, process) = match (side, &mut self.subject) {
            (Side::Subject, Subject::Lb(agent)) => (case.subject, agent.id()?),
            (Side::Subject, Subject::Unbound(unbound)) => (case.subject, unbound.id()?),
            (Side::Reference, _) => (reference, self.reference.id()?),
        };
        let mut command = Command::new(env::current_exe().context("which program is this?")?);
        command
            .arg("dns-load")
            .args(["--server", &server.to_string(), "--process", &process.to_string()])
            .args(["--seconds", &seconds.to_string(), "--warm-up", &WARM_UP.to_string()])
            .arg("--questions")
            .arg(&case.questions);
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        process::pin(&mut command, LOAD_PROCESSOR);
        self.node.place(&mut command)?;
        let seen = process::capture(&mut command)?;
        read(&seen).with_context(|| format!("{}, asking {server}", case.name))
    }
}

/// An agent that serves the Services; `adapt` says where it runs.
fn start_agent(
    lb: &Path,
    stage: &Stage,
    services: &Services,
    adapt: impl FnOnce(&mut Command) -> Result<()>,
) -> Result<Agent> {
    let agent = Agent::start(lb, stage, adapt)?;
    let file = stage.folder.join("services.yaml");
    fs::write(&file, services.manifests())
        .with_context(|| format!("cannot write {}", file.display()))?;
    agent.quietly(&["apply", "-f", &file.display().to_string()])?;
    Ok(agent)
}

fn read(seen: &str) -> Result<Seen> {
    let seen: serde_json::Value =
        serde_json::from_str(seen).with_context(|| format!("the load said {seen:?}"))?;
    if let Some(fault) = seen["fault"].as_str() {
        let wrong = &seen["wrong"];
        anyhow::bail!("{wrong} wrong answers; {fault}");
    }
    let number = |name: &str| seen[name].as_f64();
    let answered = number("answered").filter(|answered| *answered > 0.0);
    let numbers = || {
        let answered = answered?;
        Some(Seen {
            rate: answered / number("seconds")?,
            p99: number("p99")?,
            cost: number("busy")? * 1e6 / answered,
            timeouts: number("timeouts")?,
        })
    };
    numbers().with_context(|| format!("nothing was answered: {seen}"))
}
