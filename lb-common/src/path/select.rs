//! Service → backend.

use super::{Reason, Tables};
use crate::abi::{Backend, Peer, Run};

/// A backend and the id by which it is remembered.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) id: u32,
    pub(super) backend: Backend,
}

/// The run of `service` for traffic from this node, loaded once: whatever is chosen from it was
/// in the set at that moment. What it leads to was written before it and is reached through it, so
/// the processor's dependency order suffices.
#[inline(always)]
pub(super) fn run(tables: &impl Tables, service: u32) -> Result<Run, Reason> {
    let run = tables.internal_run(service).ok_or(Reason::Inconsistent)?;
    if run.count == 0 { Err(Reason::NoEndpoints) } else { Ok(run) }
}

/// A backend of `run`, each with equal chance.
#[inline(always)]
pub(super) fn choose(tables: &impl Tables, run: Run) -> Result<Choice, Reason> {
    at(tables, run.pick(tables.random()))
}

/// The backend in a slot.
#[inline(always)]
pub(super) fn at(tables: &impl Tables, slot: u32) -> Result<Choice, Reason> {
    let id = tables.slot(slot).ok_or(Reason::Inconsistent)?;
    let backend = tables.backend(id).ok_or(Reason::Inconsistent)?;
    Ok(Choice { id, backend })
}

/// Whether the backend that `peer` remembers is still in the set. One load: an id that has come
/// to mean another endpoint has another generation.
#[inline(always)]
pub(super) fn still_selected(tables: &impl Tables, peer: &Peer) -> bool {
    let Some(backend) = tables.backend(peer.backend_id) else { return false };
    let life = backend.life();
    life.internal && life.generation == peer.backend_generation
}
