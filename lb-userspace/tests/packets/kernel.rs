//! The loaded programs, their maps filled as the simulator's tables are.

use std::collections::BTreeMap;
use std::mem::{size_of, transmute_copy};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use lb_common::abi::{
    Backend, Flow, FlowKey, FragmentKey, FrontendEntry, FrontendKey, Hook, Node, RangeKey, Service,
    device,
};
use lb_common::path::{Operation, Reason, counter_index};
use lb_common::sim::Tables;
use lb_common::sim::flows::{Arrival, Outcome};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf"));

/// Slots of a table of `MAGLEV`.
pub(crate) const MAGLEV_SIZE: usize = 251;
/// Entries of `FLOWS`.
const FLOWS: u32 = 65_536;

/// Longest frame that comes out of a test run.
const LONGEST: usize = 4096;

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
    flows: HashMap<MapData, [u8; 40], Bytes<{ size_of::<Flow>() }>>,
    fragments: HashMap<MapData, [u8; 40], [u8; 4]>,
    stats: PerCpuArray<MapData, u64>,
    /// As they were last.
    counts: BTreeMap<Count, u64>,
}

/// Bytes of any number as a map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Bytes<const N: usize>([u8; N]);

// SAFETY: bytes, without padding and of any value.
unsafe impl<const N: usize> aya::Pod for Bytes<N> {}

impl Kernel {
    /// Loads the programs.
    pub(crate) fn load(device: u32) -> Self {
        let (quiet, size) = (0_u8, u32::try_from(MAGLEV_SIZE).expect("a small one"));
        let mut ebpf = EbpfLoader::new()
            .override_global("AYA_LOG_LEVEL", &quiet, true)
            .override_global("MAGLEV_SIZE", &size, true)
            .map_max_entries("MAGLEV", 16 * size)
            .map_max_entries("FLOWS", FLOWS)
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

    /// Makes the maps hold what `tables` do, and nothing else.
    pub(crate) fn fill(&mut self, tables: &Tables, arrival: &Arrival) {
        clear(&mut self.frontends);
        clear(&mut self.affinity);
        clear(&mut self.flows);
        clear(&mut self.fragments);
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
        let flags = if arrival.inside { device::INSIDE } else { 0 };
        self.devices.insert(self.device, flags, 0).expect("room");
    }

    /// Makes one backend what it is in `tables`.
    pub(crate) fn set_backend(&mut self, id: u32, tables: &Tables) {
        self.backends.set(id, Bytes(bytes(&tables.backends[&id])), 0).expect("room");
    }

    /// What the program does to a frame. `None` if a test run does not take such frames.
    pub(crate) fn treat(&mut self, hook: Hook, frame: &[u8]) -> Option<Outcome> {
        let name = match hook {
            Hook::Ingress => "tc_ingress",
            Hook::Egress => "tc_egress",
        };
        let mut out = vec![0; LONGEST];
        // The index of the packet's device, in `struct __sk_buff`.
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&self.device.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = program(&mut self.ebpf, name).test_run(options).ok()?;
        out.truncate(result.data_size_out as usize);
        // `TC_ACT_UNSPEC`, `TC_ACT_SHOT`, `TC_ACT_REDIRECT`
        match result.return_value {
            u32::MAX => Some(Outcome::Goes(out)),
            2 => Some(Outcome::Gone),
            7 => Some(Outcome::Returns(out)),
            other => panic!("the program says {other}"),
        }
    }

    /// What was counted since this or [`Self::has_counted`] was asked.
    pub(crate) fn counted(&mut self) -> Vec<Count> {
        let mut counted = Vec::new();
        for operation in [Operation::Ingress, Operation::Egress] {
            for &reason in Reason::ALL {
                let moved = self.moved((operation, reason));
                counted.extend(std::iter::repeat_n((operation, reason), moved));
            }
        }
        counted
    }

    /// Whether this was counted once since it was asked before. Whether anything else was, [`Self::counted`] tells.
    pub(crate) fn has_counted(&mut self, count: Count) -> bool {
        self.moved(count) == 1
    }

    fn moved(&mut self, (operation, reason): Count) -> usize {
        let values = self.stats.get(&counter_index(operation, reason), 0).expect("a counter");
        let now: u64 = values.iter().sum();
        let before = self.counts.insert((operation, reason), now).unwrap_or(0);
        usize::try_from(now - before).expect("a few")
    }

    /// An entry of `FLOWS`, without the time.
    pub(crate) fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(&bytes(key), 0).ok().map(|value| timeless(value.0))
    }

    /// All of `FLOWS`, without times.
    pub(crate) fn flows(&self) -> BTreeMap<FlowKey, Flow> {
        let all = self.flows.iter().map(|entry| entry.expect("a hash can be listed"));
        all.map(|(key, value)| (from_bytes(key), timeless(value.0))).collect()
    }

    /// All of `FRAGMENTS`.
    pub(crate) fn fragments(&self) -> Vec<FragmentKey> {
        let keys = self.fragments.keys().map(|key| from_bytes(key.expect("it can be listed")));
        let mut keys: Vec<FragmentKey> = keys.collect();
        keys.sort_unstable();
        keys
    }
}

/// A flow of which only what does not depend on the clock counts.
pub(crate) fn without_time(flow: Flow) -> Flow {
    Flow { last_seen: 0, ..flow }
}

fn timeless(bytes: [u8; size_of::<Flow>()]) -> Flow {
    without_time(from_bytes(bytes))
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
fn bytes<T: Copy, const N: usize>(value: &T) -> [u8; N] {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: as many bytes, all of them written.
    unsafe { transmute_copy(value) }
}

/// The inverse.
fn from_bytes<T: Copy, const N: usize>(bytes: [u8; N]) -> T {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: as many bytes; the types of the maps have no value that is invalid.
    unsafe { transmute_copy(&bytes) }
}
