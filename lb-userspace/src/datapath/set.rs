//! The endpoints of one service port: wanted against installed.

use std::collections::BTreeMap;

use lb_common::abi::{Address, Backend, Life, Port, Run};

use super::maps::{Maps, Side};
use super::pools::{Pools, Shortage};
use crate::plan;

/// What tells one endpoint of a service port from another.
pub(super) type Endpoint = (Address, Port);

/// One endpoint that has an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: u32,
    pub(super) life: Life,
}

/// The endpoints that the kernel has for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) members: BTreeMap<Endpoint, Member>,
    pub(super) internal: Run,
    pub(super) external: Run,
    /// The runs may not be what the members' lives say: an earlier agent was killed between the
    /// two. The next update writes them anew.
    pub(super) unfinished: bool,
}

/// The wanted endpoints, and for whom each is.
#[derive(Debug)]
struct Wanted(BTreeMap<Endpoint, Rights>);

/// For whose traffic an endpoint is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights {
    internal: bool,
    external: bool,
}

/// Slots taken for a service's next runs.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    internal: Run,
    external: Run,
}

impl Set {
    /// Makes service `index` have `backends`: new entries, new runs, and only then the state of
    /// what left. Readers see the whole old set or the whole new one.
    ///
    /// # Errors
    ///
    /// If free ids or slots do not suffice; nothing has been written then.
    pub(super) fn update(
        &mut self,
        index: u32,
        backends: &[plan::Backend],
        maps: &mut impl Maps,
        pools: &mut Pools,
    ) -> Result<(), Shortage> {
        let wanted = Wanted::new(backends);
        let new = wanted.0.keys().filter(|endpoint| !self.members.contains_key(*endpoint)).count();
        pools.check_backends(new)?;
        let runs = self.reserve(&wanted, pools)?;

        self.admit(index, &wanted, maps, pools);
        if let Some(runs) = runs {
            self.switch(index, &wanted, runs, maps, pools);
        }
        self.dismiss(&wanted, maps, pools);
        Ok(())
    }

    /// Takes slots for the new runs; none if both sides keep their members. Two sides with the
    /// same members share one run.
    fn reserve(&self, wanted: &Wanted, pools: &mut Pools) -> Result<Option<Reserved>, Shortage> {
        let unchanged = [Side::Internal, Side::External].into_iter().all(|side| {
            let installed = self.members.iter().filter(|(_, m)| selected(&m.life, side));
            installed.map(|(endpoint, _)| endpoint).eq(wanted.side(side))
        });
        if unchanged && !self.unfinished {
            return Ok(None);
        }
        let shared = wanted.0.values().all(|rights| rights.internal == rights.external);
        let internal = wanted.side(Side::Internal).count();
        let external = if shared { 0 } else { wanted.side(Side::External).count() };
        let first = pools.take_slots(internal + external)?;

        let generation = self.internal.generation.wrapping_add(1) & Run::MAX_GENERATION;
        let length = |n: usize| u32::try_from(n).expect("take_slots has checked it");
        let run = |first, n| Run { first, count: length(n), generation };
        let internal = run(first, internal);
        let external = if shared { internal } else { run(first + internal.count, external) };
        Ok(Some(Reserved { internal, external }))
    }

    /// Gives new endpoints an id, and returning ones their rights, before any run names them.
    fn admit(&mut self, index: u32, wanted: &Wanted, maps: &mut impl Maps, pools: &mut Pools) {
        for (&endpoint, rights) in &wanted.0 {
            if let Some(member) = self.members.get_mut(&endpoint) {
                let internal = member.life.internal || rights.internal;
                let external = member.life.external || rights.external;
                member.store(Life { internal, external, ..member.life }, maps);
                continue;
            }
            let id = pools.take_backend();
            let life = Life {
                generation: maps.backend(id).life().generation.wrapping_add(1),
                internal: rights.internal,
                external: rights.external,
                present: true,
            };
            let (address, port) = endpoint;
            let entry =
                Backend { address, port, service: index, life: life.to_word(), ..Backend::NONE };
            maps.store_backend(id, entry);
            self.members.insert(endpoint, Member { id, life });
        }
    }

    /// Fills the new runs and switches to them, one store a side.
    fn switch(
        &mut self,
        index: u32,
        wanted: &Wanted,
        runs: Reserved,
        maps: &mut impl Maps,
        pools: &mut Pools,
    ) {
        for (side, run) in [(Side::Internal, runs.internal), (Side::External, runs.external)] {
            for (slot, endpoint) in (run.first..).zip(wanted.side(side)) {
                maps.store_slot(slot, self.members[endpoint].id);
            }
            maps.store_run(index, side, run);
        }
        pools.retire_runs((self.internal, self.external));
        (self.internal, self.external) = (runs.internal, runs.external);
        self.unfinished = false;
    }

    /// Takes rights, and then ids, from what the runs no longer name.
    fn dismiss(&mut self, wanted: &Wanted, maps: &mut impl Maps, pools: &mut Pools) {
        self.members.retain(|endpoint, member| match wanted.0.get(endpoint) {
            Some(&Rights { internal, external }) => {
                member.store(Life { internal, external, ..member.life }, maps);
                true
            }
            None => {
                member.store(Life { generation: member.life.generation, ..Life::default() }, maps);
                pools.retire_backend(member.id);
                false
            }
        });
    }
}

impl Wanted {
    fn new(backends: &[plan::Backend]) -> Self {
        let endpoint = |b: &plan::Backend| (Address::from(b.address), Port::new(b.port));
        let rights = |b: &plan::Backend| Rights { internal: b.internal, external: b.external };
        Self(backends.iter().map(|b| (endpoint(b), rights(b))).collect())
    }

    /// The endpoints for one side, in order.
    fn side(&self, side: Side) -> impl Iterator<Item = &Endpoint> {
        let selected = move |rights: &Rights| match side {
            Side::Internal => rights.internal,
            Side::External => rights.external,
        };
        self.0.iter().filter(move |(_, rights)| selected(rights)).map(|(endpoint, _)| endpoint)
    }
}

pub(super) fn selected(life: &Life, side: Side) -> bool {
    match side {
        Side::Internal => life.internal,
        Side::External => life.external,
    }
}

impl Member {
    fn store(&mut self, life: Life, maps: &mut impl Maps) {
        if life != self.life {
            self.life = life;
            maps.store_life(self.id, life);
        }
    }
}
