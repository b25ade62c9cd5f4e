//! The columns of `lb get`, kind by kind: those of kubectl (kubernetes `pkg/printers/internalversion`).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::age::age;
use crate::object::Kind;

/// kubectl shows so many addresses or ports of an object.
const SHOWN: usize = 3;

/// The heading of a kind's table.
pub(super) fn heading(kind: Kind, wide: bool) -> Vec<String> {
    let (narrow, more): (&[&str], &[&str]) = match kind {
        Kind::Service => {
            (&["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"], &["SELECTOR"])
        }
        Kind::Pod => (
            &["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
            &["IP", "NODE", "NOMINATED NODE", "READINESS GATES"],
        ),
        Kind::EndpointSlice => (&["NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"], &[]),
        Kind::Endpoints => (&["NAME", "ENDPOINTS", "AGE"], &[]),
        Kind::Node => (
            &["NAME", "STATUS", "ROLES", "AGE", "VERSION"],
            &["INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"],
        ),
    };
    let more = if wide { more } else { &[] };
    narrow.iter().chain(more).map(|&title| title.to_owned()).collect()
}

/// One object's row under [`heading`].
pub(super) fn row(kind: Kind, object: &Value, wide: bool, now: Timestamp) -> Result<Vec<String>> {
    let mut cells = match kind {
        Kind::Service => service(&read(object)?, wide, now),
        Kind::Pod => pod(&read(object)?, now),
        Kind::EndpointSlice => endpoint_slice(&read(object)?, now),
        Kind::Endpoints => endpoints(&read(object)?, now),
        Kind::Node => node(&read(object)?, now),
    };
    cells.truncate(heading(kind, wide).len());
    Ok(cells)
}

/// An object of the agent's as its Kubernetes type.
pub(super) fn read<T: serde::de::DeserializeOwned>(object: &Value) -> Result<T> {
    T::deserialize(object).context("the agent's answer is not understood")
}

fn service(service: &Service, wide: bool, now: Timestamp) -> Vec<String> {
    let spec = service.spec.clone().unwrap_or_default();
    let ip = spec.cluster_ips.iter().flatten().next().or(spec.cluster_ip.as_ref());
    let ports: Vec<_> = spec.ports.iter().flatten().map(service_port).collect();
    vec![
        name(&service.metadata),
        spec.type_.clone().unwrap_or_else(|| "ClusterIP".to_owned()),
        or_none(ip.cloned().unwrap_or_default()),
        external_ip(service, wide),
        or_none(ports.join(",")),
        created(&service.metadata, now),
        labels(spec.selector.as_ref()),
    ]
}

fn service_port(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.node_port {
        Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port.port),
        _ => format!("{}/{protocol}", port.port),
    }
}

fn external_ip(service: &Service, wide: bool) -> String {
    let spec = service.spec.as_ref();
    let external = spec.and_then(|spec| spec.external_ips.as_deref()).unwrap_or_default();
    match spec.and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP") {
        "ClusterIP" | "NodePort" => or_none(external.join(",")),
        "LoadBalancer" => {
            let mut addresses = balancer_addresses(service, wide);
            addresses.extend_from_slice(external);
            if addresses.is_empty() { "<pending>".to_owned() } else { addresses.join(",") }
        }
        "ExternalName" => spec.and_then(|spec| spec.external_name.clone()).unwrap_or_default(),
        _ => "<unknown>".to_owned(),
    }
}

fn balancer_addresses(service: &Service, wide: bool) -> Vec<String> {
    const WIDTH: usize = 16;
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref())
        .and_then(|balancer| balancer.ingress.as_deref())
        .unwrap_or_default();
    let addresses: BTreeSet<_> =
        ingress.iter().filter_map(|one| one.ip.clone().or_else(|| one.hostname.clone())).collect();
    let joined = addresses.into_iter().collect::<Vec<_>>().join(",");
    if joined.is_empty() {
        Vec::new()
    } else if !wide && joined.chars().count() > WIDTH {
        vec![format!("{}...", joined.chars().take(WIDTH - 3).collect::<String>())]
    } else {
        vec![joined]
    }
}

fn pod(pod: &Pod, now: Timestamp) -> Vec<String> {
    let status = pod.status.clone().unwrap_or_default();
    let spec = pod.spec.clone().unwrap_or_default();
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let ready = if containers.is_empty() && is_ready(pod) {
        // A manifest's status rarely lists containers; its Ready condition speaks for all of them.
        spec.containers.len()
    } else {
        containers.iter().filter(|container| container.ready).count()
    };
    let restarts: i32 = containers.iter().map(|container| container.restart_count).sum();
    let ips: Option<Vec<_>> =
        status.pod_ips.as_ref().map(|ips| ips.iter().map(|ip| ip.ip.clone()).collect());
    let ip = ips.and_then(|ips| ips.into_iter().next()).or(status.pod_ip.clone());
    vec![
        name(&pod.metadata),
        format!("{ready}/{}", spec.containers.len()),
        pod_status(pod),
        restarts.to_string(),
        created(&pod.metadata, now),
        or_none(ip.unwrap_or_default()),
        or_none(spec.node_name.unwrap_or_default()),
        or_none(status.nominated_node_name.unwrap_or_default()),
        or_none(String::new()),
    ]
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions.unwrap_or_default().iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn pod_status(pod: &Pod) -> String {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating".to_owned();
    }
    let status = pod.status.clone().unwrap_or_default();
    let waiting = status.container_statuses.iter().flatten().rev().find_map(|container| {
        let state = container.state.as_ref()?;
        let waiting = state.waiting.as_ref().and_then(|state| state.reason.clone());
        waiting.or_else(|| state.terminated.as_ref().and_then(|state| state.reason.clone()))
    });
    // A pod from a manifest usually has no phase: nobody but its author watches it.
    let assumed = || if is_ready(pod) { "Running" } else { "Pending" }.to_owned();
    waiting.or(status.reason).or(status.phase).unwrap_or_else(assumed)
}

fn endpoint_slice(slice: &EndpointSlice, now: Timestamp) -> Vec<String> {
    let ports = slice.ports.iter().flatten().map(slice_port);
    let addresses =
        slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.iter().cloned());
    vec![
        name(&slice.metadata),
        slice.address_type.clone(),
        some_of(ports, "<unset>"),
        some_of(addresses, "<unset>"),
        created(&slice.metadata, now),
    ]
}

fn slice_port(port: &EndpointPort) -> String {
    port.port
        .map(|number| number.to_string())
        .or_else(|| port.name.clone())
        .unwrap_or_else(|| "*".to_owned())
}

fn endpoints(endpoints: &Endpoints, now: Timestamp) -> Vec<String> {
    let mut shown = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let addresses = || subset.addresses.iter().flatten().map(|address| address.ip.as_str());
        match subset.ports.as_deref() {
            None | Some([]) => shown.extend(addresses().map(str::to_owned)),
            Some(ports) => {
                for port in ports {
                    shown.extend(addresses().map(|ip| host_port(ip, port.port)));
                }
            }
        }
    }
    vec![
        name(&endpoints.metadata),
        some_of(shown.into_iter(), "<none>"),
        created(&endpoints.metadata, now),
    ]
}

fn node(node: &Node, now: Timestamp) -> Vec<String> {
    let status = node.status.clone().unwrap_or_default();
    let info = status.node_info.clone();
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    let mut state = match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        state.push_str(",SchedulingDisabled");
    }
    let roles = node.metadata.labels.iter().flatten().filter_map(|(label, _)| {
        label.strip_prefix("node-role.kubernetes.io/").filter(|role| !role.is_empty())
    });
    let address = |kind: &str| {
        let mut addresses = status.addresses.iter().flatten();
        or_none(addresses.find(|a| a.type_ == kind).map(|a| a.address.clone()).unwrap_or_default())
    };
    let or_unknown = |text: Option<String>| {
        text.filter(|text| !text.is_empty()).unwrap_or_else(|| "<unknown>".to_owned())
    };
    vec![
        name(&node.metadata),
        state,
        or_none(roles.collect::<Vec<_>>().join(",")),
        created(&node.metadata, now),
        info.as_ref().map(|info| info.kubelet_version.clone()).unwrap_or_default(),
        address("InternalIP"),
        address("ExternalIP"),
        or_unknown(info.as_ref().map(|info| info.os_image.clone())),
        or_unknown(info.as_ref().map(|info| info.kernel_version.clone())),
        or_unknown(info.map(|info| info.container_runtime_version)),
    ]
}

/// The first few, and how many more there are.
pub(super) fn some_of(all: impl Iterator<Item = String>, none: &str) -> String {
    let all: Vec<_> = all.collect();
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    match all.len() {
        0 => none.to_owned(),
        count if count > SHOWN => format!("{shown} + {} more...", count - SHOWN),
        _ => shown,
    }
}

/// `10.0.0.1:80`, `[fd00::1]:80`
pub(super) fn host_port(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// `a=b,c=d`
pub(super) fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}"));
    or_none(pairs.collect::<Vec<_>>().join(","))
}

fn name(metadata: &ObjectMeta) -> String {
    metadata.name.clone().unwrap_or_default()
}

fn created(metadata: &ObjectMeta, now: Timestamp) -> String {
    age(metadata.creation_timestamp.as_ref().map(|time| time.0), now)
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cells(kind: Kind, object: &Value, wide: bool) -> String {
        let now = "2026-11-22T12:00:00Z".parse().expect("a time");
        row(kind, object, wide, now).expect("an object of this kind").join(" | ")
    }

    fn service_of(spec: &Value) -> Value {
        json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-11-22T11:55:00Z"},
            "spec": spec,
        })
    }

    #[test]
    fn services_look_as_in_kubectl() {
        let port = json!([{"port": 80}]);
        for (spec, expected) in [
            (
                json!({"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9", "fd00::9"], "type": "ClusterIP",
                       "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}),
                "a | ClusterIP | 10.96.0.9 | <none> | 53/UDP,53/TCP | 5m",
            ),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None"]}),
                "a | ClusterIP | None | <none> | <none> | 5m",
            ),
            (
                json!({"type": "NodePort", "clusterIPs": ["10.96.0.9"], "externalIPs": ["192.0.2.1"],
                       "ports": [{"port": 80, "nodePort": 30080}]}),
                "a | NodePort | 10.96.0.9 | 192.0.2.1 | 80:30080/TCP | 5m",
            ),
            (
                json!({"type": "LoadBalancer", "clusterIPs": ["10.96.0.9"], "ports": port}),
                "a | LoadBalancer | 10.96.0.9 | <pending> | 80/TCP | 5m",
            ),
            (
                json!({"type": "ExternalName", "externalName": "db.example.org"}),
                "a | ExternalName | <none> | db.example.org | <none> | 5m",
            ),
        ] {
            assert_eq!(cells(Kind::Service, &service_of(&spec), false), expected);
        }
    }

    #[test]
    fn long_balancer_addresses_are_cut_unless_wide() {
        let mut service =
            service_of(&json!({"type": "LoadBalancer", "selector": {"a": "b", "c": "d"}}));
        service["status"] =
            json!({"loadBalancer": {"ingress": [{"hostname": "balancer.example.org"}]}});
        assert_eq!(
            cells(Kind::Service, &service, false),
            "a | LoadBalancer | <none> | balancer.exam... | <none> | 5m"
        );
        assert_eq!(
            cells(Kind::Service, &service, true),
            "a | LoadBalancer | <none> | balancer.example.org | <none> | 5m | a=b,c=d"
        );
    }

    #[test]
    fn pods_show_readiness_and_where_they_are() {
        let mut pod = json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "n1"},
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        assert_eq!(cells(Kind::Pod, &pod, false), "web | 2/2 | Running | 0 | <unknown>");
        assert_eq!(
            cells(Kind::Pod, &pod, true),
            "web | 2/2 | Running | 0 | <unknown> | 10.0.0.1 | n1 | <none> | <none>"
        );
        pod["metadata"]["deletionTimestamp"] = json!("2026-11-22T12:00:00Z");
        assert_eq!(cells(Kind::Pod, &pod, false), "web | 2/2 | Terminating | 0 | <unknown>");
    }

    #[test]
    fn slices_show_three_endpoints_and_count_the_rest() {
        let endpoints: Vec<_> =
            (1..=5).map(|n| json!({"addresses": [format!("10.0.0.{n}")]})).collect();
        let slice = json!({
            "metadata": {"name": "mysql-x"}, "addressType": "IPv4",
            "ports": [{"port": 3306}, {"name": "any"}], "endpoints": endpoints,
        });
        assert_eq!(
            cells(Kind::EndpointSlice, &slice, false),
            "mysql-x | IPv4 | 3306,any | 10.0.0.1,10.0.0.2,10.0.0.3 + 2 more... | <unknown>"
        );
        let empty = json!({"metadata": {"name": "e"}, "addressType": "IPv6", "endpoints": []});
        assert_eq!(
            cells(Kind::EndpointSlice, &empty, false),
            "e | IPv6 | <unset> | <unset> | <unknown>"
        );
    }

    #[test]
    fn endpoints_bracket_ipv6() {
        let object = json!({
            "metadata": {"name": "e"},
            "subsets": [{"addresses": [{"ip": "fd00::1"}, {"ip": "10.0.0.1"}], "ports": [{"port": 80}]}],
        });
        assert_eq!(
            cells(Kind::Endpoints, &object, false),
            "e | [fd00::1]:80,10.0.0.1:80 | <unknown>"
        );
    }
}
