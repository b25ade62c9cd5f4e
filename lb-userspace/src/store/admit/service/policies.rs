//! Traffic policies and the fields of load balancers (`validateServiceExternalTrafficPolicy`,
//! `validateServiceInternalTrafficFieldsValue`, `validateServiceTrafficDistribution`,
//! `validateLoadBalancerClassField`).

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ServiceSpec;

use super::{externally_accessible, is_load_balancer, needs_health_check};
use crate::store::admit::cause::Causes;
use crate::store::admit::syntax;

const POLICIES: [&str; 2] = ["Cluster", "Local"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];

pub(super) fn validate(spec: &ServiceSpec, causes: &mut Causes) {
    external_traffic(spec, causes);
    let internal = spec.internal_traffic_policy.as_deref();
    causes.one_of("spec.internalTrafficPolicy", internal, &POLICIES);
    let distribution = spec.traffic_distribution.as_deref();
    causes.one_of("spec.trafficDistribution", distribution, &DISTRIBUTIONS);
    source_ranges(spec, causes);
    if !is_load_balancer(spec) {
        const DETAIL: &str = "may only be used when `type` is 'LoadBalancer'";
        if spec.allocate_load_balancer_node_ports.is_some() {
            causes.forbidden("spec.allocateLoadBalancerNodePorts", DETAIL);
        }
        if spec.load_balancer_class.is_some() {
            causes.forbidden("spec.loadBalancerClass", DETAIL);
        }
    } else if let Some(class) = &spec.load_balancer_class {
        causes.each("spec.loadBalancerClass", class, syntax::qualified_name(class));
    }
}

fn external_traffic(spec: &ServiceSpec, causes: &mut Causes) {
    const FIELD: &str = "spec.externalTrafficPolicy";
    match spec.external_traffic_policy.as_deref() {
        Some(policy) if !externally_accessible(spec) => {
            causes.invalid(FIELD, policy, "may only be set for externally-accessible services");
        }
        policy => causes.one_of(FIELD, policy, &POLICIES),
    }
    if let Some(port) = spec.health_check_node_port {
        if needs_health_check(spec) {
            for rule in syntax::port_number(port) {
                causes.invalid("spec.healthCheckNodePort", port, rule);
            }
        } else {
            let rule = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            causes.invalid("spec.healthCheckNodePort", port, rule);
        }
    }
}

fn source_ranges(spec: &ServiceSpec, causes: &mut Causes) {
    const FIELD: &str = "spec.loadBalancerSourceRanges";
    let Some(ranges) = &spec.load_balancer_source_ranges else { return };
    if !is_load_balancer(spec) {
        causes.forbidden(FIELD, "may only be used when `type` is 'LoadBalancer'");
    }
    for (index, range) in ranges.iter().enumerate() {
        // Blanks around a range are allowed, by descent from an annotation.
        if range.trim().parse::<IpNet>().is_err() {
            let rule = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            causes.invalid(format!("{FIELD}[{index}]"), range.as_str(), rule);
        }
    }
}
