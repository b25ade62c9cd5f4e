//! A rewrite as data: which bytes to store, and by what to update which checksum.
//!
//! [`Rewrite::apply`] carries it out on a slice, by RFC 1624. A TC program carries it out with the kernel's
//! helpers, since the checksum of a local or segmented packet may not be computed yet (`CHECKSUM_PARTIAL`),
//! and that of a received one may be known for the whole packet (`CHECKSUM_COMPLETE`, in `skb->csum`):
//!
//! - each [`Sum`] with `bpf_l4_csum_replace`, `from` 0, `to` its delta, size 0 in the flags, and what [`SumKind`] says;
//! - each [`Store`] with `bpf_skb_store_bytes`, and `BPF_F_RECOMPUTE_CSUM` if it says so. Then `skb->csum` stays
//!   right on every kernel and without `BPF_F_IPV6`: see [`Store::recompute`].
//!
//! The checksum of an IPv4 header is complete in every packet, and those in a quoted packet are plain bytes of the ICMP
//! message: they are stored. IPv4's stands before both addresses, and these before the ports if there are no options: one
//! store, since each costs a call.

use super::parsed::{halves, joined};
use super::{HOPS, ICMP, Layer, Packet, Parsed, Tuple, ipv4, ipv6};
use crate::abi::Address;
use crate::abi::protocol::{TCP, UDP};
use crate::checksum::Delta;

/// Bytes to store.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// What to store, from the first byte on.
    pub words: [u32; 4],
    /// Where, from the frame's first byte.
    pub offset: u16,
    /// How many bytes: 2, 4, 12 or 16; 0 if there is nothing to do.
    pub length: u8,
    /// 1 if no checksum within the packet takes up the change, so that the sum over the packet changes:
    /// IPv6 addresses, and ports of UDP without a checksum. (A TCP checksum does take up a change
    /// of IPv6 addresses, but `bpf_l4_csum_replace` with `BPF_F_PSEUDO_HDR` counts it as one by itself, as fits IPv4,
    /// whose header has a checksum of its own; both together cancel out.)
    pub recompute: u8,
}

/// An update of a checksum.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// By what.
    pub delta: Delta,
    /// Where it is, from the frame's first byte. 0 if there is nothing to do.
    pub offset: u16,
    /// How.
    pub kind: SumKind,
    /// 1 if it is UDP's: 0 stays 0, and what becomes 0 is 0xffff (`BPF_F_MARK_MANGLED_0`).
    pub udp: u8,
}

/// What an update is about.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumKind {
    /// Addresses that the transport's checksum covers in its pseudo-header: `bpf_l4_csum_replace` with
    /// `BPF_F_PSEUDO_HDR`.
    Pseudo = 0,
    /// Bytes that it covers: `bpf_l4_csum_replace`.
    L4 = 1,
}

/// Everything that is to be done to a packet. Every place has its purpose, so that a program indexes by constants.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// Updates of the transport's checksum: addresses, then what it covers.
    pub sums: [Sum; 2],
    /// What to store: source, destination, ports, of which the first may hold all of IPv4's; then of a quoted packet
    /// the same and its two checksums, or of an answer to ping IPv6's hop limit and the type.
    pub stores: [Store; 8],
}

impl Rewrite {
    /// Nothing to do.
    pub const NONE: Self = Self { sums: [Sum::NONE; 2], stores: [Store::NONE; 8] };

    /// Makes this what gives `packet` the addresses and ports of `to`; of an ICMP error, what gives them to the packet
    /// it quotes, and the error an address wherever it had one of that packet's ends (a router's own address
    /// stays). What the packet does not have, such as ports in a later fragment, is left out. False, and nothing to do,
    /// if `to` is of another family.
    #[inline(always)]
    pub fn set(&mut self, packet: &Parsed, to: &Tuple) -> bool {
        self.clear();
        let v4 = packet.outer.tuple.source.is_v4();
        if to.source.is_v4() != v4 || to.destination.is_v4() != v4 {
            return false;
        }
        let layer = &packet.outer;
        let hops = halves(layer.l3_word).0;
        if packet.is_error() {
            let quoted = self.quotation(&packet.inner, to, v4);
            let addresses = self.own_addresses(layer, &carrier(packet, to), hops, v4);
            self.transport(layer, addresses, quoted);
        } else {
            let addresses = self.own_addresses(layer, to, hops, v4);
            let ports = self.own_ports(layer, to, v4);
            self.transport(layer, addresses, ports);
        }
        true
    }

    /// Makes this what turns a ping into its answer, `to` the one who sent it: of this type, and with a hop limit of
    /// its own. False if `packet` is not what was read.
    #[inline(always)]
    pub fn set_echo(
        &mut self,
        bytes: &(impl Packet + ?Sized),
        packet: &Parsed,
        to: &Tuple,
        kind: u8,
    ) -> bool {
        self.clear();
        let layer = &packet.outer;
        let v4 = layer.tuple.source.is_v4();
        let mut hops = halves(layer.l3_word).0;
        if v4 {
            let [_, protocol] = hops.to_ne_bytes();
            hops = u16::from_ne_bytes([HOPS, protocol]);
        } else {
            let at = layer.l3 + ipv6::HOPS;
            let Some([word]) = bytes.words(at - 2) else { return false };
            let [_, _, next, _] = word.to_ne_bytes();
            let new = u16::from_ne_bytes([next, HOPS]);
            self.stores[6] = Store { recompute: 1, ..Store::half(at, new) };
        }
        let mut l4 = Delta::NONE;
        if layer.l4 != 0 {
            let old = u16::from_ne_bytes([packet.icmp_type, packet.icmp_code]);
            let new = u16::from_ne_bytes([kind, packet.icmp_code]);
            l4 = l4.replace_half(old, new);
            self.stores[7] = Store::half(layer.l4, new);
        }
        let addresses = self.own_addresses(layer, to, hops, v4);
        self.transport(layer, addresses, l4);
        true
    }

    /// Changes `frame`, the packet that it was made for. `None`, with a part done, if it is not that packet but one that
    /// is too short.
    pub fn apply(&self, frame: &mut [u8]) -> Option<()> {
        for sum in self.sums.iter().filter(|sum| sum.offset != 0) {
            let checksum = frame.get_mut(usize::from(sum.offset)..)?.first_chunk_mut::<2>()?;
            let old = u16::from_ne_bytes(*checksum);
            *checksum = update(sum.delta, old, sum.udp != 0).to_ne_bytes();
        }
        for store in &self.stores {
            let bytes = store.words.map(u32::to_ne_bytes);
            let bytes = bytes.as_flattened().get(..usize::from(store.length))?;
            frame
                .get_mut(usize::from(store.offset)..)?
                .get_mut(..bytes.len())?
                .copy_from_slice(bytes);
        }
        Some(())
    }

    /// Nothing to do any more.
    #[inline(always)]
    fn clear(&mut self) {
        for sum in &mut self.sums {
            sum.offset = 0;
        }
        for store in &mut self.stores {
            store.length = 0;
        }
    }

    /// The packet's own addresses; `hops` is what IPv4's time to live and protocol shall be.
    #[inline(always)]
    fn own_addresses(&mut self, layer: &Layer, to: &Tuple, hops: u16, v4: bool) -> Delta {
        if !v4 {
            return self.addresses::<0>(layer, to, false, 1);
        }
        let old = &layer.tuple;
        let (old_hops, checksum) = halves(layer.l3_word);
        if (old.source, old.destination, old_hops) == (to.source, to.destination, hops) {
            return Delta::NONE;
        }
        let (source, destination) = (to.source.v4_word(), to.destination.v4_word());
        let addresses = Delta::NONE
            .replace(old.source.v4_word(), source)
            .replace(old.destination.v4_word(), destination);
        let all = if hops == old_hops { addresses } else { addresses.replace_half(old_hops, hops) };
        let first = joined(hops, all.update(checksum));
        self.stores[0] = Store {
            words: [first, source, destination, to.ports()],
            offset: layer.l3 + ipv4::HOPS,
            length: if has_ports_behind(layer) { ALL_OF_V4 } else { 12 },
            recompute: 0,
        };
        addresses
    }

    /// The packet's own ports, if they are not there yet.
    #[inline(always)]
    fn own_ports(&mut self, layer: &Layer, to: &Tuple, v4: bool) -> Delta {
        if v4 && self.stores[0].length == ALL_OF_V4 {
            return changed(layer.tuple.ports(), to.ports());
        }
        let uncovered = u8::from(layer.l4_checksum_at == 0);
        self.ports::<2>(layer, to, uncovered)
    }

    /// The updates of the transport's checksum.
    #[inline(always)]
    fn transport(&mut self, layer: &Layer, addresses: Delta, covered: Delta) {
        let udp = u8::from(layer.tuple.protocol == UDP);
        if layer.tuple.protocol != ICMP {
            self.sums[0] = Sum::new(addresses, layer.l4_checksum_at, SumKind::Pseudo, udp);
        }
        self.sums[1] = Sum::new(covered, layer.l4_checksum_at, SumKind::L4, udp);
    }

    /// A quoted packet's addresses, ports and checksums; what changes in the range of ICMP's checksum.
    #[inline(always)]
    fn quotation(&mut self, layer: &Layer, to: &Tuple, v4: bool) -> Delta {
        let addresses = self.addresses::<3>(layer, to, v4, 0);
        let ports = self.ports::<5>(layer, to, 0);
        let mut all = addresses.and(ports);
        if v4 && addresses != Delta::NONE {
            let old = halves(layer.l3_word).1;
            let new = addresses.update(old);
            self.stores[6] = Store::half(layer.l3 + ipv4::CHECKSUM, new);
            all = all.replace_half(old, new);
        }
        if layer.l4_checksum_at != 0 && addresses.and(ports) != Delta::NONE {
            let udp = layer.tuple.protocol == UDP;
            let (old, new) =
                (layer.l4_checksum, update(addresses.and(ports), layer.l4_checksum, udp));
            self.stores[7] = Store::half(layer.l4_checksum_at, new);
            all = all.replace_half(old, new);
        }
        all
    }

    /// Both addresses, in the places from `AT` on.
    #[inline(always)]
    fn addresses<const AT: usize>(
        &mut self,
        layer: &Layer,
        to: &Tuple,
        v4: bool,
        recompute: u8,
    ) -> Delta {
        let (source, destination) = match v4 {
            true => (ipv4::SOURCE, ipv4::DESTINATION),
            false => (ipv6::SOURCE, ipv6::DESTINATION),
        };
        let old = &layer.tuple;
        let mut delta = Delta::NONE;
        if old.source != to.source {
            self.stores[AT] = Store::address(layer.l3 + source, to.source, v4, recompute);
            delta = delta.replace_words(old.source.words(), to.source.words());
        }
        if old.destination != to.destination {
            self.stores[AT + 1] =
                Store::address(layer.l3 + destination, to.destination, v4, recompute);
            delta = delta.replace_words(old.destination.words(), to.destination.words());
        }
        delta
    }

    /// Both ports, in the place `AT`.
    #[inline(always)]
    fn ports<const AT: usize>(&mut self, layer: &Layer, to: &Tuple, recompute: u8) -> Delta {
        let (old, new) = (layer.tuple.ports(), to.ports());
        if layer.l4 == 0 || !matches!(layer.tuple.protocol, TCP | UDP) || old == new {
            return Delta::NONE;
        }
        self.stores[AT] = Store { words: [new, 0, 0, 0], offset: layer.l4, length: 4, recompute };
        changed(old, new)
    }
}

/// Length of a store of an IPv4 header from its time to live on, with ports.
const ALL_OF_V4: u8 = 16;

/// Whether ports follow the IPv4 header's addresses, and may be stored with them: a checksum covers them.
#[inline(always)]
fn has_ports_behind(layer: &Layer) -> bool {
    let follows = layer.l4 == layer.l3 + ipv4::LENGTH;
    follows && matches!(layer.tuple.protocol, TCP | UDP) && layer.l4_checksum_at != 0
}

#[inline(always)]
fn changed(old: u32, new: u32) -> Delta {
    if old == new { Delta::NONE } else { Delta::NONE.replace(old, new) }
}

/// The new addresses of an error about a packet that becomes `to`.
#[inline(always)]
fn carrier(packet: &Parsed, to: &Tuple) -> Tuple {
    let (mut outer, inner) = (packet.outer.tuple, &packet.inner.tuple);
    if outer.destination == inner.source {
        outer.destination = to.source;
    }
    if outer.source == inner.destination {
        outer.source = to.destination;
    }
    outer
}

/// A checksum after a change.
#[inline(always)]
fn update(delta: Delta, checksum: u16, udp: bool) -> u16 {
    if udp { delta.update_udp(checksum) } else { delta.update(checksum) }
}

impl Sum {
    const NONE: Self = Self { delta: Delta::NONE, offset: 0, kind: SumKind::L4, udp: 0 };

    #[inline(always)]
    fn new(delta: Delta, offset: u16, kind: SumKind, udp: u8) -> Self {
        Self { delta, offset: if delta == Delta::NONE { 0 } else { offset }, kind, udp }
    }
}

impl Store {
    const NONE: Self = Self { words: [0; 4], offset: 0, length: 0, recompute: 0 };

    #[inline(always)]
    fn address(offset: u16, address: Address, v4: bool, recompute: u8) -> Self {
        if v4 {
            let words = [address.v4_word(), 0, 0, 0];
            return Self { words, offset, length: 4, recompute };
        }
        Self { words: address.words(), offset, length: 16, recompute }
    }

    #[inline(always)]
    fn half(offset: u16, value: u16) -> Self {
        let [a, b] = value.to_ne_bytes();
        Self { words: [u32::from_ne_bytes([a, b, 0, 0]), 0, 0, 0], offset, length: 2, recompute: 0 }
    }
}

const _: () = {
    assert!(size_of::<Store>() == 20);
    assert!(size_of::<Sum>() == 8);
    assert!(size_of::<Rewrite>() == 176);
};
