//! One change of the store: any number of objects, each admitted or refused by itself, that become
//! durable and visible together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::allocate::Mark;
use super::error::{CommitError, Refusal};
use super::model::Model;
use super::persist::{Record, Write};
use super::tables::Entry;
use super::{Store, admit, decode, encode, retired};
use crate::api::types::{Origin, Verdict, WatchChange};
use crate::object::{Key, Object};

/// A change on its way. Dropped without [`Batch::commit`], it never happened.
#[derive(Debug)]
pub struct Batch<'s> {
    store: &'s mut Store,
    mark: Option<Mark>,
    staged: BTreeMap<Key, Staged>,
    /// Defined since [`Batch::section`].
    defined: BTreeSet<Key>,
    retiring: BTreeMap<Key, retired::Addresses>,
    version: u64,
    /// Something came by `lb apply`, which only the state file remembers.
    only_here: bool,
}

/// One object's state at the end of the batch.
#[derive(Debug)]
struct Staged {
    /// As it was before the batch.
    before: Option<Bytes>,
    after: Option<(Arc<Origin>, Bytes, Model)>,
}

/// What a batch did.
#[derive(Debug, Default)]
pub struct Committed {
    /// Services to be planned again, those that are gone among them.
    pub affected: BTreeSet<Key>,
    /// Changes of stored objects, by key.
    pub events: Vec<Event>,
}

/// One changed object.
#[derive(Debug)]
pub struct Event {
    /// Which.
    pub key: Key,
    /// How.
    pub change: WatchChange,
    /// As it is now; for a deletion as it was.
    pub body: Bytes,
}

/// An admitted object's [`Verdict`], and warnings.
pub type Admission = (Verdict, Vec<String>);

impl<'s> Batch<'s> {
    pub(super) fn new(store: &'s mut Store) -> Self {
        let mark = Some(store.pools.mark());
        let version = store.persist.version();
        Self {
            store,
            mark,
            staged: BTreeMap::new(),
            defined: BTreeSet::new(),
            retiring: BTreeMap::new(),
            version,
            only_here: false,
        }
    }

    /// Begins another file's or request's part of the batch: it may define again what an earlier
    /// part defined, if it has the same origin.
    pub fn section(&mut self) {
        self.defined.clear();
    }

    /// The store as it was before the batch.
    pub fn store(&self) -> &Store {
        self.store
    }

    /// Admits an object. What belongs to another origin is refused, unless `inherit` says that its
    /// owner has just given it up.
    pub fn submit(
        &mut self,
        origin: &Arc<Origin>,
        object: Object,
        inherit: bool,
    ) -> Result<Admission, Refusal> {
        let key = self.store.converter.key(&object.key());
        if self.defined.contains(&key) {
            return Err(Refusal::Duplicate { key, origin: origin.as_ref().clone() });
        }
        let current = self.current(&key)?;
        let owner = current.as_ref().map(|(owner, _)| Arc::clone(owner));
        if let Some(owner) = owner.as_deref().filter(|owner| *owner != origin.as_ref() && !inherit)
        {
            return Err(Refusal::Owned { key, owner: owner.clone() });
        }
        let body = current.map(|(_, body)| body);
        let old = body
            .as_ref()
            .map(|body| decode(key.kind, body).map_err(|e| unreadable(&e)))
            .transpose()?;
        let mut admitted = self.admit(&key, object, old.as_ref())?;
        self.defined.insert(key.clone());
        let unchanged = old.as_ref().is_some_and(|old| same(&admitted.object, old));
        if unchanged && owner.as_deref() == Some(origin.as_ref()) {
            return Ok((Verdict::Unchanged, admitted.warnings));
        }
        let applied = |owner: &Origin| *owner == Origin::Applied;
        self.only_here |= applied(origin) || owner.as_deref().is_some_and(applied);
        self.stage(key, body, origin, &mut admitted.object);
        let verdict = match (unchanged, old) {
            (true, _) => Verdict::Unchanged,
            (false, Some(_)) => Verdict::Configured,
            (false, None) => Verdict::Created,
        };
        Ok((verdict, admitted.warnings))
    }

    /// Takes an object as the Kubernetes API has it, without a question. False if it is known so.
    pub fn observe(&mut self, object: &Object) -> bool {
        let key = self.store.converter.key(&object.key());
        let before = self.known(&key);
        let body = Bytes::from(encode(object));
        if before.as_ref() == Some(&body) {
            return false;
        }
        let model = self.store.converter.model(&key, object);
        let after = Some((Arc::clone(&self.store.observed), body, model));
        self.staged(key, before).after = after;
        true
    }

    /// Forgets an object that the Kubernetes API has no more. False if there is none.
    pub fn forget(&mut self, key: &Key) -> bool {
        let staged = self.staged.get(key).map(|staged| staged.after.is_some());
        let exists = staged.unwrap_or_else(|| self.store.tables.get(key).is_some());
        if exists {
            let before = self.known(key);
            self.staged(key.clone(), before).after = None;
        }
        exists
    }

    /// The stored form of an object that can be had again elsewhere: unreadable, it is as good as new.
    fn known(&mut self, key: &Key) -> Option<Bytes> {
        let known = self.current(key).unwrap_or_else(|error| {
            tracing::error!("{key} in namespace {}: {error}", key.namespace);
            None
        });
        known.map(|(_, body)| body)
    }

    /// Deletes an object, whoever brought it. False if there is none.
    pub fn remove(&mut self, key: &Key) -> Result<bool, Refusal> {
        let Some((owner, body)) = self.current(key)? else { return Ok(false) };
        let object = decode(key.kind, &body).map_err(|e| unreadable(&e))?;
        admit::release(&object, &mut self.store.pools);
        if let Some(addresses) = retired::Addresses::of(&object) {
            self.retiring.insert(key.clone(), addresses);
        }
        self.only_here |= *owner == Origin::Applied;
        self.staged(key.clone(), Some(body)).after = None;
        Ok(true)
    }

    /// Makes the batch durable, as far as it is nowhere else, and then visible. On an error nothing
    /// happened.
    pub fn commit(mut self) -> Result<Committed, CommitError> {
        let writes: Vec<Write> =
            self.staged.iter().map(|(key, staged)| (key.clone(), staged.record())).collect();
        let store = &mut *self.store;
        if !writes.is_empty() {
            // An allocation must outlive a crash; a manifest file's object comes back with it.
            if self.only_here || self.mark != Some(store.pools.mark()) {
                store.persist.commit(&writes, self.version)?;
            } else {
                store.persist.defer(writes, self.version);
            }
        }
        self.mark = None;
        store.pools.commit();
        store.retired.add(std::mem::take(&mut self.retiring));
        let mut committed = Committed::default();
        for (key, staged) in std::mem::take(&mut self.staged) {
            committed.events.extend(staged.event(&key));
            let entry = staged.after.map(|(origin, _, model)| Entry { origin, model });
            store.tables.put(&key, entry, &mut committed.affected);
        }
        Ok(committed)
    }

    /// Runs admission; a Service that comes back soon after it went gets its addresses back, if
    /// they are still free: a file renamed, or deleted and written again.
    fn admit(
        &mut self,
        key: &Key,
        object: Object,
        old: Option<&Object>,
    ) -> Result<admit::Admitted, Refusal> {
        let pools = &mut self.store.pools;
        if old.is_none()
            && let Some(addresses) = self.retiring.get(key).or_else(|| self.store.retired.get(key))
            && let Some(returning) = addresses.given_to(&object, pools.default_family())
            && let Ok(admitted) = admit::admit(returning, None, pools)
        {
            return Ok(admitted);
        }
        admit::admit(object, old, pools).map_err(|invalid| Refusal::Invalid(invalid.to_string()))
    }

    fn stage(&mut self, key: Key, old: Option<Bytes>, origin: &Arc<Origin>, object: &mut Object) {
        self.version += 1;
        object.metadata_mut().resource_version = Some(self.version.to_string());
        let model = self.store.converter.model(&key, object);
        let body = Bytes::from(encode(object));
        self.staged(key, old).after = Some((Arc::clone(origin), body, model));
    }

    /// The object as it stands in the batch.
    fn current(&mut self, key: &Key) -> Result<Option<(Arc<Origin>, Bytes)>, Refusal> {
        if let Some(staged) = self.staged.get(key) {
            return Ok(staged
                .after
                .as_ref()
                .map(|(origin, body, _)| (Arc::clone(origin), body.clone())));
        }
        let Some(entry) = self.store.tables.get(key) else { return Ok(None) };
        let origin = Arc::clone(&entry.origin);
        let body = self.store.persist.reader().and_then(|reader| reader.get(key));
        let body = body.and_then(|body| body.ok_or_else(|| format!("{key} is not there")));
        let body = body.map_err(Refusal::Unreadable)?;
        Ok(Some((origin, body)))
    }

    /// The object's place in the batch; at the first time, `current` is as it was before.
    fn staged(&mut self, key: Key, current: Option<Bytes>) -> &mut Staged {
        self.staged.entry(key).or_insert(Staged { before: current, after: None })
    }
}

/// What was allocated is given back, unless the batch was committed.
impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.store.pools.undo(mark);
        }
    }
}

impl Staged {
    fn record(&self) -> Option<Record> {
        let (origin, body, _) = self.after.as_ref()?;
        Some(Record { origin: origin.as_ref().clone(), body: body.clone() })
    }

    fn event(&self, key: &Key) -> Option<Event> {
        let (change, body) = match (&self.before, &self.after) {
            (None, Some((_, body, _))) => (WatchChange::Added, body),
            (Some(_), Some((_, body, _))) => (WatchChange::Modified, body),
            (Some(before), None) => (WatchChange::Deleted, before),
            (None, None) => return None,
        };
        Some(Event { key: key.clone(), change, body: body.clone() })
    }
}

/// Whether an admitted object says what is stored already. It has no `resourceVersion` yet.
fn same(admitted: &Object, stored: &Object) -> bool {
    let mut stored = stored.clone();
    stored.metadata_mut().resource_version = None;
    stored.metadata_mut().managed_fields = None;
    *admitted == stored
}

fn unreadable(error: &serde_json::Error) -> Refusal {
    Refusal::Unreadable(error.to_string())
}
