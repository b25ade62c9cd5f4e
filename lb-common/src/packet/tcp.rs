//! TCP (RFC 9293).

use super::parsed::halves;
use super::{Layer, Packet, Parsed, Unparsed, View};

const WORDS: usize = 5;
const CHECKSUM: u16 = 16;

/// Ports, flags and checksum. The whole header has to be in the packet, and in its first fragment (RFC 1858).
#[inline(always)]
pub(super) fn read(
    view: &View<'_, impl Packet + ?Sized>,
    parsed: &mut Parsed,
) -> Result<(), Unparsed> {
    let layer = &mut parsed.outer;
    let [ports, _, _, state, check] = view.words::<WORDS>(layer.l4)?;
    let [length, flags, ..] = state.to_ne_bytes();
    let length = u32::from(length >> 4) * 4;
    if length < 20 {
        return Err(Unparsed::Malformed);
    }
    if !view.has(layer.l4, length) {
        return Err(Unparsed::Short);
    }
    layer.tuple.set_ports(ports);
    layer.l4_checksum_at = layer.l4 + CHECKSUM;
    layer.l4_checksum = halves(check).0;
    parsed.tcp_flags = flags;
    Ok(())
}

/// Ports, and the checksum if it is there.
#[inline(always)]
pub(super) fn read_quoted(
    view: &View<'_, impl Packet + ?Sized>,
    layer: &mut Layer,
) -> Result<(), Unparsed> {
    let [ports, _] = view.words(layer.l4)?;
    layer.tuple.set_ports(ports);
    // The word that ends with the checksum.
    if let Ok([word]) = view.words(layer.l4 + CHECKSUM - 2) {
        layer.l4_checksum_at = layer.l4 + CHECKSUM;
        layer.l4_checksum = halves(word).1;
    }
    Ok(())
}
