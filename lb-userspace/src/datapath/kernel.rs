//! The real maps: arrays through shared memory, the hash and the grace period by system calls.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, ArrayOfMaps, HashMap, MapData, MapError};
use lb_common::abi::{
    Address, Backend, Cidr, FrontendEntry, FrontendKey, Life, List, Node, OriginSlot, Policy, Run,
    Service,
};

use super::load::Loaded;
use super::maps::{Capacity, Maps};
use super::shared::Shared;
use crate::host::ExemptCgroup;

/// The maps of the loaded programs.
pub(super) struct KernelMaps {
    frontends: HashMap<MapData, [u8; 20], u64>,
    frontend_capacity: u32,
    exempt: HashMap<MapData, u64, u64>,
    services: Shared<Service>,
    runs: Shared<u32>,
    backends: Shared<Backend>,
    /// Changed field by field: `flows_asleep` belongs to others.
    node: Shared<Node>,
    origin: Shared<OriginSlot>,
    grace: ArrayOfMaps<MapData, Array<MapData, u32>>,
    inner: Array<MapData, u32>,
}

impl KernelMaps {
    /// Takes the maps out of a loaded object and maps the arrays into memory.
    pub(super) fn new(loaded: &mut Loaded) -> Result<Self> {
        let frontends = loaded.take_map("FRONTENDS")?;
        let frontend_capacity = capacity(&frontends)?;
        Ok(Self {
            frontends: HashMap::try_from(frontends).context("map FRONTENDS")?,
            frontend_capacity,
            exempt: HashMap::try_from(loaded.take_map("EXEMPT")?).context("map EXEMPT")?,
            services: loaded.share("SERVICES")?,
            runs: loaded.share("RUNS")?,
            backends: loaded.share("BACKENDS")?,
            node: loaded.share("NODE")?,
            origin: loaded.share("ORIGIN")?,
            grace: ArrayOfMaps::try_from(loaded.take_map("GRACE")?).context("map GRACE")?,
            inner: Array::create(1, 0).context("creating the inner map of GRACE")?,
        })
    }

    /// Tells the programs in which ranges an unallocated address is unreachable. A range that is
    /// being replaced contains nothing for a moment.
    pub(super) fn store_service_cidrs(&mut self, cidrs: &[Cidr]) -> Result<()> {
        let old = self.node.get(0).service_cidrs;
        ensure!(cidrs.len() <= old.len(), "at most {} service CIDRs are possible", old.len());
        let wanted = cidrs.iter().copied().chain(std::iter::repeat(Cidr::NONE));
        for (index, (old, new)) in old.into_iter().zip(wanted).enumerate() {
            if new != old {
                let network_first = Cidr { network: new.network, ..Cidr::NONE };
                for step in [Cidr::NONE, network_first, new] {
                    // SAFETY: the pointer is to an entry of the mapping.
                    let cidrs = |node: *mut Node| unsafe { &raw mut (*node).service_cidrs[index] };
                    self.node.set_field(0, cidrs, step);
                }
            }
        }
        Ok(())
    }

    /// Tells the programs which cgroups are left alone. Those that exist are known before the
    /// programs look for any.
    pub(super) fn store_exempt(&mut self, cgroups: &[ExemptCgroup]) -> Result<()> {
        let wanted: BTreeSet<u64> = cgroups.iter().filter_map(|cgroup| cgroup.id).collect();
        let present: BTreeSet<u64> = self.exempt.keys().collect::<Result<_, _>>()?;
        for id in wanted.difference(&present) {
            self.exempt.insert(id, 0, 0).context("map EXEMPT")?;
        }
        // SAFETY: the pointer is to an entry of the mapping.
        let exempt = |node: *mut Node| unsafe { &raw mut (*node).exempt };
        self.node.set_field(0, exempt, wanted.len() as u64);
        for id in present.difference(&wanted) {
            self.exempt.remove(id).context("map EXEMPT")?;
        }
        Ok(())
    }

    /// Tells the programs which network namespace is the node's own.
    pub(super) fn store_netns(&mut self, cookie: u64) {
        // SAFETY: the pointer is to an entry of the mapping.
        self.node.set_field(0, |node| unsafe { &raw mut (*node).netns_cookie }, cookie);
    }

    /// Slots of `ORIGIN`, and how many of them sockets hold.
    pub(super) fn origin_fill(&self) -> (u32, u32) {
        let length = self.origin.len();
        let used = (0..length).filter(|&slot| self.origin.get(slot).cookie != 0).count();
        (u32::try_from(used).unwrap_or(length), length)
    }
}

impl Maps for KernelMaps {
    fn capacity(&self) -> Capacity {
        Capacity {
            frontends: self.frontend_capacity,
            services: self.services.len(),
            slots: self.runs.len(),
            backends: self.backends.len(),
        }
    }

    fn store_slot(&mut self, slot: u32, backend: u32) {
        let word = self.runs.field(slot, |slot| slot);
        // SAFETY: an aligned word of the mapping, which lives as long as self.
        unsafe { AtomicU32::from_ptr(word) }.store(backend, Ordering::Relaxed);
    }

    fn store_backend(&mut self, id: u32, backend: Backend) {
        // While the entry is filled, a reader that remembers the id must find it dead.
        self.store_life(id, Life { generation: backend.life().generation, ..Life::default() });
        self.backends.set(id, Backend { life: self.backends.get(id).life, ..backend });
        self.store_life(id, backend.life());
    }

    fn store_life(&mut self, id: u32, life: Life) {
        // SAFETY: the pointer is to an entry of the mapping.
        let word = self.backends.field(id, |entry| unsafe { &raw mut (*entry).life });
        // SAFETY: an aligned word of the mapping, which lives as long as self.
        unsafe { AtomicU64::from_ptr(word) }.store(life.to_word(), Ordering::Release);
    }

    fn store_run(&mut self, service: u32, list: List, run: Run) {
        let word = self.services.field(service, |entry| match list {
            // SAFETY: the pointer is to an entry of the mapping.
            List::Cluster => unsafe { &raw mut (*entry).cluster },
            // SAFETY: as above.
            List::Local => unsafe { &raw mut (*entry).local },
        });
        // Release: slots and backends must be there before the word that leads to them.
        // SAFETY: an aligned word of the mapping, which lives as long as self.
        unsafe { AtomicU64::from_ptr(word) }.store(run.to_word(), Ordering::Release);
    }

    fn store_policy(&mut self, service: u32, policy: Policy) {
        // SAFETY: the pointer is to an entry of the mapping.
        let word = self.services.field(service, |entry| unsafe { &raw mut (*entry).policy });
        // Release: the list that a policy asks for must be there before it.
        // SAFETY: an aligned word of the mapping, which lives as long as self.
        unsafe { AtomicU64::from_ptr(word) }.store(policy.to_word(), Ordering::Release);
    }

    fn put_frontend(&mut self, key: &FrontendKey, entry: FrontendEntry) -> io::Result<()> {
        self.frontends.insert(key.to_bytes(), entry.0, 0).map_err(io_error)
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> io::Result<()> {
        match self.frontends.remove(&key.to_bytes()).map_err(io_error) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn grace(&mut self) -> io::Result<()> {
        self.grace.set(0, &self.inner, 0).map_err(io_error)
    }

    fn frontends(&self) -> io::Result<Vec<(FrontendKey, FrontendEntry)>> {
        let entries = self.frontends.iter().map(|entry| {
            entry.map(|(key, word)| (FrontendKey::from_bytes(key), FrontendEntry(word)))
        });
        entries.collect::<Result<_, _>>().map_err(io_error)
    }

    fn service(&self, index: u32) -> Service {
        self.services.get(index)
    }

    fn slot(&self, slot: u32) -> u32 {
        self.runs.get(slot)
    }

    fn backend(&self, id: u32) -> Backend {
        self.backends.get(id)
    }
}

/// A range as the programs compare it.
pub(super) fn cidr(net: &ipnet::IpNet) -> Cidr {
    let v4_in_v6 = if net.addr().is_ipv4() { 96 } else { 0 };
    Cidr::new(Address::from(net.network()), net.prefix_len() + v4_in_v6)
}

fn capacity(map: &aya::maps::Map) -> Result<u32> {
    let aya::maps::Map::HashMap(data) = map else { bail!("map FRONTENDS is not a hash") };
    Ok(data.info().context("map FRONTENDS")?.max_entries())
}

/// The operating system's error inside aya's.
#[expect(clippy::wildcard_enum_match_arm, reason = "aya's enum; three variants matter here")]
fn io_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::KeyNotFound | MapError::ElementNotFound => io::ErrorKind::NotFound.into(),
        other => io::Error::other(other),
    }
}
