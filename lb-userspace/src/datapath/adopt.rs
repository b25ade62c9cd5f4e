//! Maps → the agent's picture of them, after a restart.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use lb_common::abi::Run;

use super::ids::Ids;
use super::maps::{Maps, Side};
use super::pools::Pools;
use super::set::{Member, Set, selected};
use super::writer::{Writer, is_address};

impl<M: Maps> Writer<M> {
    /// A writer of maps that an earlier agent filled. What it finds is served on until somebody
    /// wants it otherwise, or [`Self::prune`] is called.
    ///
    /// The earlier agent may have been killed between any two writes; what it left unfinished is
    /// found as what it is: entries that nothing leads to are free.
    pub(super) fn adopt(maps: M) -> Result<Self> {
        let mut writer = Self::new(maps);
        let entries = writer.maps.frontends().context("reading map FRONTENDS")?;
        if entries.is_empty() {
            return Ok(writer);
        }
        for (key, entry) in entries {
            writer.frontends.insert(key, entry.service());
            if !is_address(&key) {
                let found = writer.adopted.entry(entry.service()).or_default();
                found.index = entry.service();
                found.frontends.insert(key);
            }
        }
        writer.adopt_runs();
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
            let (internal, external) =
                (Run::from_word(entry.internal), Run::from_word(entry.external));
            installed.set.internal = claim(&mut self.pools, internal);
            // A crash between the two stores leaves sides of different generations.
            installed.set.external =
                if external == internal { internal } else { claim(&mut self.pools, external) };
        }
    }

    /// Finds the members of every set: what is present and belongs to a service that is served.
    fn adopt_backends(&mut self) {
        let mut used = BTreeSet::new();
        let mut sets: BTreeMap<u32, &mut Set> =
            self.adopted.iter_mut().map(|(&index, found)| (index, &mut found.set)).collect();
        for id in 0..self.maps.capacity().backends {
            let backend = self.maps.backend(id);
            let life = backend.life();
            if let Some(set) = sets.get_mut(&backend.service).filter(|_| life.present) {
                set.members.insert((backend.address, backend.port), Member { id, life });
                used.insert(id);
            }
        }
        self.pools.backends = Ids::with_used(self.maps.capacity().backends, used);
    }

    /// Marks the sets whose runs and members were left at odds by a crash between their writes.
    fn doubt_sets(&mut self) {
        for installed in self.adopted.values_mut() {
            let set = &mut installed.set;
            set.unfinished = [(Side::Internal, set.internal), (Side::External, set.external)]
                .into_iter()
                .any(|(side, run)| {
                    let named: BTreeSet<u32> =
                        (run.first..run.first + run.count).map(|s| self.maps.slot(s)).collect();
                    let members = set.members.values().filter(|m| selected(&m.life, side));
                    named != members.map(|m| m.id).collect()
                });
        }
    }
}

/// The run, if its slots could be claimed.
fn claim(pools: &mut Pools, run: Run) -> Run {
    if pools.slots.claim(run.first, run.count) { run } else { Run { count: 0, ..run } }
}
