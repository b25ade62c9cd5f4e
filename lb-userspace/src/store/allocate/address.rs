//! The ClusterIPs of one family: a service CIDR as a banded pool (Kubernetes `ipallocator`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{BandedPool, band_offset};
use crate::object::{Key, Kind};
use crate::plan::Family;

/// A service CIDR that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// As in Kubernetes, whose allocator has the same limit.
    #[error("service CIDR {0}: the shortest allowed prefix of an IPv6 service CIDR is /64")]
    TooWide(IpNet),
    /// `/31`, `/32`, `/128`.
    #[error(
        "service CIDR {0} is too small: no address is left for a Service; use /30 or shorter (IPv6 /127)"
    )]
    TooSmall(IpNet),
    /// Loopback and the like: an unallocated address of a service CIDR is unreachable.
    #[error(
        "service CIDR {0} overlaps {1}, whose addresses have a meaning of their own; choose a range that nothing else uses, such as 10.96.0.0/12"
    )]
    Reserved(IpNet, IpNet),
    /// Two ranges of one family.
    #[error(
        "service CIDRs {0} and {1} are of one family: give at most one IPv4 and one IPv6 range"
    )]
    SameFamily(IpNet, IpNet),
    /// No range at all.
    #[error("no service CIDR: give at least one, such as 10.96.0.0/12")]
    None,
}

/// This network, loopback, link-local and multicast (RFC 6890, RFC 4291): no Service can be there.
const RESERVED: [&str; 7] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "::1/128",
    "fe80::/10",
    "ff00::/8",
];

/// The reserved range that `range` has addresses in common with.
fn reserved(range: &IpNet) -> Option<IpNet> {
    let ranges =
        RESERVED.iter().map(|text| text.parse::<IpNet>().expect("written correctly above"));
    ranges.into_iter().find(|other| range.contains(other) || other.contains(range))
}

/// The ClusterIPs of one family.
#[derive(Clone, Debug)]
pub struct AddressPool {
    range: IpNet,
    pub(super) pool: BandedPool,
}

impl AddressPool {
    /// The pool of a service CIDR. Its first address is `default/kubernetes`'.
    pub fn new(range: IpNet, random: fastrand::Rng) -> Result<Self, RangeError> {
        let range = range.trunc();
        if let Some(reserved) = reserved(&range) {
            return Err(RangeError::Reserved(range, reserved));
        }
        let host_bits = u32::from(range.max_prefix_len() - range.prefix_len());
        if host_bits > 64 {
            return Err(RangeError::TooWide(range));
        }
        let all = 1_u128 << host_bits;
        // Never the network address (IPv6: the subnet-router anycast address, RFC 4291, section
        // 2.6.1), nor IPv4's broadcast address.
        let unusable = if matches!(range, IpNet::V4(_)) { 2 } else { 1 };
        if all <= unusable {
            return Err(RangeError::TooSmall(range));
        }
        let mut pool = BandedPool::new(all - unusable, band_offset(all, 16, 256), random);
        pool.reserved = Some(Key::new(Kind::Service, "default", "kubernetes"));
        Ok(Self { range, pool })
    }

    /// The service CIDR.
    pub const fn range(&self) -> IpNet {
        self.range
    }

    /// Its numbers and their owners.
    pub const fn pool(&self) -> &BandedPool {
        &self.pool
    }

    /// `None` for an address outside, and for network and broadcast addresses.
    pub(super) fn number(&self, address: IpAddr) -> Option<u128> {
        let number = to_bits(address).checked_sub(to_bits(self.range.network()))?.checked_sub(1)?;
        (self.range.contains(&address) && number < self.pool.size).then_some(number)
    }

    pub(super) fn address(&self, number: u128) -> IpAddr {
        match self.range {
            IpNet::V4(net) => {
                let offset = u32::try_from(number + 1).expect("an IPv4 range's offset");
                IpAddr::V4(Ipv4Addr::from_bits(net.network().to_bits() + offset))
            }
            IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from_bits(net.network().to_bits() + number + 1)),
        }
    }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The family of an address.
pub const fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    }
}

/// As `spec.ipFamilies` names it.
pub const fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}
