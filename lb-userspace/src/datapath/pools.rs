//! Slots, backend ids, service indexes and tables: what is in use, free, or waiting for a grace period.

use std::io;
use std::time::Instant;

use lb_common::abi::Run;

use super::arena::Arena;
use super::fate::Deaths;
use super::ids::Ids;
use super::maps::Capacity;
use super::set::Endpoint;
use super::sizes::remedy;

/// A map is full.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "map {map} is full: {needed} more entries are needed, {free} of {capacity} are free; {}",
    remedy(map, *capacity, *needed, *free)
)]
pub(super) struct Shortage {
    /// Name of the map.
    pub(super) map: &'static str,
    /// Entries that the change takes, old and new counted at once.
    pub(super) needed: usize,
    /// Entries that are free.
    pub(super) free: u32,
    /// Entries that the map can hold.
    pub(super) capacity: u32,
}

/// Why a set stays as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    /// It does not fit.
    #[error(transparent)]
    Shortage(#[from] Shortage),
    /// The kernel refuses an entry of `SOURCE_RANGES`.
    #[error("cannot write map SOURCE_RANGES: {0}")]
    Ranges(#[source] io::Error),
}

/// The pools.
#[derive(Clone, Debug)]
pub(super) struct Pools {
    pub(super) slots: Arena,
    pub(super) backends: Ids,
    pub(super) services: Ids,
    /// Of `MAGLEV`.
    pub(super) tables: Ids,
    pub(super) ranges: Ranges,
    pub(super) deaths: Deaths,
}

/// How many entries of `SOURCE_RANGES` there are: one that is deleted is free at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    pub(super) used: u32,
    pub(super) capacity: u32,
}

impl Pools {
    /// Pools of which nothing is in use.
    pub(super) fn new(capacity: &Capacity) -> Self {
        Self {
            slots: Arena::new(capacity.slots.min(Run::MAX_SLOTS)),
            backends: Ids::new(capacity.backends),
            services: Ids::new(capacity.services),
            tables: Ids::new(capacity.tables),
            ranges: Ranges { used: 0, capacity: capacity.ranges },
            deaths: Deaths::default(),
        }
    }

    /// Whether a grace period would set anything free.
    pub(super) fn has_limbo(&self) -> bool {
        let ids = [&self.backends, &self.services, &self.tables];
        self.slots.has_limbo() || ids.into_iter().any(|ids| ids.available().1 > 0)
    }

    /// A grace period is over.
    pub(super) fn reclaim(&mut self) {
        self.slots.reclaim();
        self.backends.reclaim();
        self.services.reclaim();
        self.tables.reclaim();
    }

    /// Takes a service index.
    pub(super) fn take_service(&mut self) -> Result<u32, Shortage> {
        self.services.allocate().ok_or(Shortage {
            map: "SERVICES",
            needed: 1,
            free: 0,
            capacity: self.services.capacity(),
        })
    }

    /// Makes sure that there is room for `count` more entries of `SOURCE_RANGES`.
    pub(super) fn check_ranges(&self, count: usize) -> Result<(), Shortage> {
        let Ranges { used, capacity } = self.ranges;
        let free = capacity.saturating_sub(used);
        if count <= free as usize {
            return Ok(());
        }
        Err(Shortage { map: "SOURCE_RANGES", needed: count, free, capacity })
    }

    /// Makes sure that `count` calls of [`Self::take_backend`] will succeed.
    pub(super) fn check_backends(&self, count: usize) -> Result<(), Shortage> {
        let (free, _) = self.backends.available();
        if count <= free as usize {
            return Ok(());
        }
        let capacity = self.backends.capacity();
        Err(Shortage { map: "BACKENDS", needed: count, free, capacity })
    }

    /// Takes a backend id.
    pub(super) fn take_backend(&mut self) -> u32 {
        self.backends.allocate().expect("check_backends has counted them")
    }

    /// Gives a backend id back.
    pub(super) fn retire_backend(&mut self, id: u32, endpoint: Endpoint) {
        self.backends.retire(id);
        self.deaths.note(endpoint, Instant::now());
    }

    /// Takes `count` slots in a row; the first one.
    pub(super) fn take_slots(&mut self, count: usize) -> Result<u32, Shortage> {
        let length = u32::try_from(count).ok().filter(|&length| length <= Run::MAX_COUNT);
        length.and_then(|length| self.slots.allocate(length)).ok_or_else(|| Shortage {
            map: "RUNS",
            needed: count,
            free: self.slots.capacity() - self.slots.used(),
            capacity: self.slots.capacity(),
        })
    }

    /// Gives the slots of a service's former runs back.
    pub(super) fn retire_runs(&mut self, (cluster, local): (Run, Run)) {
        self.slots.retire(cluster.first, cluster.count);
        if local != cluster {
            self.slots.retire(local.first, local.count);
        }
    }
}
