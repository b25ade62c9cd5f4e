//! `FRONTENDS`: what clients connect to.

use super::{Address, Port};

/// Key of `FRONTENDS`: one address, port and protocol that clients connect to, or, with port and
/// protocol zero, the ClusterIP itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontendKey {
    /// Address.
    pub address: Address,
    /// Port.
    pub port: Port,
    /// Protocol number; see [`super::protocol`].
    pub protocol: u8,
    /// Zero.
    pub reserved: u8,
}

impl FrontendKey {
    /// The frontend of this address, port and protocol.
    #[inline(always)]
    pub const fn new(address: Address, port: Port, protocol: u8) -> Self {
        Self { address, port, protocol, reserved: 0 }
    }

    /// The entry of the ClusterIP itself. Port 0 is no service's port.
    #[inline(always)]
    pub const fn of_address(address: Address) -> Self {
        Self::new(address, Port::NONE, 0)
    }

    /// The key as the kernel compares it.
    pub const fn to_bytes(self) -> [u8; 20] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.address.bytes();
        let [q, r] = self.port.number().to_be_bytes();
        let (s, t) = (self.protocol, self.reserved);
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t]
    }

    /// The inverse of [`Self::to_bytes`].
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = bytes;
        let address = Address::from_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]);
        Self { address, port: Port::new(u16::from_be_bytes([q, r])), protocol: s, reserved: t }
    }

    /// Sixteen bits that depend on every bit of the key (multiply-xorshift; not cryptographic).
    #[inline(always)]
    pub const fn check(&self) -> u16 {
        let [a, b, c, d] = self.address.words();
        let last = self.port.word() as u64 | (self.protocol as u64) << 16;
        let mut hash = pair(a, b) ^ 0x9e37_79b9_7f4a_7c15;
        hash = mix(hash) ^ pair(c, d);
        hash = mix(hash) ^ last;
        (mix(hash) >> 48) as u16
    }
}

#[inline(always)]
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// One round of the 64-bit finalizer of MurmurHash3.
#[inline(always)]
const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^ (x >> 33)
}

/// What a [`FrontendEntry`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum FrontendKind {
    /// A port of a ClusterIP.
    ClusterIp = 0,
    /// A port of an external IP.
    External = 1,
    /// A NodePort on an address of this node. The unspecified address stands for all of them: it
    /// is there for the bind guard.
    NodePort = 2,
    /// A ClusterIP: the address itself, whose other ports are refused.
    Address = 3,
    /// A ClusterIP that is left to another proxy.
    Foreign = 4,
    /// A port of a load balancer's address, which `loadBalancerSourceRanges` may narrow.
    LoadBalancer = 5,
    /// An external IP or a load balancer's address itself: it answers to ping, and keeps its other ports. Several
    /// Services may have it.
    ExternalAddress = 6,
}

impl FrontendKind {
    /// Whether clients can connect to it: everything but the addresses themselves.
    #[inline(always)]
    pub const fn is_port(self) -> bool {
        matches!(self, Self::ClusterIp | Self::External | Self::NodePort | Self::LoadBalancer)
    }
}

/// Value of `FRONTENDS`, one word so that a reader gets it whole: service index (low 32 bits),
/// kind (next 16), and a check of the key (high 16).
///
/// A BPF hash hands a freed element to the next writer at once, under the eyes of a reader that
/// still holds it. The check lets that reader notice that the value is not of its key.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FrontendEntry(pub u64);

impl FrontendEntry {
    /// The entry for `key`.
    pub const fn new(key: &FrontendKey, kind: FrontendKind, service: u32) -> Self {
        Self(service as u64 | (kind as u64) << 32 | (key.check() as u64) << 48)
    }

    /// Index into `SERVICES`.
    #[inline(always)]
    pub const fn service(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// What the entry stands for.
    #[inline(always)]
    pub const fn kind(self) -> FrontendKind {
        match self.0 >> 32 & 0xffff {
            0 => FrontendKind::ClusterIp,
            1 => FrontendKind::External,
            2 => FrontendKind::NodePort,
            3 => FrontendKind::Address,
            5 => FrontendKind::LoadBalancer,
            6 => FrontendKind::ExternalAddress,
            _ => FrontendKind::Foreign,
        }
    }

    /// Whether this is the value of `key`, not of one that took over its memory.
    #[inline(always)]
    pub const fn belongs_to(self, key: &FrontendKey) -> bool {
        (self.0 >> 48) as u16 == key.check()
    }
}
