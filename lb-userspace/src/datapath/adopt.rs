//! Maps → the agent's picture of them, after a restart.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use lb_common::abi::{Life, List, Policy, Run};

use super::ids::Ids;
use super::maps::Maps;
use super::pools::Pools;
use super::set::{Identity, Member};
use super::writer::{Installed, Writer};

impl<M: Maps> Writer<M> {
    /// A writer of maps that an earlier agent filled. What it finds is served on until somebody
    /// wants it otherwise, or [`Self::prune`] is called.
    ///
    /// The earlier agent may have been killed between any two writes; what it left unfinished is
    /// found as what it is: entries that nothing leads to are free.
    pub(super) fn adopt(maps: M) -> Result<Self> {
        let mut writer = Self::new(maps);
        let entries = writer.maps.frontends().context("reading map FRONTENDS")?;
        for (key, entry) in entries {
            writer.frontends.insert(key, entry);
            let found = writer.adopted.entry(entry.service()).or_default();
            found.index = entry.service();
            found.frontends.insert(key);
        }
        writer.adopt_runs();
        writer.adopt_tables();
        writer.adopt_ranges()?;
        writer.adopt_backends();
        writer.doubt_sets();
        let capacity = writer.maps.capacity();
        let used = writer.adopted.keys().copied();
        writer.pools.services = Ids::with_used(capacity.services, used);
        // The earlier agent may have given back a moment ago what looks free now.
        writer.grace().context("waiting for running programs")?;
        Ok(writer)
    }

    /// Claims the slots of every run. One that overlaps another, or the end, cannot have been
    /// written by lb: its service starts with none.
    fn adopt_runs(&mut self) {
        for (&index, installed) in &mut self.adopted {
            let entry = self.maps.service(index);
            installed.set.policy = Policy::from_word(entry.policy);
            let (cluster, local) = (Run::from_word(entry.cluster), Run::from_word(entry.local));
            installed.set.cluster = claim(&mut self.pools, cluster);
            // A crash between the two stores leaves lists of different generations.
            installed.set.local =
                if local == cluster { cluster } else { claim(&mut self.pools, local) };
        }
    }

    /// Claims the table of every service that is spread by one. The same one twice, or one behind the
    /// end, cannot have been written by lb: its service is spread at random.
    fn adopt_tables(&mut self) {
        let capacity = self.maps.capacity().tables;
        let mut used = BTreeSet::new();
        for (&index, Installed { set, .. }) in &mut self.adopted {
            let Some(table) = set.table() else { continue };
            if table < capacity && used.insert(table) {
                set.table_unknown = true;
            } else {
                set.policy.maglev = 0;
                self.maps.store_policy(index, set.policy);
            }
        }
        self.pools.tables = Ids::with_used(capacity, used);
    }

    /// Finds the ranges of every service. Those of a service that nothing leads to must not meet the
    /// next one that gets its index.
    fn adopt_ranges(&mut self) -> Result<()> {
        for (index, range) in self.maps.ranges().context("reading map SOURCE_RANGES")? {
            match self.adopted.get_mut(&index) {
                Some(Installed { set, .. }) => {
                    set.ranges.insert(range);
                    self.pools.ranges.used += 1;
                }
                None => {
                    let deleted = self.maps.delete_range(index, &range);
                    deleted.context("deleting from map SOURCE_RANGES")?;
                }
            }
        }
        Ok(())
    }

    /// Finds the members of every set: what is present and belongs to a service that is served. Of two
    /// entries for one endpoint, the one that a run names. All others are dead: they were written
    /// by an agent that was killed before anything led to them.
    fn adopt_backends(&mut self) {
        let mut named = BTreeSet::new();
        for Installed { set, .. } in self.adopted.values() {
            for run in [set.cluster, set.local] {
                named.extend(run.slots().map(|slot| self.maps.slot(slot)));
            }
        }
        for id in 0..self.maps.capacity().backends {
            let backend = self.maps.backend(id);
            let life = backend.life();
            if !life.present {
                continue;
            }
            let member = Member { id, life };
            let endpoint = (backend.address, backend.port);
            let identity = Identity { endpoint, here: backend.here != 0 };
            let loser = match self.adopted.get_mut(&backend.service) {
                None => Some(member),
                Some(Installed { set, .. }) => match set.members.get(&identity) {
                    Some(_) if !named.contains(&id) => Some(member),
                    _ => set.members.insert(identity, member),
                },
            };
            if let Some(Member { id, life }) = loser {
                let dead = Life { generation: life.generation, ..Life::default() };
                self.maps.store_life(id, dead);
            }
        }
        let members = self.adopted.values().flat_map(|installed| installed.set.members.values());
        let used: BTreeSet<u32> = members.map(|member| member.id).collect();
        self.pools.backends = Ids::with_used(self.maps.capacity().backends, used);
    }

    /// Marks the sets whose runs and members were left at odds by a crash between their writes.
    fn doubt_sets(&mut self) {
        for installed in self.adopted.values_mut() {
            let set = &mut installed.set;
            set.unfinished = [(List::Cluster, set.cluster), (List::Local, set.local)]
                .into_iter()
                .any(|(list, run)| {
                    let named: BTreeSet<u32> =
                        run.slots().map(|slot| self.maps.slot(slot)).collect();
                    let members = set.members.values().filter(|m| m.life.is_in(list));
                    named != members.map(|m| m.id).collect()
                });
        }
    }
}

/// The run, if its slots could be claimed.
fn claim(pools: &mut Pools, run: Run) -> Run {
    if pools.slots.claim(run.first, run.count) { run } else { Run { count: 0, ..run } }
}
