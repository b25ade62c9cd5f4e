//! Which indexes of a table are in use: backend ids, service indexes and tables of `MAGLEV`.

/// Hands out the lowest ids first, so that tables stay dense. An id that was given back waits
/// for a grace period, as slots do.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    capacity: u32,
    /// Ids from here on were never used.
    fresh: u32,
    free: Vec<u32>,
    limbo: Vec<u32>,
}

impl Ids {
    /// `capacity` ids, all free.
    pub(super) fn new(capacity: u32) -> Self {
        Self { capacity, fresh: 0, free: Vec::new(), limbo: Vec::new() }
    }

    /// `capacity` ids of which `used`, in ascending order, are taken.
    pub(super) fn with_used(capacity: u32, used: impl IntoIterator<Item = u32>) -> Self {
        let mut ids = Self::new(capacity);
        for id in used {
            ids.free.extend(ids.fresh..id);
            ids.fresh = id + 1;
        }
        ids.free.reverse();
        ids
    }

    /// Ids in all.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Ids in use; those waiting for a grace period do not count.
    pub(super) fn used(&self) -> u32 {
        self.fresh - self.idle(self.free.len()) - self.idle(self.limbo.len())
    }

    /// How many could be taken now, and how many more after a grace period.
    pub(super) fn available(&self) -> (u32, u32) {
        let now = self.capacity - self.fresh + self.idle(self.free.len());
        (now, self.idle(self.limbo.len()))
    }

    /// Takes an id.
    pub(super) fn allocate(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let id = self.fresh;
            (id < self.capacity).then(|| {
                self.fresh += 1;
                id
            })
        })
    }

    /// Gives an id back that no program has ever been shown.
    pub(super) fn release(&mut self, id: u32) {
        self.free.push(id);
    }

    /// Gives an id back that a program may still use.
    pub(super) fn retire(&mut self, id: u32) {
        self.limbo.push(id);
    }

    /// A grace period is over: what was retired before it is free.
    pub(super) fn reclaim(&mut self) {
        self.free.append(&mut self.limbo);
    }

    fn idle(&self, count: usize) -> u32 {
        u32::try_from(count).expect("no more ids are idle than exist")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_dense_and_wait_for_a_grace_period() {
        let mut ids = Ids::new(3);
        assert_eq!([ids.allocate(), ids.allocate(), ids.allocate()], [Some(0), Some(1), Some(2)]);
        ids.retire(1);
        assert_eq!((ids.allocate(), ids.used(), ids.available()), (None, 2, (0, 1)));
        ids.reclaim();
        assert_eq!((ids.allocate(), ids.allocate()), (Some(1), None));
    }

    #[test]
    fn adopted_ids_are_taken_and_the_gaps_are_free() {
        let mut ids = Ids::with_used(6, [1, 4]);
        assert_eq!((ids.used(), ids.available()), (2, (4, 0)));
        let rest: Vec<u32> = std::iter::from_fn(|| ids.allocate()).collect();
        assert_eq!(rest, [0, 2, 3, 5]);
    }
}
