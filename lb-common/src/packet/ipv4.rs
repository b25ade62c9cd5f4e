//! IPv4 (RFC 791), with options, which are skipped. The header's checksum is not verified: an incremental update
//! keeps a wrong one wrong, for the receiver to see.

use super::{Fragment, Layer, Packet, Unparsed, View, quoted_transport};
use crate::abi::Address;

const WORDS: usize = 5;
/// Without options.
pub(super) const LENGTH: u16 = 20;
const MORE_FRAGMENTS: u32 = 0x2000;
const FRAGMENT_OFFSET: u32 = 0x1fff;
/// The most that the header's length can say.
const MAX_LENGTH: u32 = 0xffff;

/// Offset of the time to live and the protocol.
pub(super) const HOPS: u16 = 8;
/// Offset of the header's checksum.
pub(super) const CHECKSUM: u16 = 10;
/// Offset of the source address.
pub(super) const SOURCE: u16 = 12;
/// Offset of the destination address.
pub(super) const DESTINATION: u16 = 16;

/// A packet of which everything has to be there.
#[inline(always)]
pub(super) fn read(
    view: &View<'_, impl Packet + ?Sized>,
    l3: u16,
    layer: &mut Layer,
) -> Result<(), Unparsed> {
    let length = header(view, l3, layer)?;
    // "BIG TCP": what is to be segmented later can be longer than the field can say, which is then 0.
    // From a wire nothing can be as long.
    let rest = view.end - u32::from(l3);
    let length = if length == 0 && rest > MAX_LENGTH { rest } else { length };
    set_end(layer, length)?;
    if layer.end > view.end { Err(Unparsed::Short) } else { Ok(()) }
}

/// A packet that an ICMP error quotes, in part perhaps.
#[inline(always)]
pub(super) fn read_quoted(
    view: &View<'_, impl Packet + ?Sized>,
    l3: u16,
    layer: &mut Layer,
) -> Result<(), Unparsed> {
    let length = header(view, l3, layer)?;
    set_end(layer, length)?;
    layer.end = layer.end.min(view.end);
    if u32::from(layer.l4) > layer.end {
        return Err(Unparsed::Short);
    }
    quoted_transport(&View { packet: view.packet, end: layer.end }, layer)
}

/// Reads the header; returns the length that it names.
#[inline(always)]
fn header(
    view: &View<'_, impl Packet + ?Sized>,
    l3: u16,
    layer: &mut Layer,
) -> Result<u32, Unparsed> {
    let [first, second, third, source, destination] = view.words::<WORDS>(l3)?;
    let (first, second) = (u32::from_be(first), u32::from_be(second));
    let length = (first >> 22 & 0x3c) as u16;
    if first >> 28 != 4 || length < 20 {
        return Err(Unparsed::Malformed);
    }
    layer.tuple.source = Address::from_v4_word(source);
    layer.tuple.destination = Address::from_v4_word(destination);
    let [_, protocol, ..] = third.to_ne_bytes();
    layer.tuple.protocol = protocol;
    layer.l3_word = third;
    layer.l3 = l3;
    layer.l4 = l3 + length;
    if second & FRAGMENT_OFFSET != 0 {
        layer.fragment = Fragment::Later;
    } else if second & MORE_FRAGMENTS != 0 {
        layer.fragment = Fragment::First;
    }
    if layer.fragment != Fragment::Whole {
        layer.fragment_id = second >> 16;
    }
    Ok(first & 0xffff)
}

/// A packet cannot end within its header. A later fragment has no header behind it.
#[inline(always)]
fn set_end(layer: &mut Layer, length: u32) -> Result<(), Unparsed> {
    layer.end = u32::from(layer.l3) + length;
    if layer.end < u32::from(layer.l4) {
        return Err(Unparsed::Malformed);
    }
    if layer.fragment == Fragment::Later {
        layer.l4 = 0;
    }
    Ok(())
}
