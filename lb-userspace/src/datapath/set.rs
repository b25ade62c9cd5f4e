//! The endpoints of one service port: wanted against installed.

use std::collections::BTreeMap;

use lb_common::abi::{Address, Backend, Life, List, Policy, Port, Run};

use super::maps::Maps;
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
    pub(super) cluster: Run,
    pub(super) local: Run,
    pub(super) policy: Policy,
    /// The runs may not be what the members' lives say: an earlier agent was killed between the
    /// two. The next update writes them anew.
    pub(super) unfinished: bool,
}

/// The wanted endpoints, and which lists each is in.
#[derive(Debug)]
struct Wanted(BTreeMap<Endpoint, Rights>);

/// Which lists an endpoint is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights {
    cluster: bool,
    local: bool,
}

/// Slots taken for a service's next runs.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    cluster: Run,
    local: Run,
}

impl Set {
    /// Makes service `index` have `backends` by this policy: new entries, new runs, and only then
    /// the state of what left. Readers see the whole old set or the whole new one.
    ///
    /// # Errors
    ///
    /// If free ids or slots do not suffice; nothing has been written then.
    pub(super) fn update(
        &mut self,
        index: u32,
        backends: &[plan::Backend],
        policy: Policy,
        maps: &mut impl Maps,
        pools: &mut Pools,
    ) -> Result<(), Shortage> {
        let wanted = Wanted::new(backends);
        let new = wanted.0.keys().filter(|endpoint| !self.members.contains_key(*endpoint)).count();
        pools.check_backends(new)?;
        let runs = self.reserve(&wanted, pools)?;

        self.admit(index, &wanted, maps, pools);
        if let Some(runs) = runs {
            self.switch(index, &wanted, runs, policy, maps, pools);
        }
        self.set_policy(index, policy, maps);
        self.dismiss(&wanted, maps, pools);
        Ok(())
    }

    /// Takes slots for the new runs; none if both lists keep their members. Two lists with the
    /// same members share one run.
    fn reserve(&self, wanted: &Wanted, pools: &mut Pools) -> Result<Option<Reserved>, Shortage> {
        let unchanged = [List::Cluster, List::Local].into_iter().all(|list| {
            let installed = self.members.iter().filter(|(_, m)| m.life.is_in(list));
            installed.map(|(endpoint, _)| endpoint).eq(wanted.list(list))
        });
        if unchanged && !self.unfinished {
            return Ok(None);
        }
        let shared = wanted.0.values().all(|rights| rights.cluster == rights.local);
        let cluster = wanted.list(List::Cluster).count();
        let local = if shared { 0 } else { wanted.list(List::Local).count() };
        let first = pools.take_slots(cluster + local)?;

        let generation = self.cluster.generation.wrapping_add(1) & Run::MAX_GENERATION;
        let length = |n: usize| u32::try_from(n).expect("take_slots has checked it");
        let run = |first, n| Run { first, count: length(n), generation };
        let cluster = run(first, cluster);
        let local = if shared { cluster } else { run(first + cluster.count, local) };
        Ok(Some(Reserved { cluster, local }))
    }

    /// Gives new endpoints an id, and returning ones their rights, before any run names them.
    fn admit(&mut self, index: u32, wanted: &Wanted, maps: &mut impl Maps, pools: &mut Pools) {
        for (&endpoint, rights) in &wanted.0 {
            if let Some(member) = self.members.get_mut(&endpoint) {
                let cluster = member.life.cluster || rights.cluster;
                let local = member.life.local || rights.local;
                member.store(Life { cluster, local, ..member.life }, maps);
                continue;
            }
            let id = pools.take_backend();
            let life = Life {
                generation: next_generation(maps.backend(id).life().generation),
                cluster: rights.cluster,
                local: rights.local,
                present: true,
            };
            let (address, port) = endpoint;
            let entry =
                Backend { address, port, service: index, life: life.to_word(), ..Backend::NONE };
            maps.store_backend(id, entry);
            self.members.insert(endpoint, Member { id, life });
        }
    }

    /// Fills the new runs and switches to them, one store a list. Traffic that changes its list does
    /// so when the one that it goes to is new and the one that it leaves still old.
    fn switch(
        &mut self,
        index: u32,
        wanted: &Wanted,
        runs: Reserved,
        policy: Policy,
        maps: &mut impl Maps,
        pools: &mut Pools,
    ) {
        let mut lists = [(List::Cluster, runs.cluster), (List::Local, runs.local)];
        if goes_local(self.policy, policy) {
            lists.reverse();
        }
        for (list, run) in lists {
            for (slot, endpoint) in (run.first..).zip(wanted.list(list)) {
                maps.store_slot(slot, self.members[endpoint].id);
            }
        }
        let [(first, its_run), (last, last_run)] = lists;
        maps.store_run(index, first, its_run);
        self.set_policy(index, policy, maps);
        maps.store_run(index, last, last_run);
        pools.retire_runs((self.cluster, self.local));
        (self.cluster, self.local) = (runs.cluster, runs.local);
        self.unfinished = false;
    }

    fn set_policy(&mut self, index: u32, policy: Policy, maps: &mut impl Maps) {
        if policy != self.policy {
            self.policy = policy;
            maps.store_policy(index, policy);
        }
    }

    /// Takes rights, and then ids, from what the runs no longer name.
    fn dismiss(&mut self, wanted: &Wanted, maps: &mut impl Maps, pools: &mut Pools) {
        self.members.retain(|endpoint, member| match wanted.0.get(endpoint) {
            Some(&Rights { cluster, local }) => {
                member.store(Life { cluster, local, ..member.life }, maps);
                true
            }
            None => {
                member.store(Life { generation: member.life.generation, ..Life::default() }, maps);
                pools.retire_backend(member.id, *endpoint);
                false
            }
        });
    }
}

impl Wanted {
    fn new(backends: &[plan::Backend]) -> Self {
        let endpoint = |b: &plan::Backend| (Address::from(b.address), Port::new(b.port));
        let rights = |b: &plan::Backend| Rights { cluster: b.cluster, local: b.local };
        Self(backends.iter().map(|b| (endpoint(b), rights(b))).collect())
    }

    /// The endpoints of one list, in order.
    fn list(&self, list: List) -> impl Iterator<Item = &Endpoint> {
        let selected = move |rights: &Rights| match list {
            List::Cluster => rights.cluster,
            List::Local => rights.local,
        };
        self.0.iter().filter(move |(_, rights)| selected(rights)).map(|(endpoint, _)| endpoint)
    }
}

/// The generation of an id's next use. The first is random: sockets may remember ids of other
/// tables, of which these took the place.
fn next_generation(last: u32) -> u32 {
    if last == 0 { fastrand::u32(1..) } else { last.wrapping_add(1).max(1) }
}

/// Whether traffic goes over to the local list; where one sort comes and the other goes, whether
/// traffic from this node does.
fn goes_local(old: Policy, new: Policy) -> bool {
    match (old.internal_local, new.internal_local) {
        (false, true) => true,
        (true, false) => false,
        (false, false) | (true, true) => new.external_local && !old.external_local,
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
