//! `SOURCE_RANGES`: who may use a load balancer's address.

use super::Address;

/// What a key of `SOURCE_RANGES` holds behind its prefix length: a trie of the longest prefix, which counts bits
/// in this order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeKey {
    /// Index into `SERVICES`. Always matched whole.
    pub service: u32,
    /// First address of the range, or an address that is looked up.
    pub address: Address,
}

impl RangeKey {
    /// Length of the prefix that an address is looked up by.
    pub const BITS: u32 = 32 + 128;

    /// Length of the prefix of a range of so many leading bits, counted in the 16-byte form: IPv4's /8 is 104 here.
    pub const fn prefix(bits: u8) -> u32 {
        32 + bits as u32
    }
}
