//! What may not change while a Service exists (`validateUpgradeDowngradeClusterIPs`,
//! `validateUpgradeDowngradeIPFamilies`, `validateLoadBalancerClassField`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{
    cluster_ips, ip_families, is_external_name, is_headless, is_load_balancer, needs_health_check,
};
use crate::store::admit::cause::Causes;

const SET: &str = "may not change once set";

pub(super) fn validate(new: &ServiceSpec, old: &ServiceSpec, causes: &mut Causes) {
    if !is_external_name(new) && !is_external_name(old) {
        validate_addresses(new, old, causes);
        if !is_headless(new) && !is_headless(old) {
            validate_families(new, old, causes);
        }
    }
    if is_load_balancer(new)
        && is_load_balancer(old)
        && new.load_balancer_class != old.load_balancer_class
    {
        causes.invalid("spec.loadBalancerClass", new.load_balancer_class.as_deref(), SET);
    }
    if needs_health_check(new)
        && needs_health_check(old)
        && new.health_check_node_port != old.health_check_node_port
    {
        let rule = "cannot change healthCheckNodePort on loadBalancer service with externaltrafficPolicy=Local during update";
        causes.invalid("spec.healthCheckNodePort", new.health_check_node_port, rule);
    }
}

/// The first address stays, whatever happens; the second stays or is released as a whole.
fn validate_addresses(new: &ServiceSpec, old: &ServiceSpec, causes: &mut Causes) {
    let (ips, old_ips) = (cluster_ips(new), cluster_ips(old));
    if ips.is_empty() && !old_ips.is_empty() {
        causes.invalid("spec.clusterIPs[0]", ips, "primary clusterIP can not be unset");
    }
    for (index, (ip, old_ip)) in ips.iter().zip(old_ips).enumerate() {
        if !same_address(ip, old_ip) {
            causes.invalid(format!("spec.clusterIPs[{index}]"), ips, SET);
        }
    }
}

/// `2001:DB8::1` and `2001:db8::1` are one address.
fn same_address(one: &str, other: &str) -> bool {
    let parse = |text: &str| text.parse::<IpAddr>().ok();
    one == other || parse(one).is_some_and(|address| parse(other) == Some(address))
}

fn validate_families(new: &ServiceSpec, old: &ServiceSpec, causes: &mut Causes) {
    let (families, old_families) = (ip_families(new), ip_families(old));
    for (index, (family, old_family)) in families.iter().zip(old_families).enumerate() {
        if family != old_family {
            causes.invalid(format!("spec.ipFamilies[{index}]"), families, SET);
        }
    }
}
