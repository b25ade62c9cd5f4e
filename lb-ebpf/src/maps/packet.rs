//! The tables of the packet path.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, RingBuf};
use lb_common::abi::{Flow, FlowKey, FragmentKey, FragmentPorts, RangeKey, entries};
use lb_common::maglev;

/// Preallocated: a full table must refuse, not ask for memory.
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(entries::FLOWS, 0);

#[map]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> =
    LruHashMap::with_max_entries(entries::FRAGMENTS, 0);

/// Tables of backend ids, one after the other, each as long as the agent has chosen.
#[map]
static MAGLEV: Array<u32> =
    Array::with_max_entries(entries::MAGLEV * maglev::DEFAULT_SIZE, BPF_F_MMAPABLE);

/// Slots of each of them.
#[unsafe(no_mangle)]
static MAGLEV_SIZE: Global<u32> = Global::new(maglev::DEFAULT_SIZE);

#[map]
static SOURCE_RANGES: LpmTrie<RangeKey, u32> =
    LpmTrie::with_max_entries(entries::SOURCE_RANGES, BPF_F_NO_PREALLOC);

/// Flags of devices, `lb_common::abi::device`, by their indexes.
#[map]
static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(entries::DEVICES, 0);

/// Wakes the agent: a word for each time.
#[map]
static WAKE: RingBuf = RingBuf::with_byte_size(4096, 0);
