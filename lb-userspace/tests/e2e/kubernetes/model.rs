//! What the maps must say, told from the objects in the simplest way. Written on its own, without the
//! agent's code.
//!
//! It knows ClusterIPs and ready endpoints: no other types, no policies, no topology.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::apiserver::{ApiServer, Resource};
use crate::harness::NODE;

/// The lines of [`crate::harness::Agent::maps`].
pub(super) fn lines(api: &ApiServer) -> Vec<String> {
    let (services, slices) =
        (api.objects(Resource::Services), api.objects(Resource::EndpointSlices));
    let mut by_service: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for slice in &slices {
        let metadata = &slice["metadata"];
        let name = metadata["labels"]["kubernetes.io/service-name"].as_str();
        by_service.entry((metadata["namespace"].as_str(), name)).or_default().push(slice);
    }
    let served = services.iter().flat_map(|service| {
        let metadata = &service["metadata"];
        let key = (metadata["namespace"].as_str(), metadata["name"].as_str());
        serve(service, by_service.get(&key).map_or(&[], Vec::as_slice))
    });
    let mut lines: Vec<_> = served.collect();
    for cidr in api.objects(Resource::ServiceCidrs) {
        lines.extend(texts(&cidr["spec"]["cidrs"]).map(|range| format!("service CIDR {range}")));
    }
    lines.sort();
    lines
}

fn serve(service: &Value, slices: &[&Value]) -> Vec<String> {
    let addresses = texts(&service["spec"]["clusterIPs"]).filter(|address| *address != "None");
    let proxy = &service["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"];
    let mut lines = Vec::new();
    for address in addresses {
        if !proxy.is_null() {
            lines.push(format!("{address} Foreign"));
            continue;
        }
        lines.push(format!("{address} Address"));
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            let backends: Vec<_> = backends(port, is_v6(address), slices).into_iter().collect();
            let (number, protocol) = (&port["port"], protocol(port));
            let backends = backends.join(", ");
            lines.push(format!("{address} {number}/{protocol} ClusterIp to [{backends}]"));
        }
    }
    lines
}

fn backends(port: &Value, v6: bool, slices: &[&Value]) -> BTreeSet<String> {
    let family = if v6 { "IPv6" } else { "IPv4" };
    let mut all = BTreeSet::new();
    for slice in slices.iter().filter(|slice| slice["addressType"] == family) {
        let ports = slice["ports"].as_array().into_iter().flatten();
        let same = |it: &&Value| {
            it["name"].as_str().unwrap_or_default() == port["name"].as_str().unwrap_or_default()
                && protocol(it) == protocol(port)
        };
        let numbers: Vec<_> = ports.filter(same).filter_map(|it| it["port"].as_u64()).collect();
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let is_ready = endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
            let address = endpoint["addresses"][0].as_str().unwrap_or_default();
            if !is_ready || is_v6(address) != v6 {
                continue;
            }
            let here = if endpoint["nodeName"] == NODE { " here" } else { "" };
            all.extend(numbers.iter().map(|number| format!("{address} {number}{here}")));
        }
    }
    all
}

fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

fn is_v6(address: &str) -> bool {
    address.contains(':')
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}
