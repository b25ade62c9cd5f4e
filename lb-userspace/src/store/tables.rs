//! Every object's model in memory, and the indexes that lead from one change to the few Services it
//! concerns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::intern::Labels;
use super::model::{Model, Node, Pod, Service, Slice};
use crate::api::types::Origin;
use crate::object::{Key, Kind};

type Names = BTreeSet<Arc<str>>;

/// One label pair in one namespace.
type Pair = (Arc<str>, Arc<str>, Arc<str>);

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Who brought it.
    pub(super) origin: Arc<Origin>,
    /// What endpoints are chosen by.
    pub(super) model: Model,
}

/// All objects.
#[derive(Debug, Default)]
pub(super) struct Tables {
    objects: BTreeMap<Key, Entry>,
    by_file: BTreeMap<PathBuf, BTreeSet<Key>>,
    /// Services by *one* pair of their selector: a pod that lacks it cannot match.
    selectors: BTreeMap<Pair, Names>,
    /// Under which pair each Service stands in `selectors`.
    selected_by: BTreeMap<Key, Pair>,
    /// Pods by each of their labels.
    labels: BTreeMap<Pair, Names>,
    /// (namespace, Service) → its stored slices.
    slices: BTreeMap<(Arc<str>, Arc<str>), Names>,
    /// Services with a NodePort.
    node_ports: BTreeSet<Key>,
}

impl Tables {
    /// Tables of many objects, in the order of their keys. Built at once: a B-tree that is filled in
    /// the order of its keys one by one leaves every node half empty.
    pub(super) fn load(entries: Vec<(Key, Entry)>) -> Self {
        let mut tables = Self::default();
        let mut by_file: BTreeMap<PathBuf, Vec<Key>> = BTreeMap::new();
        for (key, entry) in &entries {
            tables.index(key, &entry.model);
            if let Origin::File(path) = entry.origin.as_ref() {
                match by_file.get_mut(path) {
                    Some(keys) => keys.push(key.clone()),
                    None => drop(by_file.insert(path.clone(), vec![key.clone()])),
                }
            }
        }
        tables.by_file =
            by_file.into_iter().map(|(path, keys)| (path, keys.into_iter().collect())).collect();
        tables.objects = entries.into_iter().collect();
        tables
    }

    /// The object's entry.
    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.objects.get(key)
    }

    /// Stores (`Some`) or removes (`None`) an object and adds the Services concerned, before or after,
    /// to `affected`.
    pub(super) fn put(&mut self, key: &Key, entry: Option<Entry>, affected: &mut BTreeSet<Key>) {
        let same = |old: &Entry| entry.as_ref().is_some_and(|new| new.model == old.model);
        let unchanged = self.objects.get(key).is_some_and(same);
        if let Some(old) = self.objects.remove(key) {
            if !unchanged {
                self.concerned(key, &old.model, affected);
            }
            self.unindex(key, &old);
        }
        if let Some(new) = entry {
            self.index_file(key, &new);
            self.index(key, &new.model);
            if !unchanged {
                self.concerned(key, &new.model, affected);
            }
            self.objects.insert(key.clone(), new);
        }
    }

    /// Keys of one kind, by namespace and name.
    pub(super) fn keys(&self, kind: Kind) -> impl Iterator<Item = &Key> {
        self.range(kind).map(|(key, _)| key)
    }

    /// One Service.
    pub(super) fn service(&self, key: &Key) -> Option<&Arc<Service>> {
        self.get(key).and_then(|entry| service(&entry.model))
    }

    /// Every Service with a NodePort.
    pub(super) fn with_node_ports(&self) -> impl Iterator<Item = &Key> {
        self.node_ports.iter()
    }

    /// What a file brought.
    pub(super) fn of_file(&self, file: &Path) -> impl Iterator<Item = &Key> {
        self.by_file.get(file).into_iter().flatten()
    }

    /// Every file that brought something.
    pub(super) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.by_file.keys()
    }

    /// The pods of `namespace` that a selector matches, by name.
    pub(super) fn pods<'t>(
        &'t self,
        namespace: &Arc<str>,
        selector: &'t Labels,
    ) -> impl Iterator<Item = (&'t Arc<str>, &'t Pod)> {
        let sets =
            selector.iter().map(|(key, value)| self.labels.get(&pair(namespace, key, value)));
        // The rarest label leads to the fewest pods; a label that no pod has, to none.
        let fewest = sets.min_by_key(|names| names.map_or(0, BTreeSet::len)).flatten();
        let namespace = Arc::clone(namespace);
        fewest.into_iter().flatten().filter_map(move |name| {
            let key =
                Key { kind: Kind::Pod, namespace: Arc::clone(&namespace), name: Arc::clone(name) };
            match &self.objects.get(&key)?.model {
                Model::Pod(pod) if matches(selector, &pod.labels) => Some((name, &**pod)),
                Model::Pod(_)
                | Model::Service(_)
                | Model::EndpointSlice(_)
                | Model::Endpoints(_)
                | Model::Node(_) => None,
            }
        })
    }

    /// Every pod.
    pub(super) fn all_pods(&self) -> impl Iterator<Item = &Pod> {
        self.range(Kind::Pod).filter_map(|(_, entry)| match &entry.model {
            Model::Pod(pod) => Some(&**pod),
            Model::Service(_) | Model::EndpointSlice(_) | Model::Endpoints(_) | Model::Node(_) => {
                None
            }
        })
    }

    /// The stored slices that name a Service, by name.
    pub(super) fn slices(&self, service: &Key) -> impl Iterator<Item = &Slice> {
        let names = self.slices.get(&(Arc::clone(&service.namespace), Arc::clone(&service.name)));
        names.into_iter().flatten().filter_map(|name| {
            let key = Key {
                kind: Kind::EndpointSlice,
                namespace: Arc::clone(&service.namespace),
                name: Arc::clone(name),
            };
            match &self.objects.get(&key)?.model {
                Model::EndpointSlice(slice) => Some(&**slice),
                Model::Service(_) | Model::Pod(_) | Model::Endpoints(_) | Model::Node(_) => None,
            }
        })
    }

    /// The Endpoints object of a Service, as slices.
    pub(super) fn endpoints(&self, service: &Key) -> &[Slice] {
        let key = Key { kind: Kind::Endpoints, ..service.clone() };
        match self.get(&key).map(|entry| &entry.model) {
            Some(Model::Endpoints(slices)) => slices,
            Some(Model::Service(_) | Model::Pod(_) | Model::EndpointSlice(_) | Model::Node(_))
            | None => &[],
        }
    }

    /// The zone of a node.
    pub(super) fn zone(&self, node: &Arc<str>) -> Option<&Arc<str>> {
        self.node(node)?.zone.as_ref()
    }

    /// A Node.
    pub(super) fn node(&self, name: &Arc<str>) -> Option<&Node> {
        let key = Key { kind: Kind::Node, namespace: "".into(), name: Arc::clone(name) };
        match &self.get(&key)?.model {
            Model::Node(node) => Some(node),
            Model::Service(_) | Model::Pod(_) | Model::EndpointSlice(_) | Model::Endpoints(_) => {
                None
            }
        }
    }

    fn range(&self, kind: Kind) -> impl Iterator<Item = (&Key, &Entry)> {
        self.objects.range(Key::new(kind, "", "")..).take_while(move |(key, _)| key.kind == kind)
    }

    /// The Services that look at an object.
    fn concerned(&self, key: &Key, model: &Model, affected: &mut BTreeSet<Key>) {
        let service = |name: &Arc<str>| Key {
            kind: Kind::Service,
            namespace: Arc::clone(&key.namespace),
            name: Arc::clone(name),
        };
        match model {
            Model::Service(_) => {
                affected.insert(key.clone());
            }
            Model::Pod(pod) => affected.extend(self.selecting(key, pod)),
            Model::EndpointSlice(slice) => affected.extend(slice.service.iter().map(service)),
            Model::Endpoints(_) => {
                affected.insert(service(&key.name));
            }
            // A node's zone decides on topology everywhere. Nodes hardly ever change it.
            Model::Node(_) => affected.extend(self.keys(Kind::Service).cloned()),
        }
    }

    /// The Services whose selector matches a pod.
    fn selecting(&self, key: &Key, pod: &Pod) -> impl Iterator<Item = Key> {
        let candidates = pod
            .labels
            .iter()
            .filter_map(|(label, value)| self.selectors.get(&pair(&key.namespace, label, value)));
        let namespace = &key.namespace;
        candidates.flatten().filter_map(move |name| {
            let key = Key {
                kind: Kind::Service,
                namespace: Arc::clone(namespace),
                name: Arc::clone(name),
            };
            let selector = self.service(&key)?.selector.as_ref()?;
            matches(selector, &pod.labels).then_some(key)
        })
    }

    fn index_file(&mut self, key: &Key, entry: &Entry) {
        if let Origin::File(path) = entry.origin.as_ref() {
            // Most files hold several objects: look before a path is copied.
            match self.by_file.get_mut(path) {
                Some(keys) => {
                    keys.insert(key.clone());
                }
                None => {
                    self.by_file.insert(path.clone(), BTreeSet::from([key.clone()]));
                }
            }
        }
    }

    fn index(&mut self, key: &Key, model: &Model) {
        let name = &key.name;
        match model {
            Model::Service(service) => {
                self.index_selector(key, service);
                if service.ports.iter().any(|port| port.node_port.is_some()) {
                    self.node_ports.insert(key.clone());
                }
            }
            Model::Pod(pod) => {
                for (label, value) in pod.labels.iter() {
                    insert(&mut self.labels, pair(&key.namespace, label, value), name);
                }
            }
            Model::EndpointSlice(slice) => {
                if let Some(service) = &slice.service {
                    insert(
                        &mut self.slices,
                        (Arc::clone(&key.namespace), Arc::clone(service)),
                        name,
                    );
                }
            }
            Model::Endpoints(_) | Model::Node(_) => {}
        }
    }

    /// A Service stands under the pair of its selector that the fewest others stand under, so that a
    /// label that everything carries does not make every pod look at every Service.
    fn index_selector(&mut self, key: &Key, service: &Service) {
        let pairs = service.selector.iter().flat_map(|selector| selector.iter());
        let rarest = pairs
            .map(|(label, value)| pair(&key.namespace, label, value))
            .min_by_key(|pair| self.selectors.get(pair).map_or(0, BTreeSet::len));
        if let Some(pair) = rarest {
            insert(&mut self.selectors, pair.clone(), &key.name);
            self.selected_by.insert(key.clone(), pair);
        }
    }

    fn unindex(&mut self, key: &Key, entry: &Entry) {
        if let Origin::File(path) = entry.origin.as_ref()
            && let Some(keys) = self.by_file.get_mut(path)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.by_file.remove(path);
            }
        }
        match &entry.model {
            Model::Service(_) => {
                if let Some(pair) = self.selected_by.remove(key) {
                    remove(&mut self.selectors, &pair, &key.name);
                }
                self.node_ports.remove(key);
            }
            Model::Pod(pod) => {
                for (label, value) in pod.labels.iter() {
                    remove(&mut self.labels, &pair(&key.namespace, label, value), &key.name);
                }
            }
            Model::EndpointSlice(slice) => {
                if let Some(service) = &slice.service {
                    let at = (Arc::clone(&key.namespace), Arc::clone(service));
                    remove(&mut self.slices, &at, &key.name);
                }
            }
            Model::Endpoints(_) | Model::Node(_) => {}
        }
    }
}

/// Whether labels have every pair of a selector. Both are sorted.
fn matches(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|pair| labels.binary_search(pair).is_ok())
}

fn service(model: &Model) -> Option<&Arc<Service>> {
    match model {
        Model::Service(service) => Some(service),
        Model::Pod(_) | Model::EndpointSlice(_) | Model::Endpoints(_) | Model::Node(_) => None,
    }
}

fn pair(namespace: &Arc<str>, key: &Arc<str>, value: &Arc<str>) -> Pair {
    (Arc::clone(namespace), Arc::clone(key), Arc::clone(value))
}

fn insert<K: Ord>(index: &mut BTreeMap<K, Names>, at: K, name: &Arc<str>) {
    index.entry(at).or_default().insert(Arc::clone(name));
}

fn remove<K: Ord>(index: &mut BTreeMap<K, Names>, at: &K, name: &Arc<str>) {
    if let Some(names) = index.get_mut(at) {
        names.remove(name);
        if names.is_empty() {
            index.remove(at);
        }
    }
}
