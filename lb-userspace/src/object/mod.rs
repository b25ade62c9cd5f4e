//! Kubernetes objects as lb reads and keeps them.

mod convert;
mod decode;
mod key;
mod locate;
mod split;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub use convert::{DecodeError, Warnings};
pub use decode::{Decoded, Document, Position, Problem, decode};
pub use key::{Key, Kind};

/// One object of a kind that lb serves, whole, as Kubernetes defines it.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// `v1` Service.
    Service(Box<Service>),
    /// `v1` Pod.
    Pod(Box<Pod>),
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice(Box<EndpointSlice>),
    /// `v1` Endpoints, used where a Service has no slice.
    Endpoints(Box<Endpoints>),
    /// `v1` Node.
    Node(Box<Node>),
}

impl Object {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Pod(_) => Kind::Pod,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Node(_) => Kind::Node,
        }
    }

    /// What names it. A namespaced kind without a namespace is in `default`, as with kubectl.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        let namespace = match metadata.namespace.as_deref() {
            _ if !self.kind().namespaced() => "",
            None | Some("") => "default",
            Some(namespace) => namespace,
        };
        Key::new(self.kind(), namespace, metadata.name.as_deref().unwrap_or_default())
    }

    /// Its `metadata`.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Service(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Endpoints(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
        }
    }

    /// Its `metadata`, to be changed.
    pub fn metadata_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Service(object) => &mut object.metadata,
            Self::Pod(object) => &mut object.metadata,
            Self::EndpointSlice(object) => &mut object.metadata,
            Self::Endpoints(object) => &mut object.metadata,
            Self::Node(object) => &mut object.metadata,
        }
    }
}
