//! The tables of the packet path.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use lb_common::abi::{Address, Flow, FlowKey, FragmentKey, FragmentPorts, RangeKey, entries};
use lb_common::maglev;
use lb_common::packet::{MAX_SUM, Tuple};
use lb_common::path::packet::answer::Answer;
use lb_common::path::packet::{FlowEntry, Inserted, PacketTables, Work};

use super::{KernelTables, NODE};

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
pub(crate) static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(entries::DEVICES, 0);

/// Wakes the agent: a word for each time.
#[map]
static WAKE: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Memory for one packet at a time.
#[map]
static WORK: PerCpuArray<Desk> = PerCpuArray::with_max_entries(1, 0);

/// What a processor has at hand for the packet that it treats.
#[repr(C)]
pub(crate) struct Desk {
    pub(crate) work: Work,
    pub(crate) answer: Answer,
    /// Bytes that are summed up.
    pub(crate) bytes: [u32; MAX_SUM as usize / 4],
    /// The second in which `sent` ICMP messages were sent.
    pub(crate) second: u64,
    pub(crate) sent: u64,
}

/// This processor's desk. The program that treats a packet is not interrupted by another one that does.
#[inline(always)]
pub(crate) fn desk() -> Option<&'static mut Desk> {
    // SAFETY: elements of arrays live as long as the map. At TC programs run with bottom halves disabled,
    // so that the element has one user at a time.
    WORK.get_ptr_mut(0).map(|desk| unsafe { &mut *desk })
}

/// The first flow was made.
const FIRST_FLOW: u32 = 1;
/// There is no room for more.
const FLOWS_FULL: u32 = 2;
/// No port is left by which the node can stand in for a client of some backend.
const PORTS_TAKEN: u32 = 3;

impl PacketTables for KernelTables {
    #[inline(always)]
    fn flow<'t>(&'t self, key: &FlowKey) -> Option<impl FlowEntry + use<'t>> {
        FLOWS.get_ptr_mut(key).map(KernelFlow)
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted {
        const EXISTS: i32 = -17;
        match FLOWS.insert(key, flow, BPF_NOEXIST.into()) {
            Ok(()) => Inserted::Done,
            Err(EXISTS) => Inserted::Exists,
            Err(_) => Inserted::Full,
        }
    }

    #[inline(always)]
    fn remove_flow(&self, key: &FlowKey) {
        // An error says that there is none.
        let _absent = FLOWS.remove(key);
    }

    #[inline(always)]
    fn flow_made(&self) {
        let Some(node) = NODE.get_ptr_mut(0) else { return };
        // SAFETY: an element of an array, of which this is an aligned word. Volatile: the agent and other processors
        // write it.
        unsafe {
            let asleep = &raw mut (*node).flows_asleep;
            if read_volatile(asleep) != 0 {
                write_volatile(asleep, 0);
                wake(FIRST_FLOW);
            }
        }
    }

    #[inline(always)]
    fn flows_full(&self) {
        wake(FLOWS_FULL);
    }

    #[inline(always)]
    fn ports_taken(&self) {
        wake(PORTS_TAKEN);
    }

    #[inline(always)]
    fn ports(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        // SAFETY: the element may be handed to another packet while we look, as to one that comes a moment later. It is
        // one aligned word, read once.
        unsafe { FRAGMENTS.get(key).map(|ports| read_volatile(ports)) }
    }

    #[inline(always)]
    fn note_ports(&self, key: &FragmentKey, ports: FragmentPorts) {
        // The map makes room. Where it cannot, the later fragments pass, and the packet is lost.
        let _lost = FRAGMENTS.insert(key, ports, 0);
    }

    #[inline(always)]
    fn maglev(&self, table: u32, hash: u64) -> Option<u32> {
        let size = MAGLEV_SIZE.load();
        let slot =
            MAGLEV.get_ptr(table.wrapping_mul(size).wrapping_add(maglev::slot(hash, size)))?;
        // SAFETY: elements of arrays live as long as the map. The agent changes the word while we read it.
        Some(unsafe { read_volatile(slot) })
    }

    #[inline(always)]
    fn in_source_range(&self, service: u32, address: Address) -> bool {
        SOURCE_RANGES.get(Key::new(RangeKey::BITS, RangeKey { service, address })).is_some()
    }
}

/// Puts a word into the ring. If it is full, the agent is awake or about to be.
#[inline(always)]
fn wake(why: u32) {
    let _full = WAKE.output::<u32>(why, 0);
}

/// An entry of `FLOWS`. Its memory may be handed to another flow while we look: the packet then goes where that
/// flow's go, as it may whenever the agent takes its flow away.
struct KernelFlow(*mut Flow);

impl FlowEntry for KernelFlow {
    #[inline(always)]
    fn read(&self, to: &mut Tuple) {
        // SAFETY: elements of the preallocated map stay mapped; these fields do not change while the entry lives.
        unsafe {
            to.source = (*self.0).source;
            to.destination = (*self.0).destination;
            to.source_port = (*self.0).source_port;
            to.destination_port = (*self.0).destination_port;
        }
    }

    #[inline(always)]
    fn backend(&self) -> (u32, u32) {
        // SAFETY: as above.
        unsafe { ((*self.0).backend_id, (*self.0).backend_generation) }
    }

    #[inline(always)]
    fn service(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.0).service }
    }

    #[inline(always)]
    fn revision(&self) -> u32 {
        // SAFETY: as above; volatile, since other processors change it.
        unsafe { read_volatile(&raw const (*self.0).revision) }
    }

    #[inline(always)]
    fn revise(&self, revision: u32) {
        // SAFETY: as above. Of two processors that look at once either may be the later one: at worst the next packet
        // looks again.
        unsafe { write_volatile(&raw mut (*self.0).revision, revision) }
    }

    #[inline(always)]
    fn role(&self) -> u8 {
        // SAFETY: as above.
        unsafe { (*self.0).role }
    }

    #[inline(always)]
    fn node(&self) -> Address {
        // SAFETY: as above.
        unsafe { (*self.0).node }
    }

    #[inline(always)]
    fn seen(&self) -> u8 {
        // SAFETY: as above; volatile, since other processors change it.
        unsafe { read_volatile(&raw const (*self.0).seen) }
    }

    #[inline(always)]
    fn note(&self, seen: u8, now: u64, bytes: u32) {
        // SAFETY: as above. Two processors that count at once can lose a count, which a statistic may; a time and flags
        // are the later one's.
        unsafe {
            let flow = self.0;
            let packets = &raw mut (*flow).packets;
            let sum = &raw mut (*flow).bytes;
            write_volatile(&raw mut (*flow).last_seen, now);
            write_volatile(packets, read_volatile(packets).wrapping_add(1));
            write_volatile(sum, read_volatile(sum).wrapping_add(bytes.into()));
            if read_volatile(&raw const (*flow).seen) != seen {
                write_volatile(&raw mut (*flow).seen, seen);
            }
        }
    }
}
