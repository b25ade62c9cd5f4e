//! Pods: only what lb reads of them is looked at – addresses and container ports
//! (`validateContainerPorts`, `validatePodIPs` in Kubernetes' `pkg/apis/core/validation`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, PodIP, PodSpec, PodStatus};

use super::Review;
use super::cause::Causes;
use super::syntax;
use crate::store::allocate::family_of;

pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn admit(pod: &mut Pod, review: &mut Review) {
    if let Some(spec) = &mut pod.spec {
        validate_spec(spec, &mut review.causes);
    }
    if let Some(status) = &mut pod.status {
        synchronize_addresses(status);
        validate_addresses(status, review);
    }
}

/// `podIP` and the first of `podIPs` are one field under two names
/// (`Convert_core_PodStatus_To_v1_PodStatus`).
fn synchronize_addresses(status: &mut PodStatus) {
    status.pod_ip = status.pod_ip.take().filter(|ip| !ip.is_empty());
    status.pod_ips = status.pod_ips.take().filter(|ips| !ips.is_empty());
    match (&status.pod_ip, &status.pod_ips) {
        (Some(ip), None) => status.pod_ips = Some(vec![PodIP { ip: ip.clone() }]),
        (None, Some(ips)) => status.pod_ip = ips.first().map(|first| first.ip.clone()),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

fn validate_addresses(status: &PodStatus, review: &mut Review) {
    const FIELD: &str = "status.podIPs";
    let ips = status.pod_ips.as_deref().unwrap_or_default();
    if let (Some(ip), Some(first)) = (&status.pod_ip, ips.first())
        && *ip != first.ip
    {
        let rule = "must be the first of `podIPs`";
        review.causes.invalid("status.podIP", ip.as_str(), rule);
    }
    let mut families = BTreeSet::new();
    for (index, PodIP { ip }) in ips.iter().enumerate() {
        let field = format!("{FIELD}[{index}]");
        match syntax::ip(ip) {
            Err(rule) => review.causes.invalid(field, ip.as_str(), rule),
            Ok(address) => {
                if let Some(rule) = syntax::special_ip(address) {
                    review.warnings.push(format!("{field}: {ip:?} {rule}"));
                }
                if !families.insert(family_of(address)) {
                    let all: Vec<&str> = ips.iter().map(|ip| ip.ip.as_str()).collect();
                    let rule = "may specify no more than one IP for each IP family";
                    review.causes.invalid(FIELD, all, rule);
                }
            }
        }
    }
}

fn validate_spec(spec: &mut PodSpec, causes: &mut Causes) {
    if let Some(node) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        causes.each("spec.nodeName", node, syntax::dns_subdomain(node));
    }
    for (field, name) in [("spec.hostname", &spec.hostname), ("spec.subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            causes.each(field, name, syntax::dns_label(name));
        }
    }
    let containers = spec.containers.iter_mut().enumerate();
    let containers = containers.map(|(index, one)| (format!("spec.containers[{index}]"), one));
    let init = spec.init_containers.iter_mut().flatten().enumerate();
    let init = init.map(|(index, one)| (format!("spec.initContainers[{index}]"), one));
    for (field, container) in containers.chain(init) {
        validate_ports(&field, container, causes);
    }
}

fn validate_ports(container_field: &str, container: &mut Container, causes: &mut Causes) {
    let mut names = BTreeSet::new();
    for (index, port) in container.ports.iter_mut().flatten().enumerate() {
        let field = format!("{container_field}.ports[{index}]");
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            causes.each(&format!("{field}.name"), name, syntax::port_name(name));
            if !names.insert(name.to_owned()) {
                causes.duplicate(format!("{field}.name"), name);
            }
        }
        for (name, number) in
            [("containerPort", Some(port.container_port)), ("hostPort", port.host_port)]
        {
            let optional = name == "hostPort";
            let Some(number) = number.filter(|number| !(optional && *number == 0)) else {
                continue;
            };
            for rule in syntax::port_number(number) {
                causes.invalid(format!("{field}.{name}"), number, rule);
            }
        }
        let protocol = port.protocol.get_or_insert_with(|| "TCP".to_owned());
        causes.one_of(&format!("{field}.protocol"), Some(protocol), &PROTOCOLS);
    }
}
