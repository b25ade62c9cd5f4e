//! Objects: what was admitted, in memory as far as endpoints are chosen by it, whole on disk.
//!
//! A change goes through a [`Batch`]: admitted, made durable where it must be, then visible to
//! [`Store::plan`].

pub mod admit;
pub mod allocate;
mod batch;
mod convert;
mod endpoints;
mod error;
mod external;
mod intern;
pub mod model;
mod persist;
mod render;
mod retired;
mod review;
mod tables;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::api::types::{ObjectCounts, Origin};
use crate::dns::Names;
use crate::object::{Key, Kind, Object};
use crate::plan::{
    self, Algorithm, HealthCheck, NodePortAddresses, NodeView, ServicePortId, Wanted,
};
use allocate::Pools;
use convert::Converter;
use model::{Service, ServiceType, Slice};
use persist::Persist;
use retired::Retired;
use tables::{Entry, Tables};

pub use batch::{Admission, Batch, Committed, Event};
pub use error::{CommitError, OpenError, Refusal};
pub use review::review;

pub(crate) use persist::{CLUSTER_FILE, OWN_FILE};

/// Who decides what objects there are, and allocates addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// This agent.
    Agent,
    /// The Kubernetes API: objects are taken as they are there.
    Cluster,
}

/// All objects of one agent.
#[derive(Debug)]
pub struct Store {
    authority: Authority,
    /// Of everything that the Kubernetes API brings.
    observed: Arc<Origin>,
    persist: Persist,
    tables: Tables,
    pools: Pools,
    converter: Converter,
    retired: Retired,
    /// Without its zone, which a Node object says.
    node: NodeView,
}

impl Store {
    /// Opens the store in `folder` or creates it, on the node of this name. What stored Services
    /// hold is taken from `pools`.
    pub fn open(folder: &Path, node: &str, pools: Pools) -> Result<Self, OpenError> {
        Self::open_on(folder, node, Authority::Agent, pools, persist::on_file)
    }

    /// Opens the copy in `folder` of what the Kubernetes API knows, or creates it. One that cannot be
    /// read is begun anew, since nothing is lost with it.
    pub fn open_copy(folder: &Path, node: &str) -> Result<Self, OpenError> {
        let open =
            || Self::open_on(folder, node, Authority::Cluster, Pools::unused(), persist::on_file);
        match open() {
            Err(OpenError::Damaged { path, reason }) => {
                tracing::warn!("{}: damaged ({reason}); it is begun anew", path.display());
                begin_anew(&path)?;
                open()
            }
            Err(OpenError::Format { path, found, .. }) => {
                tracing::info!("{}: its format is {found}; it is begun anew", path.display());
                begin_anew(&path)?;
                open()
            }
            opened => opened,
        }
    }

    fn open_on(
        folder: &Path,
        node: &str,
        authority: Authority,
        mut pools: Pools,
        storage: persist::Storage,
    ) -> Result<Self, OpenError> {
        // In a cluster, what is on no node is not on this one.
        let (file, default_node) = match authority {
            Authority::Agent => (OWN_FILE, node),
            Authority::Cluster => (CLUSTER_FILE, ""),
        };
        let mut converter = Converter::new(default_node);
        let mut entries = Vec::new();
        let mut origins = Origins::default();
        let persist = Persist::open_on(folder, file, storage, |key, origin, body| {
            let object = decode(key.kind, body).map_err(|error| error.to_string())?;
            if authority == Authority::Agent {
                for warning in admit::reclaim(&object, &mut pools) {
                    tracing::warn!("{} in namespace {}: {warning}", key, key.namespace);
                }
            }
            let key = converter.key(&key);
            let model = converter.model(&key, &object);
            entries.push((key, Entry { origin: origins.shared(origin), model }));
            Ok(())
        })?;
        pools.commit();
        let tables = Tables::load(entries);
        Ok(Self {
            authority,
            observed: Arc::new(Origin::Cluster),
            persist,
            tables,
            pools,
            converter,
            retired: Retired::default(),
            node: NodeView { name: node.into(), ..NodeView::default() },
        })
    }

    /// Begins a change.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch::new(self)
    }

    /// What the kernel should hold for one Service; `None` if there is no such Service.
    pub fn plan(&self, service: &Key) -> Option<Vec<(ServicePortId, Wanted)>> {
        let service = self.tables.service(service)?;
        let slices = self.slices_for(service, ServiceType::Virtual);
        let slices: Vec<_> = slices.iter().map(Cow::as_ref).collect();
        Some(plan::plan(service, &slices, &self.node()))
    }

    /// What load balancers elsewhere hear of one Service, if they ask for it.
    pub fn health_check(&self, service: &Key) -> Option<HealthCheck> {
        let service = self.tables.service(service)?;
        service.health_check_port?;
        let slices = self.slices_for(service, ServiceType::Virtual);
        let slices: Vec<_> = slices.iter().map(Cow::as_ref).collect();
        plan::health_check(service, &slices, &self.node())
    }

    /// What the names of one Service lead to; `None` if there is no such Service.
    pub fn names(&self, service: &Key) -> Option<Names> {
        let service = self.tables.service(service)?;
        let slices = self.slices_for(service, ServiceType::Headless);
        let slices: Vec<_> = slices.iter().map(Cow::as_ref).collect();
        Names::of(service, &slices)
    }

    /// The slices of a Service, if it is of the type whose endpoints are looked at. Frontends lead to
    /// those of Services with ClusterIPs, names to those of headless ones; making them is most of the
    /// work.
    fn slices_for(&self, service: &Service, of: ServiceType) -> Vec<Cow<'_, Slice>> {
        if service.service_type == of {
            endpoints::slices(&self.tables, service, self.authority)
        } else {
            Vec::new()
        }
    }

    /// The addresses of every Pod that has not finished.
    pub fn running_pods(&self) -> impl Iterator<Item = IpAddr> {
        let running = self.tables.all_pods().filter(|pod| !pod.finished);
        running.flat_map(|pod| [pod.v4.map(IpAddr::V4), pod.v6.map(IpAddr::V6)]).flatten()
    }

    /// Sets where NodePorts are served. What [`Self::plan`] says of [`Self::with_node_ports`] may
    /// be different afterwards.
    pub fn set_node_ports(&mut self, addresses: NodePortAddresses) {
        self.node.node_ports = addresses;
    }

    /// Sets the name that a Service must have in its label to be served, if it has that label.
    /// Before anything is planned.
    pub fn set_proxy_name(&mut self, name: Option<&str>) {
        self.node.proxy_name = name.map(Arc::from);
    }

    /// Sets how new flows on the packet path are spread where a Service does not say. Before anything
    /// is planned.
    pub fn set_algorithm(&mut self, algorithm: Algorithm) {
        self.node.algorithm = algorithm;
    }

    /// Every Service with a NodePort.
    pub fn with_node_ports(&self) -> impl Iterator<Item = &Key> {
        self.tables.with_node_ports()
    }

    /// Every stored object of a kind.
    pub fn keys(&self, kind: Kind) -> impl Iterator<Item = &Key> {
        self.tables.keys(kind)
    }

    /// Every Service.
    pub fn services(&self) -> impl Iterator<Item = &Key> {
        self.tables.keys(Kind::Service)
    }

    /// Who brought an object, if it is stored.
    pub fn owner(&self, key: &Key) -> Option<&Origin> {
        self.tables.get(key).map(|entry| entry.origin.as_ref())
    }

    /// What a manifest file brought.
    pub fn of_file(&self, file: &Path) -> impl Iterator<Item = &Key> {
        self.tables.of_file(file)
    }

    /// Every manifest file that brought something.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.tables.files()
    }

    /// Objects as JSON by namespace and name; `EndpointSlice`s with those made from pods.
    pub fn list(
        &mut self,
        kind: Kind,
        namespace: Option<&str>,
        name: Option<&str>,
    ) -> Vec<Arc<Value>> {
        let asked = |key: &&Key| {
            namespace.is_none_or(|n| *n == *key.namespace) && name.is_none_or(|n| *n == *key.name)
        };
        let mut found: BTreeMap<Key, Arc<Value>> = BTreeMap::new();
        match self.persist.reader() {
            Ok(reader) => {
                for key in self.tables.keys(kind).filter(asked) {
                    match value(&reader, key) {
                        Ok(value) => drop(found.insert(key.clone(), Arc::new(value))),
                        Err(error) => {
                            tracing::error!("cannot read {key} from the state file: {error}");
                        }
                    }
                }
            }
            Err(error) => tracing::error!("cannot read the state file: {error}"),
        }
        if kind == Kind::EndpointSlice {
            let services = self.tables.keys(Kind::Service);
            for service in services.filter(|key| namespace.is_none_or(|n| *n == *key.namespace)) {
                for (slice, value) in self.unstored_slices(service) {
                    let key = Key::new(kind, &service.namespace, &slice);
                    if asked(&&key) {
                        found.entry(key).or_insert_with(|| Arc::new(value));
                    }
                }
            }
        }
        found.into_values().collect()
    }

    /// The `EndpointSlice`s of a Service that are made here, as JSON by name.
    pub fn unstored_slices(&self, service: &Key) -> BTreeMap<String, Value> {
        let Some(service) = self.tables.service(service) else { return BTreeMap::new() };
        let slices = endpoints::unstored(&self.tables, service, self.authority);
        render::slices(&self.tables, service, slices.iter().map(Cow::as_ref))
    }

    /// Whether this node is being deleted, as its Node object says.
    pub fn is_leaving(&self) -> bool {
        self.tables.node(&self.node.name).is_some_and(|node| node.leaving)
    }

    /// How many objects there are.
    pub fn counts(&self) -> ObjectCounts {
        ObjectCounts {
            services: self.tables.keys(Kind::Service).count(),
            pods: self.tables.keys(Kind::Pod).count(),
            endpoint_slices: self.tables.keys(Kind::EndpointSlice).count(),
        }
    }

    /// Whether something is not on disk yet.
    pub fn has_deferred(&self) -> bool {
        self.persist.has_deferred()
    }

    /// Puts everything on disk.
    pub fn flush(&mut self) {
        self.persist.flush_or_warn();
    }

    fn node(&self) -> NodeView {
        NodeView { zone: self.tables.zone(&self.node.name).cloned(), ..self.node.clone() }
    }
}

fn begin_anew(path: &Path) -> Result<(), OpenError> {
    let removed = std::fs::remove_file(path);
    removed.map_err(|source| OpenError::Io { path: path.to_owned(), source })
}

/// One copy of each origin while the store is read.
#[derive(Debug, Default)]
struct Origins(BTreeMap<Origin, Arc<Origin>>);

impl Origins {
    fn shared(&mut self, origin: Origin) -> Arc<Origin> {
        Arc::clone(self.0.entry(origin.clone()).or_insert_with(|| Arc::new(origin)))
    }
}

fn value(reader: &persist::Reader<'_>, key: &Key) -> Result<Value, String> {
    let body = reader.get(key)?.ok_or("it is not there")?;
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}

/// The addresses of a Pod, given in the form in which it is kept.
pub fn pod_addresses(body: &[u8]) -> Vec<IpAddr> {
    let pod: Result<Pod, _> = serde_json::from_slice(body);
    pod.ok().and_then(|pod| pod.status).map_or_else(Vec::new, |s| convert::pod_addresses(&s))
}

/// An object from the form in which it is kept.
fn decode(kind: Kind, body: &[u8]) -> Result<Object, serde_json::Error> {
    Ok(match kind {
        Kind::Service => Object::Service(serde_json::from_slice(body)?),
        Kind::Pod => Object::Pod(serde_json::from_slice(body)?),
        Kind::EndpointSlice => Object::EndpointSlice(serde_json::from_slice(body)?),
        Kind::Endpoints => Object::Endpoints(serde_json::from_slice(body)?),
        Kind::Node => Object::Node(serde_json::from_slice(body)?),
    })
}

/// The form in which an object is kept: JSON as Kubernetes writes it.
fn encode(object: &Object) -> Vec<u8> {
    let encoded = match object {
        Object::Service(object) => serde_json::to_vec(object),
        Object::Pod(object) => serde_json::to_vec(object),
        Object::EndpointSlice(object) => serde_json::to_vec(object),
        Object::Endpoints(object) => serde_json::to_vec(object),
        Object::Node(object) => serde_json::to_vec(object),
    };
    encoded.expect("k8s-openapi objects have string keys and finite numbers only")
}
