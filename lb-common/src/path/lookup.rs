//! Destination → service.

use super::{Caller, Destination, Reason, Tables};
use crate::abi::{Address, FrontendEntry, FrontendKey, FrontendKind, List, Node, Policy};

/// The service that a destination leads to, and how it treats this caller.
#[derive(Clone, Copy)]
pub(super) struct Target {
    /// Index into `SERVICES`.
    pub(super) service: u32,
    /// The list that serves the caller.
    pub(super) list: List,
    /// [`Policy::affinity_seconds`].
    pub(super) affinity_seconds: u32,
}

/// What `destination` leads to, or why to nothing. A caller that is to be left alone finds no
/// service; only addresses of services are worth the question.
#[inline(always)]
pub(super) fn lookup(
    tables: &impl Tables,
    caller: &impl Caller,
    destination: &Destination,
) -> Result<Target, Reason> {
    let found = match find(tables, caller, destination) {
        Err(Reason::NotService) => return Err(Reason::NotService),
        found => found,
    };
    if caller.is_own() || is_exempt(tables, caller) {
        return Err(Reason::Exempt);
    }
    let entry = found?;
    let policy = tables.policy(entry.service()).ok_or(Reason::Inconsistent)?;
    let list = list(entry.kind(), policy);
    let Policy { affinity_seconds, .. } = policy;
    Ok(Target { service: entry.service(), list, affinity_seconds })
}

/// The list for traffic from this node: `externalTrafficPolicy` is for traffic from outside.
#[inline(always)]
fn list(kind: FrontendKind, policy: Policy) -> List {
    if policy.internal_local && matches!(kind, FrontendKind::ClusterIp) {
        List::Local
    } else {
        List::Cluster
    }
}

/// The frontend's entry, for a caller on this node.
///
/// A port that no Service defines is refused on a ClusterIP only: a node's own address keeps its
/// other ports.
#[inline(always)]
fn find(
    tables: &impl Tables,
    caller: &impl Caller,
    destination: &Destination,
) -> Result<FrontendEntry, Reason> {
    let node = tables.node().ok_or(Reason::Inconsistent)?;
    let mut key = *destination;
    if let Some(canonical) = destination.address.loopback() {
        if !is_node(node, caller) {
            // A pod reaches itself.
            return Err(Reason::NotService);
        }
        key.address = canonical;
    }
    find_at(tables, node, &key)
}

/// The entry of a frontend whose address means the same everywhere on this node.
#[inline(always)]
pub(super) fn find_at(
    tables: &impl Tables,
    node: &Node,
    key: &Destination,
) -> Result<FrontendEntry, Reason> {
    if let Some(entry) = entry(tables, key)? {
        return Ok(entry);
    }
    if !node.in_service_cidr(key.address) {
        return Err(Reason::NotService);
    }
    match entry(tables, &FrontendKey::of_address(key.address))? {
        None => Err(Reason::Unallocated),
        Some(found) => match found.kind() {
            FrontendKind::Address => Err(Reason::UnknownPort),
            FrontendKind::Foreign | FrontendKind::ExternalAddress => Err(Reason::NotService),
            FrontendKind::ClusterIp
            | FrontendKind::External
            | FrontendKind::NodePort
            | FrontendKind::LoadBalancer => Err(Reason::Inconsistent),
        },
    }
}

/// Why the node must not bind `wanted`, if it must not: a port that packets to endpoints elsewhere get,
/// or a NodePort on that address, or, where it is the unspecified one, on any address of the node. `::`
/// stands for IPv4 as well.
#[inline(always)]
pub(super) fn taken(
    tables: &impl Tables,
    caller: &impl Caller,
    wanted: &Destination,
) -> Result<Option<Reason>, Reason> {
    let node = match tables.node() {
        Some(node) if is_node(node, caller) => node,
        _ => return Ok(None),
    };
    if node.is_snat_port(wanted.port.number()) {
        return Ok(Some(Reason::SnatPort));
    }
    let is_taken = |address| {
        let found = entry(tables, &FrontendKey { address, ..*wanted })?;
        Ok(found.is_some_and(|entry| matches!(entry.kind(), FrontendKind::NodePort)))
    };
    let address = match wanted.address.loopback() {
        Some(canonical) if !wanted.address.is_unspecified() => canonical,
        Some(_) | None => wanted.address,
    };
    let is_node_port =
        is_taken(address)? || address == Address::UNSPECIFIED && is_taken(Address::V4_UNSPECIFIED)?;
    Ok(is_node_port.then_some(Reason::NodePort))
}

/// Whether the caller is to be left alone.
#[inline(always)]
pub(super) fn is_exempt(tables: &impl Tables, caller: &impl Caller) -> bool {
    tables.node().is_some_and(|node| node.exempt != 0) && caller.is_exempt()
}

/// Whether the caller is in the node's own network namespace.
#[inline(always)]
fn is_node(node: &Node, caller: &impl Caller) -> bool {
    node.netns_cookie != 0 && node.netns_cookie == caller.netns()
}

/// Reads an entry; again if its memory was handed to another key meanwhile. That this happens
/// twice in one call takes two updates within nanoseconds, and is refused rather than trusted.
#[inline(always)]
pub(super) fn entry(
    tables: &impl Tables,
    key: &FrontendKey,
) -> Result<Option<FrontendEntry>, Reason> {
    match tables.frontend(key) {
        None => return Ok(None),
        Some(entry) if entry.belongs_to(key) => return Ok(Some(entry)),
        Some(_) => {}
    }
    match tables.frontend(key) {
        None => Ok(None),
        Some(entry) if entry.belongs_to(key) => Ok(Some(entry)),
        Some(_) => Err(Reason::Inconsistent),
    }
}
