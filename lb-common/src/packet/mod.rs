//! Reading and rewriting packets, one protocol a file.
//!
//! [`parse_ethernet`] and [`parse_ip`] read a packet's headers through the trait [`Packet`] into one plain
//! [`Parsed`]; [`edit`] turns a wanted address into a list of stores and checksum updates. All reads come
//! before the first edit.
//!
//! Byte order: words are four bytes of the packet as they lie there (docs/decisions/0017).

pub mod edit;
mod ethernet;
mod icmp;
mod icmpv6;
mod ipv4;
mod ipv6;
mod parsed;
mod tcp;
mod udp;

use crate::abi::protocol::{TCP, UDP};

pub use parsed::{Fragment, Layer, Parsed, Tuple};

/// The bytes of one packet.
pub trait Packet {
    /// Number of bytes, those of the link header included.
    fn length(&self) -> u32;
    /// `N` words from this offset on, in which the bytes in memory are those of the packet. `None` if the
    /// packet ends before.
    fn words<const N: usize>(&self, offset: u16) -> Option<[u32; N]>;
    /// The one's complement sum of `length` bytes from this offset on, a multiple of four and [`MAX_SUM`] at most.
    /// `None` if the packet ends before.
    fn sum(&self, offset: u16, length: u16) -> Option<u32>;
}

/// The most that [`Packet::sum`] sums up, in bytes.
pub const MAX_SUM: u16 = 256;

/// TCP's flags as they lie in the header's byte (RFC 9293, section 3.1).
pub mod tcp_flags {
    /// The sender has sent its last byte.
    pub const FIN: u8 = 1;
    /// The first packet of a direction.
    pub const SYN: u8 = 2;
    /// There is no such connection.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

/// Why a packet could not be read. Such packets pass untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unparsed {
    /// Neither IPv4 nor IPv6, or below more than two VLAN tags. Normal: ARP is such a packet.
    NotIp,
    /// It ends before its headers do, or before the length that its IP header names.
    Short,
    /// A header contradicts itself or the one before it.
    Malformed,
    /// More extension headers than are followed.
    TooManyExtensions,
    /// Its destination is not the last one: a routing header has segments left. The checksum is over the
    /// last one (RFC 8200, section 8.1).
    SourceRouted,
    /// An IPv6 packet with an IPv4-mapped address, which inside lb would mean the IPv4 address. None
    /// should be on a wire, and Linux drops them (`ip6_rcv_core`).
    MappedAddress,
}

/// The version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Reads a packet that starts with an Ethernet header. `parsed` means nothing if it cannot be read. It is the
/// caller's memory, since the stack of a program (512 bytes) does not hold it beside what reading it takes.
#[inline(always)]
pub fn parse_ethernet(
    packet: &(impl Packet + ?Sized),
    parsed: &mut Parsed,
) -> Result<(), Unparsed> {
    let (version, l3) = ethernet::read(&View::whole(packet))?;
    parse(packet, version, l3, parsed)
}

/// The same for a packet of a device without a link header, such as a tunnel.
#[inline(always)]
pub fn parse_ip(packet: &(impl Packet + ?Sized), parsed: &mut Parsed) -> Result<(), Unparsed> {
    let [first] = View::whole(packet).words(0)?;
    let version = match u32::from_be(first) >> 28 {
        4 => Version::V4,
        6 => Version::V6,
        _ => return Err(Unparsed::NotIp),
    };
    parse(packet, version, 0, parsed)
}

#[inline(always)]
fn parse(
    packet: &(impl Packet + ?Sized),
    version: Version,
    l3: u16,
    parsed: &mut Parsed,
) -> Result<(), Unparsed> {
    parsed.clear();
    let whole = View::whole(packet);
    match version {
        Version::V4 => ipv4::read(&whole, l3, &mut parsed.outer)?,
        Version::V6 => ipv6::read(&whole, l3, &mut parsed.outer)?,
    }
    if parsed.outer.fragment == Fragment::Later {
        return Ok(());
    }
    let view = View { packet, end: parsed.outer.end };
    match (parsed.outer.tuple.protocol, version) {
        (TCP, _) => tcp::read(&view, parsed),
        (UDP, _) => udp::read(&view, &mut parsed.outer),
        (ICMP, Version::V4) => icmp::read(&view, parsed),
        (ICMPV6, Version::V6) => icmpv6::read(&view, parsed),
        _ => Ok(()),
    }
}

/// The ports and the checksum of a quoted packet, as far as they are there. Who sends an ICMP error need not quote
/// more than eight bytes of them (RFC 792), which hold the ports and UDP's checksum.
#[inline(always)]
fn quoted_transport(
    view: &View<'_, impl Packet + ?Sized>,
    layer: &mut Layer,
) -> Result<(), Unparsed> {
    if layer.fragment == Fragment::Later {
        return Ok(());
    }
    match layer.tuple.protocol {
        TCP => tcp::read_quoted(view, layer),
        UDP => udp::read_quoted(view, layer),
        _ => Ok(()),
    }
}

/// How far packets go that lb makes itself: as those of the Linux kernel (`IPDEFTTL`, include/uapi/linux/ip.h).
pub const HOPS: u8 = 64;

/// ICMP's protocol number.
pub const ICMP: u8 = 1;
/// ICMPv6's protocol number.
pub const ICMPV6: u8 = 58;

/// A packet up to where a header around the one that is read says that it ends.
struct View<'p, P: ?Sized> {
    packet: &'p P,
    end: u32,
}

impl<'p, P: Packet + ?Sized> View<'p, P> {
    #[inline(always)]
    fn whole(packet: &'p P) -> Self {
        Self { packet, end: packet.length() }
    }

    /// Whether there are `bytes` at this offset.
    #[inline(always)]
    fn has(&self, offset: u16, bytes: u32) -> bool {
        u32::from(offset) + bytes <= self.end
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "N is at most ten")]
    fn words<const N: usize>(&self, offset: u16) -> Result<[u32; N], Unparsed> {
        if !self.has(offset, 4 * N as u32) {
            return Err(Unparsed::Short);
        }
        self.packet.words(offset).ok_or(Unparsed::Short)
    }
}

impl Packet for [u8] {
    fn length(&self) -> u32 {
        u32::try_from(self.len()).unwrap_or(u32::MAX)
    }

    fn words<const N: usize>(&self, offset: u16) -> Option<[u32; N]> {
        let (words, _) = self.get(usize::from(offset)..)?.as_chunks();
        let words = words.first_chunk::<N>()?;
        Some(words.map(u32::from_ne_bytes))
    }

    fn sum(&self, offset: u16, length: u16) -> Option<u32> {
        let bytes = self.get(usize::from(offset)..)?.get(..usize::from(length))?;
        Some(crate::checksum::sum(0, bytes))
    }
}
