//! The decisions on a connection's way: lookup → select → remember → verdict, and back.
//!
//! They read through small traits. [`Tables`] is what all sockets share; [`Caller`] who makes the
//! call; [`Memory`] what lb remembers of one socket. The kernel serializes the hooks of one socket with the socket's lock
//! (`BPF_CGROUP_RUN_SA_PROG_LOCK`), so memory has no other writer; tables change at any time.

mod lookup;
pub mod packet;
mod select;
pub mod socket;
mod verdict;

use crate::abi::{
    Affinity, AffinityKey, Backend, FrontendEntry, FrontendKey, List, Node, Peer, Peers, Policy,
    Run,
};

pub use verdict::{
    Action, COUNTERS, Errno, Operation, Reason, Refusal, Treatment, Verdict, counter_index,
};

/// The tables that all sockets share. Absence means an index or key that does not exist.
pub trait Tables {
    /// `FRONTENDS`.
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendEntry>;
    /// `SERVICES`: how a service treats its clients. One load.
    fn policy(&self, service: u32) -> Option<Policy>;
    /// `SERVICES`: the run of a list. Exactly one load, so that the caller has the whole old set or
    /// the whole new one.
    fn run(&self, service: u32, list: List) -> Option<Run>;
    /// `RUNS`: the backend id in a slot.
    fn slot(&self, slot: u32) -> Option<u32>;
    /// `BACKENDS`, with its life read in one load.
    fn backend(&self, id: u32) -> Option<Backend>;
    /// `NODE`.
    fn node(&self) -> Option<&Node>;
    /// `AFFINITY`: what is known of a client.
    fn affinity(&self, key: &AffinityKey) -> Option<impl Sticky>;
    /// `AFFINITY`: notes a client. False if it is known by now, or there is no memory for it.
    fn insert_affinity(&self, key: &AffinityKey, value: &Affinity) -> bool;
    /// `CLOCK_BOOTTIME` in nanoseconds.
    fn now(&self) -> u64;
    /// Uniform over 32 bits.
    fn random(&self) -> u32;
}

/// One entry of `AFFINITY`, in place. Other callers change it, too.
pub trait Sticky {
    /// Its value.
    fn read(&self) -> Affinity;
    /// Sets the time of its last use.
    fn touch(&self, now: u64);
    /// Replaces the backend if it is still `old`; what was there before.
    fn replace(&self, old: u64, new: u64) -> u64;
}

/// Who makes the call.
pub trait Caller {
    /// Cookie of the network namespace of its socket.
    fn netns(&self) -> u64;
    /// Whether its cgroup lies in one that is to be left alone.
    fn is_exempt(&self) -> bool;
    /// Whether its socket is one of the agent's own, by
    /// [`OWN_SOCKET_PRIORITY`](crate::abi::OWN_SOCKET_PRIORITY).
    fn is_own(&self) -> bool;
}

/// What lb remembers of one socket.
pub trait Memory {
    /// Whether the socket has a fixed peer at this moment.
    fn is_connected(&self) -> bool;
    /// The peer that it connected to or first sent to.
    fn first(&mut self) -> Option<&mut Peer>;
    /// Sets the first peer. False if there is no memory for it.
    fn set_first(&mut self, peer: &Peer) -> bool;
    /// Forgets the first peer.
    fn clear_first(&mut self);
    /// The further peers of an unconnected UDP socket, if it has any.
    fn further(&mut self) -> Option<&mut Peers>;
    /// The further peers, made if there are none. `None` if there is no memory for it.
    fn further_or_new(&mut self) -> Option<&mut Peers>;
}

/// What an application names: address, port in network order, protocol number.
pub use crate::abi::FrontendKey as Destination;
