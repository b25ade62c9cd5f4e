//! Packets of known flows, and errors about them.

use super::super::lookup;
use super::super::select::life;
use super::{Arrival, FlowEntry, PacketTables, Reason, Work, new, rewrite, set_key};
use crate::abi::protocol::TCP;
use crate::abi::{Address, Flow, FlowKey, FrontendKey, Hook, Life, Role};
use crate::packet::tcp_flags::{ACK, FIN, RST, SYN};
use crate::packet::{Parsed, Tuple};

/// Follows the flow of `work.key`, if there is one. `None`, and nothing left of it, if its client shall have another
/// backend.
#[inline(always)]
pub(super) fn known(
    tables: &impl PacketTables,
    arrival: &impl Arrival,
    length: u32,
    work: &mut Work,
) -> Option<Reason> {
    let entry = tables.flow(&work.key)?;
    entry.read(&mut work.to);
    work.to.protocol = work.key.protocol;
    let flags = flags(&work.parsed);
    let seen = entry.seen();
    let begins = entry.role() == Role::Request as u8 && work.parsed.outer.l4 != 0;
    if begins && is_over(tables, arrival, &entry, work, flags, seen) {
        work.flow.node = entry.node();
        tables.remove_flow(&work.key);
        forget_others(tables, work);
        return None;
    }
    entry.note(joined(seen, flags), tables.now(), length);
    Some(Reason::Established)
}

/// An ICMP error about a packet of a known flow: that packet travelled the other way.
#[inline(always)]
pub(super) fn related(
    tables: &impl PacketTables,
    hook: Hook,
    work: &mut Work,
) -> Result<Reason, Reason> {
    let quoted = work.parsed.inner.tuple.reversed();
    set_key(&mut work.key, &quoted, hook);
    let entry = tables.flow(&work.key).ok_or(Reason::NotService)?;
    entry.read(&mut work.to);
    work.to.protocol = work.key.protocol;
    work.to = work.to.reversed();
    rewrite(work).then_some(Reason::Related).ok_or(Reason::Inconsistent)
}

/// TCP's flags; none of other protocols, and of later fragments, whose header is not there.
#[inline(always)]
pub(super) fn flags(parsed: &Parsed) -> u8 {
    if parsed.outer.tuple.protocol == TCP && parsed.outer.l4 != 0 { parsed.tcp_flags } else { 0 }
}

/// Whether the client shall have another backend: what it sends is a beginning, and its frontend does not lead to its
/// backend any more. UDP has no beginning: its frontend is looked at again when any was moved, dropped or narrowed, and a
/// backend that is merely unselected keeps it.
///
/// A SYN in the midst of a connection is the connection's own business (RFC 5961, section 4).
#[inline(always)]
fn is_over(
    tables: &impl PacketTables,
    arrival: &impl Arrival,
    entry: &impl FlowEntry,
    work: &Work,
    flags: u8,
    seen: u8,
) -> bool {
    let tcp = work.parsed.outer.tuple.protocol == TCP;
    if tcp && flags & (SYN | ACK) != SYN {
        return false;
    }
    let (id, generation) = entry.backend();
    let life = life(tables, id, generation);
    let Some(node) = tables.node() else { return true };
    let revision = node.revision;
    let goes_on = if tcp { is_established(seen) } else { entry.revision() == revision };
    if goes_on || !life.present {
        return !life.present;
    }
    let leads_there = leads_to(tables, arrival, entry, work, life);
    if leads_there {
        entry.revise(revision);
    }
    !leads_there
}

/// Whether the frontend would lead this client to the backend that it has, and show it the same address.
#[inline(always)]
fn leads_to(
    tables: &impl PacketTables,
    arrival: &impl Arrival,
    entry: &impl FlowEntry,
    work: &Work,
    life: Life,
) -> bool {
    let tuple = &work.parsed.outer.tuple;
    let key = FrontendKey::new(tuple.destination, tuple.destination_port, tuple.protocol);
    let Ok(Some(frontend)) = lookup::entry(tables, &key) else { return false };
    if !frontend.kind().is_port() || frontend.service() != entry.service() {
        return false;
    }
    let Ok((target, keeps_client)) = new::target(tables, arrival, frontend, tuple) else {
        return false;
    };
    let hides_client = entry.node() != Address::UNSPECIFIED && work.to.destination != tuple.source;
    let unselected = tuple.protocol != TCP && !life.is_in_any();
    (life.is_in(target.list) || unselected) && !(keeps_client && hides_client)
}

/// Whether a handshake is complete and the connection not at its end, by the flags of one direction.
#[inline(always)]
const fn is_established(seen: u8) -> bool {
    seen & ACK != 0 && seen & (FIN | RST) == 0
}

/// The flags of a direction with those of another packet: a SYN begins anew unless it is in the midst of a connection. A
/// reset after which its sender goes on was none: the other side has not taken it (RFC 5961, section 3), or somebody else
/// has sent it.
#[inline(always)]
const fn joined(seen: u8, flags: u8) -> u8 {
    if flags & SYN != 0 && !is_established(seen) {
        flags
    } else if flags & RST == 0 {
        seen & !RST | flags
    } else {
        seen | flags
    }
}

/// Takes away the entries, but the request's, of the flow whose request becomes `work.to`; `work.flow.node`
/// stands in for its client.
#[inline(always)]
pub(super) fn forget_others(tables: &impl PacketTables, work: &mut Work) {
    if work.flow.is_masqueraded() {
        set_key(&mut work.other, &work.to, Hook::Egress);
        tables.remove_flow(&work.other);
        set_masqueraded_reply(&mut work.other, &work.to, &work.flow);
        tables.remove_flow(&work.other);
    }
    set_reply(&mut work.other, &work.to);
    tables.remove_flow(&work.other);
}

/// The key of `B → c'`, where the request becomes `to`.
#[inline(always)]
pub(super) fn set_reply(key: &mut FlowKey, to: &Tuple) {
    key.source = to.destination;
    key.destination = to.source;
    key.source_port = to.destination_port;
    key.destination_port = to.source_port;
    key.protocol = to.protocol;
    key.hook = Hook::Egress as u8;
    key.reserved = [0; 2];
}

/// The key of `B → s`.
#[inline(always)]
pub(super) fn set_masqueraded_reply(key: &mut FlowKey, to: &Tuple, flow: &Flow) {
    set_reply(key, to);
    key.destination = flow.node;
    key.hook = Hook::Ingress as u8;
}
