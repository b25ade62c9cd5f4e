//! Whole objects → [`super::model`]. What cannot be understood was refused at admission; here it is left out.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::external::{External, annotation};
use super::intern::{Interner, Labels};
use super::model::{
    ALGORITHM_ANNOTATION, Conditions, Distribution, Endpoint, Hints, Hostname, LEAVING_TAINT,
    Model, Node, Pod, PodPort, SERVICE_NAME_LABEL, SERVICE_PROXY_NAME_LABEL, Service, ServicePort,
    ServiceType, Slice, SlicePort, Target, ZONE_LABEL,
};
use crate::object::{Key, Object};
use crate::plan::{Family, Protocol};

/// Kubernetes' default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// Turns objects into models.
#[derive(Debug)]
pub(super) struct Converter {
    interner: Interner,
    /// Where a Pod or endpoint without a node runs.
    node: Arc<str>,
}

impl Converter {
    /// `node` is where a Pod or endpoint without a node runs.
    pub(super) fn new(node: &str) -> Self {
        let mut interner = Interner::default();
        let node = interner.word(node);
        Self { interner, node }
    }

    /// The shared form of a key.
    pub(super) fn key(&mut self, key: &Key) -> Key {
        Key {
            kind: key.kind,
            namespace: self.interner.word(&key.namespace),
            name: Arc::clone(&key.name),
        }
    }

    /// The model of `object`, whose key is `key`.
    pub(super) fn model(&mut self, key: &Key, object: &Object) -> Model {
        match object {
            Object::Service(service) => Model::Service(Arc::new(self.service(key, service))),
            Object::Pod(pod) => Model::Pod(Box::new(self.pod(pod))),
            Object::EndpointSlice(slice) => Model::EndpointSlice(Box::new(self.slice(slice))),
            Object::Endpoints(endpoints) => Model::Endpoints(self.endpoints(key, endpoints)),
            Object::Node(node) => Model::Node(self.node(node)),
        }
    }

    fn service(&mut self, key: &Key, service: &core::Service) -> Service {
        let empty = core::ServiceSpec::default();
        let spec = service.spec.as_ref().unwrap_or(&empty);
        let service_type = service_type(spec);
        let (cluster_ips, external) = match service_type {
            ServiceType::Virtual => (cluster_ips(spec), External::of(service, spec)),
            ServiceType::Headless | ServiceType::ExternalName => Default::default(),
        };
        let has_node_ports = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
        let has_outside_traffic = has_node_ports || !external.ips.is_empty();
        let ports = spec.ports.iter().flatten();
        let proxy_name = service.metadata.labels.as_ref();
        let proxy_name = proxy_name.and_then(|labels| labels.get(SERVICE_PROXY_NAME_LABEL));
        Service {
            key: self.key(key),
            created: service.metadata.creation_timestamp.clone(),
            service_type,
            families: families(spec, &cluster_ips),
            cluster_ips,
            external_ips: external.ips,
            balancer_ips: external.balancer_ips,
            source_ranges: external.source_ranges,
            algorithm: annotation(service, ALGORITHM_ANNOTATION).and_then(|word| word.parse().ok()),
            proxy_name: proxy_name.map(|name| self.interner.word(name)),
            selector: self.selector(spec),
            ports: ports.filter_map(|port| self.service_port(port, has_node_ports)).collect(),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: has_outside_traffic
                && spec.external_traffic_policy.as_deref() == Some("Local"),
            health_check_port: health_check_port(spec),
            affinity_seconds: affinity_seconds(spec),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
            distribution: match spec.traffic_distribution.as_deref() {
                Some("PreferClose" | "PreferSameZone") => Some(Distribution::SameZone),
                Some("PreferSameNode") => Some(Distribution::SameNode),
                Some(_) | None => None,
            },
            external_name: spec
                .external_name
                .as_deref()
                .filter(|_| service_type == ServiceType::ExternalName)
                .map(Into::into),
        }
    }

    fn selector(&mut self, spec: &core::ServiceSpec) -> Option<Labels> {
        let selector = spec.selector.as_ref()?;
        (!selector.is_empty()).then(|| self.interner.labels(selector))
    }

    fn service_port(
        &mut self,
        port: &core::ServicePort,
        has_node_ports: bool,
    ) -> Option<ServicePort> {
        let number = u16::try_from(port.port).ok()?;
        let target = match &port.target_port {
            Some(IntOrString::Int(target)) if *target != 0 => {
                Target::Number(u16::try_from(*target).ok()?)
            }
            Some(IntOrString::String(name)) if !name.is_empty() => {
                Target::Name(self.interner.word(name))
            }
            Some(IntOrString::Int(_) | IntOrString::String(_)) | None => Target::Number(number),
        };
        Some(ServicePort {
            name: self.interner.word(port.name.as_deref().unwrap_or_default()),
            protocol: protocol(port.protocol.as_deref())?,
            port: number,
            node_port: port
                .node_port
                .filter(|number| has_node_ports && *number != 0)
                .and_then(|number| u16::try_from(number).ok()),
            target,
        })
    }

    fn pod(&mut self, pod: &core::Pod) -> Pod {
        let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
        let addresses = status.map(pod_addresses).unwrap_or_default();
        Pod {
            labels: self.interner.labels(pod.metadata.labels.iter().flatten()),
            v4: addresses.iter().find_map(|ip| match ip {
                IpAddr::V4(ip) => Some(*ip),
                IpAddr::V6(_) => None,
            }),
            v6: addresses.iter().find_map(|ip| match ip {
                IpAddr::V4(_) => None,
                IpAddr::V6(ip) => Some(*ip),
            }),
            node: self.node_or_this(spec.and_then(|spec| spec.node_name.as_deref())),
            ready: status
                .and_then(|status| status.conditions.as_ref())
                .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True")),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            finished: matches!(
                status.and_then(|s| s.phase.as_deref()),
                Some("Succeeded" | "Failed")
            ),
            hostname: spec.and_then(|spec| self.hostname(spec)),
            ports: spec.map(|spec| self.pod_ports(spec)).unwrap_or_default(),
        }
    }

    fn hostname(&mut self, spec: &core::PodSpec) -> Option<Box<Hostname>> {
        let name = spec.hostname.as_ref().filter(|name| !name.is_empty())?;
        let subdomain = spec.subdomain.as_ref().filter(|name| !name.is_empty())?;
        let (name, subdomain) = (self.interner.word(name), self.interner.word(subdomain));
        Some(Box::new(Hostname { name, subdomain }))
    }

    /// As `FindPort` (`pkg/api/v1/pod/util.go`) searches: containers, then sidecars, that is, init
    /// containers that are restarted always.
    fn pod_ports(&mut self, spec: &core::PodSpec) -> Box<[PodPort]> {
        let sidecars = spec
            .init_containers
            .iter()
            .flatten()
            .filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
        ports
            .filter_map(|port| {
                Some(PodPort {
                    name: self.interner.word(port.name.as_deref()?),
                    protocol: protocol(port.protocol.as_deref())?,
                    port: u16::try_from(port.container_port).ok()?,
                })
            })
            .collect()
    }

    fn slice(&mut self, slice: &discovery::EndpointSlice) -> Slice {
        let family = match slice.address_type.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        };
        let service =
            slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
        Slice {
            service: service.map(|name| self.interner.word(name)),
            family,
            ports: slice.ports.iter().flatten().filter_map(|port| self.slice_port(port)).collect(),
            endpoints: slice
                .endpoints
                .iter()
                .flatten()
                .filter_map(|endpoint| self.endpoint(endpoint, family?))
                .collect(),
        }
    }

    /// A port without a number is one that kube-proxy ignores.
    fn slice_port(&mut self, port: &discovery::EndpointPort) -> Option<SlicePort> {
        Some(SlicePort {
            name: self.interner.word(port.name.as_deref().unwrap_or_default()),
            protocol: protocol(port.protocol.as_deref())?,
            port: u16::try_from(port.port?).ok()?,
        })
    }

    fn endpoint(&mut self, endpoint: &discovery::Endpoint, family: Family) -> Option<Endpoint> {
        let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let conditions = endpoint.conditions.as_ref();
        Some(Endpoint {
            address: (Family::of(address) == family).then_some(address)?,
            conditions: Conditions {
                ready: conditions.and_then(|c| c.ready).unwrap_or(true),
                serving: conditions.and_then(|c| c.serving).unwrap_or(true),
                terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
            },
            node: self.node_or_this(endpoint.node_name.as_deref()),
            hints: endpoint.hints.as_ref().map(|hints| Arc::new(self.hints(hints))),
            hostname: endpoint.hostname.as_deref().map(|name| self.interner.word(name)),
            pod: self.pod_behind(endpoint.target_ref.as_ref()),
        })
    }

    fn hints(&mut self, hints: &discovery::EndpointHints) -> Hints {
        Hints {
            nodes: hints
                .for_nodes
                .iter()
                .flatten()
                .map(|node| self.interner.word(&node.name))
                .collect(),
            zones: hints
                .for_zones
                .iter()
                .flatten()
                .map(|zone| self.interner.word(&zone.name))
                .collect(),
        }
    }

    /// As the endpointslicemirroring controller: one slice for each subset and family; the addresses
    /// of a subset that are not ready serve nobody.
    fn endpoints(&mut self, key: &Key, endpoints: &core::Endpoints) -> Box<[Slice]> {
        let service = self.interner.word(&key.name);
        let mut slices = Vec::new();
        for subset in endpoints.subsets.iter().flatten() {
            let ports: Arc<[SlicePort]> = subset
                .ports
                .iter()
                .flatten()
                .filter_map(|port| self.endpoints_port(port))
                .collect();
            for family in [Family::V4, Family::V6] {
                let ready = subset.addresses.iter().flatten().map(|address| (address, true));
                let unready =
                    subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
                let endpoints: Box<[Endpoint]> = ready
                    .chain(unready)
                    .filter_map(|(address, ready)| self.endpoint_address(address, family, ready))
                    .collect();
                if !endpoints.is_empty() {
                    let (service, ports) = (Some(Arc::clone(&service)), Arc::clone(&ports));
                    slices.push(Slice { service, family: Some(family), ports, endpoints });
                }
            }
        }
        slices.into()
    }

    fn endpoints_port(&mut self, port: &core::EndpointPort) -> Option<SlicePort> {
        Some(SlicePort {
            name: self.interner.word(port.name.as_deref().unwrap_or_default()),
            protocol: protocol(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
        })
    }

    fn endpoint_address(
        &mut self,
        endpoint: &core::EndpointAddress,
        family: Family,
        ready: bool,
    ) -> Option<Endpoint> {
        let address: IpAddr = endpoint.ip.parse().ok()?;
        Some(Endpoint {
            address: (Family::of(address) == family).then_some(address)?,
            conditions: Conditions { ready, serving: ready, terminating: false },
            node: self.node_or_this(endpoint.node_name.as_deref()),
            hints: None,
            hostname: endpoint.hostname.as_deref().map(|name| self.interner.word(name)),
            pod: self.pod_behind(endpoint.target_ref.as_ref()),
        })
    }

    fn pod_behind(&mut self, target: Option<&core::ObjectReference>) -> Option<Arc<str>> {
        let target = target.filter(|target| target.kind.as_deref() == Some("Pod"))?;
        Some(self.interner.word(target.name.as_deref()?))
    }

    fn node(&mut self, node: &core::Node) -> Node {
        let zone = node.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE_LABEL));
        Node { zone: zone.map(|zone| self.interner.word(zone)), leaving: is_leaving(node) }
    }

    fn node_or_this(&mut self, name: Option<&str>) -> Arc<str> {
        match name {
            Some(name) if !name.is_empty() => self.interner.word(name),
            Some(_) | None => Arc::clone(&self.node),
        }
    }
}

/// As kube-proxy's `NodeEligibleHandler` (`pkg/proxy/healthcheck/proxy_health.go`) sees it.
fn is_leaving(node: &core::Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    node.metadata.deletion_timestamp.is_some()
        || taints.into_iter().any(|taint| taint.key == LEAVING_TAINT)
}

/// SCTP and unknown protocols are named at admission and not served.
fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        Some("TCP") | None => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

fn service_type(spec: &core::ServiceSpec) -> ServiceType {
    if spec.type_.as_deref() == Some("ExternalName") {
        ServiceType::ExternalName
    } else if spec.cluster_ip.as_deref() == Some("None")
        || spec.cluster_ips.iter().flatten().any(|address| address == "None")
    {
        ServiceType::Headless
    } else {
        ServiceType::Virtual
    }
}

fn cluster_ips(spec: &core::ServiceSpec) -> Box<[IpAddr]> {
    let listed: Box<[IpAddr]> =
        spec.cluster_ips.iter().flatten().filter_map(|address| address.parse().ok()).collect();
    if listed.is_empty() {
        spec.cluster_ip.iter().filter_map(|address| address.parse().ok()).collect()
    } else {
        listed
    }
}

fn families(spec: &core::ServiceSpec, cluster_ips: &[IpAddr]) -> Box<[Family]> {
    if !cluster_ips.is_empty() {
        return cluster_ips.iter().map(|address| Family::of(*address)).collect();
    }
    let families = spec.ip_families.iter().flatten();
    families.map(|name| if name == "IPv6" { Family::V6 } else { Family::V4 }).collect()
}

/// `NeedsHealthCheck` (`pkg/api/v1/service/util.go`). The field may hold a port that is of no use.
fn health_check_port(spec: &core::ServiceSpec) -> Option<u16> {
    let is_needed = spec.type_.as_deref() == Some("LoadBalancer")
        && spec.external_traffic_policy.as_deref() == Some("Local");
    let port = spec.health_check_node_port.filter(|port| is_needed && *port != 0)?;
    u16::try_from(port).ok()
}

fn affinity_seconds(spec: &core::ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let configured =
        spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    configured
        .and_then(|client_ip| client_ip.timeout_seconds)
        .and_then(|seconds| u32::try_from(seconds).ok())
        .unwrap_or(DEFAULT_AFFINITY_SECONDS)
}

pub(super) fn pod_addresses(status: &core::PodStatus) -> Vec<IpAddr> {
    let listed = status.pod_ips.iter().flatten().map(|entry| &entry.ip);
    listed.chain(&status.pod_ip).filter_map(|address| address.parse().ok()).collect()
}
