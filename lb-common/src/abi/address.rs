//! Addresses and ports: network order, in words that BPF can load and compare whole.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv6 address, or an IPv4 address as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2). One key and
/// one code path serve both families, and a dual-stack socket that names an IPv4 destination
/// needs no special case.
///
/// In memory these are the sixteen bytes in network order. They are kept as words because BPF has
/// no unaligned loads: of a byte array, the compiler moves every byte by itself. The words are
/// no numbers, and are ordered as bytes.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address([u32; 4]);

impl Address {
    /// `::`, which no backend has.
    pub const UNSPECIFIED: Self = Self([0; 4]);

    /// `0.0.0.0`.
    pub const V4_UNSPECIFIED: Self = Self::from_v4_word(0);

    /// `127.0.0.1`, which stands for all of 127.0.0.0/8 (RFC 1122, section 3.2.1.3).
    pub const V4_LOOPBACK: Self = Self::from_v4_word(u32::from_ne_bytes([127, 0, 0, 1]));

    /// `::1`.
    pub const V6_LOOPBACK: Self = Self([0, 0, 0, u32::from_ne_bytes([0, 0, 0, 1])]);

    /// The third word of an IPv4-mapped address.
    const V4_MARK: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

    /// From four words whose bytes in memory are in network order.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// An IPv4 address from its word, whose bytes in memory are in network order.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, Self::V4_MARK, word])
    }

    /// From sixteen bytes in network order.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// Sixteen bytes in network order.
    pub const fn bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.0[0].to_ne_bytes();
        let [e, f, g, h] = self.0[1].to_ne_bytes();
        let [i, j, k, l] = self.0[2].to_ne_bytes();
        let [m, n, o, p] = self.0[3].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The words, for masking and hashing: as numbers they mean nothing.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        self.0
    }

    /// The last word: the IPv4 address, if this is one.
    #[inline(always)]
    pub const fn v4_word(self) -> u32 {
        self.0[3]
    }

    /// `::` or `0.0.0.0`.
    #[inline(always)]
    pub fn is_unspecified(self) -> bool {
        self == Self::UNSPECIFIED || self == Self::V4_UNSPECIFIED
    }

    /// The address that stands for this one, if it leads to the node itself: a loopback address,
    /// or the unspecified one, which `connect` takes for loopback.
    #[inline(always)]
    pub fn loopback(self) -> Option<Self> {
        const NETWORK: u32 = u32::from_ne_bytes([127, 0, 0, 0]);
        const MASK: u32 = u32::from_ne_bytes([255, 0, 0, 0]);
        if self.is_v4() {
            let word = self.v4_word();
            return (word & MASK == NETWORK || word == 0).then_some(Self::V4_LOOPBACK);
        }
        (self == Self::UNSPECIFIED || self == Self::V6_LOOPBACK).then_some(Self::V6_LOOPBACK)
    }

    /// Whether a packet from there may be answered: not a group's, everybody's or nobody's address (RFC 1122, section 3.2.1.3;
    /// RFC 4443, section 2.4 e), nor one that no packet on a wire has.
    #[inline(always)]
    pub fn is_host(self) -> bool {
        const CLASSES_D_E: u32 = u32::from_ne_bytes([224, 0, 0, 0]);
        const GROUP: u32 = u32::from_ne_bytes([255, 0, 0, 0]);
        let elsewhere = if self.is_v4() {
            self.v4_word() & CLASSES_D_E != CLASSES_D_E
        } else {
            self.0[0] & GROUP != GROUP
        };
        elsewhere && self.loopback().is_none()
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0[0] | self.0[1] == 0 && self.0[2] == Self::V4_MARK
    }
}

impl Ord for Address {
    fn cmp(&self, other: &Self) -> Ordering {
        self.bytes().cmp(&other.bytes())
    }
}

impl PartialOrd for Address {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_bytes(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self::from_bytes(v6.octets()),
        }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            Self::V4(Ipv4Addr::from(address.v4_word().to_ne_bytes()))
        } else {
            Self::V6(Ipv6Addr::from(address.bytes()))
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// A port. In memory these are its two bytes in network order.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Port(u16);

impl Port {
    /// No port.
    pub const NONE: Self = Self(0);

    /// From its number.
    pub const fn new(number: u16) -> Self {
        Self(number.to_be())
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }

    /// From a word whose two bytes in memory are in network order.
    #[inline(always)]
    pub const fn from_word(word: u16) -> Self {
        Self(word)
    }

    /// A word whose two bytes in memory are in network order.
    #[inline(always)]
    pub const fn word(self) -> u16 {
        self.0
    }
}

impl Ord for Port {
    fn cmp(&self, other: &Self) -> Ordering {
        self.number().cmp(&other.number())
    }
}

impl PartialOrd for Port {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}
