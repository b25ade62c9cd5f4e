//! Slices that are not stored, as the `EndpointSlice` objects that Kubernetes would make of them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use super::model::{Endpoint, SERVICE_NAME_LABEL, Service, Slice, SlicePort};
use super::tables::Tables;
use crate::plan::{Family, Protocol};

/// Says who maintains a slice.
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGED_BY: &str = "lb";

/// Kubernetes' alphabet for generated names: no vowels, so no words (`util/rand`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// `slices`, which belong to `service`, as JSON by name.
pub(super) fn slices<'s>(
    tables: &Tables,
    service: &Service,
    slices: impl Iterator<Item = &'s Slice>,
) -> BTreeMap<String, Value> {
    let mut named = BTreeMap::new();
    for slice in slices {
        let mut seed = fingerprint(slice);
        let name = loop {
            let name = format!("{}-{}", service.key.name, suffix(seed));
            if !named.contains_key(&name) {
                break name;
            }
            seed = seed.wrapping_add(1);
        };
        let object = object(tables, service, slice, &name);
        let value = serde_json::to_value(object).expect("an EndpointSlice is plain data");
        named.insert(name, value);
    }
    named
}

fn object(
    tables: &Tables,
    service: &Service,
    slice: &Slice,
    name: &str,
) -> discovery::EndpointSlice {
    let labels = [(SERVICE_NAME_LABEL, &*service.key.name), (MANAGED_BY_LABEL, MANAGED_BY)];
    discovery::EndpointSlice {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            creation_timestamp: service.created.clone(),
            namespace: Some(service.key.namespace.to_string()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name: service.key.name.to_string(),
                controller: Some(true),
                block_owner_deletion: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        address_type: match slice.family {
            Some(Family::V6) => "IPv6".to_owned(),
            Some(Family::V4) | None => "IPv4".to_owned(),
        },
        endpoints: Some(slice.endpoints.iter().map(|e| endpoint(tables, service, e)).collect()),
        ports: Some(slice.ports.iter().map(port).collect()),
    }
}

fn endpoint(tables: &Tables, service: &Service, endpoint: &Endpoint) -> discovery::Endpoint {
    let hints = endpoint.hints.as_deref().map(|hints| discovery::EndpointHints {
        for_nodes: (!hints.nodes.is_empty()).then(|| {
            hints.nodes.iter().map(|name| discovery::ForNode { name: name.to_string() }).collect()
        }),
        for_zones: (!hints.zones.is_empty()).then(|| {
            hints.zones.iter().map(|name| discovery::ForZone { name: name.to_string() }).collect()
        }),
    });
    discovery::Endpoint {
        addresses: vec![endpoint.address.to_string()],
        conditions: Some(discovery::EndpointConditions {
            ready: Some(endpoint.conditions.ready),
            serving: Some(endpoint.conditions.serving),
            terminating: Some(endpoint.conditions.terminating),
        }),
        hints,
        hostname: endpoint.hostname.as_deref().map(str::to_owned),
        node_name: Some(endpoint.node.to_string()),
        zone: tables.zone(&endpoint.node).map(ToString::to_string),
        target_ref: endpoint.pod.as_deref().map(|pod| ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(service.key.namespace.to_string()),
            name: Some(pod.to_owned()),
            ..ObjectReference::default()
        }),
        ..discovery::Endpoint::default()
    }
}

fn port(port: &SlicePort) -> discovery::EndpointPort {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    };
    discovery::EndpointPort {
        name: Some(port.name.to_string()),
        port: Some(i32::from(port.port)),
        protocol: Some(protocol.to_owned()),
        ..discovery::EndpointPort::default()
    }
}

/// What distinguishes a slice from the others of its Service, so that its name lasts while pods
/// come and go. FNV-1a, which is the same on every machine and in every release.
fn fingerprint(slice: &Slice) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    add(if slice.family == Some(Family::V6) { b"6" } else { b"4" });
    for port in slice.ports.iter() {
        add(port.name.as_bytes());
        add(if port.protocol == Protocol::Tcp { b"/T" } else { b"/U" });
        add(&port.port.to_be_bytes());
    }
    hash
}

fn suffix(mut seed: u64) -> String {
    let base = ALPHABET.len() as u64;
    (0..5)
        .map(|_| {
            let index = usize::try_from(seed % base).expect("below 27");
            seed /= base;
            char::from(ALPHABET[index])
        })
        .collect()
}
