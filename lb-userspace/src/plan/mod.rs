//! One Service, its endpoints and this node → what the kernel should hold for it. Pure.

mod algorithm;
mod frontends;
mod health;
mod node_ports;
mod select;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use algorithm::Algorithm;
pub use health::{HealthCheck, health_check};
use ipnet::IpNet;
pub use lb_common::abi::{FrontendKind, Policy};
pub use node_ports::NodePortAddresses;
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
/// client of a family can only be sent to endpoints of that family; or its addresses themselves.
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
    /// The ClusterIPs, and the addresses for clients outside, whatever the port.
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
    /// Affinity, which list serves whom, and whether `source_ranges` narrow who may come. Its
    /// [`Policy::maglev`] is the datapath's.
    pub policy: Policy,
    /// Who may come by a load balancer's address, where the policy is restricted: ranges of the
    /// family, without host bits, sorted.
    pub source_ranges: Vec<IpNet>,
    /// Whether new flows on the packet path are spread by a Maglev table of the cluster list.
    pub maglev: bool,
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
    /// On this node.
    pub here: bool,
}

/// This node, as far as it decides which endpoints are near and what leads to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: Arc<str>,
    /// Its zone, where a Node object names one.
    pub zone: Option<Arc<str>>,
    /// Where it serves NodePorts.
    pub node_ports: NodePortAddresses,
    /// `--service-proxy-name`
    pub proxy_name: Option<Arc<str>>,
    /// `--lb-algorithm`
    pub algorithm: Algorithm,
}

/// What the kernel should hold for `service`, whose endpoints are those of `slices`: one entry for
/// each port in each family, and one for its addresses of each family. A Service without ClusterIP
/// owns no frontend (`ShouldSkipService` in Kubernetes' `pkg/proxy/util`), whatever else it names.
///
/// Of a Service that is another proxy's only the ClusterIPs are known, so that its clients are let
/// pass.
pub fn plan(service: &Service, slices: &[&Slice], node: &NodeView) -> Vec<(ServicePortId, Wanted)> {
    let mut planned = Vec::with_capacity((service.ports.len() + 1) * service.families.len());
    for family in [Family::V4, Family::V6] {
        if !service.cluster_ips.iter().any(|ip| Family::of(*ip) == family) {
            continue;
        }
        let id = |part| ServicePortId { service: service.key.clone(), family, part };
        let is_ours = is_ours(service, node);
        for port in service.ports.iter().filter(|_| is_ours) {
            let frontends = frontends::of_port(service, port, family, node);
            let source_ranges = source_ranges(service, family);
            let wanted = Wanted {
                backends: backends(service, &endpoints(port, family, slices, node), node),
                policy: Policy {
                    affinity_seconds: service.affinity_seconds,
                    internal_local: service.internal_local,
                    external_local: service.external_local,
                    restricted: !source_ranges.is_empty(),
                    maglev: 0,
                },
                source_ranges,
                maglev: algorithm::wants_table(service, &frontends, node),
                frontends,
            };
            planned.push((id(Part::Port(port.protocol, port.port)), wanted));
        }
        let frontends = frontends::of_addresses(service, family, is_ours);
        planned.push((id(Part::Addresses), Wanted { frontends, ..Wanted::default() }));
    }
    planned
}

/// Ranges of the other family say nothing about this one: where only they are named, everybody may
/// come, as in kube-proxy (`MapCIDRsByIPFamily` in `newBaseServiceInfo`).
fn source_ranges(service: &Service, family: Family) -> Vec<IpNet> {
    let ranges = service.source_ranges.iter().copied();
    let mut ranges: Vec<_> = ranges.filter(|range| Family::of(range.addr()) == family).collect();
    ranges.sort_unstable();
    ranges.dedup();
    ranges
}

/// Whether no other proxy is to serve the Service.
fn is_ours(service: &Service, node: &NodeView) -> bool {
    service.proxy_name.is_none() || service.proxy_name == node.proxy_name
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
            here: endpoint.node == node.name,
        })
        .collect()
}
