//! The flows of the packet path: taking those out of `FLOWS` that are over. See `docs/flows.md`.
//!
//! Everything happens on one thread of its own, [`worker`], which sleeps while there are no flows. It lists the table, puts
//! the entries of each connection together ([`connection`]), decides by [`rules`], and takes out what is over ([`mod@sweep`]).

mod connection;
mod ports;
mod rules;
mod schedule;
mod sweep;
#[cfg(test)]
mod tests;
mod worker;

use std::io;

use lb_common::abi::{Flow, FlowKey};
use serde::{Deserialize, Serialize};

pub use self::rules::{Lifetimes, State};
pub use self::sweep::{Tally, sweep};
pub use self::worker::{Handle, start};

/// One entry of `FLOWS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which packets.
    pub key: FlowKey,
    /// What becomes of them, and what was seen of them.
    pub flow: Flow,
}

/// What new connections lacked since the last sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lack {
    /// Room in the table.
    pub room: bool,
    /// A port by which the node could stand in for their clients.
    pub ports: bool,
}

/// `FLOWS`. Programs insert, change and remove entries meanwhile.
///
/// A trait, because collection is also run against a model whose programs are at work between any two steps.
pub trait Table {
    /// How many entries there can be.
    fn capacity(&self) -> u32;
    /// By how many ports the node can stand in for clients of one endpoint.
    fn ports(&self) -> u32;
    /// Every entry; one that comes or goes meanwhile may be missing.
    fn list(&mut self) -> io::Result<Vec<Entry>>;
    /// One entry as it is now.
    fn look(&mut self, key: &FlowKey) -> io::Result<Option<Flow>>;
    /// Takes one out, and returns what it was then.
    fn take(&mut self, key: &FlowKey) -> io::Result<Option<Flow>>;
    /// Puts one in. That there is one is an error, as that there is no room.
    fn put(&mut self, entry: &Entry) -> io::Result<()>;
    /// Returns when every program that runs now has finished.
    fn settle(&mut self) -> io::Result<()>;
}

/// The flows' part of `lb status`, as the last look found them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Entries in use. A connection has two, or four if the node stands in for the client.
    pub entries: u64,
    /// Entries that there can be.
    pub capacity: u64,
    /// TCP connections in use, or idle.
    pub established: u64,
    /// TCP connections whose handshake is not complete.
    pub opening: u64,
    /// TCP connections that both sides have ended, or one has reset.
    pub closed: u64,
    /// UDP flows.
    pub udp: u64,
    /// Entries without the others of their connection.
    pub strays: u64,
    /// Connections taken out since the agent has started.
    pub collected: u64,
    /// Of these, how many before their time, for lack of room or of ports.
    pub collected_early: u64,
    /// New connections refused for lack of room, counted by the programs.
    pub refused: u64,
    /// When flows were last looked at, RFC 3339.
    pub last_sweep: Option<String>,
    /// Why they could not be looked at, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
