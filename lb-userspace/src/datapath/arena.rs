//! Which slots of `RUNS` are in use.
//!
//! Best fit over free ranges ordered by length. Why not a crate: `docs/decisions/0003-arena.md`.

use std::collections::{BTreeMap, BTreeSet};

/// Free ranges of `0..capacity`. A range that was given back stays out of reach until a grace
/// period is over: a program may still read it.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    capacity: u32,
    free: BTreeMap<u32, u32>,
    by_length: BTreeSet<(u32, u32)>,
    limbo: Vec<(u32, u32)>,
    limbo_total: u32,
    free_total: u32,
}

impl Arena {
    /// An arena whose every slot is free.
    pub(super) fn new(capacity: u32) -> Self {
        let mut arena = Self {
            capacity,
            free: BTreeMap::new(),
            by_length: BTreeSet::new(),
            limbo: Vec::new(),
            limbo_total: 0,
            free_total: 0,
        };
        arena.insert(0, capacity);
        arena
    }

    /// Slots in all.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Slots that runs hold; those waiting for a grace period do not count.
    pub(super) fn used(&self) -> u32 {
        self.capacity - self.free_total - self.limbo_total
    }

    /// Whether anything waits for a grace period.
    pub(super) fn has_limbo(&self) -> bool {
        self.limbo_total > 0
    }

    /// Takes `length` slots from the smallest range that holds them. `None` if no free range does.
    pub(super) fn allocate(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        let (available, start) = *self.by_length.range((length, 0)..).next()?;
        self.remove(start, available);
        self.insert(start + length, available - length);
        Some(start)
    }

    /// Takes exactly `start..start + length`. False if any of it is not free.
    pub(super) fn claim(&mut self, start: u32, length: u32) -> bool {
        if length == 0 {
            return true;
        }
        let Some((&from, &available)) = self.free.range(..=start).next_back() else { return false };
        let (Some(end), to) = (start.checked_add(length), from + available) else { return false };
        if end > to {
            return false;
        }
        self.remove(from, available);
        self.insert(from, start - from);
        self.insert(end, to - end);
        true
    }

    /// Gives slots back that a program may still read.
    pub(super) fn retire(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.limbo.push((start, length));
            self.limbo_total += length;
        }
    }

    /// Gives slots back that no program has ever been shown.
    pub(super) fn release(&mut self, start: u32, length: u32) {
        if length == 0 {
            return;
        }
        let (mut start, mut length) = (start, length);
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before + size == start
        {
            self.remove(before, size);
            (start, length) = (before, length + size);
        }
        if let Some(&size) = self.free.get(&(start + length)) {
            self.remove(start + length, size);
            length += size;
        }
        self.insert(start, length);
    }

    /// A grace period is over: what was retired before it is free.
    pub(super) fn reclaim(&mut self) {
        self.limbo_total = 0;
        for (start, length) in std::mem::take(&mut self.limbo) {
            self.release(start, length);
        }
    }

    fn insert(&mut self, start: u32, length: u32) {
        if length > 0 {
            self.free.insert(start, length);
            self.by_length.insert((length, start));
            self.free_total += length;
        }
    }

    fn remove(&mut self, start: u32, length: u32) {
        self.free.remove(&start);
        self.by_length.remove(&(length, start));
        self.free_total -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn best_fit_leaves_the_large_range_whole() {
        let mut arena = Arena::new(100);
        assert_eq!(arena.allocate(10), Some(0));
        assert_eq!(arena.allocate(5), Some(10));
        arena.release(0, 10);
        assert_eq!(arena.allocate(8), Some(0), "the ten free slots, not the last eighty-five");
        assert_eq!(arena.used(), 13);
    }

    #[test]
    fn retired_slots_come_back_only_after_a_grace_period() {
        let mut arena = Arena::new(4);
        assert_eq!(arena.allocate(4), Some(0));
        arena.retire(0, 4);
        assert_eq!((arena.allocate(1), arena.used()), (None, 0));
        arena.reclaim();
        assert_eq!(arena.allocate(4), Some(0));
    }

    #[test]
    fn a_claim_takes_free_slots_only() {
        let mut arena = Arena::new(10);
        assert!(arena.claim(4, 3));
        for (start, length) in [(4, 1), (6, 2), (3, 2), (0, 11), (9, 2), (u32::MAX, 2)] {
            assert!(!arena.claim(start, length), "{start}+{length}");
        }
        assert!(arena.claim(0, 4) && arena.claim(7, 3));
        assert_eq!(arena.allocate(1), None);
    }

    proptest! {
        /// Whatever is allocated, retired, released and reclaimed, in any order: no slot is
        /// handed out twice, and none is lost.
        #[test]
        fn slots_are_neither_shared_nor_lost(steps in prop::collection::vec((0..4u8, 1..9u32), 1..200)) {
            let mut arena = Arena::new(64);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for (step, n) in steps {
                match step {
                    0 => if let Some(start) = arena.allocate(n) { held.push((start, n)) },
                    1 => if !held.is_empty() {
                        let (start, length) = held.swap_remove(n as usize % held.len());
                        arena.retire(start, length);
                    },
                    2 => if !held.is_empty() {
                        let (start, length) = held.swap_remove(n as usize % held.len());
                        arena.release(start, length);
                    },
                    _ => arena.reclaim(),
                }
                let mut slots: Vec<u32> = held.iter().flat_map(|&(s, l)| s..s + l).collect();
                slots.sort_unstable();
                let total = slots.len();
                slots.dedup();
                prop_assert_eq!(slots.len(), total, "a slot belongs to two runs");
                prop_assert_eq!(arena.used() as usize, total);
            }
            arena.reclaim();
            for (start, length) in held {
                arena.release(start, length);
            }
            prop_assert_eq!(arena.allocate(64), Some(0), "all slots are one free range again");
        }
    }
}
