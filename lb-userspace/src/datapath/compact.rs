//! Moving runs together, so that fragmentation never refuses a change.

use std::io;

use lb_common::abi::{List, Run};

use super::maps::Maps;
use super::set::Set;
use super::writer::Writer;

/// A run, and the lists of a service that use it.
#[derive(Clone, Copy, Debug)]
struct Placed {
    index: u32,
    run: Run,
    cluster: bool,
    local: bool,
}

impl<M: Maps> Writer<M> {
    /// Makes `length` free slots in a row, if there are as many in all: moves the fewest
    /// neighbouring runs to the left, one grace period each.
    ///
    /// # Errors
    ///
    /// If there are not as many, or the kernel fails the grace period.
    pub(super) fn make_room(&mut self, length: u32) -> io::Result<()> {
        let slots = &self.pools.slots;
        if slots.capacity() - slots.used() < length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if slots.has_limbo() {
            self.grace()?;
        }
        let runs = self.placed();
        let Some((start, window)) = cheapest(&runs, length, self.pools.slots.capacity()) else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        let mut target = start;
        for placed in &runs[window] {
            self.slide(placed, target);
            self.grace()?;
            target += placed.run.count;
        }
        Ok(())
    }

    /// Every run that holds slots, in order of its first.
    fn placed(&self) -> Vec<Placed> {
        let mut runs = Vec::new();
        let present = self.services.values().chain(self.adopted.values());
        for installed in present.chain(self.departing.values()) {
            let (index, set) = (installed.index, &installed.set);
            if set.cluster == set.local {
                runs.push(Placed { index, run: set.cluster, cluster: true, local: true });
            } else {
                runs.push(Placed { index, run: set.cluster, cluster: true, local: false });
                runs.push(Placed { index, run: set.local, cluster: false, local: true });
            }
        }
        runs.retain(|placed| placed.run.count > 0);
        runs.sort_by_key(|placed| placed.run.first);
        runs
    }

    /// Moves one run to `target`, left of it. Both places may overlap: whatever a reader finds
    /// meanwhile, in the old run or the new one, is a member of the same set.
    fn slide(&mut self, placed: &Placed, target: u32) {
        let Run { first, count, generation } = placed.run;
        if target == first {
            return;
        }
        let claimed = self.pools.slots.claim(target, count.min(first - target));
        assert!(claimed, "the slots left of a run are free, or another run would stand there");
        for offset in 0..count {
            let backend = self.maps.slot(first + offset);
            self.maps.store_slot(target + offset, backend);
        }
        let moved = Run { first: target, count, generation };
        if placed.cluster {
            self.maps.store_run(placed.index, List::Cluster, moved);
        }
        if placed.local {
            self.maps.store_run(placed.index, List::Local, moved);
        }
        let set = self.set_mut(placed.index);
        if placed.cluster {
            set.cluster = moved;
        }
        if placed.local {
            set.local = moved;
        }
        let vacated = first.max(target + count);
        self.pools.slots.retire(vacated, first + count - vacated);
    }

    fn set_mut(&mut self, index: u32) -> &mut Set {
        &mut self.at(index).expect("the run was found through its service").set
    }
}

/// The fewest neighbouring runs whose moving left leaves `length` slots free after them: where
/// the first of them goes, and which they are.
fn cheapest(runs: &[Placed], length: u32, capacity: u32) -> Option<(u32, std::ops::Range<usize>)> {
    let begin = |i: usize| if i == 0 { 0 } else { end(&runs[i - 1]) };
    let limit = |i: usize| runs.get(i).map_or(capacity, |placed| placed.run.first);
    let mut best: Option<(u32, std::ops::Range<usize>)> = None;
    let (mut from, mut held) = (0, 0);
    for to in 0..=runs.len() {
        // Moving runs from..to frees everything between `begin(from)` and `limit(to)` but them.
        while limit(to) - begin(from) - held >= length {
            if best.as_ref().is_none_or(|(_, window)| to - from < window.len()) {
                best = Some((begin(from), from..to));
            }
            if from == to {
                break;
            }
            held -= runs[from].run.count;
            from += 1;
        }
        if let Some(placed) = runs.get(to) {
            held += placed.run.count;
        }
    }
    best
}

fn end(placed: &Placed) -> u32 {
    placed.run.first + placed.run.count
}
