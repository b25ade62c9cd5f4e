//! What a Service is reached by: `newBaseServiceInfo` of Kubernetes' `pkg/proxy/serviceport.go`.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Family, Frontend, FrontendKind, NodeView};
use crate::store::model::{Service, ServicePort};

/// The frontends of a port in one family, sorted. Where two of them are one address and port, the
/// one that is the Service's by allocation stands; then the external IP, which is nobody's to narrow:
/// an address that is a load balancer's besides is open to all, as by kube-proxy's rules of iptables,
/// of which the external IP's comes first.
pub(super) fn of_port(
    service: &Service,
    port: &ServicePort,
    family: Family,
    node: &NodeView,
) -> Vec<Frontend> {
    let ours = |address: &IpAddr| Family::of(*address) == family;
    let frontend = |port, kind| move |address| Frontend { address, port, kind };
    let cluster_ips = service.cluster_ips.iter().copied().filter(ours);
    let external_ips = service.external_ips.iter().copied().filter(ours);
    let balancer_ips = service.balancer_ips.iter().copied().filter(ours);
    let node_port = port.node_port.into_iter().flat_map(|number| {
        // For the bind guard: a port that is taken on one address is taken on all of them.
        let all = std::iter::once(unspecified(family));
        let addresses = all.chain(node.node_ports.iter().filter(ours));
        addresses.map(frontend(number, FrontendKind::NodePort))
    });
    let mut frontends: Vec<Frontend> = cluster_ips
        .map(frontend(port.port, FrontendKind::ClusterIp))
        .chain(node_port)
        .chain(external_ips.map(frontend(port.port, FrontendKind::External)))
        .chain(balancer_ips.map(frontend(port.port, FrontendKind::LoadBalancer)))
        .collect();
    // Stable: of equals, the first stays first.
    frontends.sort_by_key(|frontend| (frontend.address, frontend.port));
    frontends.dedup_by_key(|frontend| (frontend.address, frontend.port));
    frontends
}

/// The entries of the addresses of one family themselves, whatever the port; sorted. Of a Service
/// that is another proxy's (not `is_ours`), only the ClusterIPs are known.
pub(super) fn of_addresses(service: &Service, family: Family, is_ours: bool) -> Vec<Frontend> {
    let ours = |address: &IpAddr| Family::of(*address) == family;
    let itself = |kind| move |&address: &IpAddr| Frontend { address, port: 0, kind };
    let kind = if is_ours { FrontendKind::Address } else { FrontendKind::Foreign };
    let external = service.external_ips.iter().chain(&service.balancer_ips);
    let external = external.filter(|address| is_ours && ours(address));
    let cluster_ips = service.cluster_ips.iter().filter(|address| ours(address));
    let mut frontends: Vec<Frontend> = cluster_ips
        .map(itself(kind))
        .chain(external.map(itself(FrontendKind::ExternalAddress)))
        .collect();
    // Stable: a ClusterIP stays one, whatever else it is said to be.
    frontends.sort_by_key(|frontend| frontend.address);
    frontends.dedup_by_key(|frontend| frontend.address);
    frontends
}

const fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}
