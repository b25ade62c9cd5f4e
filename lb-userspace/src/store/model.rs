//! The few fields of each object that choosing endpoints needs, in compact form.
//!
//! Whole objects stay in the embedded store: at ten endpoints for each of 10,000 Services their text
//! alone would fill the agent's memory budget.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::intern::Labels;
use crate::object::Key;
use crate::plan::{Algorithm, Family, Protocol};

/// The label of an `EndpointSlice` that names its Service.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The label of a Service that names the proxy which is to serve it.
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// The annotation of a Service that says how new flows on the packet path are spread.
pub const ALGORITHM_ANNOTATION: &str = "lb.algorithm";
/// The annotation that `spec.loadBalancerSourceRanges` goes before.
pub const SOURCE_RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
/// The taint of a Node that the cluster autoscaler is about to remove.
pub const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// The label of a Node that names its zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// One stored object, in the form of its kind. What there is much of is boxed: the table's nodes are
/// rarely full, and hold their free places in full size.
#[derive(Clone, Debug, PartialEq)]
pub enum Model {
    /// A Service.
    Service(Arc<Service>),
    /// A Pod.
    Pod(Box<Pod>),
    /// A stored `EndpointSlice`.
    EndpointSlice(Box<Slice>),
    /// An Endpoints object, as the slices that Kubernetes would mirror it into.
    Endpoints(Box<[Slice]>),
    /// A Node.
    Node(Node),
}

/// What Kubernetes calls the type of a Service, as far as it decides on frontends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// Has `ClusterIP`s (`NodePort` and `LoadBalancer` have them too).
    Virtual,
    /// `clusterIP: None`: names only, but it has endpoints.
    Headless,
    /// A `CNAME`: neither addresses nor endpoints.
    ExternalName,
}

/// Where `trafficDistribution` wants traffic to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// `PreferSameZone`, formerly `PreferClose`.
    SameZone,
    /// `PreferSameNode`.
    SameNode,
}

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Its identity.
    pub key: Key,
    /// When it was made, which its derived slices show as their own age.
    pub created: Option<Time>,
    /// Whether it has addresses.
    pub service_type: ServiceType,
    /// Its `ClusterIP`s; empty unless virtual.
    pub cluster_ips: Box<[IpAddr]>,
    /// `externalIPs`; empty unless virtual.
    pub external_ips: Box<[IpAddr]>,
    /// Addresses of load balancers that hand packets on as they are; empty unless virtual.
    pub balancer_ips: Box<[IpAddr]>,
    /// `loadBalancerSourceRanges`, of that type only, without host bits; empty lets everybody in.
    pub source_ranges: Box<[IpNet]>,
    /// How new flows on the packet path are spread, if the Service says.
    pub algorithm: Option<Algorithm>,
    /// The proxy that is to serve it, if it names one.
    pub proxy_name: Option<Arc<str>>,
    /// Families of its endpoints.
    pub families: Box<[Family]>,
    /// `None` where someone else provides the endpoints. Kubernetes treats `{}` as absent.
    pub selector: Option<Labels>,
    /// Its ports in the order written, those of unserved protocols left out.
    pub ports: Box<[ServicePort]>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`, where the type has outside traffic.
    pub external_local: bool,
    /// `healthCheckNodePort`, where outside traffic stays on the node that it came to.
    pub health_check_port: Option<u16>,
    /// ClientIP affinity in seconds; 0 is none.
    pub affinity_seconds: u32,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `trafficDistribution`.
    pub distribution: Option<Distribution>,
    /// `externalName`, of that type only.
    pub external_name: Option<Box<str>>,
}

/// One port of a [`Service`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty for the only port of a Service.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// What clients connect to.
    pub port: u16,
    /// What they connect to on addresses of the node, where its type has such a port.
    pub node_port: Option<u16>,
    /// Where its pods listen.
    pub target: Target,
}

/// `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The same for every pod.
    Number(u16),
    /// Looked up in each pod's container ports.
    Name(Arc<str>),
}

/// A Pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its labels.
    pub labels: Labels,
    /// Its first IPv4 address; kube-proxy uses only the first of each family.
    pub v4: Option<Ipv4Addr>,
    /// Its first IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// The node that it runs on.
    pub node: Arc<str>,
    /// `status.conditions[Ready]` is `True`.
    pub ready: bool,
    /// It has a `deletionTimestamp`.
    pub terminating: bool,
    /// Phase `Succeeded` or `Failed`: no endpoint any more.
    pub finished: bool,
    /// Its name within a Service, which few pods have.
    pub hostname: Option<Box<Hostname>>,
    /// Its named container ports.
    pub ports: Box<[PodPort]>,
}

impl Pod {
    /// Its address in one family.
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.v4.map(IpAddr::V4),
            Family::V6 => self.v6.map(IpAddr::V6),
        }
    }
}

/// `spec.hostname` with `spec.subdomain`; neither means anything without the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname {
    /// `spec.hostname`.
    pub name: Arc<str>,
    /// `spec.subdomain`: the Service in which the name counts.
    pub subdomain: Arc<str>,
}

/// One named container port of a [`Pod`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPort {
    /// Its name.
    pub name: Arc<str>,
    /// Its protocol: a name may stand for two ports that differ in it.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}

/// Endpoints that share one set of ports, of one family.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// The Service that it belongs to, by label.
    pub service: Option<Arc<str>>,
    /// `None` for address type `FQDN`, which no proxy serves.
    pub family: Option<Family>,
    /// Ports of every endpoint.
    pub ports: Arc<[SlicePort]>,
    /// The endpoints.
    pub endpoints: Box<[Endpoint]>,
}

/// One port of a [`Slice`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlicePort {
    /// The name of the *service* port that it serves.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// One endpoint of a [`Slice`].
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its first address, the only one that kube-proxy uses.
    pub address: IpAddr,
    /// Its conditions.
    pub conditions: Conditions,
    /// The node that it runs on.
    pub node: Arc<str>,
    /// Which nodes and zones it should serve.
    pub hints: Option<Arc<Hints>>,
    /// `hostname`, for DNS.
    pub hostname: Option<Arc<str>>,
    /// Name of the Pod behind it.
    pub pod: Option<Arc<str>>,
}

/// Conditions of an [`Endpoint`], defaults applied as kube-proxy does
/// (`pkg/proxy/endpointslicecache.go`): absent `ready` and `serving` are true, `terminating` false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// May get new connections.
    pub ready: bool,
    /// Would be ready if it were not terminating.
    pub serving: bool,
    /// Is shutting down.
    pub terminating: bool,
}

/// Topology hints of an [`Endpoint`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `forNodes`.
    pub nodes: Box<[Arc<str>]>,
    /// `forZones`.
    pub zones: Box<[Arc<str>]>,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// It is being deleted: no load balancer elsewhere should send to it.
    pub leaving: bool,
}
