//! `ValidateService` (Kubernetes `pkg/apis/core/validation`): the rules that need no older version
//! and no pools.

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{families, is_external_name, is_headless, needs_node_port, policies, ports, type_of};
use crate::store::admit::Review;
use crate::store::admit::cause::Causes;
use crate::store::admit::{metadata, syntax};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];

/// `MaxClientIPServiceAffinitySeconds`: a day.
const MOST_AFFINITY_SECONDS: i32 = 86_400;

pub(super) fn spec(spec: &ServiceSpec, review: &mut Review) {
    let causes = &mut review.causes;
    causes.one_of("spec.type", Some(type_of(spec)), &TYPES);
    if is_headless(spec) && needs_node_port(spec) {
        let rule = format!("may not be set to 'None' for {} services", type_of(spec));
        causes.invalid("spec.clusterIPs[0]", "None", rule);
    }
    external_name(spec, causes);
    ports::validate(spec, review);
    let causes = &mut review.causes;
    metadata::labels("spec.selector", spec.selector.as_ref(), causes);
    session_affinity(spec, causes);
    families::validate(spec, causes);
    external_ips(spec, causes);
    policies::validate(spec, causes);
    warn(spec, &mut review.warnings);
}

fn external_name(spec: &ServiceSpec, causes: &mut Causes) {
    if !is_external_name(spec) {
        return;
    }
    for (field, set) in [
        ("spec.clusterIPs", spec.cluster_ips.is_some()),
        ("spec.ipFamilies", spec.ip_families.is_some()),
        ("spec.ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ] {
        if set {
            causes.forbidden(field, "may not be set for ExternalName services");
        }
    }
    // A trailing dot marks the name as fully qualified.
    let name = spec.external_name.as_deref().unwrap_or_default();
    match name.strip_suffix('.').unwrap_or(name) {
        "" => causes.required("spec.externalName", ""),
        name => causes.each("spec.externalName", name, syntax::dns_subdomain(name)),
    }
}

fn session_affinity(spec: &ServiceSpec, causes: &mut Causes) {
    let affinity = spec.session_affinity.as_deref();
    causes.one_of("spec.sessionAffinity", affinity, &["ClientIP", "None"]);
    let client_ip = spec.session_affinity_config.as_ref().and_then(|it| it.client_ip.as_ref());
    let Some(seconds) = client_ip.and_then(|it| it.timeout_seconds) else { return };
    if affinity == Some("ClientIP") && !(1..=MOST_AFFINITY_SECONDS).contains(&seconds) {
        causes.invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            seconds,
            format!("must be greater than 0 and less than or equal to {MOST_AFFINITY_SECONDS}"),
        );
    }
}

fn external_ips(spec: &ServiceSpec, causes: &mut Causes) {
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        match syntax::ip(ip) {
            Err(rule) => causes.invalid(field, ip.as_str(), rule),
            Ok(address) => {
                if let Some(rule) = syntax::special_ip(address) {
                    causes.invalid(field, ip.as_str(), rule);
                }
            }
        }
    }
}

/// As `GetWarningsForService`, for what is legal and has no effect.
fn warn(spec: &ServiceSpec, warnings: &mut Vec<String>) {
    warnings.extend(unserved(spec));
    let affinity = spec.session_affinity.as_deref().is_some_and(|affinity| affinity != "None");
    if is_headless(spec) && affinity {
        warnings.push("spec.sessionAffinity is ignored for headless services".to_owned());
    }
    if is_headless(spec) && spec.external_ips.is_some() {
        warnings.push("spec.externalIPs is ignored when spec.clusterIP is \"None\"".to_owned());
    }
    if is_external_name(spec) && spec.external_ips.is_some() {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !is_external_name(spec) && spec.external_name.is_some() {
        let text = "spec.externalName is ignored when spec.type is not \"ExternalName\"";
        warnings.push(text.to_owned());
    }
}

/// What is valid and stored, and does less than Kubernetes promises: said, not quietly left out.
fn unserved(spec: &ServiceSpec) -> Option<String> {
    let ranges = spec.load_balancer_source_ranges.is_some();
    ranges
        .then(|| "spec.loadBalancerSourceRanges is not applied to clients on this node".to_owned())
}
