//! The packet path on the host, over the table of cases.

use lb_common::sim::cases;
use lb_common::sim::flows::treat;

#[test]
fn every_packet_becomes_what_it_should() {
    let mut failed = Vec::new();
    for mut case in cases::all() {
        for (number, step) in case.steps.iter().enumerate() {
            if let Some(change) = step.change {
                change.apply(&mut case.world.tables);
            }
            let (reason, outcome) =
                treat(&case.world.tables, &case.world.arrival, case.link, step.hook, &step.frame);
            if reason != step.reason || outcome != step.outcome {
                failed.push(format!(
                    "{}, packet {number}:\n  came     {:x?}\n  expected {:?} {:x?}\n  got      {reason:?} {outcome:x?}",
                    case.name, step.frame, step.reason, step.outcome
                ));
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
}
