//! ClusterIPs and NodePorts of a Service (Kubernetes `pkg/registry/core/service/storage/alloc.go`):
//! what the new version needs and the old one did not have is taken, then what only the old one had
//! is given back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::{
    Written, cluster_ips, families, ip_families, is_external_name, is_headless, needs_health_check,
    needs_node_port, ports_of,
};
use crate::object::Key;
use crate::store::admit::cause::Causes;
use crate::store::allocate::{AllocateError, Pools, Resource};

/// Fills in the allocations of a valid spec.
pub(super) fn allocate(
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
    key: &Key,
    written: Written,
    pools: &mut Pools,
    causes: &mut Causes,
) {
    let held: BTreeSet<Resource> = old.map(resources).unwrap_or_default().into_iter().collect();
    if !is_external_name(spec) && !is_headless(spec) {
        addresses(spec, &held, key, written, pools, causes);
    }
    if needs_node_port(spec) {
        node_ports(spec, &held, key, pools, causes);
    }
    if needs_health_check(spec) {
        health_check_port(spec, &held, key, pools, causes);
    }
    let kept: BTreeSet<Resource> = resources(spec).into_iter().collect();
    for resource in held.difference(&kept) {
        pools.give_back(*resource, key);
    }
}

/// One ClusterIP for each family.
fn addresses(
    spec: &mut ServiceSpec,
    held: &BTreeSet<Resource>,
    key: &Key,
    written: Written,
    pools: &mut Pools,
    causes: &mut Causes,
) {
    let wanted = cluster_ips(spec).to_vec();
    let mut ips = Vec::new();
    for (index, family) in ip_families(spec).iter().enumerate() {
        let Some(ip) = wanted.get(index) else {
            let Some(family) = families::parse(family) else { continue };
            match pools.take_any_address(family, key) {
                Ok(address) => ips.push(address.to_string()),
                Err(error) => {
                    let detail = format!("failed to allocate a serviceIP: {error}");
                    causes.internal("spec.clusterIPs", detail);
                }
            }
            continue;
        };
        let Ok(address) = ip.parse::<IpAddr>() else { continue };
        let resource = Resource::Address(address);
        if !held.contains(&resource)
            && let Err(error) = pools.take(resource, key)
        {
            let rule = format!("failed to allocate IP {ip}: {error}");
            if written.cluster_ips {
                causes.invalid("spec.clusterIPs", wanted.as_slice(), rule);
            } else {
                causes.invalid("spec.clusterIP", ip.as_str(), rule);
            }
        }
        ips.push(ip.clone());
    }
    spec.cluster_ip = ips.first().cloned();
    spec.cluster_ips = Some(ips);
}

/// A NodePort for each port, but for `allocateLoadBalancerNodePorts: false`, where only those that
/// were asked for are taken. Two protocols on one port share one number (`initNodePorts`).
fn node_ports(
    spec: &mut ServiceSpec,
    held: &BTreeSet<Resource>,
    key: &Key,
    pools: &mut Pools,
    causes: &mut Causes,
) {
    let automatic = spec.allocate_load_balancer_node_ports != Some(false);
    let ports = spec.ports.get_or_insert_default();
    let mut mine = held.clone();
    for (index, port) in ports.iter().enumerate() {
        let Some(number) = port.node_port else { continue };
        match port_resource(number) {
            Some(resource) if mine.contains(&resource) => {}
            Some(resource) => match pools.take(resource, key) {
                Ok(()) => {
                    mine.insert(resource);
                }
                Err(error) => {
                    causes.invalid(format!("spec.ports[{index}].nodePort"), number, error);
                }
            },
            None => {
                let rule = AllocateError::PortOutOfRange;
                causes.invalid(format!("spec.ports[{index}].nodePort"), number, rule);
            }
        }
    }
    for index in 0..ports.len() {
        if !automatic || ports[index].node_port.is_some() {
            continue;
        }
        let shared = |other: &&_| is_shared(&ports[index], other);
        if let Some(number) = ports.iter().find(shared).and_then(|other| other.node_port) {
            ports[index].node_port = Some(number);
            continue;
        }
        match pools.take_any_port(key) {
            Ok(number) => ports[index].node_port = Some(i32::from(number)),
            Err(error) => {
                let detail = format!("failed to allocate a nodePort: {error}");
                causes.internal(format!("spec.ports[{index}].nodePort"), detail);
            }
        }
    }
}

fn is_shared(port: &ServicePort, other: &ServicePort) -> bool {
    other.port == port.port && other.protocol != port.protocol && other.node_port.is_some()
}

fn health_check_port(
    spec: &mut ServiceSpec,
    held: &BTreeSet<Resource>,
    key: &Key,
    pools: &mut Pools,
    causes: &mut Causes,
) {
    const FIELD: &str = "spec.healthCheckNodePort";
    let Some(number) = spec.health_check_node_port else {
        match pools.take_any_port(key) {
            Ok(number) => spec.health_check_node_port = Some(i32::from(number)),
            Err(error) => {
                causes
                    .internal(FIELD, format!("failed to allocate a HealthCheck NodePort: {error}"));
            }
        }
        return;
    };
    let taken = match port_resource(number) {
        Some(resource) if held.contains(&resource) => Ok(()),
        Some(resource) => pools.take(resource, key),
        None => Err(AllocateError::PortOutOfRange),
    };
    if let Err(error) = taken {
        let rule = format!("failed to allocate requested HealthCheck NodePort {number}: {error}");
        causes.invalid(FIELD, number, rule);
    }
}

/// Gives back everything that a deleted Service held.
pub(in crate::store::admit) fn release(service: &Service, key: &Key, pools: &mut Pools) {
    for resource in service.spec.as_ref().map(resources).unwrap_or_default() {
        pools.give_back(resource, key);
    }
}

/// Marks what a stored Service holds as taken.
pub(in crate::store::admit) fn reclaim(
    service: &Service,
    key: &Key,
    pools: &mut Pools,
) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let all: BTreeSet<Resource> = resources(spec).into_iter().collect();
    let refused = all.into_iter().filter_map(|resource| {
        let error = pools.take(resource, key).err()?;
        let what = match resource {
            Resource::Address(address) => format!("ClusterIP {address}"),
            Resource::Port(port) => format!("NodePort {port}"),
        };
        let Key { kind, namespace, name } = key;
        let kind = kind.resource();
        Some(format!(
            "{kind} {namespace}/{name} keeps its {what}, as it never changes while the Service exists, but: {error}; delete and apply the Service to get another"
        ))
    });
    refused.collect()
}

/// Everything that a stored spec holds; a number that two protocols share occurs twice.
fn resources(spec: &ServiceSpec) -> Vec<Resource> {
    let addresses = cluster_ips(spec).iter().filter_map(|ip| ip.parse().ok());
    let addresses = addresses.filter(|_| !is_external_name(spec)).map(Resource::Address);
    let ports = ports_of(spec).iter().filter_map(|port| port.node_port);
    let ports = ports.filter(|_| needs_node_port(spec));
    let health = spec.health_check_node_port.filter(|_| needs_health_check(spec));
    addresses.chain(ports.chain(health).filter_map(port_resource)).collect()
}

fn port_resource(number: i32) -> Option<Resource> {
    u16::try_from(number).ok().map(Resource::Port)
}
