//! `status.loadBalancer` (`ValidateLoadBalancerStatus`, and the defaults of `SetDefaults_Service`).
//! It is written in manifests: standalone, nobody else does.

use k8s_openapi::api::core::v1::{LoadBalancerIngress, ServiceSpec, ServiceStatus};

use super::is_load_balancer;
use crate::store::admit::{Review, syntax};

const MODES: [&str; 2] = ["Proxy", "VIP"];

/// Only a load balancer has one: it goes with the type (`dropTypeDependentFields`).
pub(super) fn admit(status: &mut ServiceStatus, spec: &ServiceSpec, review: &mut Review) {
    let balancer = status.load_balancer.get_or_insert_default();
    if !is_load_balancer(spec) {
        balancer.ingress = None;
    }
    for (index, ingress) in balancer.ingress.iter_mut().flatten().enumerate() {
        if ingress.ip.is_some() {
            ingress.ip_mode.get_or_insert_with(|| "VIP".to_owned());
        }
        validate(&format!("status.loadBalancer.ingress[{index}]"), ingress, review);
    }
}

fn validate(field: &str, ingress: &LoadBalancerIngress, review: &mut Review) {
    let causes = &mut review.causes;
    if let Some(ip) = &ingress.ip {
        match syntax::ip(ip) {
            Err(rule) => causes.invalid(format!("{field}.ip"), ip.as_str(), rule),
            Ok(address) => {
                // Legal: it may mean something to others.
                let rule = syntax::special_ip(address);
                review
                    .warnings
                    .extend(rule.map(|rule| format!("{field}.ip: {ip} is not served: {rule}")));
            }
        }
        causes.one_of(&format!("{field}.ipMode"), ingress.ip_mode.as_deref(), &MODES);
    } else if ingress.ip_mode.is_some() {
        causes.forbidden(format!("{field}.ipMode"), "may not be specified when `ip` is not set");
    }
    if let Some(name) = &ingress.hostname {
        let field = format!("{field}.hostname");
        causes.each(&field, name, syntax::dns_subdomain(name));
        if syntax::ip(name).is_ok() {
            causes.invalid(field, name.as_str(), "must be a DNS name, not an IP address");
        }
    }
}
