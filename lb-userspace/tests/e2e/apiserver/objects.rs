//! Objects as a cluster's own controllers write them.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::harness::Pod;

/// A Service of type ClusterIP with a selector that the slices stand for, on port 80; without an
/// address it is headless.
pub(crate) fn service(name: &str, cluster_ips: &[&str]) -> Value {
    let families: Vec<_> = cluster_ips.iter().map(|address| family(address)).collect();
    let (cluster_ips, policy) = match cluster_ips {
        [] => (vec!["None"], "SingleStack"),
        [one] => (vec![*one], "SingleStack"),
        both => (both.to_vec(), "RequireDualStack"),
    };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": "default", "labels": {"app": name},
            "managedFields": managed_fields("kubectl-create", "v1", &json!({"f:spec": {"f:ports": {}}})),
        },
        "spec": {
            "clusterIP": cluster_ips[0], "clusterIPs": cluster_ips,
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "type": "ClusterIP",
            "ipFamilies": if families.is_empty() { vec!["IPv4"] } else { families },
            "ipFamilyPolicy": policy, "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn family(address: &str) -> &'static str {
    if address.contains(':') { "IPv6" } else { "IPv4" }
}

/// A slice `<service>-<suffix>` of the endpoint slice controller's, with the port 80.
pub(crate) fn slice(service: &str, suffix: &str, endpoints: &[Value]) -> Value {
    let first = endpoints.first().and_then(|endpoint| endpoint["addresses"][0].as_str());
    let controller = "kube-controller-manager";
    // Go's encoder writes an empty list that nobody made as null.
    let list = if endpoints.is_empty() { Value::Null } else { json!(endpoints) };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-{suffix}"), "generateName": format!("{service}-"),
            "namespace": "default", "generation": 1,
            "labels": {
                "app": service, "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "annotations": {
                "endpoints.kubernetes.io/last-change-trigger-time": "2025-01-01T00:00:00Z",
            },
            "managedFields": managed_fields(controller, "discovery.k8s.io/v1", &json!({
                "f:addressType": {}, "f:endpoints": {}, "f:ports": {},
            })),
            "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": service,
                "uid": "00000000-0000-4000-8000-000000000001", "controller": true,
                "blockOwnerDeletion": true}],
        },
        "addressType": first.map_or("IPv4", family),
        "endpoints": list,
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    })
}

/// A ready endpoint of a pod on the node.
pub(crate) fn endpoint(address: impl Into<IpAddr>, pod: &str, node: &str) -> Value {
    let address: IpAddr = address.into();
    json!({
        "addresses": [address.to_string()],
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "nodeName": node,
        "targetRef": {"kind": "Pod", "name": pod, "namespace": "default",
            "uid": "00000000-0000-4000-8000-000000000002"},
    })
}

/// A slice of the stage's pods, which are on the node, with their IPv4 addresses.
pub(crate) fn slice_of(service: &str, node: &str, pods: &[&Pod]) -> Value {
    let endpoints: Vec<_> = pods.iter().map(|pod| endpoint(pod.v4, &pod.name, node)).collect();
    slice(service, "abcde", &endpoints)
}

pub(crate) fn node(name: &str, addresses: &[&str]) -> Value {
    let internal = |address: &&str| json!({"type": "InternalIP", "address": address});
    let mut all: Vec<_> = addresses.iter().map(internal).collect();
    all.push(json!({"type": "Hostname", "address": name}));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": "zone-a",
        }},
        "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]},
        "status": {"addresses": all, "conditions": [
            {"type": "Ready", "status": "True", "reason": "KubeletReady"},
        ]},
    })
}

/// A range of ClusterIPs that is in use.
pub(crate) fn service_cidr(name: &str, cidrs: &[&str]) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": name, "finalizers": ["networking.k8s.io/service-cidr-finalizer"]},
        "spec": {"cidrs": cidrs},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "",
            "lastTransitionTime": "2025-01-01T00:00:00Z",
            "message": "Kubernetes Service CIDR is ready"}]},
    })
}

/// As server-side apply notes who wrote what. No client of ours needs it, all of them get it.
fn managed_fields(manager: &str, api_version: &str, fields: &Value) -> Value {
    json!([{"manager": manager, "operation": "Update", "apiVersion": api_version,
        "time": "2025-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields}])
}

/// The object with fields changed, as a JSON merge patch does (RFC 7386): null removes.
pub(crate) fn patched(mut object: Value, patch: &Value) -> Value {
    merge(&mut object, patch);
    object
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(object) = into.as_object_mut() else { return };
    for (field, its) in fields {
        if its.is_null() {
            object.remove(field);
        } else {
            merge(object.entry(field.as_str()).or_insert(Value::Null), its);
        }
    }
}
