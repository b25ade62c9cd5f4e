//! `spec.ports` (`validateServicePort` and the duplicate checks of `ValidateService`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::{is_external_name, is_headless, is_load_balancer, ports_of, type_of};
use crate::store::admit::cause::Causes;
use crate::store::admit::pod::PROTOCOLS;
use crate::store::admit::{Review, syntax};
use crate::store::review::unserved_ports;

/// The kubelet's own port, which clouds have opened to the world by mistake.
const KUBELET_PORT: i32 = 10250;

pub(super) fn validate(spec: &ServiceSpec, review: &mut Review) {
    let ports = ports_of(spec);
    let causes = &mut review.causes;
    if ports.is_empty() && !is_headless(spec) && !is_external_name(spec) {
        causes.required("spec.ports", "");
    }
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        validate_name(&field, port, ports.len() > 1, &mut names, causes);
        validate_numbers(&field, port, causes);
        causes.one_of(&format!("{field}.protocol"), port.protocol.as_deref(), &PROTOCOLS);
        if is_load_balancer(spec) && port.port == KUBELET_PORT {
            let rule = "may not expose port 10250 externally since it is used by kubelet";
            causes.invalid(&field, port.port, rule);
        }
        // Kubernetes says so of ClusterIP only and then ignores it in an ExternalName Service.
        if type_of(spec) == "ClusterIP" && port.node_port.is_some() {
            let detail = "may not be used when `type` is 'ClusterIP'";
            causes.forbidden(format!("{field}.nodePort"), detail);
        }
    }
    validate_duplicates(ports, causes);
    review.warnings.extend(unserved_ports(spec));
}

fn validate_name<'a>(
    field: &str,
    port: &'a ServicePort,
    required: bool,
    names: &mut BTreeSet<&'a str>,
    causes: &mut Causes,
) {
    let field = format!("{field}.name");
    match port.name.as_deref() {
        None if required => causes.required(field, ""),
        None => {}
        Some(name) => {
            causes.each(&field, name, syntax::dns_label(name));
            if !names.insert(name) {
                causes.duplicate(field, name);
            }
        }
    }
}

fn validate_numbers(field: &str, port: &ServicePort, causes: &mut Causes) {
    for rule in syntax::port_number(port.port) {
        causes.invalid(format!("{field}.port"), port.port, rule);
    }
    let target_field = format!("{field}.targetPort");
    match &port.target_port {
        // A default; the fault is the port's.
        Some(IntOrString::Int(number)) if *number == port.port => {}
        Some(IntOrString::Int(number)) => {
            for rule in syntax::port_number(*number) {
                causes.invalid(&*target_field, *number, rule);
            }
        }
        Some(IntOrString::String(name)) => {
            causes.each(&target_field, name, syntax::port_name(name));
        }
        None => {}
    }
}

/// Protocol is part of a port's identity: 53/TCP and 53/UDP are two ports.
fn validate_duplicates(ports: &[ServicePort], causes: &mut Causes) {
    let (mut seen, mut seen_node_ports) = (BTreeSet::new(), BTreeSet::new());
    for (index, ServicePort { port, protocol, node_port, .. }) in ports.iter().enumerate() {
        if let Some(number) = node_port
            && !seen_node_ports.insert((protocol, *number))
        {
            causes.duplicate(format!("spec.ports[{index}].nodePort"), *number);
        }
        if !seen.insert((protocol, *port)) {
            let value = json!({ "port": port, "protocol": protocol });
            causes.duplicate(format!("spec.ports[{index}]"), value);
        }
    }
}
