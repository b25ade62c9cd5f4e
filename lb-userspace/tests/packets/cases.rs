//! The table of cases.

use lb_common::path::Reason;
use lb_common::path::packet::Link;
use lb_common::sim::Tables;
use lb_common::sim::cases::{Case, Step, all};
use lb_common::sim::flows::treat;
use libtest_mimic::Failed;

use super::capture::{bytes, keep};
use super::kernel::Kernel;
use super::node;
use super::observed::without_time;
use super::random::follow;

pub(crate) fn run() -> Result<(), Failed> {
    run_over(None)
}

/// A kernel before 6.7 does not know the flags by which it is asked for a route, nor the node's address; this one does not
/// know this flag.
pub(crate) fn run_as_on_older_kernels() -> Result<(), Failed> {
    run_over(Some(1 << 31))
}

fn run_over(fib_flags: Option<u32>) -> Result<(), Failed> {
    let failures = node::within(move |device| {
        let mut kernel = Kernel::load(device, crate::FLOWS, fib_flags);
        // Test runs have a link header, and one of IP. Those that are cut short are sent over a wire, end to end.
        let taken = |case: &Case| case.link == Link::Ethernet && !case.is_cut_short();
        let cases = all().into_iter().filter(taken);
        let cases = cases.map(|mut case| {
            let (node, who) = (&mut case.world.tables.node, case.world.who);
            *(if who.v4 { &mut node.snat_v4 } else { &mut node.snat_v6 }) = who.node();
            case
        });
        cases.filter_map(|case| differs(&mut kernel, case)).collect::<Vec<_>>()
    });
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}

/// Runs one case in the kernel and, with the kernel's choices for chance, on the host.
fn differs(kernel: &mut Kernel, mut case: Case) -> Option<String> {
    case.world.tables.script.borrow_mut().clear();
    kernel.fill(&case.world.tables, &case.world.arrival);
    kernel.counted();
    for (number, step) in case.steps.iter().enumerate() {
        if let Some(change) = step.change {
            change.apply(&mut case.world.tables);
            kernel.configure(&case.world.tables, &case.world.arrival);
        }
        let Some(outcome) = kernel.treat(step.hook, &step.frame) else {
            return Some(format!("{}, packet {number}: the kernel does not take it", case.name));
        };
        let counted = kernel.counted();
        follow(kernel, &case.world, step.hook, &step.frame);
        let (reason, expected) =
            treat(&case.world.tables, &case.world.arrival, case.link, step.hook, &step.frame);
        let wanted: Vec<_> = (reason != Reason::NotService)
            .then_some((step.hook.operation(), reason))
            .into_iter()
            .collect();
        let flows = flows(&case.world.tables);
        if counted != wanted
            || outcome != expected
            || reason != step.reason
            || kernel.flows() != flows
        {
            let frames: Vec<&[u8]> = case.steps[..=number].iter().map(frame).collect();
            let ends = [bytes(&expected), bytes(&outcome)];
            let path = keep(&case.name, frames.into_iter().chain(ends));
            return Some(format!(
                "{}, packet {number}: expected {wanted:?} and {expected:x?},\ngot {counted:?} and \
                 {outcome:x?}\nflows on the host {flows:?},\nin the kernel {:?}\npackets, what was \
                 expected and what came are in {}",
                case.name,
                kernel.flows(),
                path.display()
            ));
        }
    }
    None
}

fn frame(step: &Step) -> &[u8] {
    &step.frame
}

/// `FLOWS` of the simulator, without times.
pub(crate) fn flows(
    tables: &Tables,
) -> std::collections::BTreeMap<lb_common::abi::FlowKey, lb_common::abi::Flow> {
    let flows = tables.flows.borrow();
    flows.iter().map(|(key, flow)| (*key, without_time(*flow))).collect()
}
