//! ICMP (RFC 792).

use super::parsed::halves;
use super::{Packet, Parsed, Unparsed, View, ipv4};

const HEADER: u16 = 8;
const CHECKSUM: u16 = 2;

const DESTINATION_UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// Type, code, checksum, and of an error what it quotes. A redirect counts as none: it speaks of the
/// link that it is sent on.
#[inline(always)]
pub(super) fn read(
    view: &View<'_, impl Packet + ?Sized>,
    parsed: &mut Parsed,
) -> Result<(), Unparsed> {
    header(view, parsed)?;
    match parsed.icmp_type {
        DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => {
            ipv4::read_quoted(view, quotation(parsed), &mut parsed.inner)
        }
        _ => Ok(()),
    }
}

/// The header that ICMP and ICMPv6 have in common.
#[inline(always)]
pub(super) fn header(
    view: &View<'_, impl Packet + ?Sized>,
    parsed: &mut Parsed,
) -> Result<(), Unparsed> {
    let layer = &mut parsed.outer;
    let [first, _] = view.words(layer.l4)?;
    let [kind, code, ..] = first.to_ne_bytes();
    parsed.icmp_type = kind;
    parsed.icmp_code = code;
    layer.l4_checksum_at = layer.l4 + CHECKSUM;
    layer.l4_checksum = halves(first).1;
    Ok(())
}

/// Where the packet that an error quotes starts.
#[inline(always)]
pub(super) fn quotation(parsed: &Parsed) -> u16 {
    parsed.outer.l4 + HEADER
}
