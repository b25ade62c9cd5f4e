//! What the sender of a refused packet gets: RST (RFC 9293, section 3.10.7.1), or ICMP unreachable (RFC 792; RFC 4443,
//! section 3.1), made out of its own packet.
//!
//! The refused packet's checksum may not be computed yet (`CHECKSUM_PARTIAL`): whoever sends the frame then computes it
//! over all that follows the transport header, and writes it there. It stays so when the frame becomes the answer, and
//! the place stays where it was: at the RST's own checksum, or in what an ICMP message quotes. Therefore an answer knows
//! both checksums: the one for a frame that is complete, and the one for a frame that will be changed.

use super::super::Refusal;
use crate::abi::Address;
use crate::abi::protocol::TCP;
use crate::checksum::{Delta, add, of_sum, partial, pseudo_header, sum_words};
use crate::packet::tcp_flags::{ACK, FIN, RST, SYN};
use crate::packet::{Fragment, HOPS, ICMP, ICMPV6, MAX_SUM, Packet, Parsed};

/// How a frame becomes its answer: cut to `length`, opened at `head_at` by `grow` bytes, both parts written, then the
/// checksum. What is left is to exchange the Ethernet addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes from the IP header on, as they lie in memory.
    pub head: [u32; 12],
    /// Bytes of the transport header.
    pub tail: [u32; 5],
    /// Length of the frame, before it is opened.
    pub length: u32,
    /// Where `head` goes.
    pub head_at: u16,
    /// How many bytes of it: 20, 28, 40 or 48.
    pub head_length: u16,
    /// By how many bytes the frame is opened there.
    pub grow: u16,
    /// Where `tail` goes; 0 if there is none.
    pub tail_at: u16,
    /// Where the checksum goes, in the frame that was opened.
    pub checksum_at: u16,
    /// It, if the frame's checksum is complete; bytes as they lie in the packet.
    pub complete: u16,
    /// It, if the kernel or a device is still to complete the frame's checksum.
    pub partial: u16,
    /// Where the refused packet has its checksum, which tells which of both is the case; 0 if it has none.
    pub probe_at: u16,
}

impl Answer {
    /// No answer yet.
    pub const NONE: Self = Self {
        head: [0; 12],
        tail: [0; 5],
        length: 0,
        head_at: 0,
        head_length: 0,
        grow: 0,
        tail_at: 0,
        checksum_at: 0,
        complete: 0,
        partial: 0,
        probe_at: 0,
    };

    /// Makes this the answer to a packet that is refused. `None` if there is none to such a packet.
    #[inline(always)]
    pub fn set(
        &mut self,
        packet: &(impl Packet + ?Sized),
        parsed: &Parsed,
        refusal: Refusal,
    ) -> Option<()> {
        *self = Self::NONE;
        let layer = &parsed.outer;
        if layer.l4 == 0 || layer.fragment == Fragment::Later {
            return None;
        }
        self.head_at = layer.l3;
        self.probe_at = layer.l4_checksum_at;
        match refusal {
            Refusal::Port if layer.tuple.protocol == TCP => self.reset(packet, parsed),
            Refusal::Port | Refusal::Host => self.unreachable(packet, parsed, refusal),
        }
    }

    /// RST. IP options and extension headers stay.
    #[inline(always)]
    fn reset(&mut self, packet: &(impl Packet + ?Sized), parsed: &Parsed) -> Option<()> {
        let layer = &parsed.outer;
        if layer.fragment != Fragment::Whole {
            return None;
        }
        let [_, sequence, acknowledged, state, _] = packet.words::<5>(layer.l4)?;
        let [length, flags, ..] = state.to_ne_bytes();
        let data = layer.end - u32::from(layer.l4) - u32::from(length >> 4) * 4;
        let (sequence, acknowledged, flags) = if flags & ACK != 0 {
            (acknowledged, 0, RST)
        } else {
            let ends = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            let next = u32::from_be(sequence).wrapping_add(data).wrapping_add(ends);
            (0, next.to_be(), RST | ACK)
        };
        let tuple = layer.tuple.reversed();
        let state = u32::from_ne_bytes([5 << 4, flags, 0, 0]);
        self.tail = [tuple.ports(), sequence, acknowledged, state, 0];
        self.tail_at = layer.l4;
        self.length = u32::from(layer.l4) + 20;
        self.checksum_at = layer.l4 + 16;
        let pseudo = pseudo_header(tuple.source, tuple.destination, TCP, 20);
        self.partial = partial(pseudo);
        self.complete = of_sum(add(pseudo, sum_words(&self.tail)));
        let behind = layer.l4 - layer.l3 + 20;
        self.turn(packet, parsed, behind)
    }

    /// The packet's own IP header, turned round, for a packet of so many bytes from that header on.
    #[inline(always)]
    fn turn(
        &mut self,
        packet: &(impl Packet + ?Sized),
        parsed: &Parsed,
        length: u16,
    ) -> Option<()> {
        let layer = &parsed.outer;
        let [a, b] = length.to_be_bytes();
        if layer.tuple.source.is_v4() {
            let [first, second, third, source, destination] = packet.words::<5>(layer.l3)?;
            let [version, service, ..] = first.to_ne_bytes();
            let [hops, protocol, c, d] = third.to_ne_bytes();
            let new_first = u32::from_ne_bytes([version, service, a, b]);
            let word = |hops| u32::from_ne_bytes([hops, protocol, 0, 0]);
            let delta = Delta::NONE.replace(first, new_first).replace(word(hops), word(HOPS));
            let [c, d] = delta.update(u16::from_ne_bytes([c, d])).to_ne_bytes();
            let third = u32::from_ne_bytes([HOPS, protocol, c, d]);
            self.v4([new_first, second, third], destination, source);
        } else {
            let [first, second] = packet.words::<2>(layer.l3)?;
            let [a, b] = (length - V6_HEADER).to_be_bytes();
            let [_, _, next, _] = second.to_ne_bytes();
            let second = u32::from_ne_bytes([a, b, next, HOPS]);
            self.v6([first, second], layer.tuple.destination, layer.tuple.source);
        }
        Some(())
    }

    /// ICMP unreachable, which quotes the IP header and the transport's: of UDP all eight bytes, which is the least that
    /// must be quoted, of TCP twenty.
    #[inline(always)]
    fn unreachable(
        &mut self,
        packet: &(impl Packet + ?Sized),
        parsed: &Parsed,
        refusal: Refusal,
    ) -> Option<()> {
        let layer = &parsed.outer;
        let transport = if layer.tuple.protocol == TCP { 20 } else { 8 };
        let quoted = layer.l4 - layer.l3 + transport;
        if quoted > MAX_SUM {
            return None;
        }
        self.length = u32::from(layer.l4 + transport);
        let sum = packet.sum(layer.l3, quoted)?;
        // What the kernel or a device will write into the quotation.
        let completed = match of_sum(packet.sum(layer.l4, transport)?) {
            0 => 0xffff,
            completed => completed,
        };
        let changed = Delta::NONE.replace_half(layer.l4_checksum, completed);
        let (source, destination) = (layer.tuple.destination, layer.tuple.source);
        let v4 = source.is_v4();
        let message = u32::from_ne_bytes(match (v4, refusal) {
            (true, Refusal::Port) => [3, 3, 0, 0],
            (true, Refusal::Host) => [3, 1, 0, 0],
            (false, Refusal::Port) => [1, 4, 0, 0],
            (false, Refusal::Host) => [1, 3, 0, 0],
        });
        let header = if v4 {
            self.new_v4(source, destination, quoted);
            V4_HEADER
        } else {
            self.new_v6(source, destination, quoted);
            V6_HEADER
        };
        let pseudo = match v4 {
            true => 0,
            false => pseudo_header(source, destination, ICMPV6, u32::from(quoted + ICMP_HEADER)),
        };
        let sum = add(add(pseudo, message), sum);
        self.head[usize::from(header / 4)] = message;
        self.head_length = header + ICMP_HEADER;
        self.grow = self.head_length;
        self.checksum_at = layer.l3 + header + 2;
        self.complete = of_sum(sum);
        self.partial = of_sum(add(sum, changed.word()));
        Some(())
    }

    /// The header of an ICMP message that quotes so many bytes: internetwork control (RFC 1812, section 4.3.2.5), not to
    /// be fragmented.
    #[inline(always)]
    fn new_v4(&mut self, source: Address, destination: Address, quoted: u16) {
        let [a, b] = (V4_HEADER + ICMP_HEADER + quoted).to_be_bytes();
        let words = [[0x45, 0xc0, a, b], [0, 0, 0x40, 0], [HOPS, ICMP, 0, 0]];
        let [first, second, third] = words.map(u32::from_ne_bytes);
        let (source, destination) = (source.v4_word(), destination.v4_word());
        let sum = sum_words(&[first, second, third, source, destination]);
        let [c, d] = of_sum(sum).to_ne_bytes();
        let third = u32::from_ne_bytes([HOPS, ICMP, c, d]);
        self.v4([first, second, third], source, destination);
    }

    #[inline(always)]
    fn new_v6(&mut self, source: Address, destination: Address, quoted: u16) {
        let [a, b] = (ICMP_HEADER + quoted).to_be_bytes();
        let words = [[0x60, 0, 0, 0], [a, b, ICMPV6, HOPS]].map(u32::from_ne_bytes);
        self.v6(words, source, destination);
    }

    #[inline(always)]
    fn v4(&mut self, [a, b, c]: [u32; 3], source: u32, destination: u32) {
        self.head[..5].copy_from_slice(&[a, b, c, source, destination]);
        self.head_length = V4_HEADER;
    }

    #[inline(always)]
    fn v6(&mut self, [a, b]: [u32; 2], source: Address, destination: Address) {
        let (s, d) = (source.words(), destination.words());
        self.head[..10].copy_from_slice(&[a, b, s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]]);
        self.head_length = V6_HEADER;
    }

    /// The checksum of the answer, where that of the frame is still to be completed or not.
    #[inline(always)]
    pub const fn checksum(&self, is_partial: bool) -> u16 {
        if is_partial { self.partial } else { self.complete }
    }

    /// What becomes of `frame`, Ethernet or not. `None` if the answer was not made for it.
    #[cfg(feature = "sim")]
    pub fn apply(
        &self,
        frame: &[u8],
        is_partial: bool,
        link: super::Link,
    ) -> Option<alloc::vec::Vec<u8>> {
        let mut answer = frame.get(..usize::try_from(self.length).ok()?)?.to_vec();
        let at = usize::from(self.head_at);
        answer.splice(at..at, core::iter::repeat_n(0, usize::from(self.grow)));
        let mut put = |at: u16, words: &[u32], length: u16| -> Option<()> {
            let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
            let place = answer.get_mut(usize::from(at)..)?.get_mut(..usize::from(length))?;
            place.iter_mut().zip(bytes).for_each(|(old, new)| *old = new);
            Some(())
        };
        put(self.head_at, &self.head, self.head_length)?;
        if self.tail_at != 0 {
            put(self.tail_at, &self.tail, 20)?;
        }
        put(self.checksum_at, &[u32::from(self.checksum(is_partial).to_le())], 2)?;
        if link == super::Link::Ethernet {
            let (to, from) = answer.get_mut(..12)?.split_at_mut(6);
            to.swap_with_slice(from);
        }
        Some(answer)
    }
}

const V4_HEADER: u16 = 20;
const V6_HEADER: u16 = 40;
const ICMP_HEADER: u16 = 8;
