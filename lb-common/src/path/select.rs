//! Service → backend.

use super::lookup::Target;
use super::{Reason, Sticky, Tables};
use crate::abi::{Affinity, AffinityKey, Backend, Life, Peer, Run};

/// A backend and the id by which it is remembered.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    pub(super) id: u32,
    pub(super) backend: Backend,
}

impl Choice {
    #[inline(always)]
    fn word(&self) -> u64 {
        Affinity::word(self.id, self.backend.life().generation)
    }
}

/// The run of a list, loaded once: whatever is chosen from it was in the set at that moment. What
/// it leads to was written before it and is reached through it, so the processor's dependency
/// order suffices.
#[inline(always)]
pub(super) fn run(tables: &impl Tables, target: &Target) -> Result<Run, Reason> {
    let run = tables.run(target.service, target.list).ok_or(Reason::Inconsistent)?;
    if run.count == 0 { Err(Reason::NoEndpoints) } else { Ok(run) }
}

/// A backend of `run`, each with equal chance.
#[inline(always)]
pub(super) fn any(tables: &impl Tables, run: Run) -> Result<Choice, Reason> {
    at(tables, run.pick(tables.random()))
}

/// The backend in a slot.
#[inline(always)]
pub(super) fn at(tables: &impl Tables, slot: u32) -> Result<Choice, Reason> {
    let id = tables.slot(slot).ok_or(Reason::Inconsistent)?;
    let backend = tables.backend(id).ok_or(Reason::Inconsistent)?;
    Ok(Choice { id, backend })
}

/// The backend that the client had, if it is in the list and the affinity has not run out; else
/// `choice`, which is its own from then on. Of callers that choose at once, the first one counts.
///
/// Where there is no memory for it, the client is served without affinity: the map forgets whom it
/// has not seen for longest, and finds room unless it has only callers of this very moment.
#[inline(always)]
pub(super) fn stick(
    tables: &impl Tables,
    target: &Target,
    key: &AffinityKey,
    choice: Choice,
) -> Result<Choice, Reason> {
    let now = tables.now();
    let Some(client) = tables.affinity(key) else {
        let mine = Affinity { backend: choice.word(), last_used: now };
        if tables.insert_affinity(key, &mine) {
            return Ok(choice);
        }
        let other = tables.affinity(key).map(|client| client.read());
        return Ok(other.and_then(|known| recall(tables, known, target)).unwrap_or(choice));
    };
    let known = client.read();
    if !known.expired(now, target.affinity_seconds)
        && let Some(own) = recall(tables, known, target)
    {
        client.touch(now);
        return Ok(own);
    }
    let standing = client.replace(known.backend, choice.word());
    client.touch(now);
    if standing == known.backend {
        return Ok(choice);
    }
    Ok(recall(tables, Affinity { backend: standing, ..known }, target).unwrap_or(choice))
}

/// The backend that a client was given, if it is still in the list. An element of the map may have
/// been handed to another client meanwhile, so the service counts, too.
///
/// Not by way of [`member`]: written out, the verifier has a fifth less to do with `sendmsg4`.
#[inline(always)]
fn recall(tables: &impl Tables, known: Affinity, target: &Target) -> Option<Choice> {
    let id = known.id();
    let backend = tables.backend(id)?;
    let life = backend.life();
    let same = life.generation == known.generation() && backend.service == target.service;
    (same && life.is_in(target.list)).then_some(Choice { id, backend })
}

/// The backend with this id, if it is one of the service's and in the list.
#[inline(always)]
pub(super) fn member(tables: &impl Tables, id: u32, target: &Target) -> Option<Choice> {
    let backend = tables.backend(id)?;
    let ours = backend.service == target.service && backend.life().is_in(target.list);
    ours.then_some(Choice { id, backend })
}

/// The lists that the backend which `peer` remembers is still in.
#[inline(always)]
pub(super) fn still_selected(tables: &impl Tables, peer: &Peer) -> Life {
    life(tables, peer.backend_id, peer.backend_generation)
}

/// What has become of this use of a backend id. One load: an id that has come to mean another endpoint
/// has another generation.
#[inline(always)]
pub(super) fn life(tables: &impl Tables, id: u32, generation: u32) -> Life {
    let life = tables.backend(id).map_or(Life::default(), |backend| backend.life());
    if life.generation == generation { life } else { Life::default() }
}
