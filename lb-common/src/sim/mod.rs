//! The tables and a socket's memory as ordinary collections: for tests, and for whatever wants to
//! ask on the host what the kernel would do.

pub mod cases;
pub mod flows;
pub mod packet;
pub mod world;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use crate::abi::{
    Affinity, AffinityKey, Backend, Cidr, Flow, FlowKey, FragmentKey, FragmentPorts, FrontendEntry,
    FrontendKey, FrontendKind, List, Node, Peer, Peers, Policy, Run, Service,
};
use crate::path;

/// The shared tables.
#[derive(Clone, Debug)]
pub struct Tables {
    /// `FRONTENDS`.
    pub frontends: BTreeMap<FrontendKey, FrontendEntry>,
    /// `SERVICES`.
    pub services: BTreeMap<u32, Service>,
    /// `RUNS`.
    pub runs: BTreeMap<u32, u32>,
    /// `BACKENDS`.
    pub backends: BTreeMap<u32, Backend>,
    /// `NODE`.
    pub node: Node,
    /// `AFFINITY`.
    pub affinity: RefCell<BTreeMap<AffinityKey, Affinity>>,
    /// Whether `AFFINITY` has room for another client.
    pub affinity_room: bool,
    /// Nanoseconds since boot.
    pub clock: Cell<u64>,
    /// The state of the generator of random numbers.
    pub seed: Cell<u32>,
    /// Random numbers that come before those of the generator.
    pub script: RefCell<VecDeque<u32>>,
    /// `FLOWS`.
    pub flows: RefCell<BTreeMap<FlowKey, Flow>>,
    /// How many entries `FLOWS` can have.
    pub flow_capacity: usize,
    /// `FRAGMENTS`.
    pub fragments: RefCell<BTreeMap<FragmentKey, FragmentPorts>>,
    /// `MAGLEV`, by table.
    pub maglev: BTreeMap<u32, Vec<u32>>,
    /// `SOURCE_RANGES`: a service's.
    pub source_ranges: Vec<(u32, Cidr)>,
    /// How often the agent was told that `FLOWS` is full.
    pub refused_flows: Cell<u32>,
    /// How often it was told that no port is left.
    pub missing_ports: Cell<u32>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            services: BTreeMap::new(),
            runs: BTreeMap::new(),
            backends: BTreeMap::new(),
            node: Node::NONE,
            affinity: RefCell::default(),
            affinity_room: true,
            clock: Cell::new(1),
            seed: Cell::new(1),
            script: RefCell::default(),
            flows: RefCell::default(),
            flow_capacity: usize::MAX,
            fragments: RefCell::default(),
            maglev: BTreeMap::new(),
            source_ranges: Vec::new(),
            refused_flows: Cell::new(0),
            missing_ports: Cell::new(0),
        }
    }
}

impl Tables {
    /// Adds a frontend.
    pub fn put(&mut self, key: FrontendKey, kind: FrontendKind, service: u32) {
        self.frontends.insert(key, FrontendEntry::new(&key, kind, service));
    }
}

impl path::Tables for Tables {
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendEntry> {
        self.frontends.get(key).copied()
    }

    fn policy(&self, service: u32) -> Option<Policy> {
        self.services.get(&service).map(|service| Policy::from_word(service.policy))
    }

    fn run(&self, service: u32, list: List) -> Option<Run> {
        self.services.get(&service).map(|service| match list {
            List::Cluster => Run::from_word(service.cluster),
            List::Local => Run::from_word(service.local),
        })
    }

    fn slot(&self, slot: u32) -> Option<u32> {
        self.runs.get(&slot).copied()
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.get(&id).copied()
    }

    fn node(&self) -> Option<&Node> {
        Some(&self.node)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<impl path::Sticky> {
        let key = *key;
        self.affinity.borrow().contains_key(&key).then_some(Sticky { tables: self, key })
    }

    fn insert_affinity(&self, key: &AffinityKey, value: &Affinity) -> bool {
        let mut affinity = self.affinity.borrow_mut();
        if !self.affinity_room || affinity.contains_key(key) {
            return false;
        }
        affinity.insert(*key, *value);
        true
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }

    /// xorshift32 (Marsaglia, "Xorshift RNGs", 2003).
    fn random(&self) -> u32 {
        if let Some(scripted) = self.script.borrow_mut().pop_front() {
            return scripted;
        }
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.seed.set(x);
        x
    }
}

/// An entry of `AFFINITY`.
#[derive(Debug)]
struct Sticky<'t> {
    tables: &'t Tables,
    key: AffinityKey,
}

impl Sticky<'_> {
    fn change<T>(&self, change: impl FnOnce(&mut Affinity) -> T) -> T {
        change(self.tables.affinity.borrow_mut().get_mut(&self.key).expect("looked up before"))
    }
}

impl path::Sticky for Sticky<'_> {
    fn read(&self) -> Affinity {
        self.change(|entry| *entry)
    }

    fn touch(&self, now: u64) {
        self.change(|entry| entry.last_used = now);
    }

    fn replace(&self, old: u64, new: u64) -> u64 {
        self.change(|entry| {
            let standing = entry.backend;
            if standing == old {
                entry.backend = new;
            }
            standing
        })
    }
}

/// Who makes a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// Cookie of its network namespace.
    pub netns: u64,
    /// Whether its cgroup is left alone.
    pub exempt: bool,
    /// Whether its socket is the agent's own.
    pub own: bool,
}

impl path::Caller for Caller {
    fn netns(&self) -> u64 {
        self.netns
    }

    fn is_exempt(&self) -> bool {
        self.exempt
    }

    fn is_own(&self) -> bool {
        self.own
    }
}

/// The memory of one socket.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Its first peer.
    pub first: Option<Peer>,
    /// Its further peers.
    pub further: Option<Box<Peers>>,
    /// Whether the socket is connected.
    pub connected: bool,
    /// Whether the kernel would give it memory.
    pub room: bool,
    /// How often something was written.
    pub writes: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { first: None, further: None, connected: false, room: true, writes: 0 }
    }
}

impl path::Memory for Memory {
    fn is_connected(&self) -> bool {
        self.connected
    }

    fn first(&mut self) -> Option<&mut Peer> {
        self.first.as_mut()
    }

    fn set_first(&mut self, peer: &Peer) -> bool {
        self.writes += 1;
        if self.first.is_some() || self.room {
            self.first = Some(*peer);
            return true;
        }
        false
    }

    fn clear_first(&mut self) {
        self.first = None;
    }

    fn further(&mut self) -> Option<&mut Peers> {
        self.further.as_deref_mut()
    }

    fn further_or_new(&mut self) -> Option<&mut Peers> {
        self.writes += 1;
        if self.further.is_none() && self.room {
            self.further = Some(Box::new(Peers::NONE));
        }
        self.further.as_deref_mut()
    }
}
