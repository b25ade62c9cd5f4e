//! IPv6 (RFC 8200), with the extension headers that can stand before TCP and UDP. Others, such as those
//! of IPsec, count as the protocol carried.

use super::{Fragment, Layer, Packet, Unparsed, View, quoted_transport};
use crate::abi::Address;

const WORDS: usize = 10;
const LENGTH: u16 = 40;
/// The most that the header's length can say.
const MAX_LENGTH: u32 = 0xffff;
/// Each kind once, hop-by-hop and destination options (twice) among them, is five (RFC 8200, section 4.1).
const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Offset of the next header's kind and the hop limit.
pub(super) const HOPS: u16 = 6;
/// Offset of the source address.
pub(super) const SOURCE: u16 = 8;
/// Offset of the destination address.
pub(super) const DESTINATION: u16 = 24;

/// A packet of which everything has to be there.
#[inline(always)]
pub(super) fn read(
    view: &View<'_, impl Packet + ?Sized>,
    l3: u16,
    layer: &mut Layer,
) -> Result<(), Unparsed> {
    let length = header(view, l3, layer)?;
    // "BIG TCP", as in IPv4. A jumbogram (RFC 2675) from a wire cannot be as long.
    let rest = view.end - u32::from(layer.l4);
    let length = if length == 0 && rest > MAX_LENGTH { rest } else { length };
    layer.end = u32::from(layer.l4) + length;
    if layer.end > view.end {
        return Err(Unparsed::Short);
    }
    extensions(&View { packet: view.packet, end: layer.end }, layer)
}

/// A packet that an ICMPv6 error quotes, in part perhaps.
#[inline(always)]
pub(super) fn read_quoted(
    view: &View<'_, impl Packet + ?Sized>,
    l3: u16,
    layer: &mut Layer,
) -> Result<(), Unparsed> {
    let length = header(view, l3, layer)?;
    layer.end = (u32::from(layer.l4) + length).min(view.end);
    let view = View { packet: view.packet, end: layer.end };
    extensions(&view, layer)?;
    quoted_transport(&view, layer)
}

/// Reads the fixed header; returns the length that it names, of what follows it.
#[inline(always)]
fn header(
    view: &View<'_, impl Packet + ?Sized>,
    l3: u16,
    layer: &mut Layer,
) -> Result<u32, Unparsed> {
    let [first, second, s0, s1, s2, s3, d0, d1, d2, d3] = view.words::<WORDS>(l3)?;
    if u32::from_be(first) >> 28 != 6 {
        return Err(Unparsed::Malformed);
    }
    layer.tuple.source = Address::from_words([s0, s1, s2, s3]);
    layer.tuple.destination = Address::from_words([d0, d1, d2, d3]);
    if layer.tuple.source.is_v4() || layer.tuple.destination.is_v4() {
        return Err(Unparsed::MappedAddress);
    }
    let [_, _, protocol, _] = second.to_ne_bytes();
    layer.tuple.protocol = protocol;
    layer.l3 = l3;
    layer.l4 = l3 + LENGTH;
    Ok(u32::from_be(second) >> 16)
}

/// Goes on to the first header that is no extension, or to the end of what a later fragment has of them.
#[inline(always)]
fn extensions(view: &View<'_, impl Packet + ?Sized>, layer: &mut Layer) -> Result<(), Unparsed> {
    for _ in 0..MAX_EXTENSIONS {
        let kind = layer.tuple.protocol;
        if !matches!(kind, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
            return Ok(());
        }
        let [first, second] = view.words(layer.l4)?;
        let [next, length, _, segments_left] = first.to_ne_bytes();
        layer.tuple.protocol = next;
        if kind == FRAGMENT {
            layer.l4 += 8;
            if fragment(layer, first, second) {
                return Ok(());
            }
            continue;
        }
        if kind == ROUTING && segments_left != 0 {
            return Err(Unparsed::SourceRouted);
        }
        layer.l4 += 8 + 8 * u16::from(length);
        if u32::from(layer.l4) > view.end {
            return Err(Unparsed::Short);
        }
    }
    match layer.tuple.protocol {
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS => Err(Unparsed::TooManyExtensions),
        _ => Ok(()),
    }
}

/// Notes a fragment header; whether nothing that can be read follows.
#[inline(always)]
fn fragment(layer: &mut Layer, first: u32, second: u32) -> bool {
    let position = u32::from_be(first);
    let (offset, more) = (position & 0xfff8, position & 1);
    if offset | more == 0 {
        return false;
    }
    layer.fragment_id = u32::from_be(second);
    if offset == 0 {
        layer.fragment = Fragment::First;
        return false;
    }
    layer.fragment = Fragment::Later;
    layer.l4 = 0;
    true
}
