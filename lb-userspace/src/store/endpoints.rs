//! The endpoints of a Service, always as slices: stored ones, or made from pods as Kubernetes'
//! endpointslice controller does (`staging/src/k8s.io/endpointslice/reconciler.go`, `utils.go`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Authority;
use super::model::{
    Conditions, Distribution, Endpoint, Hints, Pod, PodPort, Service, ServicePort, ServiceType,
    Slice, SlicePort, Target,
};
use super::tables::Tables;
use crate::plan::Family;

/// Every slice that counts for `service`.
///
/// With a selector, slices made from pods, unless the cluster has a controller that does. Without one,
/// the stored slices that name it; where there is none, its Endpoints object.
pub(super) fn slices<'t>(
    tables: &'t Tables,
    service: &Service,
    authority: Authority,
) -> Vec<Cow<'t, Slice>> {
    if service.service_type == ServiceType::ExternalName {
        return Vec::new();
    }
    if service.selector.is_some() && authority == Authority::Agent {
        return derived(tables, service).into_iter().map(Cow::Owned).collect();
    }
    let stored: Vec<_> = tables.slices(&service.key).map(Cow::Borrowed).collect();
    if stored.is_empty() { mirrored(tables, service).map(Cow::Borrowed).collect() } else { stored }
}

/// The slices of `service` that are not stored as such.
pub(super) fn unstored<'t>(
    tables: &'t Tables,
    service: &Service,
    authority: Authority,
) -> Vec<Cow<'t, Slice>> {
    let mut slices = slices(tables, service, authority);
    slices.retain(|slice| match slice {
        Cow::Owned(_) => true,
        Cow::Borrowed(slice) => mirrored(tables, service).any(|m| std::ptr::eq(m, *slice)),
    });
    slices
}

fn mirrored<'t>(tables: &'t Tables, service: &Service) -> impl Iterator<Item = &'t Slice> {
    tables.endpoints(&service.key).iter()
}

/// One slice for each family and each set of port numbers: a named port may have another number in
/// each pod.
fn derived(tables: &Tables, service: &Service) -> Vec<Slice> {
    let Some(selector) = &service.selector else { return Vec::new() };
    let fixed = fixed_ports(service);
    let mut groups: BTreeMap<(Family, Arc<[SlicePort]>), Vec<Endpoint>> = BTreeMap::new();
    for (name, pod) in tables.pods(&service.key.namespace, selector) {
        if pod.finished {
            continue;
        }
        let ports = fixed.clone().unwrap_or_else(|| ports_of(service, pod));
        for &family in &service.families {
            if let Some(address) = pod.address(family) {
                let endpoint = Endpoint {
                    address,
                    conditions: conditions(service, pod),
                    node: Arc::clone(&pod.node),
                    hints: hints(tables, service, pod),
                    hostname: hostname(service, pod),
                    pod: Some(Arc::clone(name)),
                };
                groups.entry((family, Arc::clone(&ports))).or_default().push(endpoint);
            }
        }
    }
    let slice = |((family, ports), endpoints): (_, Vec<Endpoint>)| Slice {
        service: Some(Arc::clone(&service.key.name)),
        family: Some(family),
        ports,
        endpoints: endpoints.into(),
    };
    groups.into_iter().map(slice).collect()
}

/// The ports of every pod, if no port is looked up by name.
fn fixed_ports(service: &Service) -> Option<Arc<[SlicePort]>> {
    let fixed = |port: &ServicePort| match port.target {
        Target::Number(number) => Some(slice_port(port, number)),
        Target::Name(_) => None,
    };
    service.ports.iter().map(fixed).collect()
}

/// A port that a pod does not have is left out for that pod (`getEndpointPorts`).
fn ports_of(service: &Service, pod: &Pod) -> Arc<[SlicePort]> {
    let find = |port: &ServicePort| {
        let number = match &port.target {
            Target::Number(number) => *number,
            Target::Name(name) => {
                let same = |p: &&PodPort| p.name == *name && p.protocol == port.protocol;
                pod.ports.iter().find(same)?.port
            }
        };
        Some(slice_port(port, number))
    };
    service.ports.iter().filter_map(find).collect()
}

fn slice_port(port: &ServicePort, number: u16) -> SlicePort {
    SlicePort { name: Arc::clone(&port.name), protocol: port.protocol, port: number }
}

/// `podToEndpoint`: a terminating pod is never ready, unless addresses are published regardless.
fn conditions(service: &Service, pod: &Pod) -> Conditions {
    Conditions {
        ready: service.publish_not_ready || (pod.ready && !pod.terminating),
        serving: pod.ready,
        terminating: pod.terminating,
    }
}

/// `ShouldSetHostname`: only in the Service that governs the pod's subdomain.
fn hostname(service: &Service, pod: &Pod) -> Option<Arc<str>> {
    let hostname = pod.hostname.as_ref().filter(|it| it.subdomain == service.key.name)?;
    Some(Arc::clone(&hostname.name))
}

/// `trafficdist.ReconcileHints`: a ready endpoint should serve its own zone, or its own node.
fn hints(tables: &Tables, service: &Service, pod: &Pod) -> Option<Arc<Hints>> {
    let distribution = service.distribution?;
    if !conditions(service, pod).ready {
        return None;
    }
    let zones = tables.zone(&pod.node).cloned().into_iter().collect();
    let nodes = match distribution {
        Distribution::SameZone => Box::default(),
        Distribution::SameNode => [Arc::clone(&pod.node)].into(),
    };
    let hints = Hints { nodes, zones };
    (hints != Hints::default()).then(|| Arc::new(hints))
}
