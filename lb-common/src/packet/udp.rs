//! UDP (RFC 768).

use super::parsed::halves;
use super::{Fragment, Layer, Packet, Unparsed, View};

const CHECKSUM: u16 = 6;
const LENGTH: u32 = 8;

/// Ports and checksum.
#[inline(always)]
pub(super) fn read(
    view: &View<'_, impl Packet + ?Sized>,
    layer: &mut Layer,
) -> Result<(), Unparsed> {
    let length = header(view, layer)?;
    if length < LENGTH {
        return Err(Unparsed::Malformed);
    }
    // The length is that of the whole datagram, of which a fragment has a part.
    if layer.fragment == Fragment::Whole && !view.has(layer.l4, length) {
        return Err(Unparsed::Malformed);
    }
    Ok(())
}

/// Ports and checksum of a datagram whose end is missing.
#[inline(always)]
pub(super) fn read_quoted(
    view: &View<'_, impl Packet + ?Sized>,
    layer: &mut Layer,
) -> Result<(), Unparsed> {
    header(view, layer).map(|_| ())
}

/// Reads the header; returns the length that it names.
#[inline(always)]
fn header(view: &View<'_, impl Packet + ?Sized>, layer: &mut Layer) -> Result<u32, Unparsed> {
    let [ports, second] = view.words(layer.l4)?;
    layer.tuple.set_ports(ports);
    let (length, checksum) = halves(second);
    if checksum != 0 {
        layer.l4_checksum_at = layer.l4 + CHECKSUM;
        layer.l4_checksum = checksum;
    }
    Ok(u32::from(u16::from_be(length)))
}
