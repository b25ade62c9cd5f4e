//! The loaded programs, their maps filled as the simulator's tables are.

use std::collections::BTreeMap;
use std::mem::{size_of, transmute_copy};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, TestRunResult};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use lb_common::abi::{
    Backend, Flow, FrontendEntry, FrontendKey, Hook, Node, RangeKey, Service, device,
};
use lb_common::path::{Operation, Reason, counter_index};
use lb_common::sim::Tables;
use lb_common::sim::flows::Arrival;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf"));

/// Slots of a table of `MAGLEV`.
pub(crate) const MAGLEV_SIZE: usize = 251;
/// What a counter counts.
pub(crate) type Count = (Operation, Reason);

/// The programs and their maps.
pub(crate) struct Kernel {
    ebpf: Ebpf,
    device: u32,
    frontends: HashMap<MapData, [u8; 20], [u8; 8]>,
    services: Array<MapData, Bytes<{ size_of::<Service>() }>>,
    runs: Array<MapData, u32>,
    backends: Array<MapData, Bytes<{ size_of::<Backend>() }>>,
    node: Array<MapData, Bytes<{ size_of::<Node>() }>>,
    maglev: Array<MapData, u32>,
    ranges: LpmTrie<MapData, [u8; 20], u32>,
    devices: HashMap<MapData, u32, u32>,
    affinity: HashMap<MapData, [u8; 24], [u8; 16]>,
    pub(super) flows: HashMap<MapData, [u8; 40], Bytes<{ size_of::<Flow>() }>>,
    pub(super) fragments: HashMap<MapData, [u8; 40], [u8; 4]>,
    stats: PerCpuArray<MapData, u64>,
    /// As they were last.
    counts: BTreeMap<Count, u64>,
}

/// Bytes of any number as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Bytes<const N: usize>(pub(super) [u8; N]);

// SAFETY: bytes, without padding and of any value.
unsafe impl<const N: usize> aya::Pod for Bytes<N> {}

impl Kernel {
    /// Loads the programs, with room for so many entries of `FLOWS`; they ask for routes by these flags, if any are given.
    pub(crate) fn load(device: u32, flows: u32, fib_flags: Option<u32>) -> Self {
        let (quiet, size) = (0_u8, u32::try_from(MAGLEV_SIZE).expect("a small one"));
        let mut loader = EbpfLoader::new();
        if let Some(flags) = &fib_flags {
            loader.override_global("FIB_FLAGS", flags, true);
        }
        let mut ebpf = loader
            .override_global("AYA_LOG_LEVEL", &quiet, true)
            .override_global("MAGLEV_SIZE", &size, true)
            .map_max_entries("MAGLEV", 16 * size)
            .map_max_entries("FLOWS", flows)
            .load(OBJECT)
            .expect("the object loads (root, and `cargo xtask test` builds it)");
        for name in ["tc_ingress", "tc_egress"] {
            program(&mut ebpf, name).load().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let mut take =
            |name| ebpf.take_map(name).unwrap_or_else(|| panic!("there is a map {name}"));
        Self {
            frontends: take("FRONTENDS").try_into().expect("a hash"),
            services: take("SERVICES").try_into().expect("an array"),
            runs: take("RUNS").try_into().expect("an array"),
            backends: take("BACKENDS").try_into().expect("an array"),
            node: take("NODE").try_into().expect("an array"),
            maglev: take("MAGLEV").try_into().expect("an array"),
            ranges: take("SOURCE_RANGES").try_into().expect("a trie"),
            devices: take("DEVICES").try_into().expect("a hash"),
            affinity: take("AFFINITY").try_into().expect("a hash"),
            flows: take("FLOWS").try_into().expect("a hash"),
            fragments: take("FRAGMENTS").try_into().expect("a hash"),
            stats: take("STATS").try_into().expect("an array"),
            ebpf,
            device,
            counts: BTreeMap::new(),
        }
    }

    /// Makes the maps hold what `tables` do, and programs remember nothing.
    pub(crate) fn fill(&mut self, tables: &Tables, arrival: &Arrival) {
        clear(&mut self.affinity);
        clear(&mut self.flows);
        clear(&mut self.fragments);
        self.configure(tables, arrival);
    }

    /// Makes the maps that the agent writes hold what `tables` do.
    pub(crate) fn configure(&mut self, tables: &Tables, arrival: &Arrival) {
        clear(&mut self.frontends);
        let stale: Vec<Key<[u8; 20]>> =
            self.ranges.keys().collect::<Result<_, _>>().expect("a trie can be listed");
        for key in stale {
            self.ranges.remove(&key).expect("it was listed");
        }
        for (key, FrontendEntry(word)) in &tables.frontends {
            let key: &FrontendKey = key;
            self.frontends.insert(key.to_bytes(), word.to_ne_bytes(), 0).expect("room");
        }
        for (index, service) in &tables.services {
            self.services.set(*index, Bytes(bytes(service)), 0).expect("room");
        }
        for (slot, id) in &tables.runs {
            self.runs.set(*slot, id, 0).expect("room");
        }
        for id in tables.backends.keys() {
            self.set_backend(*id, tables);
        }
        self.node.set(0, Bytes(bytes(&tables.node)), 0).expect("room");
        for (table, slots) in &tables.maglev {
            for (slot, id) in (0..).zip(slots) {
                let size = u32::try_from(MAGLEV_SIZE).expect("a small one");
                self.maglev.set(table * size + slot, id, 0).expect("room");
            }
        }
        for (service, range) in &tables.source_ranges {
            let key = RangeKey { service: *service, address: range.network };
            let ones: u32 = range.mask.words().iter().map(|word| word.count_ones()).sum();
            let key = Key::new(32 + ones, bytes(&key));
            self.ranges.insert(&key, 1, 0).expect("room");
        }
        clear(&mut self.devices);
        for index in &arrival.attached {
            let came_by = arrival.inside && *index == self.device;
            let inside = if came_by { device::INSIDE } else { 0 };
            self.devices.insert(index, inside | device::ATTACHED, 0).expect("room");
        }
    }

    /// Makes one backend what it is in `tables`.
    pub(crate) fn set_backend(&mut self, id: u32, tables: &Tables) {
        self.backends.set(id, Bytes(bytes(&tables.backends[&id])), 0).expect("room");
    }

    /// Runs the program on a frame, and so many times on what becomes of it.
    pub(super) fn run(
        &mut self,
        hook: Hook,
        frame: &[u8],
        out: Option<&mut [u8]>,
        repeat: u32,
    ) -> Option<TestRunResult> {
        // The index of the packet's device, in `struct __sk_buff`.
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&self.device.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: out,
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::default()
        };
        self.program(hook).test_run(options).ok()
    }

    /// The program at this hook.
    pub(super) fn program(&mut self, hook: Hook) -> &mut SchedClassifier {
        let name = match hook {
            Hook::Ingress => "tc_ingress",
            Hook::Egress => "tc_egress",
        };
        program(&mut self.ebpf, name)
    }

    /// How often this was counted since this was asked before.
    pub(super) fn moved(&mut self, (operation, reason): Count) -> usize {
        let values = self.stats.get(&counter_index(operation, reason), 0).expect("a counter");
        let now: u64 = values.iter().sum();
        let before = self.counts.insert((operation, reason), now).unwrap_or(0);
        usize::try_from(now - before).expect("a few")
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> &'e mut SchedClassifier {
    let program = ebpf.program_mut(name).unwrap_or_else(|| panic!("there is a program {name}"));
    program.try_into().expect("a TC program")
}

fn clear<K: aya::Pod, V: aya::Pod>(map: &mut HashMap<MapData, K, V>) {
    let keys: Vec<K> = map.keys().collect::<Result<_, _>>().expect("a hash can be listed");
    for key in keys {
        map.remove(&key).expect("it was listed");
    }
}

/// The bytes of a value of the maps, which have no padding.
pub(super) fn bytes<T: Copy, const N: usize>(value: &T) -> [u8; N] {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: as many bytes, all of them written.
    unsafe { transmute_copy(value) }
}
