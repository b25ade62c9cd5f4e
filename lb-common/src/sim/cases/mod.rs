//! Packets and what must become of them, one case after the other: run on the host over the simulator, and in the kernel
//! over the loaded programs.
//!
//! What is expected is built from scratch, never by the code under test.

mod flows;
mod frames;
mod frontends;
mod odd;
mod refusals;
mod replacements;

use alloc::string::String;
use alloc::vec::Vec;

use super::Tables;
use super::flows::Outcome;
use super::world::World;
use crate::abi::{FrontendEntry, FrontendKey, FrontendKind, Hook, Life, Policy};
use crate::path::Reason;
use crate::path::packet::Link;

/// Length of the link header.
const ETHERNET: usize = 14;

/// Some packets, one after the other, over one set of tables.
#[derive(Clone, Debug)]
pub struct Case {
    /// What must hold.
    pub name: String,
    /// The tables at the start.
    pub world: World,
    /// What the frames start with.
    pub link: Link,
    /// The packets.
    pub steps: Vec<Step>,
}

impl Case {
    /// Whether a frame ends before its IP header does. Over a wire these are the kernel's to treat, but
    /// `BPF_PROG_TEST_RUN` does not take them (`bpf_prog_test_run_skb`, net/bpf/test_run.c).
    pub fn is_cut_short(&self) -> bool {
        let ends_early = |frame: &[u8]| match frame.get(12..ETHERNET) {
            Some([0x08, 0x00]) => frame.len() < ETHERNET + 20,
            Some([0x86, 0xdd]) => frame.len() < ETHERNET + 40,
            _ => false,
        };
        self.link == Link::Ethernet && self.steps.iter().any(|step| ends_early(&step.frame))
    }
}

/// A packet.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it is met.
    pub hook: Hook,
    /// Its bytes.
    pub frame: Vec<u8>,
    /// What is counted, by one; [`Reason::NotService`] is not.
    pub reason: Reason,
    /// What becomes of it.
    pub outcome: Outcome,
    /// What the agent changes before it comes.
    pub change: Option<Change>,
}

/// What the agent changes.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// The life of a backend, by its id.
    Life(u32, Life),
    /// Whose a frontend is.
    Frontend(FrontendKey, Option<(FrontendKind, u32)>),
    /// How a service treats its clients.
    Policy(u32, Policy),
}

impl Change {
    /// Makes the tables what they are afterwards.
    pub fn apply(self, tables: &mut Tables) {
        match self {
            Self::Life(id, life) => {
                tables.backends.get_mut(&id).expect("it exists").life = life.to_word();
            }
            Self::Frontend(key, leads_to) => {
                tables.frontends.remove(&key);
                let entry = leads_to.map(|(kind, index)| FrontendEntry::new(&key, kind, index));
                tables.frontends.extend(entry.map(|entry| (key, entry)));
                tables.node.revision += 1;
            }
            Self::Policy(index, policy) => {
                tables.services.get_mut(&index).expect("it exists").policy = policy.to_word();
                tables.node.revision += 1;
            }
        }
    }
}

impl Step {
    /// A packet that arrives.
    pub fn arrives(frame: Vec<u8>, reason: Reason, outcome: Outcome) -> Self {
        Self { hook: Hook::Ingress, frame, reason, outcome, change: None }
    }

    /// The same after the life of a backend has changed.
    #[must_use]
    pub fn after(self, id: u32, life: Life) -> Self {
        self.following(Change::Life(id, life))
    }

    /// The same after something has changed.
    #[must_use]
    pub fn following(self, change: Change) -> Self {
        Self { change: Some(change), ..self }
    }

    /// A packet that leaves.
    pub fn leaves(frame: Vec<u8>, reason: Reason, outcome: Outcome) -> Self {
        Self { hook: Hook::Egress, frame, reason, outcome, change: None }
    }

    /// A packet that passes untouched.
    pub fn passes(hook: Hook, frame: Vec<u8>, reason: Reason) -> Self {
        Self { hook, outcome: Outcome::Goes(frame.clone()), frame, reason, change: None }
    }
}

/// Takes a case: its name, the world, and what happens.
type Add<'a> = &'a mut dyn FnMut(&str, World, Vec<Step>);

/// Every case, in both families.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for v4 in [true, false] {
        let family = if v4 { "IPv4" } else { "IPv6" };
        let mut add = |name: &str, world, steps| {
            let name = alloc::format!("{family}: {name}");
            cases.push(Case { name, world, link: Link::Ethernet, steps });
        };
        flows::add(v4, &mut add);
        frontends::add(v4, &mut add);
        refusals::add(v4, &mut add);
        replacements::add(v4, &mut add);
        odd::add(v4, &mut add);
    }
    cases.extend(without_link_header(&cases));
    cases
}

/// The same cases on a device without link header, where there are no VLAN tags.
fn without_link_header(cases: &[Case]) -> Vec<Case> {
    let strip = |frame: &[u8]| frame[ETHERNET..].to_vec();
    let untagged = |step: &Step| {
        step.frame.len() > ETHERNET && matches!(step.frame[12..14], [0x08, 0x00] | [0x86, 0xdd])
    };
    let stripped = |step: &Step| Step {
        frame: strip(&step.frame),
        outcome: match &step.outcome {
            Outcome::Goes(frame) => Outcome::Goes(strip(frame)),
            Outcome::Returns(frame) => Outcome::Returns(strip(frame)),
            Outcome::Gone => Outcome::Gone,
        },
        ..step.clone()
    };
    cases
        .iter()
        .filter(|case| case.steps.iter().all(untagged))
        .map(|case| Case {
            name: alloc::format!("{}, without link header", case.name),
            link: Link::Ip,
            steps: case.steps.iter().map(stripped).collect(),
            world: case.world.clone(),
        })
        .collect()
}
