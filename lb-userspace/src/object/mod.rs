//! Kubernetes objects as lb reads and keeps them.

mod decode;
mod key;

use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

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
