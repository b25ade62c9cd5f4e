//! Annotations that decide how a Service is served.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ServiceSpec;

use super::is_load_balancer;
use crate::plan::Algorithm;
use crate::store::admit::cause::Causes;
use crate::store::model::{ALGORITHM_ANNOTATION, SOURCE_RANGES_ANNOTATION};

pub(super) fn validate(
    annotations: Option<&BTreeMap<String, String>>,
    spec: &ServiceSpec,
    causes: &mut Causes,
) {
    let value = |name| Some(annotations?.get(name)?.as_str());
    let field = |name| format!("metadata.annotations[{name}]");
    causes.one_of(&field(ALGORITHM_ANNOTATION), value(ALGORITHM_ANNOTATION), &Algorithm::WORDS);
    if let Some(list) = value(SOURCE_RANGES_ANNOTATION) {
        source_ranges(field(SOURCE_RANGES_ANNOTATION), list, spec, causes);
    }
}

/// As `ValidateService` has it: the field goes before, and no ranges are all ranges.
fn source_ranges(field: String, list: &str, spec: &ServiceSpec, causes: &mut Causes) {
    if spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()) {
        return;
    }
    if !is_load_balancer(spec) {
        causes.forbidden(&*field, "may only be used when `type` is 'LoadBalancer'");
    }
    let is_range = |range: &str| range.trim().parse::<IpNet>().is_ok();
    if !list.trim().is_empty() && !list.split(',').all(is_range) {
        let rule = "must be a list of IP ranges. For example, 10.240.0.0/24,10.250.0.0/24 ";
        causes.invalid(field, list, rule);
    }
}
