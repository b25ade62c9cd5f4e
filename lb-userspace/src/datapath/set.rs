//! The endpoints of one service port: wanted against installed.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{Address, Backend, Life, List, Policy, Port, Run};

use super::maps::Maps;
use super::pools::{Obstacle, Pools, Shortage};
use super::ranges::SourceRange;
use super::spread::write_table;
use crate::plan;

/// Where an endpoint is reached.
pub(super) type Endpoint = (Address, Port);

/// What tells one endpoint of a service port from another: all that an entry of `BACKENDS` says of it
/// and that does not change while a run names the entry. One that has come here from another node is
/// another endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) endpoint: Endpoint,
    /// On this node.
    pub(super) here: bool,
}

/// One endpoint that has an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: u32,
    pub(super) life: Life,
}

/// The endpoints that the kernel has for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) members: BTreeMap<Identity, Member>,
    pub(super) cluster: Run,
    pub(super) local: Run,
    pub(super) policy: Policy,
    pub(super) ranges: BTreeSet<SourceRange>,
    /// The runs may not be what the members' lives say: an earlier agent was killed between the
    /// two. The next update writes them anew.
    pub(super) unfinished: bool,
    /// The table of `MAGLEV` may not be that of the cluster list: an earlier agent wrote it. The next
    /// update compares.
    pub(super) table_unknown: bool,
    /// It should have a table, and none was left: new flows are spread at random until one is.
    pub(super) lacks_table: bool,
}

/// The wanted endpoints, and which lists each is in.
#[derive(Debug)]
struct Wanted(BTreeMap<Identity, Rights>);

/// Which lists an endpoint is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights {
    cluster: bool,
    local: bool,
}

/// What a service's next state takes.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    /// None if both lists keep their members.
    runs: Option<Runs>,
    /// A table of `MAGLEV`, if there is to be one.
    table: Option<u32>,
}

/// Slots taken for a service's next runs.
#[derive(Clone, Copy, Debug)]
struct Runs {
    cluster: Run,
    local: Run,
}

impl Set {
    /// Makes service `index` have the wanted backends by this policy: new ranges and entries, a new
    /// table, new runs, and only then the state of what left. Readers see the whole old set or the whole
    /// new one. Ranges that are wanted no more stay: see [`Self::narrow`].
    ///
    /// # Errors
    ///
    /// If something does not suffice; nothing has been written then. Or if the kernel refuses a new
    /// range; those before it let clients in.
    pub(super) fn update(
        &mut self,
        index: u32,
        wanted: &plan::Wanted,
        policy: Policy,
        maps: &mut impl Maps,
        pools: &mut Pools,
    ) -> Result<(), Obstacle> {
        let backends = Wanted::new(&wanted.backends);
        pools.check_ranges(self.missing_ranges(&wanted.source_ranges))?;
        let reserved = self.reserve(&backends, wanted.maglev, pools)?;
        if let Err(obstacle) = self.widen(index, &wanted.source_ranges, maps, pools) {
            self.give_back(reserved, pools);
            return Err(obstacle);
        }

        self.lacks_table = wanted.maglev && reserved.table.is_none();
        let policy = Policy { maglev: reserved.table.map_or(0, |table| table + 1), ..policy };
        let stale_table = reserved.table.filter(|_| self.needs_table_written(&backends, policy));
        self.admit(index, &backends, maps, pools);
        self.switch(index, &backends, reserved.runs, (policy, stale_table), maps, pools);
        self.dismiss(&backends, maps, pools);
        Ok(())
    }

    /// Takes the table that it lacks; false if none is left.
    pub(super) fn take_table(
        &mut self,
        index: u32,
        maps: &mut impl Maps,
        pools: &mut Pools,
    ) -> bool {
        let Some(table) = pools.tables.allocate() else { return false };
        let members = self.members.iter().filter(|(_, member)| member.life.cluster);
        let members = members.map(|(identity, member)| (identity.endpoint, member.id));
        write_table(table, members, maps);
        self.set_policy(index, Policy { maglev: table + 1, ..self.policy }, maps);
        self.lacks_table = false;
        true
    }

    /// Whether an endpoint is a member, selected or not.
    pub(super) fn has(&self, endpoint: Endpoint) -> bool {
        [true, false].iter().any(|&here| self.members.contains_key(&Identity { endpoint, here }))
    }

    /// Its table of `MAGLEV`.
    pub(super) fn table(&self) -> Option<u32> {
        self.policy.maglev.checked_sub(1)
    }

    /// Takes all that the next state needs.
    fn reserve(
        &self,
        wanted: &Wanted,
        maglev: bool,
        pools: &mut Pools,
    ) -> Result<Reserved, Shortage> {
        let new = wanted.0.keys().filter(|identity| !self.members.contains_key(*identity)).count();
        pools.check_backends(new)?;
        let runs = self.reserve_runs(wanted, pools)?;
        // A table is a better choice among the same endpoints: without one they are served all the same.
        let table = match self.table() {
            _ if !maglev => None,
            Some(table) => Some(table),
            None => pools.tables.allocate(),
        };
        Ok(Reserved { runs, table })
    }

    /// Takes slots for the new runs; none if both lists keep their members. Two lists with the
    /// same members share one run.
    fn reserve_runs(&self, wanted: &Wanted, pools: &mut Pools) -> Result<Option<Runs>, Shortage> {
        let unchanged = [List::Cluster, List::Local].into_iter().all(|l| self.keeps(l, wanted));
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
        Ok(Some(Runs { cluster, local }))
    }

    /// Gives back what was taken and not shown to any program.
    fn give_back(&self, Reserved { runs, table }: Reserved, pools: &mut Pools) {
        if let Some(Runs { cluster, local }) = runs {
            pools.slots.release(cluster.first, cluster.count);
            if local != cluster {
                pools.slots.release(local.first, local.count);
            }
        }
        if let Some(table) = table.filter(|_| self.table().is_none()) {
            pools.tables.release(table);
        }
    }

    /// Whether a list keeps its members.
    fn keeps(&self, list: List, wanted: &Wanted) -> bool {
        let installed = self.members.iter().filter(|(_, m)| m.life.is_in(list));
        installed.map(|(identity, _)| identity).eq(wanted.list(list))
    }

    /// Whether the table that the next policy names is new, or its list changes.
    fn needs_table_written(&self, wanted: &Wanted, next: Policy) -> bool {
        let is_current =
            self.policy.maglev == next.maglev && !self.table_unknown && !self.unfinished;
        !(is_current && self.keeps(List::Cluster, wanted))
    }

    /// Gives new endpoints an id, and returning ones their rights, before any run names them.
    fn admit(&mut self, index: u32, wanted: &Wanted, maps: &mut impl Maps, pools: &mut Pools) {
        for (&identity, rights) in &wanted.0 {
            if let Some(member) = self.members.get_mut(&identity) {
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
            let Identity { endpoint: (address, port), here } = identity;
            let (here, life_word) = (u8::from(here), life.to_word());
            let entry =
                Backend { address, port, here, reserved: 0, service: index, life: life_word };
            maps.store_backend(id, entry);
            self.members.insert(identity, Member { id, life });
        }
    }

    /// Fills the new runs and a stale table, and switches to them, one store a list. Traffic that
    /// changes its list does so when the one that it goes to is new and the one that it leaves still
    /// old.
    fn switch(
        &mut self,
        index: u32,
        wanted: &Wanted,
        runs: Option<Runs>,
        (policy, stale_table): (Policy, Option<u32>),
        maps: &mut impl Maps,
        pools: &mut Pools,
    ) {
        let former_table = self.table();
        let goes_local = goes_local(self.policy, policy);
        // The cluster list's, as its run is.
        let is_left = goes_local && former_table == stale_table;
        let (table_first, table_last) =
            if is_left { (None, stale_table) } else { (stale_table, None) };
        let lists = runs.map(|Runs { cluster, local }| {
            let lists = [(List::Cluster, cluster), (List::Local, local)];
            if goes_local { [lists[1], lists[0]] } else { lists }
        });
        for (list, run) in lists.into_iter().flatten() {
            for (slot, identity) in (run.first..).zip(wanted.list(list)) {
                maps.store_slot(slot, self.members[identity].id);
            }
        }
        self.spread(table_first, wanted, maps);
        if let Some([(list, run), _]) = lists {
            maps.store_run(index, list, run);
        }
        self.set_policy(index, policy, maps);
        self.spread(table_last, wanted, maps);
        self.table_unknown = false;
        if let Some(former) = former_table.filter(|_| self.table().is_none()) {
            pools.tables.retire(former);
        }
        if let (Some([_, (list, run)]), Some(Runs { cluster, local })) = (lists, runs) {
            maps.store_run(index, list, run);
            pools.retire_runs((self.cluster, self.local));
            (self.cluster, self.local) = (cluster, local);
            self.unfinished = false;
        }
    }

    /// Makes a table lead to the cluster list.
    fn spread(&self, table: Option<u32>, wanted: &Wanted, maps: &mut impl Maps) {
        let Some(table) = table else { return };
        let list = wanted.list(List::Cluster);
        let members = list.map(|identity| (identity.endpoint, self.members[identity].id));
        write_table(table, members, maps);
    }

    fn set_policy(&mut self, index: u32, policy: Policy, maps: &mut impl Maps) {
        if policy != self.policy {
            self.policy = policy;
            maps.store_policy(index, policy);
        }
    }

    /// Takes rights, and then ids, from what the runs no longer name.
    fn dismiss(&mut self, wanted: &Wanted, maps: &mut impl Maps, pools: &mut Pools) {
        self.members.retain(|identity, member| match wanted.0.get(identity) {
            Some(&Rights { cluster, local }) => {
                member.store(Life { cluster, local, ..member.life }, maps);
                true
            }
            None => {
                member.store(Life { generation: member.life.generation, ..Life::default() }, maps);
                pools.retire_backend(member.id, identity.endpoint);
                false
            }
        });
    }
}

impl Wanted {
    fn new(backends: &[plan::Backend]) -> Self {
        let identity = |b: &plan::Backend| Identity {
            endpoint: (Address::from(b.address), Port::new(b.port)),
            here: b.here,
        };
        let rights = |b: &plan::Backend| Rights { cluster: b.cluster, local: b.local };
        Self(backends.iter().map(|b| (identity(b), rights(b))).collect())
    }

    /// The endpoints of one list, in order.
    fn list(&self, list: List) -> impl Iterator<Item = &Identity> {
        let selected = move |rights: &Rights| match list {
            List::Cluster => rights.cluster,
            List::Local => rights.local,
        };
        self.0.iter().filter(move |(_, rights)| selected(rights)).map(|(identity, _)| identity)
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
