//! What the programs do to a packet and what they leave behind, as the simulator tells it: without what depends on
//! the clock.

use std::collections::BTreeMap;
use std::mem::{size_of, transmute_copy};

use lb_common::abi::{Flow, FlowKey, FragmentKey, Hook};
use lb_common::path::{Operation, Reason};
use lb_common::sim::flows::Outcome;

use super::kernel::{Count, Kernel, bytes};

/// Longest frame that comes out of a test run.
const LONGEST: usize = 4096;

impl Kernel {
    /// What the program does to a frame. `None` if a test run does not take such frames.
    pub(crate) fn treat(&mut self, hook: Hook, frame: &[u8]) -> Option<Outcome> {
        let mut out = vec![0; LONGEST];
        let result = self.run(hook, frame, Some(&mut out), 1)?;
        out.truncate(result.data_size_out as usize);
        // `TC_ACT_UNSPEC`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT`
        match result.return_value {
            u32::MAX => Some(Outcome::Goes(out)),
            2 => Some(Outcome::Gone),
            7 => Some(Outcome::Returns(out)),
            other => panic!("the program says {other}"),
        }
    }

    /// What was counted since this or [`Self::has_counted`] was asked.
    pub(crate) fn counted(&mut self) -> Vec<Count> {
        let mut counted = Vec::new();
        for operation in [Operation::Ingress, Operation::Egress] {
            for &reason in Reason::ALL {
                let moved = self.moved((operation, reason));
                counted.extend(std::iter::repeat_n((operation, reason), moved));
            }
        }
        counted
    }

    /// Whether this was counted once since it was asked before. Whether anything else was, [`Self::counted`] tells.
    pub(crate) fn has_counted(&mut self, count: Count) -> bool {
        self.moved(count) == 1
    }

    /// An entry of `FLOWS`, without the time.
    pub(crate) fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(&bytes(key), 0).ok().map(|value| timeless(value.0))
    }

    /// All of `FLOWS`, without times.
    pub(crate) fn flows(&self) -> BTreeMap<FlowKey, Flow> {
        let all = self.flows.iter().map(|entry| entry.expect("a hash can be listed"));
        all.map(|(key, value)| (from_bytes(key), timeless(value.0))).collect()
    }

    /// All of `FRAGMENTS`.
    pub(crate) fn fragments(&self) -> Vec<FragmentKey> {
        let keys = self.fragments.keys().map(|key| from_bytes(key.expect("it can be listed")));
        let mut keys: Vec<FragmentKey> = keys.collect();
        keys.sort_unstable();
        keys
    }
}

/// A flow of which only what does not depend on the clock counts.
pub(crate) fn without_time(flow: Flow) -> Flow {
    Flow { last_seen: 0, ..flow }
}

fn timeless(bytes: [u8; size_of::<Flow>()]) -> Flow {
    without_time(from_bytes(bytes))
}

/// The inverse of [`bytes`].
fn from_bytes<T: Copy, const N: usize>(bytes: [u8; N]) -> T {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: as many bytes; the types of the maps have no value that is invalid.
    unsafe { transmute_copy(&bytes) }
}
