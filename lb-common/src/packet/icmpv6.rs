//! ICMPv6 (RFC 4443).

use super::{Packet, Parsed, Unparsed, View, icmp, ipv6};

const DESTINATION_UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const PARAMETER_PROBLEM: u8 = 4;

/// Type, code, checksum, and of an error what it quotes.
#[inline(always)]
pub(super) fn read(
    view: &View<'_, impl Packet + ?Sized>,
    parsed: &mut Parsed,
) -> Result<(), Unparsed> {
    icmp::header(view, parsed)?;
    match parsed.icmp_type {
        DESTINATION_UNREACHABLE | PACKET_TOO_BIG | TIME_EXCEEDED | PARAMETER_PROBLEM => {
            ipv6::read_quoted(view, icmp::quotation(parsed), &mut parsed.inner)
        }
        _ => Ok(()),
    }
}
