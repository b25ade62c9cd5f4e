//! Random packets over random tables.

mod packets;
mod tables;

use std::env;

use lb_common::abi::protocol::TCP;
use lb_common::abi::{FlowKey, Hook, Life, Role, Run};
use lb_common::packet::{Parsed, parse_ethernet};
use lb_common::path::packet::Link;
use lb_common::path::{Reason, Refusal, Treatment};
use lb_common::sim::Tables;
use lb_common::sim::flows::{Outcome, treat};
use lb_common::sim::world::World;
use libtest_mimic::Failed;

use super::capture::{bytes, keep};
use super::cases::flows;
use super::kernel::{Count, Kernel};
use super::node;

/// Tables that packets are sent over, and packets for each. `LB_PACKETS` asks for more, or fewer, of them.
const ROUNDS: u64 = 50;
const PACKETS: usize = 2_000;

pub(crate) fn run() -> Result<(), Failed> {
    let number = |name: &str| env::var(name).ok().and_then(|word| word.parse::<u64>().ok());
    let seed = number("LB_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("LB_PACKETS").map_or(ROUNDS, |packets| packets.div_ceil(PACKETS as u64));
    let result = node::within(move |device| {
        let mut kernel = Kernel::load(device, crate::FLOWS, None);
        let mut tally = Tally::default();
        for round in 0..rounds {
            play(&mut kernel, &mut fastrand::Rng::with_seed(seed.wrapping_add(round)), &mut tally)
                .map_err(|problem| format!("LB_SEED={}: {problem}", seed.wrapping_add(round)))?;
        }
        Ok::<_, String>(tally)
    });
    let tally = result?;
    eprintln!("{} packets, of which: {:?}", tally.packets, tally.reasons);
    // A test of packets none of which meets a flow would show little.
    for reason in [Reason::Translated, Reason::Established, Reason::Related, Reason::NoEndpoints] {
        let met = tally.reasons.get(&reason).copied().unwrap_or(0);
        if met < tally.packets / 500 {
            return Err(format!("only {met} of {} packets were {reason:?}", tally.packets).into());
        }
    }
    Ok(())
}

/// What was seen.
#[derive(Default)]
struct Tally {
    packets: usize,
    reasons: std::collections::BTreeMap<Reason, usize>,
}

/// Sends packets over one set of tables.
fn play(kernel: &mut Kernel, rng: &mut fastrand::Rng, tally: &mut Tally) -> Result<(), String> {
    let mut world = tables::random(rng);
    kernel.fill(&world.tables, &world.arrival);
    kernel.counted();
    let mut sent: Vec<Vec<u8>> = Vec::new();
    for number in 0..PACKETS {
        if rng.u8(..) == 0 {
            change_life(kernel, rng, &mut world);
        }
        let (hook, frame) = packets::random(rng, &world);
        sent.push(frame.clone());
        let Some(outcome) = kernel.treat(hook, &frame) else { continue };
        // Of what is dropped, the kernel says why.
        let dropped = if outcome == Outcome::Gone { kernel.counted() } else { Vec::new() };
        let (reason, expected) = on_host(kernel, &mut world, hook, &frame, &dropped);
        tally.packets += 1;
        *tally.reasons.entry(reason).or_default() += 1;
        let count = (hook.operation(), reason);
        if is_limited(reason, &frame) && dropped == [(hook.operation(), Reason::Unanswered)] {
            continue;
        }
        let counted = if outcome == Outcome::Gone {
            dropped == [count]
        } else {
            reason == Reason::NotService || kernel.has_counted(count)
        };
        if !counted || outcome != expected {
            let ends = [bytes(&expected), bytes(&outcome)];
            let path = keep("random", sent.iter().map(Vec::as_slice).chain(ends));
            return Err(format!(
                "packet {number}, {hook:?}: on the host {reason:?} and {expected:x?}, in the kernel \
                 {:?} and {outcome:x?}; all packets, what was expected and what came are in {}",
                [dropped, kernel.counted()].concat(),
                path.display()
            ));
        }
    }
    let uncalled = kernel.counted();
    if !uncalled.is_empty() {
        return Err(format!("counted without cause: {uncalled:?}"));
    }
    if kernel.flows() != flows(&world.tables) {
        let path = keep("random", sent.iter().map(Vec::as_slice));
        return Err(format!(
            "FLOWS differ: on the host {:?}, in the kernel {:?}; packets in {}",
            flows(&world.tables),
            kernel.flows(),
            path.display()
        ));
    }
    let fragments: Vec<_> = world.tables.fragments.borrow().keys().copied().collect();
    if kernel.fragments() != fragments {
        return Err("FRAGMENTS differ".to_owned());
    }
    Ok(())
}

/// Whether this refusal is an ICMP message, of which the kernel sends so many in a second and no more.
fn is_limited(reason: Reason, frame: &[u8]) -> bool {
    let mut parsed = Parsed::NONE;
    let tcp = parse_ethernet(frame, &mut parsed).is_ok() && parsed.outer.tuple.protocol == TCP;
    match reason.treatment() {
        Treatment::Refuse(Refusal::Port) => !tcp,
        Treatment::Refuse(Refusal::Host) => true,
        Treatment::Pass | Treatment::Rewrite | Treatment::Return | Treatment::Drop => false,
    }
}

/// Makes a backend come or go.
fn change_life(kernel: &mut Kernel, rng: &mut fastrand::Rng, world: &mut World) {
    let ids: Vec<u32> = world.tables.backends.keys().copied().collect();
    let Some(id) = rng.choice(ids) else { return };
    let backend = world.tables.backends.get_mut(&id).expect("it was listed");
    let listed = rng.bool();
    backend.life = Life {
        generation: 7 + u32::from(rng.u8(..4) == 0),
        cluster: listed,
        local: listed && backend.here != 0,
        present: listed || rng.bool(),
    }
    .to_word();
    kernel.set_backend(id, &world.tables);
}

/// What the host does with the kernel's choices for chance.
fn on_host(
    kernel: &Kernel,
    world: &mut World,
    hook: Hook,
    frame: &[u8],
    counted: &[Count],
) -> (Reason, Outcome) {
    let arrival = world.arrival.clone();
    let decide = |tables: &Tables| treat(tables, &arrival, Link::Ethernet, hook, frame);
    if counted == [(hook.operation(), Reason::NoSnatPort)] {
        // Which backend had no port left, the kernel does not say: any that has none may be it.
        for place in 0..8 {
            let tables = world.tables.clone();
            tables.script.borrow_mut().clear();
            tables.script.borrow_mut().push_back(number(place, 8));
            let decided = decide(&tables);
            if decided.0 == Reason::NoSnatPort {
                world.tables = tables;
                return decided;
            }
        }
    }
    follow(kernel, world, hook, frame);
    decide(&world.tables)
}

/// Gives the host, for its next decision, the choices that the kernel has just made for this frame.
pub(crate) fn follow(
    kernel: &Kernel,
    World { tables, arrival, .. }: &World,
    hook: Hook,
    frame: &[u8],
) {
    tables.script.borrow_mut().clear();
    let mut parsed = Parsed::NONE;
    if hook != Hook::Ingress || parse_ethernet(frame, &mut parsed).is_err() {
        return;
    }
    let tuple = parsed.outer.tuple;
    let key = FlowKey {
        source: tuple.source,
        destination: tuple.destination,
        source_port: tuple.source_port,
        destination_port: tuple.destination_port,
        protocol: tuple.protocol,
        ..FlowKey::NONE.at(hook)
    };
    let Some(flow) = kernel.flow(&key).filter(|flow| flow.role == Role::Request as u8) else {
        return;
    };
    let service = tables.services[&flow.service];
    let places = [service.cluster, service.local].map(Run::from_word).map(|run| {
        let named = |slot| tables.runs.get(&slot) == Some(&flow.backend_id);
        run.slots().position(named).map(|place| number(place as u64, run.count.into()))
    });
    let port = u64::from(flow.source_port.number());
    let first = u64::from(tables.node.snat_first);
    let port = number(port.saturating_sub(first), tables.node.snat_count.into());
    // Which list was asked, and whether chance had a part in it, is found out by trying.
    let scripts = places.into_iter().flatten().map(|place| vec![place, port]).chain([vec![port]]);
    let as_in_kernel = |script: &Vec<u32>| {
        let tables = tables.clone();
        *tables.script.borrow_mut() = script.clone().into();
        treat(&tables, arrival, Link::Ethernet, hook, frame);
        let made = tables.flows.borrow().get(&key).copied();
        made.is_some_and(|made| {
            (made.backend_id, made.source_port) == (flow.backend_id, flow.source_port)
        })
    };
    if let Some(chosen) = scripts.into_iter().find(as_in_kernel) {
        *tables.script.borrow_mut() = chosen.into();
    }
}

/// A random number by which this of so many is chosen.
fn number(chosen: u64, of: u64) -> u32 {
    u32::try_from((chosen << 32) / of.max(1) + 1).unwrap_or(u32::MAX)
}
