//! The maps, and `lb-common`'s tables over them.
//!
//! The sizes hold for 65,536 service ports with 262,144 endpoints in all.

pub(crate) mod origin;

use core::ptr::read_volatile;

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{self, ArrayOfMaps};
use aya_ebpf::helpers::bpf_get_prandom_u32;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use lb_common::abi::{Backend, FrontendEntry, FrontendKey, Node, Run, Service};
use lb_common::path::{COUNTERS, Tables};

#[map]
static FRONTENDS: HashMap<FrontendKey, FrontendEntry> = HashMap::with_max_entries(131_072, 0);

#[map]
static SERVICES: Array<Service> = Array::with_max_entries(65_536, BPF_F_MMAPABLE);

#[map]
static RUNS: Array<u32> = Array::with_max_entries(524_288, BPF_F_MMAPABLE);

#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(262_144, BPF_F_MMAPABLE);

#[map]
static NODE: Array<Node> = Array::with_max_entries(1, BPF_F_MMAPABLE);

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
    fn internal_run(&self, service: u32) -> Option<Run> {
        let service = SERVICES.get_ptr(service)?;
        // SAFETY: array elements live as long as the map. The agent changes the word while we read
        // it; volatile makes this the one load.
        Some(Run::from_word(unsafe { read_volatile(&raw const (*service).internal) }))
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
    fn random(&self) -> u32 {
        // SAFETY: the helper has no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }
}
