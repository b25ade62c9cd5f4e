//! Frames that end before their IP header does. No test run takes them, so a wire brings them.

use std::collections::BTreeMap;

use lb_common::abi::Hook;
use lb_common::path::Reason;
use lb_common::sim::cases::{Case, all};
use lb_common::sim::flows::Outcome;
use lb_common::sim::packet::Frame;
use libtest_mimic::Trial;

use crate::harness::frames::Tap;
use crate::harness::netns::Namespace;
use crate::harness::status::Op;
use crate::harness::{Lan, cases, eventually};

pub(crate) fn tests() -> Vec<Trial> {
    cases![frames_that_are_cut_short_pass_untouched_and_are_counted]
}

fn frames_that_are_cut_short_pass_untouched_and_are_counted() {
    let lan = Lan::start_with(&["--device", "wire0"]);
    let far = Namespace::new();
    lan.node.wire("wire0", &far);
    let [here, there] = [Frame::DESTINATION, Frame::SOURCE]
        .map(|address| address.map(|byte| format!("{byte:02x}")).join(":"));
    lan.node.ip(&format!(
        "link set wire0 address {here}
        link add behind0 type veth peer name behind1
        link set behind0 up
        link set behind1 up"
    ));
    eventually("the wire has the programs", || match lan.agent.status().devices() {
        Some(devices) if devices.iter().any(|d| d.starts_with("wire0 tcx")) => Ok(()),
        devices => Err(format!("{devices:?}")),
    });
    // IP would drop them. What the program has let pass is seen where this filter, which comes after it, sends it.
    lan.node.tc("qdisc add dev wire0 clsact");
    let redirect = format!("match ether src {there} action mirred egress redirect dev behind0");
    lan.node.tc(&format!("filter add dev wire0 ingress u32 {redirect}"));
    let wire = Wire {
        far: Tap::on(&far, "eth0"),
        near: Tap::on(&lan.node, "wire0"),
        behind: Tap::on(&lan.node, "behind1"),
    };

    let cases: Vec<_> = all().into_iter().filter(Case::is_cut_short).collect();
    assert!(!cases.is_empty(), "there are such cases");
    let mut expected = [Op::Ingress, Op::Egress].map(|op| lan.agent.status().counted(op));
    for case in cases {
        wire.carry(&case, &mut expected);
        let counted = [Op::Ingress, Op::Egress].map(|op| lan.agent.status().counted(op));
        assert_eq!(counted, expected, "{}: ingress and egress", case.name);
    }
}

/// What frames come by: far → the program at ingress → behind; near → the program at egress → far.
struct Wire {
    far: Tap,
    near: Tap,
    behind: Tap,
}

impl Wire {
    /// Sends the frames of a case, and adds to `counts`, of ingress and egress, what the programs should count.
    #[track_caller]
    fn carry(&self, case: &Case, counts: &mut [BTreeMap<String, u64>; 2]) {
        for step in &case.steps {
            // There is no Service in this test, as there is in the case: a frame without addresses is nobody's.
            assert_eq!(step.outcome, Outcome::Goes(step.frame.clone()), "{}", case.name);
            let (from, to, counts) = match step.hook {
                Hook::Ingress => (&self.far, &self.behind, &mut counts[0]),
                Hook::Egress => (&self.near, &self.far, &mut counts[1]),
            };
            from.send(&step.frame);
            assert_eq!(to.receive_from(Frame::SOURCE), step.frame, "{}", case.name);
            if step.reason != Reason::NotService {
                *counts.entry(step.reason.name().to_owned()).or_default() += 1;
            }
        }
    }
}
