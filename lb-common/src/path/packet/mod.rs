//! The packet path: what happens to packets of clients whose sockets the node does not see.
//!
//! read → error, fragment, ping, or flow → known: rewrite; new: lookup → select → remember → rewrite.
//!
//! At ingress a packet gets another destination, at egress another source: see [`crate::abi::Flow`]. Only ingress
//! makes flows.

pub mod answer;
mod echo;
mod flow;
mod fragment;
mod new;

use super::{Operation, Reason, Tables};
use crate::abi::protocol::{TCP, UDP};
use crate::abi::{Address, Flow, FlowKey, FragmentKey, FragmentPorts, Hook};
use crate::packet::edit::Rewrite;
use crate::packet::{Packet, Parsed, Tuple, Unparsed, parse_ethernet, parse_ip};

/// What the packet path reads and writes beside [`Tables`].
pub trait PacketTables: Tables {
    /// `FLOWS`: what becomes of such packets.
    fn flow<'t>(&'t self, key: &FlowKey) -> Option<impl FlowEntry + use<'t, Self>>;
    /// `FLOWS`: adds an entry, if there is none.
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted;
    /// `FLOWS`: takes an entry away, if there is one.
    fn remove_flow(&self, key: &FlowKey);
    /// A flow was made: the agent is woken if it sleeps.
    fn flow_made(&self);
    /// A flow found no room: the agent is woken.
    fn flows_full(&self);
    /// A flow found no port by which the node could stand in for its client: the agent is woken.
    fn ports_taken(&self);
    /// `FRAGMENTS`: the ports of a fragmented packet.
    fn ports(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// `FRAGMENTS`: notes them.
    fn note_ports(&self, key: &FragmentKey, ports: FragmentPorts);
    /// `MAGLEV`: the backend id in the slot of this hash, of a table counted from 0.
    fn maglev(&self, table: u32, hash: u64) -> Option<u32>;
    /// `SOURCE_RANGES`: whether the address is in one of the service's ranges.
    fn in_source_range(&self, service: u32, address: Address) -> bool;
}

/// How a packet came to the node.
pub trait Arrival {
    /// `DEVICES`: whether what comes by its device comes from this node.
    fn is_inside(&self) -> bool;
    /// Where a packet with these addresses goes from here, and what the node is called there.
    fn route(&self, source: Address, destination: Address) -> Route;
    /// `DEVICES`: whether packets that leave by this device meet a program.
    fn is_attached(&self, device: u32) -> bool;
}

/// One entry of `FLOWS`, in place. Other processors use it, too.
pub trait FlowEntry {
    /// Addresses and ports that packets get.
    fn read(&self, to: &mut Tuple);
    /// Id and generation of the backend.
    fn backend(&self) -> (u32, u32);
    /// [`Flow::service`].
    fn service(&self) -> u32;
    /// [`Flow::revision`].
    fn revision(&self) -> u32;
    /// Sets [`Flow::revision`].
    fn revise(&self, revision: u32);
    /// The [`crate::abi::Role`].
    fn role(&self) -> u8;
    /// The node's address that stands in for the client's.
    fn node(&self) -> Address;
    /// [`Flow::seen`].
    fn seen(&self) -> u8;
    /// Counts a packet of so many bytes, seen at `now`; sets [`Flow::seen`].
    fn note(&self, seen: u8, now: u64, bytes: u32);
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there.
    Done,
    /// Another one is there.
    Exists,
    /// There is no room.
    Full,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Whether it leaves by the device that it came by.
    pub returns: bool,
    /// The index of the device that it leaves by; 0 if it is not known.
    pub device: u32,
    /// Address of the node towards there; unspecified if it has none.
    pub source: Address,
}

/// What a frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Ip,
}

/// Memory for one packet at a time: more than a program's stack holds.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Its headers.
    pub parsed: Parsed,
    /// Addresses and ports that it gets.
    pub to: Tuple,
    /// What it is found by.
    pub key: FlowKey,
    /// Another key, of a flow that is made.
    pub other: FlowKey,
    /// An entry that is made.
    pub flow: Flow,
    /// What it is found by as a fragment.
    pub fragment: FragmentKey,
    /// What is to be done to it.
    pub rewrite: Rewrite,
}

impl Work {
    /// Nothing yet.
    pub const NONE: Self = Self {
        parsed: Parsed::NONE,
        to: Tuple::NONE,
        key: FlowKey::NONE,
        other: FlowKey::NONE,
        flow: Flow::NONE,
        fragment: FragmentKey::NONE,
        rewrite: Rewrite::NONE,
    };
}

impl Hook {
    /// What is counted there.
    pub const fn operation(self) -> Operation {
        match self {
            Self::Ingress => Operation::Ingress,
            Self::Egress => Operation::Egress,
        }
    }
}

/// Decides about a packet. [`Reason::treatment`] says what is to be done; `work` holds the rewrite, if it is one. Where it
/// is to be refused, [`answer`] makes what the sender gets.
#[inline(always)]
pub fn decide(
    tables: &impl PacketTables,
    arrival: &impl Arrival,
    packet: &(impl Packet + ?Sized),
    link: Link,
    hook: Hook,
    work: &mut Work,
) -> Reason {
    let read = match link {
        Link::Ethernet => parse_ethernet(packet, &mut work.parsed),
        Link::Ip => parse_ip(packet, &mut work.parsed),
    };
    if let Err(unparsed) = read {
        return unread(unparsed);
    }
    match decide_read(tables, arrival, packet, hook, work) {
        Ok(reason) | Err(reason) => reason,
    }
}

/// What becomes of a packet whose headers are read.
#[inline(always)]
fn decide_read(
    tables: &impl PacketTables,
    arrival: &impl Arrival,
    packet: &(impl Packet + ?Sized),
    hook: Hook,
    work: &mut Work,
) -> Result<Reason, Reason> {
    if work.parsed.is_error() {
        return flow::related(tables, hook, work);
    }
    fragment::complete(tables, hook, work)?;
    translate(tables, arrival, packet, hook, work)
}

/// What becomes of a packet that is no error, its ports known.
#[inline(always)]
fn translate(
    tables: &impl PacketTables,
    arrival: &impl Arrival,
    packet: &(impl Packet + ?Sized),
    hook: Hook,
    work: &mut Work,
) -> Result<Reason, Reason> {
    let tuple = &work.parsed.outer.tuple;
    if !matches!(tuple.protocol, TCP | UDP) {
        return match hook {
            Hook::Ingress => echo::echo(tables, packet, work),
            Hook::Egress => Err(Reason::NotService),
        };
    }
    set_key(&mut work.key, tuple, hook);
    let length = packet.length();
    let reason = match flow::known(tables, arrival, length, work) {
        Some(reason) => reason,
        // A later fragment begins nothing.
        None if hook == Hook::Ingress && work.parsed.outer.l4 != 0 => {
            new::flow(tables, arrival, length, work)?
        }
        None => return Err(Reason::NotService),
    };
    fragment::note(tables, hook, work);
    rewrite(work).then_some(reason).ok_or(Reason::Inconsistent)
}

/// Fills in the edits that give the packet the addresses and ports of `work.to`.
#[inline(always)]
fn rewrite(work: &mut Work) -> bool {
    let Work { parsed, to, rewrite, .. } = work;
    rewrite.set(parsed, to)
}

#[inline(always)]
fn set_key(key: &mut FlowKey, tuple: &Tuple, hook: Hook) {
    key.source = tuple.source;
    key.destination = tuple.destination;
    key.source_port = tuple.source_port;
    key.destination_port = tuple.destination_port;
    key.protocol = tuple.protocol;
    key.hook = hook as u8;
    key.reserved = [0; 2];
}

/// Packets that cannot be read pass untouched, and are counted unless they are of another protocol.
#[inline(always)]
const fn unread(unparsed: Unparsed) -> Reason {
    match unparsed {
        Unparsed::NotIp => Reason::NotService,
        Unparsed::Short => Reason::Short,
        Unparsed::Malformed => Reason::Malformed,
        Unparsed::TooManyExtensions | Unparsed::SourceRouted | Unparsed::MappedAddress => {
            Reason::Unsupported
        }
    }
}
