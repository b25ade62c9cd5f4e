//! What becomes of what a resource's reflector tells.

use std::collections::BTreeSet;
use std::marker::PhantomData;

use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::reflector::{Change, Listed, Receiver};
use crate::engine::{Engine, Observed};
use crate::object::{Key, Kind, Object};

/// A resource whose objects the engine keeps.
pub(super) trait Kept: Listed {
    /// The kind of its objects here.
    const KIND: Kind;

    /// The object, without what nobody here looks at.
    fn into_object(self) -> Object;
}

impl Kept for Service {
    const KIND: Kind = Kind::Service;

    fn into_object(self) -> Object {
        trimmed(Object::Service(Box::new(self)))
    }
}

impl Kept for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn into_object(self) -> Object {
        trimmed(Object::EndpointSlice(Box::new(self)))
    }
}

impl Kept for Node {
    const KIND: Kind = Kind::Node;

    fn into_object(mut self) -> Object {
        // Every few minutes another list of images.
        if let Some(status) = &mut self.status {
            status.images = None;
            status.conditions = None;
        }
        trimmed(Object::Node(Box::new(self)))
    }
}

impl Kept for Pod {
    const KIND: Kind = Kind::Pod;

    fn into_object(mut self) -> Object {
        self.metadata.annotations = None;
        self.spec = self.spec.map(|spec| PodSpec {
            node_name: spec.node_name,
            hostname: spec.hostname,
            subdomain: spec.subdomain,
            host_network: spec.host_network,
            containers: spec.containers.into_iter().map(names_and_ports).collect(),
            ..PodSpec::default()
        });
        trimmed(Object::Pod(Box::new(self)))
    }
}

fn names_and_ports(container: Container) -> Container {
    let Container { name, ports, .. } = container;
    Container { name, ports, ..Container::default() }
}

/// Who changed which field is of no use here, and often more than the rest.
fn trimmed(mut object: Object) -> Object {
    object.metadata_mut().managed_fields = None;
    object
}

/// Hands objects to the engine.
#[derive(Debug)]
pub(super) struct Objects<K> {
    engine: Engine,
    /// While a list arrives: what it held so far.
    present: Option<BTreeSet<Key>>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Kept> Objects<K> {
    pub(super) const fn new(engine: Engine) -> Self {
        Self { engine, present: None, kind: PhantomData }
    }
}

impl<K: Kept> Receiver<K> for Objects<K> {
    fn begin(&mut self) {
        self.present = Some(BTreeSet::new());
    }

    async fn change(&mut self, changes: Vec<Change<K>>) {
        if changes.is_empty() {
            return;
        }
        let mut observed = Vec::with_capacity(changes.len());
        for change in changes {
            let change = match change {
                Change::Is(object) => Observed::Is(object.into_object()),
                Change::Gone(object) => Observed::Gone(object.into_object().key()),
            };
            if let Some(present) = &mut self.present {
                match &change {
                    Observed::Is(object) => present.insert(object.key()),
                    Observed::Gone(key) => present.remove(key),
                };
            }
            observed.push(change);
        }
        self.engine.observe(observed).await;
    }

    async fn listed(&mut self) {
        if let Some(present) = self.present.take() {
            self.engine.listed(K::KIND, present).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_keep_what_is_looked_at() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "a", "namespace": "b", "labels": {"app": "a"},
                "annotations": {"large": "x"}, "managedFields": [{"manager": "kubelet"}],
            },
            "spec": {
                "nodeName": "n", "hostname": "h", "subdomain": "s", "volumes": [{"name": "v"}],
                "containers": [{"name": "c", "image": "i", "ports": [{"name": "p", "containerPort": 80}]}],
            },
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "phase": "Running"},
        }))
        .expect("a Pod");
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "b", "labels": {"app": "a"}},
            "spec": {
                "nodeName": "n", "hostname": "h", "subdomain": "s",
                "containers": [{"name": "c", "ports": [{"name": "p", "containerPort": 80}]}],
            },
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "phase": "Running"},
        });
        assert_eq!(pod.into_object().to_value(), expected);
    }
}
