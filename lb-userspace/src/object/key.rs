//! What names an object: its kind, namespace and name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kinds that lb serves; all others are named and skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are Kubernetes' own kind names")]
pub enum Kind {
    Service,
    Pod,
    EndpointSlice,
    Endpoints,
    Node,
}

impl Kind {
    /// Every kind, in the order in which `lb get` lists them.
    pub const ALL: [Self; 5] =
        [Self::Service, Self::Pod, Self::EndpointSlice, Self::Endpoints, Self::Node];

    /// The `kind` field: `Service`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Pod => "Pod",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Node => "Node",
        }
    }

    /// The `apiVersion` field: `v1`.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::Service | Self::Pod | Self::Endpoints | Self::Node => "v1",
        }
    }

    /// As kubectl names the resource in its messages: `service`, `endpointslice.discovery.k8s.io`.
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Pod => "pod",
            Self::EndpointSlice => "endpointslice.discovery.k8s.io",
            Self::Endpoints => "endpoints",
            Self::Node => "node",
        }
    }

    /// Plural, as in kubectl's `Error from server (NotFound): services "x" not found`.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Pod => "pods",
            Self::EndpointSlice => "endpointslices",
            Self::Endpoints => "endpoints",
            Self::Node => "nodes",
        }
    }

    /// Whether objects of this kind live in a namespace.
    pub const fn namespaced(self) -> bool {
        !matches!(self, Self::Node)
    }

    /// The kind that a manifest means by `apiVersion` and `kind`, if lb serves it.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.name() == kind && k.api_version() == api_version)
    }

    /// The kind that a person means on the command line: name, plural or short name, any case.
    pub fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "service" | "services" | "svc" => Some(Self::Service),
            "pod" | "pods" | "po" => Some(Self::Pod),
            "endpointslice"
            | "endpointslices"
            | "endpointslices.discovery.k8s.io"
            | "endpointslice.discovery.k8s.io" => Some(Self::EndpointSlice),
            "endpoints" | "ep" => Some(Self::Endpoints),
            "node" | "nodes" | "no" => Some(Self::Node),
            _ => None,
        }
    }
}

/// The identity of one object. Ordered by kind, namespace, name, so that listings are stable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for a kind that has none.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Key {
    /// A key from its parts.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

/// `service/mysql`, as kubectl prints it; the namespace is the reader's context.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.resource(), self.name)
    }
}
