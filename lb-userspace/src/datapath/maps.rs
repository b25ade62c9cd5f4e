//! The writes that the update protocol consists of, and the reads that adoption needs.
//!
//! A trait, because the protocol is also run against a model in which every step is looked at
//! (`tests` in [`super::writer`]). Stores into memory-mapped arrays cannot fail; updates
//! of the hash and of the trie can.

use std::io;

use lb_common::abi::{Backend, FrontendEntry, FrontendKey, Life, List, Policy, Run, Service};

use super::ranges::SourceRange;

/// Entries that each map can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    /// `FRONTENDS`.
    pub(super) frontends: u32,
    /// `SERVICES`.
    pub(super) services: u32,
    /// `RUNS`.
    pub(super) slots: u32,
    /// `BACKENDS`.
    pub(super) backends: u32,
    /// `SOURCE_RANGES`.
    pub(super) ranges: u32,
    /// Tables of `MAGLEV`.
    pub(super) tables: u32,
    /// Slots of each of them.
    pub(super) table_size: u32,
}

/// The maps, as the agent writes them. Each store is seen by programs at once and in order.
pub(super) trait Maps {
    /// Entries that each map can hold.
    fn capacity(&self) -> Capacity;

    /// Writes one slot of `RUNS`.
    fn store_slot(&mut self, slot: u32, backend: u32);
    /// Writes a backend that no run names.
    fn store_backend(&mut self, id: u32, backend: Backend);
    /// Changes whether a backend may be used: one store.
    fn store_life(&mut self, id: u32, life: Life);
    /// Switches a service to another set: one store.
    fn store_run(&mut self, service: u32, list: List, run: Run);
    /// Changes how a service treats its clients: one store.
    fn store_policy(&mut self, service: u32, policy: Policy);

    /// Writes one slot of a table of `MAGLEV`: one store.
    fn store_entry(&mut self, table: u32, slot: u32, backend: u32);

    /// Inserts or replaces. Both may take over memory that a program still reads.
    fn put_frontend(&mut self, key: &FrontendKey, entry: FrontendEntry) -> io::Result<()>;
    /// Deletes; that there is no such entry is no error.
    fn delete_frontend(&mut self, key: &FrontendKey) -> io::Result<()>;
    /// Lets clients of a range come by a service's load balancers.
    fn put_range(&mut self, service: u32, range: &SourceRange) -> io::Result<()>;
    /// Takes a range away; that there is no such entry is no error.
    fn delete_range(&mut self, service: u32, range: &SourceRange) -> io::Result<()>;
    /// Returns when every program that runs now has finished.
    fn grace(&mut self) -> io::Result<()>;
    /// Has flows look their frontends up again (`Node::revision`).
    fn revise(&mut self);

    /// Every entry of `FRONTENDS`.
    fn frontends(&self) -> io::Result<Vec<(FrontendKey, FrontendEntry)>>;
    /// One entry of `SERVICES`.
    fn service(&self, index: u32) -> Service;
    /// One slot of `RUNS`.
    fn slot(&self, slot: u32) -> u32;
    /// One entry of `BACKENDS`.
    fn backend(&self, id: u32) -> Backend;
    /// One slot of a table of `MAGLEV`.
    fn entry(&self, table: u32, slot: u32) -> u32;
    /// Every entry of `SOURCE_RANGES`, with its service index.
    fn ranges(&self) -> io::Result<Vec<(u32, SourceRange)>>;
}
