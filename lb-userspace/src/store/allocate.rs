//! Who owns which ClusterIP and which NodePort.
//!
//! Both ranges are banded (KEP-3070, KEP-3668): automatic choices come from the upper band first, so
//! that a number that a person picks from the lower band is unlikely to be taken. Numbers in here are
//! offsets from the first usable one of the range.

mod address;
mod pools;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::object::Key;

pub use address::{AddressPool, RangeError, family_of, name};
pub use pools::{AllocateError, Mark, NODE_PORTS, Pools, Resource};

/// Why a number was not handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not in the range, or the network or broadcast address.
    OutOfRange,
    /// It has an owner.
    Taken(Key),
    /// Nothing is left.
    Full,
}

/// A range of numbers in two bands, each number with at most one owner.
#[derive(Clone, Debug)]
pub struct BandedPool {
    size: u128,
    /// Start of the upper band.
    offset: u128,
    taken: BTreeMap<u128, Key>,
    /// The first number, kept for this owner even while it has not asked for it.
    reserved: Option<Key>,
    random: fastrand::Rng,
}

impl BandedPool {
    /// A pool of `size` free numbers, of which those from `offset` on are the upper band.
    pub fn new(size: u128, offset: u128, random: fastrand::Rng) -> Self {
        let offset = if offset < size { offset } else { 0 };
        Self { size, offset, taken: BTreeMap::new(), reserved: None, random }
    }

    /// Hands out `number`.
    pub fn take(&mut self, number: u128, owner: &Key) -> Result<(), Refusal> {
        if number >= self.size {
            return Err(Refusal::OutOfRange);
        }
        match self.owner(number) {
            Some(other) if other != owner || self.taken.contains_key(&number) => {
                Err(Refusal::Taken(other.clone()))
            }
            Some(_) | None => {
                self.taken.insert(number, owner.clone());
                Ok(())
            }
        }
    }

    /// Hands out a number of its own choice: from a random place in the upper band on, then from the
    /// lower band (`ipallocator.allocateNextService`). The owner of a reserved number gets that one.
    pub fn take_any(&mut self, owner: &Key) -> Result<u128, Refusal> {
        let number = self.choose(owner).ok_or(Refusal::Full)?;
        self.take(number, owner)?;
        Ok(number)
    }

    /// Takes `number` back from `owner`; false if it was not that owner's.
    pub fn give_back(&mut self, number: u128, owner: &Key) -> bool {
        let owned = self.taken.get(&number) == Some(owner);
        if owned {
            self.taken.remove(&number);
        }
        owned
    }

    /// Who has `number`, or has it reserved.
    pub fn owner(&self, number: u128) -> Option<&Key> {
        self.taken.get(&number).or_else(|| self.reserved.as_ref().filter(|_| number == 0))
    }

    /// How many numbers are handed out.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether nothing is handed out.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    fn choose(&mut self, owner: &Key) -> Option<u128> {
        if self.reserved.as_ref() == Some(owner) && !self.taken.contains_key(&0) {
            return Some(0);
        }
        if self.size == 0 {
            return None;
        }
        let start = self.random.u128(self.offset..self.size);
        self.first_free(start, self.size)
            .or_else(|| self.first_free(self.offset, start))
            .or_else(|| self.first_free(0, self.offset))
    }

    /// The first number of `from..to` without an owner. Walks along the taken ones, which are
    /// consecutive until it is found.
    fn first_free(&self, from: u128, to: u128) -> Option<u128> {
        let from = if from == 0 && self.reserved.is_some() { 1 } else { from };
        let mut candidate = from;
        for taken in self.taken.range(from..to.max(from)).map(|(number, _)| *number) {
            if taken > candidate {
                break;
            }
            candidate = taken + 1;
        }
        (candidate < to).then_some(candidate)
    }
}

/// Where the upper band starts in a range of `size` (KEP-3070 and KEP-3668 differ in their numbers).
fn band_offset(size: u128, step: u128, most: u128) -> u128 {
    if size <= 16 { 0 } else { (size / step).clamp(16, most) }
}
