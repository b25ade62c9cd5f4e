//! What of an object that the Kubernetes API holds is not served, and why. The rest of it is.
//!
//! The API server admitted it, so most of what [`super::admit`] looks for cannot be there. What can is
//! what lb does not serve, and what a controller wrote by itself.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::model::SERVICE_NAME_LABEL;
use crate::object::Object;

/// One sentence for each shortcoming; none for an object that is served whole.
pub fn review(object: &Object) -> Vec<String> {
    match object {
        Object::Service(service) => {
            let spec = service.spec.iter();
            spec.flat_map(|spec| unserved_ports(spec).chain(unread_ips(spec))).collect()
        }
        Object::EndpointSlice(slice) => review_slice(slice),
        Object::Pod(_) | Object::Endpoints(_) | Object::Node(_) => Vec::new(),
    }
}

/// A warning for each port of a protocol that lb does not serve.
pub(super) fn unserved_ports(spec: &ServiceSpec) -> impl Iterator<Item = String> {
    let ports = spec.ports.iter().flatten().enumerate();
    ports.filter_map(|(index, port)| {
        let protocol = port.protocol.as_deref().filter(|protocol| !is_served(protocol))?;
        let name = port.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        Some(format!(
            "spec.ports[{index}]{name}: lb does not serve {protocol}; the other ports of this Service are served"
        ))
    })
}

fn is_served(protocol: &str) -> bool {
    matches!(protocol, "TCP" | "UDP")
}

fn unread_ips(spec: &ServiceSpec) -> impl Iterator<Item = String> {
    let addresses = spec.cluster_ips.iter().flatten().enumerate();
    addresses.filter_map(|(index, address)| {
        let is_read = address == "None" || address.is_empty() || address.parse::<IpAddr>().is_ok();
        (!is_read).then(|| {
            format!("spec.clusterIPs[{index}]: {address:?} is no IP address; it is not served")
        })
    })
}

fn review_slice(slice: &EndpointSlice) -> Vec<String> {
    let mut found = Vec::new();
    let labels = slice.metadata.labels.as_ref();
    if labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)).is_none_or(String::is_empty) {
        found.push(format!(
            "metadata.labels: {SERVICE_NAME_LABEL} is missing, so that the endpoints belong to no Service"
        ));
    }
    let is_ipv4 = match slice.address_type.as_str() {
        "IPv4" => true,
        "IPv6" => false,
        other => {
            found.push(format!(
                "addressType: {other} is not served; endpoints need IPv4 or IPv6 addresses"
            ));
            return found;
        }
    };
    let ports = slice.ports.iter().flatten().enumerate();
    found.extend(ports.filter_map(|(index, port)| {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        match port.port {
            Some(number) if u16::try_from(number).is_ok_and(|number| number > 0) => None,
            Some(number) => {
                Some(format!("ports[{index}].port: {number} is no port; it is not served"))
            }
            // Of a protocol that is not served anyway, the Service says so.
            None if !is_served(protocol) => None,
            None => Some(format!(
                "ports[{index}].port: absent, which means all ports; only single ports are served"
            )),
        }
    }));
    let endpoints = slice.endpoints.iter().flatten().enumerate();
    let mut left_out = endpoints.filter_map(|(index, endpoint)| {
        let address = endpoint.addresses.first().map_or("", String::as_str);
        let fits = address.parse().is_ok_and(|address: IpAddr| address.is_ipv4() == is_ipv4);
        (!fits).then(|| (index, address.to_owned()))
    });
    if let Some((index, address)) = left_out.next() {
        let more = match left_out.count() {
            0 => String::new(),
            more => format!(", as are {more} others of this slice"),
        };
        found.push(format!(
            "endpoints[{index}].addresses[0]: {address:?} is no {} address; the endpoint is left out{more}",
            slice.address_type
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn reviewed(value: Value) -> Vec<String> {
        let (object, _) = Object::from_value(value).expect("an object");
        review(&object)
    }

    fn slice(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2", "10.0.0.3"]}],
        });
        change(&mut slice);
        reviewed(slice)
    }

    #[test]
    fn what_is_served_whole_is_not_spoken_of() {
        assert_eq!(slice(|_| {}), [""; 0]);
        assert_eq!(slice(|slice| slice["ports"] = Value::Null), [""; 0], "ports: null");
        let sctp = json!([{"port": null, "protocol": "SCTP"}]);
        assert_eq!(slice(|slice| slice["ports"] = sctp), [""; 0], "the Service tells");
        let headless = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"]},
        });
        assert_eq!(reviewed(headless), [""; 0]);
    }

    #[test]
    fn what_is_left_out_is_named_with_its_field_once() {
        let said = |found: Vec<String>, what: &str| {
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(what), "{found:?} says {what}");
        };
        said(
            slice(|slice| {
                slice["endpoints"] =
                    json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}]);
            }),
            "endpoints[1].addresses[0]: \"fd00::1\" is no IPv4 address; the endpoint is left out",
        );
        let many: Vec<_> = (0..100).map(|_| json!({"addresses": ["x"]})).collect();
        said(slice(|slice| slice["endpoints"] = many.into()), "as are 99 others");
        said(slice(|slice| slice["endpoints"] = json!([{"addresses": []}])), "\"\" is no IPv4");
        said(slice(|slice| slice["addressType"] = "FQDN".into()), "addressType: FQDN");
        said(slice(|slice| slice["ports"][0]["port"] = Value::Null), "ports[0].port: absent");
        said(slice(|slice| slice["ports"][0]["port"] = 70_000.into()), "70000 is no port");
        said(
            slice(|slice| slice["metadata"]["labels"] = json!({})),
            "kubernetes.io/service-name is missing",
        );
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
            "spec": {
                "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
                "ports": [{"port": 80}, {"name": "sig", "port": 90, "protocol": "SCTP"}],
            },
        });
        said(reviewed(service), "spec.ports[1] (sig): lb does not serve SCTP");
    }
}
