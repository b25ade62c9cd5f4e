//! `clusterIPs`, `ipFamilies` and `ipFamilyPolicy`: `ValidateServiceClusterIPsRelatedFields` and
//! `initIPFamilyFields` (Kubernetes `pkg/registry/core/service/storage/alloc.go`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ServiceSpec;

use super::{NONE, cluster_ips, ip_families, is_external_name, is_headless};
use crate::plan::Family;
use crate::store::admit::cause::Causes;
use crate::store::admit::syntax;
use crate::store::allocate::{Pools, family_of, name};

const CLUSTER_IPS: &str = "spec.clusterIPs";
const POLICY: &str = "spec.ipFamilyPolicy";
const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// The family that `spec.ipFamilies` names.
pub(super) fn parse(family: &str) -> Option<Family> {
    [Family::V4, Family::V6].into_iter().find(|known| name(*known) == family)
}

/// What the three fields must satisfy by themselves.
pub(super) fn validate(spec: &ServiceSpec, causes: &mut Causes) {
    if is_external_name(spec) {
        return;
    }
    let ips = cluster_ips(spec);
    match (spec.cluster_ip.as_deref(), ips.first()) {
        (Some(ip), Some(first)) if ip != first => {
            causes.invalid(CLUSTER_IPS, ips, "first value must match `clusterIP`");
        }
        (None, Some(_)) => {
            causes.invalid(CLUSTER_IPS, ips, "must be empty when `clusterIP` is not specified");
        }
        (Some(_) | None, _) => {}
    }
    let mut seen = BTreeSet::new();
    for (index, family) in ip_families(spec).iter().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        causes.one_of(&field, Some(family), &["IPv4", "IPv6"]);
        if !seen.insert(family) {
            causes.duplicate(field, family.as_str());
        }
    }
    causes.one_of(POLICY, spec.ip_family_policy.as_deref(), &[PREFER, REQUIRE, SINGLE]);
    validate_addresses(spec, causes);
}

fn validate_addresses(spec: &ServiceSpec, causes: &mut Causes) {
    let ips = cluster_ips(spec);
    if ips.first().is_some_and(|first| first == NONE) {
        if ips.len() > 1 {
            causes.invalid(CLUSTER_IPS, ips, "'None' must be the first and only value");
        }
        return;
    }
    if ips.len() > 2 {
        causes.invalid(CLUSTER_IPS, ips, "may only hold up to 2 values");
    }
    let mut seen = BTreeSet::new();
    for (index, ip) in ips.iter().enumerate() {
        // A person who wrote `clusterIP` only does not know of the list.
        let field = match ips.len() {
            1 => "spec.clusterIP".to_owned(),
            _ => format!("{CLUSTER_IPS}[{index}]"),
        };
        let family = match syntax::ip(ip) {
            Ok(address) => family_of(address),
            Err(rule) => {
                causes.invalid(field, ip.as_str(), rule);
                continue;
            }
        };
        if !seen.insert(family) {
            let rule = "may specify no more than one IP for each IP family";
            causes.invalid(CLUSTER_IPS, ips, rule);
        }
        let expected = ip_families(spec).get(index).and_then(|family| parse(family));
        if let Some(expected) = expected.filter(|expected| *expected != family) {
            let expected = name(expected);
            let rule =
                format!("expected an {expected} value as indicated by `ipFamilies[{index}]`");
            causes.invalid(field, ip.as_str(), rule);
        }
    }
}

/// Completes the policy and the families of a valid spec.
pub(super) fn init(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    pools: &Pools,
    causes: &mut Causes,
) {
    if is_external_name(spec) {
        return;
    }
    let selectorless_headless = is_headless(spec) && spec.selector.is_none();
    if spec.ip_family_policy.is_none() {
        let carried = old.and_then(|old| old.ip_family_policy.clone());
        // A headless Service without selector names endpoints of its own choice, of any family.
        let default = if selectorless_headless { REQUIRE } else { SINGLE };
        spec.ip_family_policy = Some(carried.unwrap_or_else(|| default.to_owned()));
    }
    if old.is_some_and(|old| unchanged(spec, old)) {
        return;
    }
    if let Some(old) = old {
        shrink(spec, old, causes);
    }
    if is_single_stack(spec) {
        let plural =
            [("cluster IPs", cluster_ips(spec).len()), ("IP families", ip_families(spec).len())];
        for (what, _) in plural.into_iter().filter(|(_, count)| *count > 1) {
            let rule = format!(
                "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            );
            causes.invalid(POLICY, SINGLE, rule);
        }
    }
    if !is_headless(spec) {
        infer(spec, pools, causes);
    }
    if !causes.is_empty() {
        return;
    }
    if !selectorless_headless {
        require_configured(spec, pools, causes);
    }
    if causes.is_empty() {
        let both = selectorless_headless
            || [Family::V4, Family::V6].into_iter().all(|it| pools.addresses(it).is_some());
        extend(spec, both, pools.default_family());
    }
}

/// A Service that asks for what it has keeps it, whatever ranges the agent has now: neither a
/// `PreferDualStack` Service nor one of a range that is gone changes by being applied again.
fn unchanged(spec: &ServiceSpec, old: &ServiceSpec) -> bool {
    (spec.type_ == old.type_ || spec.ip_family_policy.as_deref() != Some(PREFER))
        && !is_headless(spec)
        && !cluster_ips(spec).is_empty()
        && spec.ip_family_policy == old.ip_family_policy
        && spec.cluster_ips == old.cluster_ips
        && spec.ip_families == old.ip_families
}

/// `SingleStack` alone says clearly enough that the second address and family are to go; without
/// it, leaving one out is an error.
fn shrink(spec: &mut ServiceSpec, old: &ServiceSpec, causes: &mut Causes) {
    let fewer = |new: &[String], old: &[String]| !new.is_empty() && new.len() < old.len();
    if is_single_stack(spec) {
        if spec.cluster_ips == old.cluster_ips {
            spec.cluster_ips.iter_mut().for_each(|ips| ips.truncate(1));
        }
        if spec.ip_families == old.ip_families {
            spec.ip_families.iter_mut().for_each(|families| families.truncate(1));
        }
        return;
    }
    let policy = spec.ip_family_policy.clone().unwrap_or_default();
    if fewer(cluster_ips(spec), cluster_ips(old)) {
        let rule = "must be 'SingleStack' to release the secondary cluster IP";
        causes.invalid(POLICY, policy.as_str(), rule);
    }
    if fewer(ip_families(spec), ip_families(old)) {
        let rule = "must be 'SingleStack' to release the secondary IP family";
        causes.invalid(POLICY, policy.as_str(), rule);
    }
}

/// Families that were not written follow from the addresses.
fn infer(spec: &mut ServiceSpec, pools: &Pools, causes: &mut Causes) {
    let ips = cluster_ips(spec).to_vec();
    let known = ip_families(spec).len();
    for (index, ip) in ips.iter().enumerate().skip(known) {
        let Ok(address) = syntax::ip(ip) else { continue };
        let family = family_of(address);
        if pools.addresses(family).is_none() {
            let rule = format!("{} is not configured on this cluster", name(family));
            causes.invalid(format!("{CLUSTER_IPS}[{index}]"), ips.as_slice(), rule);
        } else {
            spec.ip_families.get_or_insert_default().push(name(family).to_owned());
        }
    }
}

fn require_configured(spec: &ServiceSpec, pools: &Pools, causes: &mut Causes) {
    let configured = |family| pools.addresses(family).is_some();
    if spec.ip_family_policy.as_deref() == Some(REQUIRE)
        && !(configured(Family::V4) && configured(Family::V6))
    {
        let rule = "this cluster is not configured for dual-stack services";
        causes.invalid(POLICY, REQUIRE, rule);
    }
    for (index, family) in ip_families(spec).iter().enumerate() {
        if parse(family).is_some_and(|family| !configured(family)) {
            let field = format!("spec.ipFamilies[{index}]");
            causes.invalid(field, family.as_str(), "not configured on this cluster");
        }
    }
}

/// The default family where none is asked for, and the other one for dual stack if `both` can be.
fn extend(spec: &mut ServiceSpec, both: bool, default: Family) {
    let dual = both && !is_single_stack(spec);
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        families.push(name(default).to_owned());
    }
    if let ([first], true) = (families.as_slice(), dual) {
        let other = if parse(first) == Some(Family::V4) { Family::V6 } else { Family::V4 };
        families.push(name(other).to_owned());
    }
}

fn is_single_stack(spec: &ServiceSpec) -> bool {
    spec.ip_family_policy.as_deref() == Some(SINGLE)
}
