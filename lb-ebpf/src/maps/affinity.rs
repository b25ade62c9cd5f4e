//! `AFFINITY`: clients and their backends.

use core::intrinsics::{AtomicOrdering, atomic_cxchg};
use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use lb_common::abi::{Affinity, AffinityKey, entries};
use lb_common::path::Sticky;

#[map]
static AFFINITY: LruHashMap<AffinityKey, Affinity> =
    LruHashMap::with_max_entries(entries::AFFINITY, 0);

/// An element of the map. It may be handed to another client at any time: every value that it can
/// hold is checked by those who read it.
struct Element(*mut Affinity);

#[inline(always)]
pub(super) fn get(key: &AffinityKey) -> Option<impl Sticky> {
    AFFINITY.get_ptr_mut(key).map(Element)
}

#[inline(always)]
pub(super) fn insert(key: &AffinityKey, value: &Affinity) -> bool {
    AFFINITY.insert(key, value, u64::from(BPF_NOEXIST)).is_ok()
}

impl Sticky for Element {
    #[inline(always)]
    fn read(&self) -> Affinity {
        // SAFETY: an element of the map, whose memory stays the map's. Two whole words.
        unsafe {
            Affinity {
                backend: read_volatile(&raw const (*self.0).backend),
                last_used: read_volatile(&raw const (*self.0).last_used),
            }
        }
    }

    #[inline(always)]
    fn touch(&self, now: u64) {
        // SAFETY: as above.
        unsafe { write_volatile(&raw mut (*self.0).last_used, now) };
    }

    #[inline(always)]
    fn replace(&self, old: u64, new: u64) -> u64 {
        // SAFETY: as above; the word is aligned.
        let (standing, _) = unsafe {
            atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                &raw mut (*self.0).backend,
                old,
                new,
            )
        };
        standing
    }
}
