//! What lb remembers of a socket: a slot of `ORIGIN`, else the socket's own storage.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, bpf_sock};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_mptcp_sock};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::SockAddrContext;
use aya_ebpf::{EbpfContext as _, Global};
use lb_common::abi::{OriginSlot, Peer, Peers, entries};
use lb_common::path::Memory;

/// Cookies are handed out nearly in sequence, so their low bits hardly collide; and a slot costs a
/// fifth of what a hash or socket storage does on a fresh socket.
#[map]
static ORIGIN: Array<OriginSlot> = Array::with_max_entries(entries::ORIGIN, BPF_F_MMAPABLE);

/// Slots of `ORIGIN` minus one; their number is a power of two.
#[unsafe(no_mangle)]
static ORIGIN_MASK: Global<u32> = Global::new(entries::ORIGIN - 1);

/// 1 where the kernel has `bpf_skc_to_mptcp_sock` (5.19). The verifier removes what a constant 0
/// makes unreachable.
#[unsafe(no_mangle)]
static HAS_MPTCP: Global<u8> = Global::new(1);

/// The first peer of a socket whose slot another socket holds.
#[btf_map]
static ORIGIN_OVERFLOW: SkStorage<Peer> = SkStorage::new();

/// The further peers of an unconnected UDP socket.
#[btf_map]
static ORIGIN_FURTHER: SkStorage<Peers> = SkStorage::new();

/// The memory of the socket that a hook runs for.
pub(crate) struct SocketMemory<'c> {
    context: &'c SockAddrContext,
    cookie: u64,
}

impl<'c> SocketMemory<'c> {
    #[inline(always)]
    pub(crate) fn new(context: &'c SockAddrContext) -> Self {
        // SAFETY: the pointer is the program's own context.
        Self { context, cookie: unsafe { bpf_get_socket_cookie(context.as_ptr()) } }
    }

    #[inline(always)]
    fn sock(&self) -> *mut c_void {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.context.sock_addr).__bindgen_anon_1.sk.cast() }
    }

    /// Whether this is a subflow of an MPTCP socket. The kernel makes those itself and never runs
    /// `sock_release` for them, so only storage that goes with the socket may be used.
    #[inline(always)]
    fn is_mptcp(&self) -> bool {
        // SAFETY: the helper takes any full socket.
        HAS_MPTCP.load() != 0 && !unsafe { bpf_skc_to_mptcp_sock(self.sock()) }.is_null()
    }

    #[inline(always)]
    fn slot(&self) -> Option<&'static mut OriginSlot> {
        slot(self.cookie)
    }

    #[inline(always)]
    fn overflow(&self) -> Option<&'static mut Peer> {
        // SAFETY: storage of this socket, which the hook's caller has locked; it lives as long as
        // the socket, that is, longer than this run.
        unsafe { ORIGIN_OVERFLOW.get_ptr_mut(self.context).as_mut() }
    }

    #[inline(always)]
    fn clear_overflow(&self) {
        // SAFETY: the socket of the context. An error says that there was nothing to delete.
        let _absent = unsafe { ORIGIN_OVERFLOW.delete(self.sock().cast()) };
    }
}

/// `enum` in include/net/tcp_states.h. A connected UDP socket has this state, too.
const TCP_ESTABLISHED: u32 = 1;

impl Memory for SocketMemory<'_> {
    #[inline(always)]
    fn is_connected(&self) -> bool {
        // SAFETY: the kernel hands a full socket to these hooks.
        unsafe { (*self.sock().cast::<bpf_sock>()).state == TCP_ESTABLISHED }
    }

    #[inline(always)]
    fn first(&mut self) -> Option<&mut Peer> {
        match self.slot() {
            Some(slot) if slot.cookie == self.cookie => Some(&mut slot.peer),
            _ => self.overflow(),
        }
    }

    #[inline(always)]
    fn set_first(&mut self, peer: &Peer) -> bool {
        if let Some(slot) = self.slot().filter(|_| !self.is_mptcp()) {
            if slot.cookie == self.cookie {
                slot.peer = *peer;
                return true;
            }
            if slot.cookie == 0 && claim(slot, self.cookie) {
                slot.peer = *peer;
                self.clear_overflow();
                return true;
            }
        }
        let mut copy = *peer;
        // SAFETY: as in `overflow`; the value is copied into storage that is made here.
        match unsafe {
            ORIGIN_OVERFLOW.get_or_insert_ptr_mut(self.context, Some(&mut copy)).as_mut()
        } {
            Some(stored) => {
                *stored = copy;
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn clear_first(&mut self) {
        match self.slot() {
            Some(slot) if slot.cookie == self.cookie => release(slot),
            _ => self.clear_overflow(),
        }
    }

    #[inline(always)]
    fn further(&mut self) -> Option<&mut Peers> {
        // SAFETY: as in `overflow`.
        unsafe { ORIGIN_FURTHER.get_ptr_mut(self.context).as_mut() }
    }

    #[inline(always)]
    fn further_or_new(&mut self) -> Option<&mut Peers> {
        // SAFETY: as in `overflow`; new storage is zero, which is an empty list.
        unsafe { ORIGIN_FURTHER.get_or_insert_ptr_mut(self.context, None).as_mut() }
    }
}

/// Frees the slot of the socket with this cookie, if it holds one. Called when the socket goes.
#[inline(always)]
pub(crate) fn forget(cookie: u64) {
    if let Some(slot) = slot(cookie).filter(|slot| slot.cookie == cookie) {
        release(slot);
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the mask has 32 bits")]
fn slot(cookie: u64) -> Option<&'static mut OriginSlot> {
    let index = (cookie & u64::from(ORIGIN_MASK.load())) as u32;
    // SAFETY: array elements live as long as the map. Of a slot that another socket holds, only
    // the cookie is read; its own socket's hooks exclude each other by the socket's lock.
    ORIGIN.get_ptr_mut(index).map(|slot| unsafe { &mut *slot })
}

/// Takes a free slot. `AtomicU64::compare_exchange` does not exist for this target, whose
/// definition lacks compare-and-swap; the instruction does (`-C target-cpu=v3`, Linux 5.12).
#[inline(always)]
fn claim(slot: &mut OriginSlot, cookie: u64) -> bool {
    use core::intrinsics::{AtomicOrdering, atomic_cxchg};
    // SAFETY: an aligned word inside an array element.
    let (_, taken) = unsafe {
        atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
            &raw mut slot.cookie,
            0,
            cookie,
        )
    };
    taken
}

#[inline(always)]
fn release(slot: &mut OriginSlot) {
    // SAFETY: an aligned word; volatile because other processors watch it.
    unsafe { core::ptr::write_volatile(&raw mut slot.cookie, 0) };
}
