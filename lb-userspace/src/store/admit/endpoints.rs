//! EndpointSlices (Kubernetes `pkg/apis/discovery/validation`) and Endpoints
//! (`pkg/apis/core/validation`, `validateEndpointSubsets`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::Review;
use super::cause::Causes;
use super::pod::PROTOCOLS;
use super::syntax;
use crate::plan::Family;
use crate::store::allocate::{family_of, name};

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const MOST_ENDPOINTS: usize = 1000;
const MOST_PORTS: usize = 100;
const MOST_ADDRESSES: usize = 100;

pub(super) fn admit_slice(
    slice: &mut EndpointSlice,
    old: Option<&EndpointSlice>,
    review: &mut Review,
) {
    for port in slice.ports.iter_mut().flatten() {
        port.name.get_or_insert_default();
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
    let Review { causes, warnings } = review;
    let kind = slice.address_type.as_str();
    if kind.is_empty() {
        causes.required("addressType", "write addressType: IPv4 or IPv6");
    } else {
        causes.one_of("addressType", Some(kind), &ADDRESS_TYPES);
    }
    if old.is_some_and(|old| old.address_type != kind) {
        causes.invalid("addressType", kind, "field is immutable");
    }
    if kind == "FQDN" {
        warnings.push("addressType: lb does not serve endpoints of type FQDN".to_owned());
    }
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > MOST_ENDPOINTS {
        causes.too_many("endpoints", endpoints.len(), MOST_ENDPOINTS);
    } else {
        for (index, endpoint) in endpoints.iter().enumerate() {
            validate_endpoint(&format!("endpoints[{index}]"), endpoint, kind, causes);
        }
    }
    validate_slice_ports(slice.ports.as_deref().unwrap_or_default(), review);
}

fn validate_endpoint(field: &str, endpoint: &Endpoint, kind: &str, causes: &mut Causes) {
    let addresses = &endpoint.addresses;
    if addresses.is_empty() {
        causes.required(format!("{field}.addresses"), "must contain at least 1 address");
    } else if addresses.len() > MOST_ADDRESSES {
        causes.too_many(format!("{field}.addresses"), addresses.len(), MOST_ADDRESSES);
    }
    for (index, address) in addresses.iter().enumerate() {
        let field = format!("{field}.addresses[{index}]");
        match kind {
            "IPv4" => validate_address(&field, address, Some(Family::V4), causes),
            "IPv6" => validate_address(&field, address, Some(Family::V6), causes),
            "FQDN" => causes.each(&field, address, syntax::fully_qualified(address)),
            _ => {}
        }
    }
    validate_names(field, endpoint.hostname.as_deref(), endpoint.node_name.as_deref(), causes);
}

fn validate_slice_ports(ports: &[EndpointPort], review: &mut Review) {
    let causes = &mut review.causes;
    if ports.len() > MOST_PORTS {
        causes.too_many("ports", ports.len(), MOST_PORTS);
        return;
    }
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let field = format!("ports[{index}]");
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            causes.each(&format!("{field}.name"), name, syntax::dns_label(name));
        }
        if !names.insert(name) {
            causes.duplicate(format!("{field}.name"), name);
        }
        causes.one_of(&format!("{field}.protocol"), port.protocol.as_deref(), &PROTOCOLS);
        match port.port {
            // Kubernetes leaves it to the reader to make sense of "all ports"; lb cannot.
            None => review
                .warnings
                .push(format!("{field}.port: lb does not serve a port without number")),
            Some(number) => {
                for rule in syntax::port_number(number) {
                    causes.invalid(format!("{field}.port"), number, rule);
                }
            }
        }
    }
}

pub(super) fn admit_endpoints(endpoints: &mut Endpoints, review: &mut Review) {
    for (index, subset) in endpoints.subsets.iter_mut().flatten().enumerate() {
        for port in subset.ports.iter_mut().flatten() {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        validate_subset(&format!("subsets[{index}]"), subset, &mut review.causes);
    }
}

fn validate_subset(field: &str, subset: &EndpointSubset, causes: &mut Causes) {
    let ready = subset.addresses.as_deref().unwrap_or_default();
    let not_ready = subset.not_ready_addresses.as_deref().unwrap_or_default();
    if ready.is_empty() && not_ready.is_empty() {
        causes.required(field, "must specify `addresses` or `notReadyAddresses`");
    }
    for (list, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
        for (index, address) in addresses.iter().enumerate() {
            let field = format!("{field}.{list}[{index}]");
            let EndpointAddress { ip, hostname, node_name, .. } = address;
            validate_address(&format!("{field}.ip"), ip, None, causes);
            validate_names(&field, hostname.as_deref(), node_name.as_deref(), causes);
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        let field = format!("{field}.ports[{index}]");
        match port.name.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => causes.each(&format!("{field}.name"), name, syntax::dns_label(name)),
            None if ports.len() > 1 => causes.required(format!("{field}.name"), ""),
            None => {}
        }
        for rule in syntax::port_number(port.port) {
            causes.invalid(format!("{field}.port"), port.port, rule);
        }
        causes.one_of(&format!("{field}.protocol"), port.protocol.as_deref(), &PROTOCOLS);
    }
}

/// An endpoint's address, of `family` where the object has one.
fn validate_address(field: &str, address: &str, family: Option<Family>, causes: &mut Causes) {
    let parsed = match syntax::ip(address) {
        Ok(parsed) => parsed,
        Err(rule) => return causes.invalid(field, address, rule),
    };
    if let Some(family) = family.filter(|family| *family != family_of(parsed)) {
        causes.invalid(field, address, format!("must be a valid {} address", name(family)));
    } else if let Some(rule) = syntax::special_ip(parsed) {
        causes.invalid(field, address, rule);
    }
}

fn validate_names(field: &str, hostname: Option<&str>, node: Option<&str>, causes: &mut Causes) {
    if let Some(hostname) = hostname.filter(|hostname| !hostname.is_empty()) {
        causes.each(&format!("{field}.hostname"), hostname, syntax::dns_label(hostname));
    }
    if let Some(node) = node.filter(|node| !node.is_empty()) {
        causes.each(&format!("{field}.nodeName"), node, syntax::dns_subdomain(node));
    }
}
