//! The maps, and `lb-common`'s tables over them.

mod affinity;
pub(crate) mod caller;
pub(crate) mod origin;
pub(crate) mod packet;

use core::ptr::read_volatile;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{self, ArrayOfMaps};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use lb_common::abi::{
    Affinity, AffinityKey, Backend, FrontendEntry, FrontendKey, List, Node, Policy, Run, Service,
    entries,
};
use lb_common::path::{COUNTERS, Sticky, Tables};

#[map]
static FRONTENDS: HashMap<FrontendKey, FrontendEntry> =
    HashMap::with_max_entries(entries::FRONTENDS, 0);

#[map]
static SERVICES: Array<Service> = Array::with_max_entries(entries::SERVICES, BPF_F_MMAPABLE);

#[map]
static RUNS: Array<u32> = Array::with_max_entries(entries::RUNS, BPF_F_MMAPABLE);

#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(entries::BACKENDS, BPF_F_MMAPABLE);

#[map]
pub(crate) static NODE: Array<Node> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Counts by `lb_common::path::counter_index`.
#[map]
pub(crate) static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// No program reads this. The kernel lets an update of a map in map return only when every running
/// program has finished (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c): the agent's grace period.
#[btf_map]
static GRACE: ArrayOfMaps<btf_maps::Array<u32, 1>, 1> = ArrayOfMaps::new();

/// The shared tables as the decisions see them.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendEntry> {
        // SAFETY: the element may be handed to another key while we look. It is one aligned word,
        // read once, and carries a check of its key, which the caller compares.
        unsafe { FRONTENDS.get(key).map(|entry| read_volatile(entry)) }
    }

    #[inline(always)]
    fn policy(&self, service: u32) -> Option<Policy> {
        let service = SERVICES.get_ptr(service)?;
        // SAFETY: array elements live as long as the map. The agent changes the word while we read
        // it; volatile makes this the one load.
        Some(Policy::from_word(unsafe { read_volatile(&raw const (*service).policy) }))
    }

    #[inline(always)]
    fn run(&self, service: u32, list: List) -> Option<Run> {
        let service = SERVICES.get_ptr(service)?;
        // SAFETY: as above.
        let word = unsafe {
            match list {
                List::Cluster => read_volatile(&raw const (*service).cluster),
                List::Local => read_volatile(&raw const (*service).local),
            }
        };
        Some(Run::from_word(word))
    }

    #[inline(always)]
    fn slot(&self, slot: u32) -> Option<u32> {
        // A slot that a run names does not change before every reader of that run has finished.
        RUNS.get(slot).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend> {
        let backend = BACKENDS.get_ptr(id)?;
        // SAFETY: as above. The other fields do not change while a run names the id, and mean
        // nothing to those who come by a remembered id.
        Some(unsafe { Backend { life: read_volatile(&raw const (*backend).life), ..*backend } })
    }

    #[inline(always)]
    fn node(&self) -> Option<&Node> {
        NODE.get(0)
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<impl Sticky> {
        affinity::get(key)
    }

    #[inline(always)]
    fn insert_affinity(&self, key: &AffinityKey, value: &Affinity) -> bool {
        affinity::insert(key, value)
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }
}
