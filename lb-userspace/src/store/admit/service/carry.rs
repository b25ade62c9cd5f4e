//! What a new version keeps of the old one, so that a manifest can be applied again without the
//! addresses and ports that it was given (`patchAllocatedValues`, `normalizeClusterIPs` and
//! `dropTypeDependentFields` in Kubernetes' `pkg/registry/core/service`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{
    cluster_ips, externally_accessible, is_load_balancer, needs_cluster_ip, needs_health_check,
    needs_node_port, ports_of,
};

/// Completes `new` from `old`, the stored version if there is one.
pub(super) fn over(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(old) = old else {
        synchronize(new, None);
        return;
    };
    if needs_cluster_ip(old) && needs_cluster_ip(new) {
        patch_cluster_ips(new, old);
    }
    if needs_node_port(old) && needs_node_port(new) {
        patch_node_ports(new, old);
    }
    if needs_health_check(old) && needs_health_check(new) {
        new.health_check_node_port = new.health_check_node_port.or(old.health_check_node_port);
    }
    synchronize(new, Some(old));
    drop_type_dependent(new, old);
}

/// `kubectl apply` keeps the fields of the live object that the manifest never had; so do families.
fn patch_cluster_ips(new: &mut ServiceSpec, old: &ServiceSpec) {
    if new.cluster_ip.is_none() {
        new.cluster_ip = old.cluster_ip.clone();
    }
    if new.cluster_ips.is_none() {
        new.cluster_ips = old.cluster_ips.clone();
    }
    if new.ip_families.is_none() {
        new.ip_families = old.ip_families.clone();
    }
}

/// By the port's name, as the person may have changed everything else. An old number that the new
/// version asks for elsewhere is not patched in.
fn patch_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let by_name: BTreeMap<_, _> =
        ports_of(old).iter().map(|port| (port.name.clone(), port.node_port)).collect();
    let wanted: BTreeSet<_> = ports_of(new).iter().filter_map(|port| port.node_port).collect();
    for port in new.ports.iter_mut().flatten().filter(|port| port.node_port.is_none()) {
        let number = by_name.get(&port.name).copied().flatten();
        port.node_port = number.filter(|number| !wanted.contains(number));
    }
}

/// `clusterIP` and `clusterIPs[0]` are one field under two names. A person who wrote the first only
/// means both.
fn synchronize(new: &mut ServiceSpec, old: Option<&ServiceSpec>) {
    let Some(ip) = &new.cluster_ip else { return };
    let only_first_changed = old
        .is_some_and(|old| old.cluster_ip != new.cluster_ip && old.cluster_ips == new.cluster_ips);
    if new.cluster_ips.is_none() || only_first_changed {
        new.cluster_ips = Some(vec![ip.clone()]);
    }
}

/// When the type changes, fields that the new type cannot have and that the person did not touch
/// are dropped; touched ones are left for validation to refuse.
fn drop_type_dependent(new: &mut ServiceSpec, old: &ServiceSpec) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if cluster_ips(new) == cluster_ips(old) {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        new.ip_families.take_if(|families| Some(&*families) == old.ip_families.as_ref());
        new.ip_family_policy.take_if(|policy| Some(&*policy) == old.ip_family_policy.as_ref());
    }
    if needs_node_port(old) && !needs_node_port(new) {
        let numbers = |spec: &ServiceSpec| -> BTreeSet<_> {
            ports_of(spec).iter().filter_map(|port| port.node_port).collect()
        };
        if numbers(new) == numbers(old) {
            new.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
        }
    }
    if needs_health_check(old) && !needs_health_check(new) {
        new.health_check_node_port
            .take_if(|port| Some(&*port) == old.health_check_node_port.as_ref());
    }
    if is_load_balancer(old) && !is_load_balancer(new) {
        let allocate = old.allocate_load_balancer_node_ports;
        new.allocate_load_balancer_node_ports.take_if(|new| Some(*new) == allocate);
        new.load_balancer_class.take_if(|class| Some(&*class) == old.load_balancer_class.as_ref());
    }
    if externally_accessible(old) && !externally_accessible(new) {
        let policy = old.external_traffic_policy.as_ref();
        new.external_traffic_policy.take_if(|new| Some(&*new) == policy);
    }
}
