//! Clients on other hosts: what gets through a node to a Service's endpoints, by lb, by nftables, and by forwarding
//! alone, which is the limit.

use std::thread;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Plan;
use super::load::{DATAGRAM, Kind};
use super::pairs::{self, Comparison, Row};
use super::sides::{Balancer, SERVER_PROCESSOR, Service, Side, endpoint, nftables};
use crate::progress::Steps;
use crate::stage::Stage;

/// What is sent, in this order.
const LOADS: [Kind; 4] = [Kind::Datagrams, Kind::Stream, Kind::Requests, Kind::Connections];

/// Measures all sides in turns, and takes everything down.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Comparison>> {
    let processors = thread::available_parallelism().context("cannot count processors")?;
    ensure!(processors.get() > SERVER_PROCESSOR, "the forwarding benchmark needs two processors");
    let nftables = format!("{}, rules as kube-proxy's", nftables::version()?);
    let forwarding = "forwarding alone, clients addressing an endpoint".to_owned();
    let mut arena = Arena::set_up(plan)?;
    let steps = Steps::new(arena.services.len() * LOADS.len() * plan.pairs);
    let mut comparisons = [nftables, forwarding].map(comparison);
    for service in 0..arena.services.len() {
        for kind in LOADS {
            arena.compare(service, kind, plan, &steps, &mut comparisons)?;
        }
    }
    Ok(comparisons.into())
}

/// The sides: lb, and then what it is compared with. They leave the stage before it goes.
struct Arena {
    sides: [Side; 3],
    services: [Service; 2],
    _stage: Stage,
}

impl Arena {
    fn set_up(plan: &Plan) -> Result<Self> {
        let subject = plan.lb.as_deref().map_or(Balancer::Nftables, Balancer::Lb);
        let services = services();
        let stage = Stage::set_up("lb-bench")?;
        let mut sides = [
            Side::set_up(&stage, "subject", subject, &services)?,
            Side::set_up(&stage, "nftables", Balancer::Nftables, &services)?,
            Side::set_up(&stage, "plain", Balancer::Nobody, &services)?,
        ];
        for side in &mut sides {
            for service in &services {
                side.check(service)?;
            }
        }
        Ok(Self { sides, services, _stage: stage })
    }

    /// Measures one load through one Service, and adds the rows to the comparisons.
    fn compare(
        &mut self,
        service: usize,
        kind: Kind,
        plan: &Plan,
        steps: &Steps,
        comparisons: &mut [Comparison; 2],
    ) -> Result<()> {
        let service = &self.services[service];
        let case = format!("{}, {}", service.name, kind.name());
        let quantities = pairs::alternate([0, 1, 2], plan.pairs, &case, steps, |side| {
            let seen = self.sides[side].load(kind, service, plan.seconds)?;
            numbers(kind, &seen).with_context(|| format!("{case}: {seen}"))
        })?;
        for (quantity, rounds) in names(kind).iter().zip(quantities) {
            for (reference, comparison) in (1..).zip(&mut *comparisons) {
                comparison.rows.push(Row {
                    case: service.name.to_owned(),
                    quantity: (*quantity).to_owned(),
                    pairs: rounds.iter().map(|round| [round[0], round[reference]]).collect(),
                    goal: None,
                });
            }
        }
        Ok(())
    }
}

/// Two Services of three endpoints each, which are told apart by where lb takes their endpoints to be.
fn services() -> [Service; 2] {
    let service = |name, node_port, first, masquerade| Service {
        name,
        node_port,
        endpoints: (first..first + 3).map(endpoint).collect(),
        masquerade,
    };
    [service("near", 30_080, 0, false), service("far", 30_081, 3, true)]
}

fn comparison(reference: String) -> Comparison {
    Comparison {
        scenario: "forwarding",
        reference,
        conditions: vec![
            "NodePorts, IPv4, in network namespaces client – node – backend, each side with its own. A round measures \
             lb, nftables and forwarding alone, one after the other."
                .to_owned(),
            "near: endpoints on the node, which see the client. far: endpoints elsewhere, which see the node in the \
             client's place (masquerade). lb has programs on both devices of the node."
                .to_owned(),
            "nftables without the chains by which kube-proxy filters and refuses, two of which every packet passes."
                .to_owned(),
            format!(
                "Backend on processor {SERVER_PROCESSOR}; clients of requests and connections, too, others on \
                 processor 0; all in real time (SCHED_FIFO). Devices are veth with their usual offloads: a stream \
                 passes the node in segments of up to 64 KiB."
            ),
            format!(
                "UDP: {DATAGRAM} bytes of data, one flow, sent as fast as possible; what arrives counts. Requests: one \
                 byte and its echo. Connections: made and closed one after the other, without data."
            ),
        ],
        rows: Vec::new(),
    }
}

/// What is measured of a load.
fn names(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Datagrams => &["UDP packets/s", "UDP packets lost, %"],
        Kind::Stream => &["TCP stream, Gbit/s"],
        Kind::Requests => &["TCP requests/s"],
        Kind::Connections => &["TCP connections/s"],
        Kind::Visit => &[],
    }
}

/// A load's numbers, as they are named.
fn numbers(kind: Kind, seen: &Value) -> Option<Vec<f64>> {
    let number = |name: &str| seen[name].as_f64();
    let rate = || number("rate").filter(|rate| *rate > 0.0);
    Some(match kind {
        Kind::Datagrams => vec![rate()?, number("lost")? * 100.0],
        Kind::Stream => vec![rate()? * 8.0 / 1e9],
        Kind::Requests | Kind::Connections => vec![rate()?],
        Kind::Visit => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_come_in_the_units_that_their_names_say() {
        let seen = json!({ "rate": 1.25e9, "lost": 0.25 });
        assert_eq!(numbers(Kind::Stream, &seen), Some(vec![10.0]));
        assert_eq!(numbers(Kind::Datagrams, &seen), Some(vec![1.25e9, 25.0]));
        for kind in LOADS {
            let count = numbers(kind, &seen).map(|numbers| numbers.len());
            assert_eq!(count, Some(names(kind).len()), "{kind:?}");
        }
    }

    #[test]
    fn a_load_that_went_nowhere_is_no_number() {
        assert_eq!(numbers(Kind::Requests, &json!({ "rate": 0.0 })), None);
    }
}
