//! `SetDefaults_Service` (Kubernetes `pkg/apis/core/v1/defaults.go`).

use k8s_openapi::api::core::v1::{ClientIPConfig, ServicePort, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{externally_accessible, is_load_balancer, needs_cluster_ip};

/// `DefaultClientIPServiceAffinitySeconds`: three hours.
const AFFINITY_SECONDS: i32 = 10_800;

/// Go has no absent strings, numbers and lists, only empty ones; both mean the same here.
pub(super) fn normalize(spec: &mut ServiceSpec) {
    for text in [
        &mut spec.type_,
        &mut spec.cluster_ip,
        &mut spec.external_name,
        &mut spec.external_traffic_policy,
        &mut spec.load_balancer_ip,
        &mut spec.session_affinity,
    ] {
        text.take_if(|text| text.is_empty());
    }
    for list in [
        &mut spec.cluster_ips,
        &mut spec.external_ips,
        &mut spec.ip_families,
        &mut spec.load_balancer_source_ranges,
    ] {
        list.take_if(|list| list.is_empty());
    }
    spec.selector.take_if(|selector| selector.is_empty());
    spec.ports.take_if(|ports| ports.is_empty());
    spec.health_check_node_port.take_if(|port| *port == 0);
    for port in spec.ports.iter_mut().flatten() {
        port.name.take_if(|name| name.is_empty());
        port.protocol.take_if(|protocol| protocol.is_empty());
        port.node_port.take_if(|number| *number == 0);
        port.target_port.take_if(|target| match target {
            IntOrString::Int(number) => *number == 0,
            IntOrString::String(name) => name.is_empty(),
        });
    }
}

/// The defaults that do not depend on an older version of the object.
pub(super) fn fill(spec: &mut ServiceSpec) {
    spec.type_.get_or_insert_with(|| "ClusterIP".to_owned());
    for ServicePort { port, protocol, target_port, .. } in spec.ports.iter_mut().flatten() {
        protocol.get_or_insert_with(|| "TCP".to_owned());
        target_port.get_or_insert(IntOrString::Int(*port));
    }
    match &**spec.session_affinity.get_or_insert_with(|| "None".to_owned()) {
        "None" => spec.session_affinity_config = None,
        "ClientIP" => {
            let config = spec.session_affinity_config.get_or_insert_default();
            let SessionAffinityConfig { client_ip } = config;
            let ClientIPConfig { timeout_seconds } = client_ip.get_or_insert_default();
            timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
    if needs_cluster_ip(spec) {
        spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    }
    if is_load_balancer(spec) {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
}

/// `externalTrafficPolicy`, which only a Service that is reached from outside has.
pub(super) fn fill_external(spec: &mut ServiceSpec) {
    if externally_accessible(spec) {
        spec.external_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
    }
}
