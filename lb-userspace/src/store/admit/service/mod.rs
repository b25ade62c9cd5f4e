//! Services. The order is the API server's (`pkg/registry/core/service/storage`): defaults, then what
//! an update carries over, then validation, then families, then allocation.

mod allocation;
mod annotations;
mod carry;
mod defaults;
mod families;
mod policies;
mod ports;
mod status;
#[cfg(test)]
mod tests;
mod update;
mod validate;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::Review;
use crate::object::Key;
use crate::store::allocate::Pools;

pub(super) use allocation::{reclaim, release};

/// `spec.clusterIP` of a Service without a virtual address.
const NONE: &str = "None";

pub(super) fn admit(
    service: &mut Service,
    old: Option<&Service>,
    key: &Key,
    pools: &mut Pools,
    review: &mut Review,
) {
    let spec = service.spec.get_or_insert_default();
    let empty = ServiceSpec::default();
    let old = old.map(|old| old.spec.as_ref().unwrap_or(&empty));
    defaults::normalize(spec);
    let written = Written::of(spec);
    defaults::fill(spec);
    carry::over(spec, old);
    defaults::fill_external(spec);
    validate::spec(spec, review);
    annotations::validate(service.metadata.annotations.as_ref(), spec, &mut review.causes);
    status::admit(service.status.get_or_insert_default(), spec, review);
    if review.causes.is_empty() {
        families::init(spec, old, pools, &mut review.causes);
    }
    if let Some(old) = old.filter(|_| review.causes.is_empty()) {
        update::validate(spec, old, &mut review.causes);
    }
    // Only for a Service that could be stored otherwise, so that its own faults are named first.
    if review.causes.is_empty() {
        allocation::allocate(spec, old, key, written, pools, &mut review.causes);
    }
}

/// Which of two linked fields the person wrote, so that an error names that one.
#[derive(Clone, Copy)]
struct Written {
    cluster_ips: bool,
}

impl Written {
    fn of(spec: &ServiceSpec) -> Self {
        Self { cluster_ips: spec.cluster_ips.is_some() }
    }
}

// Questions that Kubernetes asks of a spec (`pkg/api/service/util.go` and the `needs…` functions of
// the registry).

fn type_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn is_external_name(spec: &ServiceSpec) -> bool {
    type_of(spec) == "ExternalName"
}

fn is_load_balancer(spec: &ServiceSpec) -> bool {
    type_of(spec) == "LoadBalancer"
}

fn is_headless(spec: &ServiceSpec) -> bool {
    cluster_ips(spec) == [NONE]
}

/// Headless ones too: their `None` is carried over like an address.
fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(type_of(spec), "ClusterIP" | "NodePort" | "LoadBalancer")
}

fn needs_node_port(spec: &ServiceSpec) -> bool {
    matches!(type_of(spec), "NodePort" | "LoadBalancer")
}

fn externally_accessible(spec: &ServiceSpec) -> bool {
    let external_ips = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    needs_node_port(spec) || (type_of(spec) == "ClusterIP" && external_ips)
}

fn needs_health_check(spec: &ServiceSpec) -> bool {
    is_load_balancer(spec) && spec.external_traffic_policy.as_deref() == Some("Local")
}

fn cluster_ips(spec: &ServiceSpec) -> &[String] {
    spec.cluster_ips.as_deref().unwrap_or_default()
}

fn ip_families(spec: &ServiceSpec) -> &[String] {
    spec.ip_families.as_deref().unwrap_or_default()
}

fn ports_of(spec: &ServiceSpec) -> &[ServicePort] {
    spec.ports.as_deref().unwrap_or_default()
}
