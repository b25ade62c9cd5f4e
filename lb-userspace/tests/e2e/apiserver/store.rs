//! The objects, their versions, and what has changed.
//!
//! As in etcd, one counter gives every change of any object its version.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use jiff::{Timestamp, Unit};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::resource::Resource;
use super::selector::Selector;

/// Namespace and name. What belongs to no namespace has an empty one.
pub(super) type Key = (String, String);

/// An object as of one version.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) value: Value,
    pub(super) version: u64,
    /// The whole object, as watches and reads of it show it.
    pub(super) json: Bytes,
    /// Without kind and apiVersion, as lists show it: Go knows the type of a list's items.
    pub(super) item: Bytes,
}

impl Object {
    fn new(value: Value, version: u64) -> Arc<Self> {
        let bytes = |value: &Value| serde_json::to_vec(value).expect("JSON can be written").into();
        let mut bare = value.clone();
        if let Some(fields) = bare.as_object_mut() {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        Arc::new(Self { version, json: bytes(&value), item: bytes(&bare), value })
    }

    /// As of its deletion: what it was, with the deletion's version.
    fn deleted(&self, version: u64) -> Bytes {
        let mut value = self.value.clone();
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        serde_json::to_vec(&value).expect("JSON can be written").into()
    }
}

/// One object's way from one version to the next.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    resource: Resource,
    key: Key,
    before: Option<Arc<Object>>,
    after: Option<Arc<Object>>,
}

impl Change {
    /// The event for those who watch what is selected. What leaves the selection is as good as
    /// deleted, what enters it as good as added.
    pub(super) fn event(
        &self,
        resource: Resource,
        selector: &Selector,
    ) -> Option<(&'static str, Bytes)> {
        if self.resource != resource {
            return None;
        }
        let selected = |object: &Option<Arc<Object>>| {
            object.as_ref().filter(|object| selector.matches(resource, &object.value)).cloned()
        };
        match (selected(&self.before), selected(&self.after)) {
            (None, None) => None,
            (None, Some(after)) => Some(("ADDED", after.json.clone())),
            (Some(_), Some(after)) => Some(("MODIFIED", after.json.clone())),
            (Some(before), None) => Some(("DELETED", before.deleted(self.version))),
        }
    }
}

/// What was asked for lies before the oldest change that is known.
#[derive(Debug)]
pub(super) struct Compacted;

/// All objects of all resources.
pub(super) struct Store {
    objects: BTreeMap<Resource, BTreeMap<Key, Arc<Object>>>,
    pub(super) version: u64,
    /// Every change after `compacted`.
    history: Vec<Change>,
    pub(super) compacted: u64,
}

impl Store {
    /// Nothing yet. The first versions of a cluster are spent on its own objects.
    pub(super) const fn new() -> Self {
        Self { objects: BTreeMap::new(), version: 1000, history: Vec::new(), compacted: 0 }
    }

    pub(super) fn get(&self, resource: Resource, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(&resource)?.get(key)
    }

    /// Creates or replaces an object; one that is already so keeps its version.
    #[track_caller]
    pub(super) fn set(&mut self, mut value: Value) {
        let resource = Resource::of(&value);
        let key = complete(resource, &mut value);
        let before = self.get(resource, &key).cloned();
        let metadata = value["metadata"].as_object_mut().expect("completed");
        metadata.remove("resourceVersion");
        match &before {
            Some(before) => {
                for (field, its) in kept(&before.value) {
                    metadata.insert(field.to_owned(), its);
                }
                metadata.insert("resourceVersion".to_owned(), json!(before.version.to_string()));
                if value == before.value {
                    return;
                }
            }
            None => {
                metadata.insert("uid".to_owned(), json!(Uuid::new_v4().to_string()));
                metadata.insert("creationTimestamp".to_owned(), json!(now()));
            }
        }
        let version = self.version + 1;
        value["metadata"]["resourceVersion"] = json!(version.to_string());
        let after = Some(Object::new(value, version));
        self.change(Change { version, resource, key, before, after });
    }

    /// Takes an object away, if it is there.
    pub(super) fn delete(&mut self, resource: Resource, key: Key) -> bool {
        let before = self.get(resource, &key).cloned();
        let existed = before.is_some();
        if existed {
            let version = self.version + 1;
            self.change(Change { version, resource, key, before, after: None });
        }
        existed
    }

    fn change(&mut self, change: Change) {
        let (objects, key) = (self.objects.entry(change.resource).or_default(), change.key.clone());
        match &change.after {
            Some(after) => objects.insert(key, Arc::clone(after)),
            None => objects.remove(&key),
        };
        self.version = change.version;
        self.history.push(change);
    }

    /// The changes after a version, oldest first.
    pub(super) fn since(&self, version: u64) -> Result<&[Change], Compacted> {
        if version < self.compacted {
            return Err(Compacted);
        }
        let first = self.history.partition_point(|change| change.version <= version);
        Ok(&self.history[first..])
    }

    /// A resource's objects as they were at a version.
    pub(super) fn at(
        &self,
        resource: Resource,
        version: u64,
    ) -> Result<BTreeMap<Key, Arc<Object>>, Compacted> {
        let mut objects = self.objects.get(&resource).cloned().unwrap_or_default();
        let since = self.since(version)?.iter().rev();
        for change in since.filter(|change| change.resource == resource) {
            match &change.before {
                Some(before) => objects.insert(change.key.clone(), Arc::clone(before)),
                None => objects.remove(&change.key),
            };
        }
        Ok(objects)
    }

    /// A resource's objects as they are.
    pub(super) fn current(&self, resource: Resource) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.get(&resource).into_iter().flat_map(BTreeMap::values)
    }

    /// Forgets how everything came to be as it is.
    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }
}

/// Those of `objects` that follow `start`.
pub(super) fn after<'all>(
    objects: &'all BTreeMap<Key, Arc<Object>>,
    start: Option<&Key>,
) -> impl Iterator<Item = (&'all Key, &'all Arc<Object>)> + use<'all> {
    let from = start.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
    objects.range((from, Bound::Unbounded))
}

/// Gives an object the namespace that it may lack.
#[track_caller]
fn complete(resource: Resource, value: &mut Value) -> Key {
    let metadata = value["metadata"].as_object_mut().expect("an object has metadata");
    let text =
        |metadata: &Map<String, Value>, field| metadata.get(field)?.as_str().map(str::to_owned);
    let name = text(metadata, "name").expect("an object has a name");
    if !resource.is_namespaced() {
        return (String::new(), name);
    }
    let namespace = text(metadata, "namespace").unwrap_or_else(|| "default".to_owned());
    metadata.insert("namespace".to_owned(), json!(namespace));
    (namespace, name)
}

/// What an object keeps as long as it exists.
fn kept(before: &Value) -> [(&'static str, Value); 2] {
    ["uid", "creationTimestamp"].map(|field| (field, before["metadata"][field].clone()))
}

/// Kubernetes' times have whole seconds.
fn now() -> String {
    Timestamp::now().round(Unit::Second).expect("a time of today").to_string()
}
