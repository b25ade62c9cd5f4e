//! What a Service is reached by from outside, and who may.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::admit::special_ip;
use super::model::SOURCE_RANGES_ANNOTATION;

/// The fields of a Service that concern clients outside, read as `newBaseServiceInfo` in Kubernetes'
/// `pkg/proxy/serviceport.go` does.
#[derive(Debug, Default)]
pub(super) struct External {
    pub(super) ips: Box<[IpAddr]>,
    pub(super) balancer_ips: Box<[IpAddr]>,
    pub(super) source_ranges: Box<[IpNet]>,
}

impl External {
    pub(super) fn of(service: &Service, spec: &ServiceSpec) -> Self {
        let ips = served(spec.external_ips.iter().flatten());
        if spec.type_.as_deref() != Some("LoadBalancer") {
            return Self { ips, ..Self::default() };
        }
        let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
        // One of mode `Proxy` opens connections of its own: its address is not ours to serve.
        let ingress = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        Self {
            ips,
            balancer_ips: served(ingress.filter_map(|ingress| ingress.ip.as_ref())),
            source_ranges: source_ranges(service, spec),
        }
    }
}

/// The value of one of a Service's annotations.
pub(super) fn annotation<'s>(service: &'s Service, name: &str) -> Option<&'s str> {
    service.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn served<'s>(addresses: impl Iterator<Item = &'s String>) -> Box<[IpAddr]> {
    let addresses = addresses.filter_map(|address| address.parse().ok());
    addresses.filter(|address| special_ip(*address).is_none()).collect()
}

/// The annotation counts where the field is empty (`GetLoadBalancerSourceRanges` of
/// `k8s.io/cloud-provider/service/helpers`).
fn source_ranges(service: &Service, spec: &ServiceSpec) -> Box<[IpNet]> {
    let parsed = |range: &str| range.trim().parse().map(|range: IpNet| range.trunc()).ok();
    let field = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    if field.is_empty() {
        let list = annotation(service, SOURCE_RANGES_ANNOTATION).unwrap_or_default();
        return list.split(',').filter_map(parsed).collect();
    }
    field.iter().filter_map(|range| parsed(range)).collect()
}
