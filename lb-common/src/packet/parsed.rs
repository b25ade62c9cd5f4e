//! What is known of a packet after its headers were read.
//!
//! The types have no padding: programs keep them on their stack, and kernels before 6.3 reject one
//! that copies bytes which were never written.

use crate::abi::{Address, Port};

/// Between whom a packet travels.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: Address,
    /// Destination address, of the same family.
    pub destination: Address,
    /// Source port; 0 if the protocol is neither TCP nor UDP, or the packet is a later fragment.
    pub source_port: Port,
    /// Destination port, likewise.
    pub destination_port: Port,
    /// Protocol number, of the header behind IPv6's extension headers.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Whether a packet is part of a larger one.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole. So is an IPv6 packet whose fragment header says so (RFC 6946).
    Whole = 0,
    /// The first fragment, which has the ports.
    First = 1,
    /// Another one.
    Later = 2,
}

/// The headers of one IP packet. Offsets are from the first byte of the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Between whom it travels.
    pub tuple: Tuple,
    /// Where the packet ends, in bytes from the frame's first: behind it there may be padding. For a quoted
    /// packet, where what is quoted of it ends.
    pub end: u32,
    /// What its fragments have in common, beside addresses and (IPv4) protocol. A number.
    pub fragment_id: u32,
    /// The IPv4 header's time to live, protocol and checksum, bytes as in the packet.
    pub l3_word: u32,
    /// Where its IP header starts.
    pub l3: u16,
    /// Where the header behind the IP header and its extensions starts. 0 if it is not there, in a later fragment.
    pub l4: u16,
    /// Where the checksum of TCP, UDP, ICMP or ICMPv6 is. 0 if there is none: another protocol, a later
    /// fragment, UDP without a checksum, a quotation that ends before it, or one of ICMP.
    pub l4_checksum_at: u16,
    /// That checksum, bytes as in the packet.
    pub l4_checksum: u16,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// Zero.
    pub reserved: [u8; 3],
}

/// The headers of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Of the packet itself.
    pub outer: Layer,
    /// Of the packet that an ICMP error quotes; else its `l3` is 0. That packet travelled the other way.
    pub inner: Layer,
    /// TCP's flags FIN (1), SYN (2), RST (4), PSH (8), ACK (16), URG (32), ECE (64), CWR (128).
    pub tcp_flags: u8,
    /// Type of an ICMP or ICMPv6 message.
    pub icmp_type: u8,
    /// Its code.
    pub icmp_code: u8,
    /// Zero.
    pub reserved: u8,
}

impl Tuple {
    /// Nobody.
    pub const NONE: Self = Self {
        source: Address::UNSPECIFIED,
        destination: Address::UNSPECIFIED,
        source_port: Port::NONE,
        destination_port: Port::NONE,
        protocol: 0,
        reserved: [0; 3],
    };

    /// The other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    /// The same to another destination.
    #[inline(always)]
    #[must_use]
    pub const fn to(self, destination: Address, destination_port: Port) -> Self {
        Self { destination, destination_port, ..self }
    }

    /// The same from another source.
    #[inline(always)]
    #[must_use]
    pub const fn from(self, source: Address, source_port: Port) -> Self {
        Self { source, source_port, ..self }
    }

    /// Both ports as they lie in a packet: one word.
    #[inline(always)]
    pub(crate) fn ports(&self) -> u32 {
        let [a, b] = self.source_port.word().to_ne_bytes();
        let [c, d] = self.destination_port.word().to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    #[inline(always)]
    pub(super) fn set_ports(&mut self, word: u32) {
        let (source, destination) = halves(word);
        self.source_port = Port::from_word(source);
        self.destination_port = Port::from_word(destination);
    }
}

impl Layer {
    /// No packet.
    pub const NONE: Self = Self {
        tuple: Tuple::NONE,
        end: 0,
        fragment_id: 0,
        l3_word: 0,
        l3: 0,
        l4: 0,
        l4_checksum_at: 0,
        l4_checksum: 0,
        fragment: Fragment::Whole,
        reserved: [0; 3],
    };

    /// Forgets what not every packet has. Field by field: to store zeros over all of it, a BPF program calls a function
    /// that does so byte by byte.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.tuple.source_port = Port::NONE;
        self.tuple.destination_port = Port::NONE;
        self.l4_checksum_at = 0;
        self.l4_checksum = 0;
        self.fragment = Fragment::Whole;
        self.fragment_id = 0;
        self.l3_word = 0;
    }
}

impl Parsed {
    /// Nothing read yet.
    pub const NONE: Self = Self {
        outer: Layer::NONE,
        inner: Layer::NONE,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        reserved: 0,
    };

    /// Forgets what not every packet has, likewise.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.outer.clear();
        self.inner.clear();
        self.inner.l3 = 0;
        self.tcp_flags = 0;
        self.icmp_type = 0;
        self.icmp_code = 0;
    }

    /// Whether it is an ICMP error, which quotes another packet.
    #[inline(always)]
    pub const fn is_error(&self) -> bool {
        self.inner.l3 != 0
    }
}

/// The first and the last two bytes of a word.
#[inline(always)]
pub(super) const fn halves(word: u32) -> (u16, u16) {
    let [a, b, c, d] = word.to_ne_bytes();
    (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]))
}

/// The inverse.
#[inline(always)]
pub(super) const fn joined(first: u16, last: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), last.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

const _: () = {
    assert!(size_of::<Tuple>() == 40);
    assert!(size_of::<Layer>() == 64);
    assert!(size_of::<Parsed>() == 132);
};
