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
    /// What packets to endpoints elsewhere get for a source where the kernel cannot tell (before Linux 6.7): the node's
    /// IPv4 address towards its default route; unspecified if it has none.
    pub snat_v4: Address,
    /// The same of IPv6.
    pub snat_v6: Address,
    /// First port of those that such packets get, a number.
    pub snat_first: u32,
    /// How many they are; 0 is none.
    pub snat_count: u32,
    /// 1 while `FLOWS` is empty and the agent sleeps: whoever makes the first flow sets it to 0 and wakes the agent.
    pub flows_asleep: u32,
    /// Changes after frontends were moved, dropped or narrowed, when no program runs any more that may have found them as
    /// they were: flows that know another one look their frontend up again.
    pub revision: u32,
}

impl Node {
    /// As the map is made.
    pub const NONE: Self = Self {
        service_cidrs: [Cidr::NONE; 4],
        netns_cookie: 0,
        exempt: 0,
        snat_v4: Address::UNSPECIFIED,
        snat_v6: Address::UNSPECIFIED,
        snat_first: 0,
        snat_count: 0,
        flows_asleep: 0,
        revision: 0,
    };

    /// Whether a port, a number, is one of those that packets to endpoints elsewhere get.
    #[inline(always)]
    pub const fn is_snat_port(&self, port: u16) -> bool {
        (port as u32).wrapping_sub(self.snat_first) < self.snat_count
    }

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
