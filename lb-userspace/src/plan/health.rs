//! `healthCheckNodePort`: what a load balancer elsewhere hears of this node (`LocalReadyEndpoints` of
//! Kubernetes' `pkg/proxy/endpointschangetracker.go`).

use std::collections::BTreeSet;

use super::{Family, NodeView, endpoints, is_ours};
use crate::store::model::{Service, Slice};

/// The port at which is asked, and how many ready endpoints this node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `healthCheckNodePort`, host byte order.
    pub port: u16,
    /// Endpoints for clients of IPv4; none, if the Service has no ClusterIP of that family.
    v4: Option<usize>,
    /// The same of IPv6.
    v6: Option<usize>,
}

impl HealthCheck {
    /// Of a Service with ClusterIPs of IPv4 alone.
    #[cfg(test)]
    pub(crate) fn of_v4(port: u16, endpoints: usize) -> Self {
        Self { port, v4: Some(endpoints), v6: None }
    }

    /// How many endpoints there are for who asks by this family. As each family's kube-proxy counts its own;
    /// of a family that the Service lacks, it answers as for the other.
    pub fn endpoints(&self, family: Family) -> usize {
        let (own, other) = match family {
            Family::V4 => (self.v4, self.v6),
            Family::V6 => (self.v6, self.v4),
        };
        own.or(other).unwrap_or_default()
    }
}

/// The health check of `service`, whose endpoints are those of `slices`, if it has one.
pub fn health_check(service: &Service, slices: &[&Slice], node: &NodeView) -> Option<HealthCheck> {
    let port = service.health_check_port.filter(|_| is_ours(service, node))?;
    let count = |family| {
        let has_family = service.cluster_ips.iter().any(|ip| Family::of(*ip) == family);
        has_family.then(|| local_ready(service, family, slices, node))
    };
    Some(HealthCheck { port, v4: count(Family::V4), v6: count(Family::V6) })
}

/// Endpoints on this node, however many ports they have. Terminating ones still serve, but are to get
/// nothing new.
fn local_ready(service: &Service, family: Family, slices: &[&Slice], node: &NodeView) -> usize {
    let all = service.ports.iter().flat_map(|port| endpoints(port, family, slices, node));
    let local = all.filter(|(_, endpoint)| endpoint.node == node.name);
    let ready = local.filter(|(_, endpoint)| endpoint.conditions.ready);
    ready.map(|(_, endpoint)| endpoint.address).collect::<BTreeSet<_>>().len()
}
