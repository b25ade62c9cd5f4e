//! Builds packets, with every length and checksum right, from what a test wants to vary.

use alloc::vec;
use alloc::vec::Vec;

use crate::abi::protocol::{TCP, UDP};
use crate::abi::{Address, Port};
use crate::checksum::{full, pseudo_header};
use crate::packet::{ICMP, ICMPV6};

/// An Ethernet frame with an IP packet.
#[derive(Clone, Debug)]
pub struct Frame {
    /// EtherTypes of the VLAN tags, the outermost first.
    pub tags: Vec<u16>,
    /// The packet.
    pub packet: Ip,
    /// Bytes behind it.
    pub padding: usize,
}

/// An IP packet; its family is that of its addresses.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// IPv4: words of options, up to 10.
    pub options: u8,
    /// IPv6: extension headers, each with its kind and its length beyond the first 8 bytes, in units of 8
    /// bytes. [`Self::fragment`] comes after them.
    pub extensions: Vec<(u8, u8)>,
    /// Fragmentation.
    pub fragment: Option<Part>,
    /// What it carries.
    pub payload: Payload,
}

/// A place in a fragmented packet. The payload is built whole, then cut.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What the fragments have in common; IPv4 takes the low 16 bits.
    pub id: u32,
    /// First byte, in units of 8.
    pub offset: u16,
    /// Number of bytes; what is longer than the payload is the last one.
    pub length: usize,
}

/// What an IP packet carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// TCP.
    Tcp {
        /// Source and destination port.
        ports: [u16; 2],
        /// Flags.
        flags: u8,
        /// Words of options, up to 10.
        options: u8,
        /// Data.
        data: Vec<u8>,
    },
    /// UDP.
    Udp {
        /// Source and destination port.
        ports: [u16; 2],
        /// Whether it has a checksum.
        checksum: bool,
        /// Data.
        data: Vec<u8>,
    },
    /// ICMP or ICMPv6, as the addresses demand.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// What follows the checksum.
        data: Vec<u8>,
    },
    /// Anything else.
    Other {
        /// Protocol number.
        protocol: u8,
        /// Data.
        data: Vec<u8>,
    },
}

impl Frame {
    /// Who it is for: the first six bytes of every frame.
    pub const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 1];
    /// Whom it comes from: the next six.
    pub const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 2];

    /// A frame without tags.
    pub fn new(packet: Ip) -> Self {
        Self { tags: Vec::new(), packet, padding: 0 }
    }

    /// Its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Self::DESTINATION.to_vec();
        bytes.extend(Self::SOURCE);
        for tag in &self.tags {
            bytes.extend(tag.to_be_bytes());
            bytes.extend([0x20, 7]);
        }
        let kind: u16 = if self.packet.source.is_v4() { 0x0800 } else { 0x86dd };
        bytes.extend(kind.to_be_bytes());
        bytes.extend(self.packet.bytes());
        bytes.resize(bytes.len() + self.padding, 0x55);
        bytes
    }
}

impl Ip {
    /// A packet without options.
    pub const fn new(source: Address, destination: Address, payload: Payload) -> Self {
        Self { source, destination, options: 0, extensions: Vec::new(), fragment: None, payload }
    }

    /// An error about `quoted`, of which `length` bytes are quoted.
    pub fn error(
        source: Address,
        destination: Address,
        (kind, code): (u8, u8),
        quoted: &Self,
        length: usize,
    ) -> Self {
        let mut data = vec![0, 0, 5, 0x78];
        data.extend(quoted.bytes().into_iter().take(length));
        Self::new(source, destination, Payload::Icmp { kind, code, data })
    }

    /// Its bytes, from the IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let mut payload = self.transport();
        let whole = payload.len();
        if let Some(part) = self.fragment {
            let start = whole.min(usize::from(part.offset) * 8);
            payload = payload[start..whole.min(start + part.length)].to_vec();
        }
        match self.source.is_v4() {
            true => self.v4(&payload, whole),
            false => self.v6(&payload, whole),
        }
    }

    /// Number of the protocol carried.
    pub fn protocol(&self) -> u8 {
        match &self.payload {
            Payload::Tcp { .. } => TCP,
            Payload::Udp { .. } => UDP,
            Payload::Icmp { .. } if self.source.is_v4() => ICMP,
            Payload::Icmp { .. } => ICMPV6,
            Payload::Other { protocol, .. } => *protocol,
        }
    }

    /// Its ports.
    pub fn ports(&self) -> [Port; 2] {
        match &self.payload {
            Payload::Tcp { ports, .. } | Payload::Udp { ports, .. } => ports.map(Port::new),
            Payload::Icmp { .. } | Payload::Other { .. } => [Port::NONE; 2],
        }
    }

    /// The same with other addresses and ports.
    #[must_use]
    pub fn with(&self, source: (Address, u16), destination: (Address, u16)) -> Self {
        let mut other = Self { source: source.0, destination: destination.0, ..self.clone() };
        if let Payload::Tcp { ports, .. } | Payload::Udp { ports, .. } = &mut other.payload {
            *ports = [source.1, destination.1];
        }
        other
    }

    fn v4(&self, payload: &[u8], whole: usize) -> Vec<u8> {
        let words = 5 + self.options;
        let length = usize::from(words) * 4 + payload.len();
        let mut header = vec![0x40 | words, 0];
        header.extend(length16(length).to_be_bytes());
        let (id, place) = self.fragment.map_or((0x1234, 0x4000), |part| {
            let more = u16::from(part.is_followed(whole)) << 13;
            ((part.id & 0xffff) as u16, part.offset | more)
        });
        header.extend([id, place].map(u16::to_be_bytes).as_flattened());
        header.extend([64, self.protocol(), 0, 0]);
        header.extend(
            [self.source, self.destination].map(|a| a.v4_word().to_ne_bytes()).as_flattened(),
        );
        // No-operation (RFC 791).
        header.resize(usize::from(words) * 4, 1);
        put_checksum(&mut header, 10, 0);
        header.extend(payload);
        header
    }

    fn v6(&self, payload: &[u8], whole: usize) -> Vec<u8> {
        const FRAGMENT: u8 = 44;
        let mut chain: Vec<u8> = self.extensions.iter().map(|(kind, _)| *kind).collect();
        chain.extend(self.fragment.map(|_| FRAGMENT));
        chain.push(self.protocol());
        let mut extensions = Vec::new();
        for ((_, length), next) in self.extensions.iter().zip(&chain[1..]) {
            // PadN (RFC 8200, section 4.2), which as a routing header has no segments left.
            extensions.extend([*next, *length, 1, 0, 0, 0, 0, 0]);
            extensions.resize(extensions.len() + usize::from(*length) * 8, 0);
        }
        if let Some(part) = self.fragment {
            let place = part.offset << 3 | u16::from(part.is_followed(whole));
            extensions.extend([self.protocol(), 0]);
            extensions.extend(place.to_be_bytes());
            extensions.extend(part.id.to_be_bytes());
        }
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length16(extensions.len() + payload.len()).to_be_bytes());
        packet.extend([chain[0], 64]);
        packet.extend([self.source, self.destination].map(Address::bytes).as_flattened());
        packet.extend(extensions);
        packet.extend(payload);
        packet
    }

    /// What it carries, whole.
    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.payload {
            Payload::Tcp { ports, flags, options, data } => {
                bytes.extend(ports.map(u16::to_be_bytes).as_flattened());
                bytes.extend([
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    2,
                    (5 + options) << 4,
                    *flags,
                    0x20,
                    0,
                    0,
                    0,
                    0,
                    0,
                ]);
                bytes.resize(20 + usize::from(*options) * 4, 1);
                bytes.extend(data);
                let pseudo = self.pseudo(bytes.len());
                put_checksum(&mut bytes, 16, pseudo);
            }
            Payload::Udp { ports, checksum, data } => {
                let length = length16(8 + data.len());
                bytes.extend([ports[0], ports[1], length, 0].map(u16::to_be_bytes).as_flattened());
                bytes.extend(data);
                if *checksum {
                    let pseudo = self.pseudo(bytes.len());
                    put_checksum(&mut bytes, 6, pseudo);
                    if bytes[6..8] == [0, 0] {
                        bytes[6..8].fill(0xff);
                    }
                }
            }
            Payload::Icmp { kind, code, data } => {
                bytes.extend([*kind, *code, 0, 0]);
                bytes.extend(data);
                let pseudo = if self.source.is_v4() { 0 } else { self.pseudo(bytes.len()) };
                put_checksum(&mut bytes, 2, pseudo);
            }
            Payload::Other { data, .. } => bytes.extend(data),
        }
        bytes
    }

    fn pseudo(&self, length: usize) -> u32 {
        pseudo_header(self.source, self.destination, self.protocol(), length16(length).into())
    }
}

impl Part {
    fn is_followed(self, whole: usize) -> bool {
        usize::from(self.offset) * 8 + self.length < whole
    }
}

fn put_checksum(bytes: &mut [u8], at: usize, pseudo: u32) {
    let checksum = full(pseudo, bytes);
    bytes[at..at + 2].copy_from_slice(&checksum.to_ne_bytes());
}

fn length16(length: usize) -> u16 {
    u16::try_from(length).expect("a packet's length fits its field")
}
