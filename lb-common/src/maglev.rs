//! Maglev: several nodes choose the same backend for the same flow, without telling each other, and
//! most flows keep theirs when backends come and go (Eisenbud et al., "Maglev: A Fast and Reliable
//! Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! [`fill`] makes a table whose slots name backends; [`flow_hash`] and [`slot`] lead from a flow to
//! its slot. Tables of one size with the same backends lead to the same ones, whatever their
//! ids and in whatever order they are given. What is hashed are bytes in network order, by
//! [`xxh64`]: changing either changes every choice, and nodes of both versions disagree meanwhile.

use core::error::Error;
use core::fmt;

use crate::abi::{Address, Port};
use crate::hash::xxh64;

/// The sizes that a table can have, smallest first: primes close to powers of two, the same as
/// Cilium's. Shares differ by a percent at most if there are 100 times as many slots as backends.
pub const SIZES: [u32; 10] = [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];

/// The size of a table unless the agent is told otherwise: for up to 163 backends.
pub const DEFAULT_SIZE: u32 = 16_381;

/// What the slots of a table without backends hold. No backend has this id: an array of BPF has
/// fewer entries.
pub const EMPTY: u32 = u32::MAX;

/// A table was to have a number of slots that is none of [`SIZES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnusableSize(pub usize);

impl fmt::Display for UnusableSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a Maglev table cannot have {} slots: choose one of {SIZES:?}", self.0)
    }
}

impl Error for UnusableSize {}

/// Whether a table can have `size` slots.
pub fn is_usable(size: u32) -> bool {
    SIZES.contains(&size)
}

/// The smallest size with at least so many slots.
pub fn next_size(slots: u32) -> Option<u32> {
    SIZES.into_iter().find(|size| *size >= slots)
}

/// A backend that wants slots, and how far it has come.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// What the node calls it. Differs from node to node, so nothing depends on it.
    id: u32,
    /// Decides about everything: the order of turns, and which slots are preferred.
    hash: u64,
    /// The identity itself, should hashes be equal.
    identity: (Address, Port),
    /// The slot that it tries next.
    next: u32,
    /// From one slot that it tries to the one after, modulo the size.
    skip: u32,
}

impl Candidate {
    /// The backend at this address and port, which slots shall name `id`; not [`EMPTY`].
    pub fn new(address: Address, port: Port, id: u32) -> Self {
        let [high, low] = address_words(address);
        let hash = xxh64([high, low, u64::from(port.word().to_le())]);
        Self { id, hash, identity: (address, port), next: 0, skip: 1 }
    }

    /// Its permutation of the slots: all of them, as `size` is prime. The paper's two hashes are
    /// the halves of one.
    #[expect(clippy::cast_possible_truncation, reason = "the halves of a word")]
    fn start(&mut self, size: u32) {
        self.next = self.hash as u32 % size;
        self.skip = (self.hash >> 32) as u32 % (size - 1) + 1;
    }

    /// The next slot of its permutation that is free. There must be one.
    fn claim(&mut self, table: &[u32], size: u32) -> usize {
        loop {
            let slot = self.next as usize;
            let next = self.next + self.skip;
            self.next = if next < size { next } else { next - size };
            if table[slot] == EMPTY {
                return slot;
            }
        }
    }
}

/// Fills every slot of `table` with the id of a candidate. Numbers of slots differ by one at
/// most. Reorders the candidates, which hold all state: no other memory is needed.
///
/// Candidates with the same address and port are one, with the smallest of their ids. Without
/// candidates, every slot is [`EMPTY`]. Of more candidates than slots, some get none, the same ones on
/// every node.
///
/// # Errors
/// [`UnusableSize`] if the table's length is none of [`SIZES`]; the table is as before.
pub fn fill(table: &mut [u32], candidates: &mut [Candidate]) -> Result<(), UnusableSize> {
    let size = u32::try_from(table.len())
        .ok()
        .filter(|size| is_usable(*size))
        .ok_or(UnusableSize(table.len()))?;
    table.fill(EMPTY);
    let candidates = distinct(candidates);
    for candidate in &mut *candidates {
        candidate.start(size);
    }
    let mut free = table.len();
    while free > 0 && !candidates.is_empty() {
        for candidate in candidates.iter_mut().take(free) {
            let slot = candidate.claim(table, size);
            table[slot] = candidate.id;
            free -= 1;
        }
    }
    Ok(())
}

/// The candidates in an order that does not depend on the one in which they are given, each
/// address and port once. By hash, so that the lowest address is not served first in every table.
fn distinct(candidates: &mut [Candidate]) -> &mut [Candidate] {
    candidates.sort_unstable_by_key(|candidate| (candidate.hash, candidate.identity, candidate.id));
    let mut kept = 0;
    for next in 0..candidates.len() {
        if kept == 0 || candidates[kept - 1].identity != candidates[next].identity {
            candidates[kept] = candidates[next];
            kept += 1;
        }
    }
    &mut candidates[..kept]
}

/// The hash of a flow's addresses, ports and protocol number, as its first packet has them.
#[inline(always)]
pub fn flow_hash(
    (source, source_port): (Address, Port),
    (destination, destination_port): (Address, Port),
    protocol: u8,
) -> u64 {
    let [a, b] = address_words(source);
    let [c, d] = address_words(destination);
    let ports =
        u64::from(source_port.word().to_le()) | u64::from(destination_port.word().to_le()) << 16;
    xxh64([a, b, c, d, ports | u64::from(protocol) << 32])
}

/// The slot of a hash in a table of `size` slots, below `size` unless that is 0. Multiplication
/// instead of division, as in [`crate::abi::Run::pick`], with the half of the hash that is mixed best.
#[inline(always)]
pub const fn slot(hash: u64, size: u32) -> u32 {
    // The product of two 32-bit numbers fits, and its upper half is below `size`.
    (((hash >> 32) * size as u64) >> 32) as u32
}

/// The address's bytes, which are in network order, as two words read in little-endian order.
#[inline(always)]
fn address_words(address: Address) -> [u64; 2] {
    let [a, b, c, d] = address.words().map(u32::to_le).map(u64::from);
    [a | b << 32, c | d << 32]
}
