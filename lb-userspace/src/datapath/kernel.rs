//! The real maps: arrays through shared memory, the hash and the grace period by system calls.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError};
use ipnet::IpNet;
use lb_common::abi::{
    Address, Backend, Cidr, FrontendEntry, FrontendKey, Life, List, Node, OriginSlot, Policy, Run,
    Service,
};

use super::load::Loaded;
use super::maps::{Capacity, Maps};
use super::ranges::SourceRange;
use super::shared::Shared;
use super::sizes::MAGLEV;
use crate::host::{ExemptCgroup, PortRange};

/// The maps of the loaded programs.
pub(super) struct KernelMaps {
    frontends: HashMap<MapData, [u8; 20], u64>,
    frontend_capacity: u32,
    exempt: HashMap<MapData, u64, u64>,
    devices: HashMap<MapData, u32, u32>,
    services: Shared<Service>,
    runs: Shared<u32>,
    backends: Shared<Backend>,
    /// Tables, one after the other.
    maglev: Shared<u32>,
    maglev_size: u32,
    source_ranges: LpmTrie<MapData, [u8; 20], u32>,
    range_capacity: u32,
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
        let frontend_capacity = capacity(&frontends).context("map FRONTENDS")?;
        let source_ranges = loaded.take_map("SOURCE_RANGES")?;
        let range_capacity = capacity(&source_ranges).context("map SOURCE_RANGES")?;
        Ok(Self {
            frontends: HashMap::try_from(frontends).context("map FRONTENDS")?,
            frontend_capacity,
            exempt: HashMap::try_from(loaded.take_map("EXEMPT")?).context("map EXEMPT")?,
            devices: HashMap::try_from(loaded.take_map("DEVICES")?).context("map DEVICES")?,
            services: loaded.share("SERVICES")?,
            runs: loaded.share("RUNS")?,
            backends: loaded.share("BACKENDS")?,
            maglev: loaded.share(MAGLEV)?,
            maglev_size: loaded.maglev_size,
            source_ranges: LpmTrie::try_from(source_ranges).context("map SOURCE_RANGES")?,
            range_capacity,
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

    /// Begins with a revision that no flow of an earlier agent knows: `NODE` is new, `FLOWS` may not be.
    pub(super) fn begin_revision(&mut self) {
        // SAFETY: the pointer is to an entry of the mapping.
        let revision = |node: *mut Node| unsafe { &raw mut (*node).revision };
        self.node.set_field(0, revision, fastrand::u32(..));
    }

    /// Tells the programs which network namespace is the node's own.
    pub(super) fn store_netns(&mut self, cookie: u64) {
        // SAFETY: the pointer is to an entry of the mapping.
        self.node.set_field(0, |node| unsafe { &raw mut (*node).netns_cookie }, cookie);
    }

    /// Tells the programs what packets to endpoints elsewhere get for a source, in each family.
    pub(super) fn store_sources(&mut self, sources: &[IpAddr]) -> Result<()> {
        let of = |is_v4| sources.iter().find(|ip| ip.is_ipv4() == is_v4);
        let [v4, v6] = [of(true), of(false)]
            .map(|ip| ip.map_or(Address::UNSPECIFIED, |ip| Address::from(*ip)));
        // SAFETY: the pointer is to an entry of the mapping.
        let field = self.node.field(0, |node| unsafe { &raw mut (*node).snat_v4 });
        self.store_source(field, v4, 3)?;
        // SAFETY: as above.
        let field = self.node.field(0, |node| unsafe { &raw mut (*node).snat_v6 });
        self.store_source(field, v6, 0)
    }

    /// Changes an address that programs read word by word, and of which one word is zero exactly if there
    /// is none. It is zero first, and last to be filled; between the steps every program ends that may
    /// have read the words of the step before.
    fn store_source(&mut self, field: *mut Address, new: Address, telling: usize) -> Result<()> {
        // SAFETY: aligned words of the mapping, which lives as long as self; an address is four words.
        let words: [&AtomicU32; 4] = std::array::from_fn(|word| unsafe {
            AtomicU32::from_ptr(field.cast::<u32>().add(word))
        });
        let old = words.map(|word| word.load(Ordering::Relaxed));
        if old == new.words() {
            return Ok(());
        }
        if old[telling] != 0 {
            words[telling].store(0, Ordering::Release);
            self.grace().context("map GRACE")?;
        }
        for word in (0..4).filter(|&word| word != telling) {
            words[word].store(new.words()[word], Ordering::Relaxed);
        }
        if new.words()[telling] != 0 {
            self.grace().context("map GRACE")?;
            words[telling].store(new.words()[telling], Ordering::Release);
        }
        Ok(())
    }

    /// Tells the programs of a device's flags (`lb_common::abi::device`).
    pub(super) fn store_device(&mut self, index: u32, flags: u32) -> Result<()> {
        self.devices.insert(index, flags, 0).context("map DEVICES")
    }

    /// What the programs know of a device.
    pub(super) fn device(&self, index: u32) -> Result<u32> {
        match self.devices.get(&index, 0) {
            Err(MapError::KeyNotFound) => Ok(0),
            flags => flags.context("map DEVICES"),
        }
    }

    /// Forgets a device.
    pub(super) fn delete_device(&mut self, index: u32) -> Result<()> {
        self.devices.remove(&index).context("map DEVICES")
    }

    /// The devices that the programs know.
    pub(super) fn device_indexes(&self) -> Result<BTreeSet<u32>> {
        self.devices.keys().collect::<Result<_, _>>().context("map DEVICES")
    }

    /// Tells the programs which ports packets to endpoints elsewhere get. Before they are attached: the two
    /// numbers change one after the other.
    pub(super) fn store_snat_ports(&mut self, range: Option<PortRange>) {
        let (snat_first, snat_count) =
            range.map_or((0, 0), |range| (range.first().into(), range.count()));
        // SAFETY: the pointers are to an entry of the mapping.
        self.node.set_field(0, |node| unsafe { &raw mut (*node).snat_first }, snat_first);
        // SAFETY: as above.
        self.node.set_field(0, |node| unsafe { &raw mut (*node).snat_count }, snat_count);
    }

    /// The entry of `MAGLEV` that a slot of a table is.
    fn maglev_slot(&self, table: u32, slot: u32) -> u32 {
        assert!(slot < self.maglev_size, "slot {slot} of {}", self.maglev_size);
        table * self.maglev_size + slot
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
            ranges: self.range_capacity,
            tables: self.maglev.len() / self.maglev_size,
            table_size: self.maglev_size,
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

    fn store_entry(&mut self, table: u32, slot: u32, backend: u32) {
        let word = self.maglev.field(self.maglev_slot(table, slot), |slot| slot);
        // Release: the backend must be there before the slot that names it.
        // SAFETY: an aligned word of the mapping, which lives as long as self.
        unsafe { AtomicU32::from_ptr(word) }.store(backend, Ordering::Release);
    }

    fn put_range(&mut self, service: u32, range: &SourceRange) -> io::Result<()> {
        self.source_ranges.insert(&range_key(service, range), 1, 0).map_err(io_error)
    }

    fn delete_range(&mut self, service: u32, range: &SourceRange) -> io::Result<()> {
        absent_is_fine(self.source_ranges.remove(&range_key(service, range)))
    }

    fn put_frontend(&mut self, key: &FrontendKey, entry: FrontendEntry) -> io::Result<()> {
        self.frontends.insert(key.to_bytes(), entry.0, 0).map_err(io_error)
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> io::Result<()> {
        absent_is_fine(self.frontends.remove(&key.to_bytes()))
    }

    fn grace(&mut self) -> io::Result<()> {
        self.grace.set(0, &self.inner, 0).map_err(io_error)
    }

    fn revise(&mut self) {
        let next = self.node.get(0).revision.wrapping_add(1);
        // SAFETY: the pointer is to an entry of the mapping.
        self.node.set_field(0, |node| unsafe { &raw mut (*node).revision }, next);
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

    fn entry(&self, table: u32, slot: u32) -> u32 {
        self.maglev.get(self.maglev_slot(table, slot))
    }

    fn ranges(&self) -> io::Result<Vec<(u32, SourceRange)>> {
        let keys = self.source_ranges.keys().map(|key| key.map(|key| range_of(&key)));
        keys.collect::<Result<_, _>>().map_err(io_error)
    }
}

/// The key of a range: the fields of [`lb_common::abi::RangeKey`] as they lie in memory.
fn range_key(service: u32, range: &SourceRange) -> Key<[u8; 20]> {
    let mut bytes = [0; 20];
    let (index, address) = bytes.split_at_mut(4);
    index.copy_from_slice(&service.to_ne_bytes());
    address.copy_from_slice(&range.address.bytes());
    Key::new(range.prefix, bytes)
}

/// The inverse of [`range_key`].
fn range_of(key: &Key<[u8; 20]>) -> (u32, SourceRange) {
    let [a, b, c, d, address @ ..] = key.data();
    let range = SourceRange { prefix: key.prefix_len(), address: Address::from_bytes(address) };
    (u32::from_ne_bytes([a, b, c, d]), range)
}

/// Ranges as the programs compare them: as few as say the same.
pub(super) fn cidrs(nets: &[IpNet]) -> Vec<Cidr> {
    IpNet::aggregate(&nets.to_vec()).iter().map(cidr).collect()
}

fn cidr(net: &IpNet) -> Cidr {
    let v4_in_v6 = if net.addr().is_ipv4() { 96 } else { 0 };
    Cidr::new(Address::from(net.network()), net.prefix_len() + v4_in_v6)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "aya's enum; two variants matter here")]
fn capacity(map: &Map) -> Result<u32> {
    match map {
        Map::HashMap(data) | Map::LpmTrie(data) => Ok(data.info()?.max_entries()),
        _ => bail!("neither a hash nor a trie"),
    }
}

fn absent_is_fine(result: Result<(), MapError>) -> io::Result<()> {
    match result.map_err(io_error) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
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
