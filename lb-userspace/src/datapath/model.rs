//! The maps as ordinary collections, watched: after every single write, every reader – also one
//! that began before it – must find a legal state.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use lb_common::abi::{
    Address, Backend, FrontendEntry, FrontendKey, FrontendKind, Life, List, Policy, RangeKey, Run,
    Service,
};
use lb_common::path::Tables as _;
use lb_common::sim::Tables;

use super::maps::{Capacity, Maps};
use super::ranges::SourceRange;
use super::set::Endpoint;

mod spread;

use spread::Spread;

/// The endpoints that a connection to a frontend may reach.
pub(super) type Allowed = BTreeMap<FrontendKey, BTreeSet<Endpoint>>;

/// What may become of clients: each by a frontend, let in or not.
pub(super) type Judgements = BTreeSet<(FrontendKey, Address, bool)>;

/// Maps that check themselves.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) tables: Tables,
    /// `SOURCE_RANGES`.
    pub(super) ranges: BTreeSet<(u32, SourceRange)>,
    /// `MAGLEV`.
    pub(super) spread: Spread,
    pub(super) capacity: Capacity,
    /// Endpoints that were in a frontend's set at some moment since the last grace period.
    pub(super) allowed: Allowed,
    /// Endpoints that are in a frontend's set before or after the present batch.
    pub(super) announced: Allowed,
    /// Endpoints that were in either list of a frontend's service at some moment since the last grace
    /// period: what a program may reach that has loaded an older policy.
    pub(super) listed: Allowed,
    /// The same before or after the present batch.
    pub(super) announced_listed: Allowed,
    /// What was right for a client at some moment since the last grace period.
    pub(super) just: Judgements,
    /// What is right for a client before or after the present batch.
    pub(super) announced_just: Judgements,
    /// Frontends that have endpoints before and after the present batch: never absent or empty.
    pub(super) steady: BTreeSet<FrontendKey>,
    /// Entries that a program may have found, and not loaded the run of.
    finders: BTreeSet<(FrontendKey, FrontendEntry)>,
    /// Policies that a program may have loaded, by the service and what the frontend is.
    judges: BTreeSet<(FrontendKey, FrontendEntry, Policy)>,
    /// Runs that a program may have loaded and not finished with.
    readers: BTreeSet<(FrontendKey, Run)>,
    /// Writes so far.
    pub(super) writes: usize,
    /// The write at which the agent dies: nothing is written from then on.
    pub(super) crash_at: Option<usize>,
    /// The system call that fails, counted from now.
    pub(super) fail_at: Option<usize>,
    /// Grace periods so far.
    pub(super) graces: usize,
}

impl Model {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self {
            tables: Tables::default(),
            ranges: BTreeSet::new(),
            spread: Spread::default(),
            capacity,
            allowed: Allowed::new(),
            announced: Allowed::new(),
            listed: Allowed::new(),
            announced_listed: Allowed::new(),
            just: Judgements::new(),
            announced_just: Judgements::new(),
            steady: BTreeSet::new(),
            finders: BTreeSet::new(),
            judges: BTreeSet::new(),
            readers: BTreeSet::new(),
            writes: 0,
            crash_at: None,
            fail_at: None,
            graces: 0,
        }
    }

    /// The agent is dead: its writes no longer arrive.
    fn crashed(&self) -> bool {
        self.crash_at.is_some_and(|at| self.writes >= at)
    }

    /// Makes one write and looks at what every reader would find.
    fn write(&mut self, write: impl FnOnce(&mut Self)) {
        if self.crashed() {
            return;
        }
        write(self);
        self.writes += 1;
        self.check();
    }

    fn call(&mut self, write: impl FnOnce(&mut Self)) -> io::Result<()> {
        if let Some(left) = self.fail_at.as_mut() {
            if *left == 0 {
                self.fail_at = None;
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            *left -= 1;
        }
        self.write(write);
        Ok(())
    }

    fn check(&mut self) {
        for key in &self.steady {
            assert!(self.tables.frontends.contains_key(key), "{key:?} is not served");
        }
        let ports = self.tables.frontends.iter().filter(|(_, e)| e.kind().is_port());
        for (key, entry) in ports {
            let run = self.run(*entry);
            assert!(run.count > 0 || !self.steady.contains(key), "{key:?} has an empty set");
            self.finders.insert((*key, *entry));
        }
        let runs = self.finders.iter().map(|(key, entry)| (*key, self.run(*entry)));
        self.readers.extend(runs.collect::<Vec<_>>());
        for (key, run) in &self.readers {
            for slot in run.slots() {
                let id = self.tables.slot(slot).unwrap_or_else(|| panic!("{key:?}: slot {slot}"));
                let backend = self.tables.backend(id).unwrap_or_else(|| panic!("{key:?}: {id}"));
                let endpoint = (backend.address, backend.port);
                let allowed = self.allowed.get(key).is_some_and(|set| set.contains(&endpoint));
                assert!(allowed, "{key:?} leads to {endpoint:?} by slot {slot} of {run:?}");
            }
        }
        self.check_judges();
    }

    /// Whoever has loaded a policy asks the ranges and the tables at any time after it.
    fn check_judges(&mut self) {
        let policies = self.finders.iter().map(|(key, entry)| {
            let policy = self.tables.policy(entry.service()).expect("the service exists");
            (*key, *entry, policy)
        });
        self.judges.extend(policies.collect::<Vec<_>>());
        for (key, entry, policy) in &self.judges {
            let list = self.list(*entry, *policy);
            for endpoint in self.spread_to(entry.service(), list, policy.maglev) {
                let is_current = self.tables.policy(entry.service()) == Some(*policy);
                let allowed = if is_current { &self.allowed } else { &self.listed };
                let allowed = allowed.get(key).is_some_and(|set| set.contains(&endpoint));
                assert!(allowed, "{key:?} leads to {endpoint:?} by table {}", policy.maglev);
            }
            if entry.kind() != FrontendKind::LoadBalancer {
                continue;
            }
            let known = self.just.range((*key, Address::UNSPECIFIED, false)..);
            for &(_, source, _) in known.take_while(|(other, ..)| other == key) {
                let comes_in = !policy.restricted || self.is_in_range(entry.service(), source);
                // A service that is gone serves nobody, whatever its ranges were.
                let is_gone = !comes_in && self.run(*entry).count == 0;
                let just = is_gone || self.just.contains(&(*key, source, comes_in));
                assert!(just, "{key:?}: {source:?} is let in: {comes_in}");
            }
        }
    }

    /// What a program takes from a table: backends that it names, of this service and still in the
    /// list. Where one is not, the run counts.
    fn spread_to(&self, service: u32, list: List, maglev: u32) -> Vec<Endpoint> {
        let named = maglev.checked_sub(1).into_iter().flat_map(|table| self.spread.named(table));
        let backends = named.filter_map(|id| self.tables.backend(id));
        let found = backends.filter(|b| b.service == service && b.life().is_in(list));
        found.map(|backend| (backend.address, backend.port)).collect()
    }

    /// As the trie finds the longest prefix.
    pub(super) fn is_in_range(&self, service: u32, source: Address) -> bool {
        let source = u128::from_be_bytes(source.bytes());
        self.ranges.iter().filter(|(index, _)| *index == service).any(|(_, range)| {
            let bits = range.prefix - RangeKey::prefix(0);
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            source & mask == u128::from_be_bytes(range.address.bytes())
        })
    }

    /// The run for clients on this node, by the policy of this moment.
    fn run(&self, entry: FrontendEntry) -> Run {
        let policy = self.tables.policy(entry.service()).expect("the service exists");
        self.tables.run(entry.service(), self.list(entry, policy)).expect("the service exists")
    }

    /// The list for clients on this node.
    fn list(&self, entry: FrontendEntry, policy: Policy) -> List {
        let cluster_ip = entry.kind() == FrontendKind::ClusterIp;
        if policy.internal_local && cluster_ip { List::Local } else { List::Cluster }
    }

    /// What a connection to each frontend can reach at present.
    pub(super) fn served(&self) -> Allowed {
        let ports = self.tables.frontends.iter().filter(|(_, e)| e.kind().is_port());
        ports
            .map(|(key, entry)| {
                let run = self.run(*entry);
                let endpoint = |slot| {
                    let id = self.tables.slot(slot).expect("checked after every write");
                    let backend = self.tables.backend(id).expect("checked after every write");
                    assert!(backend.life().is_in_any(), "{key:?}: {backend:?} is not selected");
                    (backend.address, backend.port)
                };
                (*key, run.slots().map(endpoint).collect())
            })
            .collect()
    }
}

impl Maps for Model {
    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn store_slot(&mut self, slot: u32, backend: u32) {
        assert!(slot < self.capacity.slots && backend < self.capacity.backends);
        self.write(|model| model.tables.runs.extend([(slot, backend)]));
    }

    fn store_backend(&mut self, id: u32, backend: Backend) {
        self.write(|model| model.tables.backends.extend([(id, backend)]));
    }

    fn store_life(&mut self, id: u32, life: Life) {
        self.write(|model| {
            model.tables.backends.entry(id).or_insert(Backend::NONE).life = life.to_word();
        });
    }

    fn store_run(&mut self, service: u32, list: List, run: Run) {
        self.write(|model| {
            let entry = model.tables.services.entry(service).or_default();
            match list {
                List::Cluster => entry.cluster = run.to_word(),
                List::Local => entry.local = run.to_word(),
            }
        });
    }

    fn store_policy(&mut self, service: u32, policy: Policy) {
        self.write(|model| {
            model.tables.services.entry(service).or_default().policy = policy.to_word();
        });
    }

    fn store_entry(&mut self, table: u32, slot: u32, backend: u32) {
        assert!(table < self.capacity.tables && slot < self.capacity.table_size);
        if self.crashed() {
            return;
        }
        // Whoever looks at any slot finds what was looked at, unless the slots name others now.
        if self.spread.store((table, slot), self.capacity.table_size, backend) {
            self.write(|_| {});
        }
    }

    fn put_range(&mut self, service: u32, range: &SourceRange) -> io::Result<()> {
        self.call(|model| {
            model.ranges.insert((service, *range));
        })?;
        assert!(self.ranges.len() <= self.capacity.ranges as usize);
        Ok(())
    }

    fn delete_range(&mut self, service: u32, range: &SourceRange) -> io::Result<()> {
        self.call(|model| {
            model.ranges.remove(&(service, *range));
        })
    }

    fn put_frontend(&mut self, key: &FrontendKey, entry: FrontendEntry) -> io::Result<()> {
        self.call(|model| model.tables.frontends.extend([(*key, entry)]))
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> io::Result<()> {
        self.call(|model| model.tables.frontends.retain(|other, _| other != key))
    }

    fn grace(&mut self) -> io::Result<()> {
        self.call(|_| {})?;
        // The dead wait for nobody: who reads goes on from what it has read.
        if self.crashed() {
            return Ok(());
        }
        self.graces += 1;
        // Programs that run now have begun after the last write.
        self.finders.clear();
        self.judges.clear();
        self.readers.clear();
        self.allowed = self.announced.clone();
        self.listed = self.announced_listed.clone();
        self.just = self.announced_just.clone();
        // Those that begin now may be about to ask what the writes to come change.
        self.check();
        Ok(())
    }

    fn revise(&mut self) {
        if !self.crashed() {
            self.tables.node.revision += 1;
        }
    }

    fn frontends(&self) -> io::Result<Vec<(FrontendKey, FrontendEntry)>> {
        Ok(self.tables.frontends.iter().map(|(key, entry)| (*key, *entry)).collect())
    }

    fn service(&self, index: u32) -> Service {
        self.tables.services.get(&index).copied().unwrap_or_default()
    }

    fn slot(&self, slot: u32) -> u32 {
        self.tables.slot(slot).unwrap_or_default()
    }

    fn backend(&self, id: u32) -> Backend {
        self.tables.backend(id).unwrap_or(Backend::NONE)
    }

    fn entry(&self, table: u32, slot: u32) -> u32 {
        self.spread.entry((table, slot))
    }

    fn ranges(&self) -> io::Result<Vec<(u32, SourceRange)>> {
        Ok(self.ranges.iter().copied().collect())
    }
}
