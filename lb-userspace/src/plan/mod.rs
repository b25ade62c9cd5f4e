//! One Service, its endpoints and this node → what the kernel should hold for it. Pure.

mod select;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use lb_common::abi::{FrontendKind, Policy};
use serde::{Deserialize, Serialize};

use crate::object::Key;
use crate::store::model::{Endpoint, Service, ServicePort, Slice, SlicePort};
use select::Choice;

/// Transport protocol of a service port that lb serves (SCTP is named and skipped).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
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

/// Identity of what the kernel holds as one service: a port of a Service in one family, since a
/// client of a family can only be sent to endpoints of that family; or its ClusterIPs themselves.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortId {
    /// The Service.
    pub service: Key,
    /// Family of its frontends and backends.
    pub family: Family,
    /// Which part of it.
    pub part: Part,
}

/// A part of a Service that has frontends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// One of `spec.ports`: protocol, and number in host byte order.
    Port(Protocol, u16),
    /// The ClusterIPs, whatever the port.
    Addresses,
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
    /// Affinity, and which list serves whom.
    pub policy: Policy,
}

/// One address and port that clients connect to; the protocol is the [`ServicePortId`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Address.
    pub address: IpAddr,
    /// Port, host byte order; 0 for an address itself.
    pub port: u16,
    /// What it is.
    pub kind: FrontendKind,
}

/// One endpoint of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address of the pod.
    pub address: IpAddr,
    /// Its target port, host byte order.
    pub port: u16,
    /// In the cluster list.
    pub cluster: bool,
    /// In the local list. Where no policy asks for that list, it is the cluster list.
    pub local: bool,
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
/// its ClusterIPs of each family, and one for each port. A Service without ClusterIP owns no
/// frontend.
pub fn plan(service: &Service, slices: &[&Slice], node: &NodeView) -> Vec<(ServicePortId, Wanted)> {
    let mut planned = Vec::with_capacity((service.ports.len() + 1) * service.families.len());
    for family in [Family::V4, Family::V6] {
        let addresses: Vec<IpAddr> =
            service.cluster_ips.iter().copied().filter(|ip| Family::of(*ip) == family).collect();
        if addresses.is_empty() {
            continue;
        }
        let id = |part| ServicePortId { service: service.key.clone(), family, part };
        for port in &service.ports {
            let wanted = Wanted {
                frontends: frontends(&addresses, port.port, FrontendKind::ClusterIp),
                backends: backends(service, &endpoints(port, family, slices, node), node),
                policy: Policy {
                    affinity_seconds: service.affinity_seconds,
                    internal_local: service.internal_local,
                    external_local: service.external_local,
                },
            };
            planned.push((id(Part::Port(port.protocol, port.port)), wanted));
        }
        let themselves = frontends(&addresses, 0, FrontendKind::Address);
        planned.push((id(Part::Addresses), Wanted { frontends: themselves, ..Wanted::default() }));
    }
    planned
}

fn frontends(addresses: &[IpAddr], port: u16, kind: FrontendKind) -> Vec<Frontend> {
    let mut frontends: Vec<Frontend> =
        addresses.iter().map(|&address| Frontend { address, port, kind }).collect();
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
    let has_local = service.internal_local || service.external_local;
    let local = if has_local { Choice::local(all(), node) } else { cluster };
    endpoints
        .iter()
        .map(|(port, endpoint)| Backend {
            address: endpoint.address,
            port: *port,
            cluster: cluster.takes(endpoint, node),
            local: local.takes(endpoint, node),
        })
        .collect()
}
