//! The first packet of a flow: which backend, whether the node stands in for the client, and the entries of `FLOWS`.

use super::super::lookup::{Target, find_at};
use super::super::select::{Choice, any, member, run, stick};
use super::flow::{flags, forget_others, set_masqueraded_reply, set_reply};
use super::{Arrival, FlowEntry, Inserted, PacketTables, Reason, Work, set_key};
use crate::abi::protocol::TCP;
use crate::abi::{
    Address, AffinityKey, Flow, FrontendEntry, FrontendKey, FrontendKind, Hook, List, Node, Policy,
    Port, Role, Run,
};
use crate::maglev::flow_hash;
use crate::packet::Tuple;
use crate::packet::tcp_flags::RST;

/// How many ports are tried for one that is free towards the backend. With nine tenths taken, one of thirty
/// packets finds none.
const ATTEMPTS: u32 = 32;

/// Makes the flow that this packet, met at ingress, begins. `work.to` is then what it becomes.
#[inline(always)]
pub(super) fn flow(
    tables: &impl PacketTables,
    arrival: &impl Arrival,
    length: u32,
    work: &mut Work,
) -> Result<Reason, Reason> {
    let node = tables.node().ok_or(Reason::Inconsistent)?;
    let tuple = &work.parsed.outer.tuple;
    if !tuple.source.is_host() || !tuple.destination.is_host() {
        return Err(Reason::NotService);
    }
    let frontend = FrontendKey::new(tuple.destination, tuple.destination_port, tuple.protocol);
    let entry = find_at(tables, node, &frontend)?;
    if !entry.kind().is_port() {
        return Err(Reason::Inconsistent);
    }
    // Whoever resets a connection that nobody knows wants no answer (RFC 9293, section 3.10.7.1).
    if tuple.protocol == TCP && flags(&work.parsed) & RST != 0 {
        return Err(Reason::Stray);
    }
    let (target, keeps_client) = target(tables, arrival, entry, tuple)?;
    let choice = backend(tables, &target, tuple, entry)?;
    let node_address = stand_in(arrival, &choice, tuple, keeps_client)?;
    begin(tables, work, &choice, &target, (node, node_address));
    let made = make(tables, node, length, work);
    if made == Ok(Reason::Translated) {
        tables.flow_made();
    }
    if made == Err(Reason::FlowsFull) {
        tables.flows_full();
    }
    if made == Err(Reason::NoSnatPort) && node.snat_count != 0 {
        tables.ports_taken();
    }
    made
}

/// What the frontend leads to, and whether its backends shall see the client's own address.
#[inline(always)]
pub(super) fn target(
    tables: &impl PacketTables,
    arrival: &impl Arrival,
    entry: FrontendEntry,
    tuple: &Tuple,
) -> Result<(Target, bool), Reason> {
    let service = entry.service();
    let policy = tables.policy(service).ok_or(Reason::Inconsistent)?;
    let internal = matches!(entry.kind(), FrontendKind::ClusterIp);
    if policy.restricted
        && matches!(entry.kind(), FrontendKind::LoadBalancer)
        && !tables.in_source_range(service, tuple.source)
    {
        return Err(Reason::Filtered);
    }
    // What comes from this node may go anywhere (`externalTrafficChain` of kube-proxy).
    let keeps_client = !internal && policy.external_local && !arrival.is_inside();
    let local = if internal { policy.internal_local } else { keeps_client };
    let list = if local { List::Local } else { List::Cluster };
    let Policy { affinity_seconds, .. } = policy;
    Ok((Target { service, list, affinity_seconds }, keeps_client))
}

/// The backend for a client: by affinity to its address, by Maglev, or at random.
#[inline(always)]
fn backend(
    tables: &impl PacketTables,
    target: &Target,
    tuple: &Tuple,
    entry: FrontendEntry,
) -> Result<Choice, Reason> {
    let run = match run(tables, target) {
        Err(Reason::NoEndpoints) if is_elsewhere(tables, target, entry) => {
            return Err(Reason::NoLocalEndpoints);
        }
        run => run?,
    };
    let choice = spread(tables, target, tuple, run)?;
    if target.affinity_seconds == 0 {
        return Ok(choice);
    }
    stick(tables, target, &AffinityKey::of_address(tuple.source, target.service), choice)
}

/// Whether only the other list has endpoints, for traffic from outside: silence lets whoever sent it here choose
/// another node.
#[inline(always)]
fn is_elsewhere(tables: &impl PacketTables, target: &Target, entry: FrontendEntry) -> bool {
    let external = !matches!(entry.kind(), FrontendKind::ClusterIp);
    let anywhere = tables.run(target.service, List::Cluster).is_some_and(|run| run.count != 0);
    external && target.list == List::Local && anywhere
}

/// The backend that every node chooses for this flow, where the service has a table; else any. A table is written slot
/// by slot, so what it names is looked at.
#[inline(always)]
fn spread(
    tables: &impl PacketTables,
    target: &Target,
    tuple: &Tuple,
    run: Run,
) -> Result<Choice, Reason> {
    let table = tables.policy(target.service).map_or(0, |policy| policy.maglev);
    if table == 0 {
        return any(tables, run);
    }
    let Tuple { source, source_port, destination, destination_port, protocol, .. } = *tuple;
    let hash = flow_hash((source, source_port), (destination, destination_port), protocol);
    let id = tables.maglev(table - 1, hash).ok_or(Reason::Inconsistent)?;
    match member(tables, id, target) {
        Some(choice) => Ok(choice),
        None => any(tables, run),
    }
}

/// The address by which the node stands in for the client: so that the reply comes back here, where it must be
/// rewritten. Not needed if the backend is on this node, unless the client is the backend itself, or both are behind one
/// device, and the reply would take the short way. Unspecified if it is not needed.
#[inline(always)]
fn stand_in(
    arrival: &impl Arrival,
    choice: &Choice,
    tuple: &Tuple,
    keeps_client: bool,
) -> Result<Address, Reason> {
    let backend = &choice.backend;
    let hairpin = backend.address == tuple.source;
    if keeps_client && !hairpin {
        return Ok(Address::UNSPECIFIED);
    }
    let route = arrival.route(tuple.source, backend.address);
    if backend.here != 0 && !hairpin && !route.returns {
        return Ok(Address::UNSPECIFIED);
    }
    if route.source == Address::UNSPECIFIED {
        return Err(Reason::NoSnatAddress);
    }
    // Its source would stay the client's, and the reply go there untranslated.
    if route.device != 0 && !arrival.is_attached(route.device) {
        return Err(Reason::UnseenDevice);
    }
    Ok(route.source)
}

/// Notes what all entries of the flow have in common, and what the packet becomes.
#[inline(always)]
fn begin(
    tables: &impl PacketTables,
    work: &mut Work,
    choice: &Choice,
    target: &Target,
    node: (&Node, Address),
) {
    work.to = work.parsed.outer.tuple.to(choice.backend.address, choice.backend.port);
    let flow = &mut work.flow;
    flow.node = node.1;
    flow.revision = node.0.revision;
    flow.backend_id = choice.id;
    flow.backend_generation = choice.backend.life().generation;
    flow.service = target.service;
    flow.reserved = [0; 2];
    flow.last_seen = tables.now();
}

/// Makes the entries: replies before requests, so that no request goes whose reply is not known. All or none.
#[inline(always)]
fn make(
    tables: &impl PacketTables,
    node: &Node,
    length: u32,
    work: &mut Work,
) -> Result<Reason, Reason> {
    let reserved = reserve(tables, node, work)?;
    if work.flow.is_masqueraded() {
        insert_rest(tables, work)?;
    }
    match insert_request(tables, length, work) {
        Inserted::Done => Ok(Reason::Translated),
        Inserted::Exists => join(tables, work, reserved),
        Inserted::Full => {
            if reserved {
                forget_others(tables, work);
            }
            Err(Reason::FlowsFull)
        }
    }
}

/// Another processor has made the flow meanwhile: its choice counts. Takes back what was `reserved`.
#[inline(always)]
fn join(tables: &impl PacketTables, work: &mut Work, reserved: bool) -> Result<Reason, Reason> {
    let ours = (work.to.destination, work.to.destination_port, work.to.source_port);
    let Some(entry) = tables.flow(&work.key) else {
        if reserved {
            forget_others(tables, work);
        }
        return Err(Reason::Inconsistent);
    };
    let mut to = Tuple::NONE;
    entry.read(&mut to);
    if reserved && ours != (to.destination, to.destination_port, to.source_port) {
        forget_others(tables, work);
    }
    to.protocol = work.key.protocol;
    work.to = to;
    Ok(Reason::Established)
}

/// Finds a source port by which replies can be told apart, and makes the entry of the replies that have it: the
/// client's own, or, where the node stands in for it or another flow of the client has the same backend by that port,
/// one of the node's. Whether it made it: the one that it finds may be another processor's.
#[inline(always)]
fn reserve(tables: &impl PacketTables, node: &Node, work: &mut Work) -> Result<bool, Reason> {
    let masqueraded = work.flow.is_masqueraded();
    if masqueraded {
        set_masqueraded_reply(&mut work.other, &work.to, &work.flow);
        set_values(&mut work.flow, Role::MasqueradedReply, &work.to.reversed());
    } else {
        set_reply(&mut work.other, &work.to);
        set_values(&mut work.flow, Role::Reply, &work.parsed.outer.tuple.reversed());
        match tables.insert_flow(&work.other, &work.flow) {
            Inserted::Done => return Ok(true),
            Inserted::Full => return Err(Reason::FlowsFull),
            // Of this very flow, whose request is about to be made elsewhere, or is gone.
            Inserted::Exists if is_ours(tables, work) => return Ok(false),
            Inserted::Exists => {}
        }
    }
    for _ in 0..ATTEMPTS {
        let port = snat_port(node, tables.random()).ok_or(Reason::NoSnatPort)?;
        work.to.source_port = port;
        work.other.destination_port = port;
        if masqueraded {
            work.flow.destination_port = port;
        }
        match tables.insert_flow(&work.other, &work.flow) {
            Inserted::Done => return Ok(true),
            Inserted::Full => return Err(Reason::FlowsFull),
            Inserted::Exists => {}
        }
    }
    Err(Reason::NoSnatPort)
}

/// Whether the reply that stands in the way belongs to this flow.
#[inline(always)]
fn is_ours(tables: &impl PacketTables, work: &Work) -> bool {
    let Some(entry) = tables.flow(&work.other) else { return false };
    let mut to = Tuple::NONE;
    entry.read(&mut to);
    let tuple = &work.parsed.outer.tuple;
    to.source == tuple.destination
        && to.source_port == tuple.destination_port
        && to.destination == tuple.source
        && to.destination_port == tuple.source_port
}

/// One of the ports by which the node stands in for clients.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "ports have 16 bits, and so has their number")]
fn snat_port(node: &Node, random: u32) -> Option<Port> {
    let (first, count) = (node.snat_first, node.snat_count);
    let number = first.wrapping_add(((u64::from(random) * u64::from(count)) >> 32) as u32);
    (count != 0).then(|| Port::new(number as u16))
}

/// Makes the other entries of a client that the node stands in for, all or none.
#[inline(always)]
fn insert_rest(tables: &impl PacketTables, work: &mut Work) -> Result<(), Reason> {
    set_reply(&mut work.other, &work.to);
    set_values(&mut work.flow, Role::Reply, &work.parsed.outer.tuple.reversed());
    let reply = tables.insert_flow(&work.other, &work.flow);
    let request = if reply == Inserted::Done {
        set_key(&mut work.other, &work.to, Hook::Egress);
        let masqueraded = work.to.from(work.flow.node, work.to.source_port);
        set_values(&mut work.flow, Role::MasqueradedRequest, &masqueraded);
        tables.insert_flow(&work.other, &work.flow)
    } else {
        reply
    };
    match request {
        Inserted::Done => return Ok(()),
        Inserted::Exists | Inserted::Full => {}
    }
    if reply == Inserted::Done {
        set_reply(&mut work.other, &work.to);
        tables.remove_flow(&work.other);
    }
    set_masqueraded_reply(&mut work.other, &work.to, &work.flow);
    tables.remove_flow(&work.other);
    Err(if request == Inserted::Full { Reason::FlowsFull } else { Reason::NoSnatPort })
}

/// Makes the request's entry, with this packet counted.
#[inline(always)]
fn insert_request(tables: &impl PacketTables, length: u32, work: &mut Work) -> Inserted {
    let flags = flags(&work.parsed);
    set_values(&mut work.flow, Role::Request, &work.to);
    work.flow.seen = flags;
    work.flow.packets = 1;
    work.flow.bytes = length.into();
    tables.insert_flow(&work.key, &work.flow)
}

/// What the packets of one role become. Nothing has been seen of them.
#[inline(always)]
fn set_values(flow: &mut Flow, role: Role, to: &Tuple) {
    flow.source = to.source;
    flow.destination = to.destination;
    flow.source_port = to.source_port;
    flow.destination_port = to.destination_port;
    flow.role = role as u8;
    flow.seen = 0;
    flow.packets = 0;
    flow.bytes = 0;
}
