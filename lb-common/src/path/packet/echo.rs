//! Ping to an address that no host has: ICMP echo (RFC 792; RFC 4443, section 4), answered in place.

use super::super::lookup::entry;
use super::{PacketTables, Reason, Work, fragment};
use crate::abi::{FrontendEntry, FrontendKey, FrontendKind, Hook};
use crate::packet::{Fragment, ICMP, ICMPV6, Packet};

/// Echo request; the reply is 0 or 129.
const REQUEST: u8 = 8;
const REQUEST_V6: u8 = 128;
const REPLY: u8 = 0;
const REPLY_V6: u8 = 129;

/// Turns a ping to a Service's address into its answer.
#[inline(always)]
pub(super) fn echo(
    tables: &impl PacketTables,
    packet: &(impl Packet + ?Sized),
    work: &mut Work,
) -> Result<Reason, Reason> {
    let layer = &work.parsed.outer;
    let (request, reply) = match layer.tuple.protocol {
        ICMP => (REQUEST, REPLY),
        ICMPV6 => (REQUEST_V6, REPLY_V6),
        _ => return Err(Reason::NotService),
    };
    if !layer.tuple.source.is_host() {
        return Err(Reason::NotService);
    }
    // A later fragment that comes here follows a ping: nothing else without ports is noted.
    if layer.fragment != Fragment::Later && work.parsed.icmp_type != request {
        return Err(Reason::NotService);
    }
    let kind =
        entry(tables, &FrontendKey::of_address(layer.tuple.destination))?.map(FrontendEntry::kind);
    match kind {
        Some(FrontendKind::Address | FrontendKind::ExternalAddress) => {}
        Some(
            FrontendKind::Foreign
            | FrontendKind::ClusterIp
            | FrontendKind::External
            | FrontendKind::NodePort
            | FrontendKind::LoadBalancer,
        )
        | None => return Err(Reason::NotService),
    }
    fragment::note(tables, Hook::Ingress, work);
    work.to = work.parsed.outer.tuple.reversed();
    let Work { parsed, to, rewrite, .. } = work;
    rewrite
        .set_echo(packet, parsed, to, reply)
        .then_some(Reason::EchoReply)
        .ok_or(Reason::Inconsistent)
}
