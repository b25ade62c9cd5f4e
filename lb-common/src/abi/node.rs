//! `NODE`: what the programs must know of this node. One entry, changed in place.

use super::Address;

/// Value of `NODE`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Ranges in which an unallocated address is unreachable.
    pub service_cidrs: [Cidr; 4],
    /// Cookie of the node's own network namespace (`SO_NETNS_COOKIE`); 0 if it is not known.
    pub netns_cookie: u64,
    /// Number of entries of `EXEMPT`: 0 saves looking.
    pub exempt: u64,
}

impl Node {
    /// Whether `address` belongs to a service range.
    #[inline(always)]
    pub fn in_service_cidr(&self, address: Address) -> bool {
        let [a, b, c, d] = &self.service_cidrs;
        a.contains(address) || b.contains(address) || c.contains(address) || d.contains(address)
    }
}

/// An address range; all zero (as the map is made) contains nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// First address.
    pub network: Address,
    /// Ones where an address must equal `network`.
    pub mask: Address,
}

impl Cidr {
    /// Contains nothing.
    pub const NONE: Self = Self { network: Address::UNSPECIFIED, mask: Address::UNSPECIFIED };

    /// The range of `prefix` leading bits, counted in the 16-byte form: IPv4's /12 is 108 here.
    pub fn new(network: Address, prefix: u8) -> Self {
        let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - u32::from(prefix.min(128))) };
        let network = u128::from_be_bytes(network.bytes()) & mask;
        Self {
            network: Address::from_bytes(network.to_be_bytes()),
            mask: Address::from_bytes(mask.to_be_bytes()),
        }
    }

    /// Whether `address` is in the range.
    #[inline(always)]
    pub const fn contains(&self, address: Address) -> bool {
        let (address, network, mask) = (address.words(), self.network.words(), self.mask.words());
        mask[0] != 0
            && (address[0] & mask[0] == network[0])
            && (address[1] & mask[1] == network[1])
            && (address[2] & mask[2] == network[2])
            && (address[3] & mask[3] == network[3])
    }
}
