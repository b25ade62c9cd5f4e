//! The tables and a socket's memory as ordinary collections: for tests, and for whatever wants to
//! ask on the host what the kernel would do.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::cell::Cell;

use crate::abi::{
    Backend, Cidr, FrontendEntry, FrontendKey, FrontendKind, Node, Peer, Peers, Run, Service,
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
    /// The state of the generator of random numbers.
    pub seed: Cell<u32>,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            frontends: BTreeMap::new(),
            services: BTreeMap::new(),
            runs: BTreeMap::new(),
            backends: BTreeMap::new(),
            node: Node { service_cidrs: [Cidr::NONE; 4] },
            seed: Cell::new(1),
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

    fn internal_run(&self, service: u32) -> Option<Run> {
        self.services.get(&service).map(|service| Run::from_word(service.internal))
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

    /// xorshift32 (Marsaglia, "Xorshift RNGs", 2003).
    fn random(&self) -> u32 {
        let mut x = self.seed.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.seed.set(x);
        x
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
