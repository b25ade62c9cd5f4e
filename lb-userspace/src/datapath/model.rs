//! The maps as ordinary collections, watched: after every single write, every reader – also one
//! that began before it – must find a legal state.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use lb_common::abi::{
    Backend, FrontendEntry, FrontendKey, FrontendKind, Life, List, Policy, Run, Service,
};
use lb_common::path::Tables as _;
use lb_common::sim::Tables;

use super::maps::{Capacity, Maps};
use super::set::Endpoint;

/// The endpoints that a connection to a frontend may reach.
pub(super) type Allowed = BTreeMap<FrontendKey, BTreeSet<Endpoint>>;

/// Maps that check themselves.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) tables: Tables,
    pub(super) capacity: Capacity,
    /// Endpoints that were in a frontend's set at some moment since the last grace period.
    pub(super) allowed: Allowed,
    /// Endpoints that are in a frontend's set before or after the present batch.
    pub(super) announced: Allowed,
    /// Frontends that have endpoints before and after the present batch: never absent or empty.
    pub(super) steady: BTreeSet<FrontendKey>,
    /// Entries that a program may have found, and not loaded the run of.
    finders: BTreeSet<(FrontendKey, FrontendEntry)>,
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
            capacity,
            allowed: Allowed::new(),
            announced: Allowed::new(),
            steady: BTreeSet::new(),
            finders: BTreeSet::new(),
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
    fn write(&mut self, write: impl FnOnce(&mut Tables)) {
        if self.crashed() {
            return;
        }
        write(&mut self.tables);
        self.writes += 1;
        self.check();
    }

    fn call(&mut self, write: impl FnOnce(&mut Tables)) -> io::Result<()> {
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
    }

    /// The run for clients on this node, by the policy of this moment.
    fn run(&self, entry: FrontendEntry) -> Run {
        let policy = self.tables.policy(entry.service()).expect("the service exists");
        let cluster_ip = entry.kind() == FrontendKind::ClusterIp;
        let local = policy.internal_local && cluster_ip;
        let list = if local { List::Local } else { List::Cluster };
        self.tables.run(entry.service(), list).expect("the service exists")
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
        self.write(|tables| tables.runs.extend([(slot, backend)]));
    }

    fn store_backend(&mut self, id: u32, backend: Backend) {
        self.write(|tables| tables.backends.extend([(id, backend)]));
    }

    fn store_life(&mut self, id: u32, life: Life) {
        self.write(|tables| {
            tables.backends.entry(id).or_insert(Backend::NONE).life = life.to_word();
        });
    }

    fn store_run(&mut self, service: u32, list: List, run: Run) {
        self.write(|tables| {
            let entry = tables.services.entry(service).or_default();
            match list {
                List::Cluster => entry.cluster = run.to_word(),
                List::Local => entry.local = run.to_word(),
            }
        });
    }

    fn store_policy(&mut self, service: u32, policy: Policy) {
        self.write(|tables| {
            tables.services.entry(service).or_default().policy = policy.to_word();
        });
    }

    fn put_frontend(&mut self, key: &FrontendKey, entry: FrontendEntry) -> io::Result<()> {
        self.call(|tables| tables.frontends.extend([(*key, entry)]))
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> io::Result<()> {
        self.call(|tables| tables.frontends.retain(|other, _| other != key))
    }

    fn grace(&mut self) -> io::Result<()> {
        self.call(|_| {})?;
        self.graces += 1;
        // Programs that run now have begun after the last write.
        self.finders.clear();
        self.readers.clear();
        self.allowed = self.announced.clone();
        Ok(())
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
}
