//! The packet path's tables, and what becomes of a frame.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::{BTreeMap, Tables};
use crate::abi::{Address, Flow, FlowKey, FragmentKey, FragmentPorts, Hook};
use crate::maglev;
use crate::packet::Tuple;
use crate::path::packet::answer::Answer;
use crate::path::packet::{self, FlowEntry, Inserted, Link, Route, Work};
use crate::path::{Reason, Treatment};

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on, as it is now.
    Goes(Vec<u8>),
    /// This goes back by its device.
    Returns(Vec<u8>),
    /// It is gone.
    Gone,
}

/// How a frame came.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Whether its device is on this node's side.
    pub inside: bool,
    /// Where packets to these addresses go.
    pub routes: BTreeMap<Address, Route>,
    /// Devices that have the programs.
    pub attached: BTreeSet<u32>,
    /// Whether its transport's checksum is still to be completed.
    pub is_partial: bool,
}

impl packet::Arrival for Arrival {
    fn is_inside(&self) -> bool {
        self.inside
    }

    fn route(&self, _: Address, destination: Address) -> Route {
        let nowhere = Route { returns: false, device: 0, source: Address::UNSPECIFIED };
        self.routes.get(&destination).copied().unwrap_or(nowhere)
    }

    fn is_attached(&self, device: u32) -> bool {
        self.attached.contains(&device)
    }
}

/// Does to a frame what the programs do.
pub fn treat(
    tables: &Tables,
    arrival: &Arrival,
    link: Link,
    hook: Hook,
    frame: &[u8],
) -> (Reason, Outcome) {
    let mut work = Work::NONE;
    let reason = packet::decide(tables, arrival, frame, link, hook, &mut work);
    let rewritten = || {
        let mut frame = frame.to_vec();
        work.rewrite.apply(&mut frame).map(|()| frame)
    };
    let outcome = match reason.treatment() {
        Treatment::Pass => Some(Outcome::Goes(frame.to_vec())),
        Treatment::Rewrite => rewritten().map(Outcome::Goes),
        Treatment::Return => rewritten().map(|mut frame| {
            if link == Link::Ethernet {
                let (to, from) = frame[..12].split_at_mut(6);
                to.swap_with_slice(from);
            }
            Outcome::Returns(frame)
        }),
        Treatment::Refuse(refusal) => {
            let mut answer = Answer::NONE;
            let made = answer.set(frame, &work.parsed, refusal);
            let Some(frame) = made.and_then(|()| answer.apply(frame, arrival.is_partial, link))
            else {
                return (Reason::Unanswered, Outcome::Gone);
            };
            Some(Outcome::Returns(frame))
        }
        Treatment::Drop => None,
    };
    (reason, outcome.unwrap_or(Outcome::Gone))
}

impl packet::PacketTables for Tables {
    fn flow<'t>(&'t self, key: &FlowKey) -> Option<impl FlowEntry + use<'t>> {
        let key = *key;
        self.flows.borrow().contains_key(&key).then_some(Entry { flows: &self.flows, key })
    }

    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted {
        let mut flows = self.flows.borrow_mut();
        if flows.contains_key(key) {
            return Inserted::Exists;
        }
        if flows.len() >= self.flow_capacity {
            return Inserted::Full;
        }
        flows.insert(*key, *flow);
        Inserted::Done
    }

    fn remove_flow(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn flow_made(&self) {}

    fn flows_full(&self) {
        self.refused_flows.set(self.refused_flows.get() + 1);
    }

    fn ports_taken(&self) {
        self.missing_ports.set(self.missing_ports.get() + 1);
    }

    fn ports(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }

    fn note_ports(&self, key: &FragmentKey, ports: FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, ports);
    }

    fn maglev(&self, table: u32, hash: u64) -> Option<u32> {
        let table = self.maglev.get(&table)?;
        let size = u32::try_from(table.len()).ok()?;
        table.get(usize::try_from(maglev::slot(hash, size)).ok()?).copied()
    }

    fn in_source_range(&self, service: u32, address: Address) -> bool {
        self.source_ranges.iter().any(|(of, range)| *of == service && range.contains(address))
    }
}

/// An entry of `FLOWS`.
struct Entry<'t> {
    flows: &'t RefCell<BTreeMap<FlowKey, Flow>>,
    key: FlowKey,
}

impl Entry<'_> {
    fn get(&self) -> Flow {
        self.flows.borrow()[&self.key]
    }
}

impl FlowEntry for Entry<'_> {
    fn read(&self, to: &mut Tuple) {
        let flow = self.get();
        to.source = flow.source;
        to.destination = flow.destination;
        to.source_port = flow.source_port;
        to.destination_port = flow.destination_port;
    }

    fn backend(&self) -> (u32, u32) {
        (self.get().backend_id, self.get().backend_generation)
    }

    fn service(&self) -> u32 {
        self.get().service
    }

    fn revision(&self) -> u32 {
        self.get().revision
    }

    fn revise(&self, revision: u32) {
        if let Some(flow) = self.flows.borrow_mut().get_mut(&self.key) {
            flow.revision = revision;
        }
    }

    fn role(&self) -> u8 {
        self.get().role
    }

    fn node(&self) -> Address {
        self.get().node
    }

    fn seen(&self) -> u8 {
        self.get().seen
    }

    fn note(&self, seen: u8, now: u64, bytes: u32) {
        if let Some(flow) = self.flows.borrow_mut().get_mut(&self.key) {
            flow.seen = seen;
            flow.last_seen = now;
            flow.packets += 1;
            flow.bytes += u64::from(bytes);
        }
    }
}
