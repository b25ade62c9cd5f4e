//! One Service, its endpoints and this node → what the kernel should hold for it. Pure.

mod select;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use crate::object::Key;
use crate::store::model::{Endpoint, Service, ServicePort, Slice, SlicePort};
use select::Choice;

/// Transport protocol of a service port that lb serves (SCTP is named and skipped).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// Identity of one kernel service: one port of one Service in one family, since a client of a
/// family can only be sent to endpoints of that family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortId {
    /// The Service.
    pub service: Key,
    /// Family of its frontends and backends.
    pub family: Family,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// `spec.ports[].port`, host byte order.
    pub port: u16,
}

/// What the kernel should hold for one [`ServicePortId`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where clients connect to, sorted.
    pub frontends: Vec<Frontend>,
    /// Every known endpoint that may still be in use, sorted by address and port. An endpoint of
    /// this list that is selected for nobody keeps its backend entry (established connections
    /// drain); one that leaves the list is gone.
    pub backends: Vec<Backend>,
    /// ClientIP affinity in seconds since last use; 0 is none.
    pub affinity_seconds: u32,
}

/// One address and port that clients connect to; the protocol is the [`ServicePortId`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Address.
    pub address: IpAddr,
    /// Port, host byte order.
    pub port: u16,
    /// What sort of address it is.
    pub kind: FrontendKind,
}

/// What sort of address a frontend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// A ClusterIP: every other TCP and UDP port of this address is refused.
    ClusterIp,
}

/// One endpoint of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address of the pod.
    pub address: IpAddr,
    /// Its target port, host byte order.
    pub port: u16,
    /// Chosen for traffic from this node (`internalTrafficPolicy`).
    pub internal: bool,
    /// Chosen for traffic from outside (`externalTrafficPolicy`).
    pub external: bool,
}

/// This node, as far as it decides which endpoints are near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: Arc<str>,
    /// Its zone, where a Node object names one.
    pub zone: Option<Arc<str>>,
}

/// What the kernel should hold for `service`, whose endpoints are those of `slices`: one entry for
/// each port and ClusterIP family. A Service without ClusterIP owns no frontend.
pub fn plan(service: &Service, slices: &[&Slice], node: &NodeView) -> Vec<(ServicePortId, Wanted)> {
    let mut planned = Vec::with_capacity(service.ports.len() * service.families.len());
    for family in [Family::V4, Family::V6] {
        let addresses: Vec<IpAddr> =
            service.cluster_ips.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
        if addresses.is_empty() {
            continue;
        }
        for port in &service.ports {
            let id = ServicePortId {
                service: service.key.clone(),
                family,
                protocol: port.protocol,
                port: port.port,
            };
            let wanted = Wanted {
                frontends: frontends(&addresses, port),
                backends: backends(service, &endpoints(port, family, slices, node), node),
                affinity_seconds: service.affinity_seconds,
            };
            planned.push((id, wanted));
        }
    }
    planned
}

fn frontends(addresses: &[IpAddr], port: &ServicePort) -> Vec<Frontend> {
    let mut frontends: Vec<Frontend> = addresses
        .iter()
        .map(|&address| Frontend { address, port: port.port, kind: FrontendKind::ClusterIp })
        .collect();
    frontends.sort_unstable();
    frontends
}

/// The endpoints of one port in one family, each with its target port, sorted and without
/// duplicates. A service port finds its slice ports by name (and protocol), never by number.
///
/// An endpoint on its way from one slice to another can stand in both. As in kube-proxy
/// (`endpointsMapFromEndpointInfo`) the local one counts; where that decides nothing, the one that
/// is more ready.
fn endpoints<'a>(
    port: &ServicePort,
    family: Family,
    slices: &[&'a Slice],
    node: &NodeView,
) -> Vec<(u16, &'a Endpoint)> {
    let mut found = Vec::new();
    for slice in slices.iter().filter(|slice| slice.family == Some(family)) {
        let same = |p: &&SlicePort| p.name == port.name && p.protocol == port.protocol;
        if let Some(target) = slice.ports.iter().find(same) {
            found.extend(slice.endpoints.iter().map(|endpoint| (target.port, endpoint)));
        }
    }
    found.sort_by_key(|(target, endpoint)| {
        let (local, conditions) = (endpoint.node == node.name, endpoint.conditions);
        (endpoint.address, *target, !local, !conditions.ready, !conditions.serving)
    });
    found.dedup_by_key(|(target, endpoint)| (endpoint.address, *target));
    found
}

fn backends(service: &Service, endpoints: &[(u16, &Endpoint)], node: &NodeView) -> Vec<Backend> {
    let all = || endpoints.iter().map(|(_, endpoint)| *endpoint);
    let cluster = Choice::cluster(all(), node);
    let local = Choice::local(all(), node);
    let internal = if service.internal_local { local } else { cluster };
    let external = if service.external_local { local } else { cluster };
    endpoints
        .iter()
        .map(|(port, endpoint)| Backend {
            address: endpoint.address,
            port: *port,
            internal: internal.takes(endpoint, node),
            external: external.takes(endpoint, node),
        })
        .collect()
}
