//! How a packet came to the node, and where it goes from there.

use aya_ebpf::Global;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
    BPF_FIB_LOOKUP_SKIP_NEIGH, BPF_FIB_LOOKUP_SRC, bpf_fib_lookup,
};
use aya_ebpf::helpers::generated;
use aya_ebpf::programs::TcContext;
use lb_common::abi::{Address, Node, device};
use lb_common::path::Tables as _;
use lb_common::path::packet::{Arrival, Route};

use crate::maps::KernelTables;
use crate::maps::packet::DEVICES;

/// `EINVAL`, include/uapi/asm-generic/errno-base.h.
const INVALID: i64 = -22;

/// `AF_INET` and `AF_INET6`, include/linux/socket.h.
const INET: u8 = 2;
const INET6: u8 = 10;

/// How the kernel is asked for a route.
#[unsafe(no_mangle)]
static FIB_FLAGS: Global<u32> = Global::new(BPF_FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_SRC);

/// The packet that a TC program is called for.
pub(crate) struct KernelArrival<'c>(pub(crate) &'c TcContext);

impl Arrival for KernelArrival<'_> {
    #[inline(always)]
    fn is_inside(&self) -> bool {
        flags(self.device()) & device::INSIDE != 0
    }

    #[inline(always)]
    fn route(&self, source: Address, destination: Address) -> Route {
        let mut found = Address::UNSPECIFIED;
        let device = self.look_up(source, destination, &mut found);
        Route { returns: device == self.device(), device, source: found }
    }

    #[inline(always)]
    fn is_attached(&self, device: u32) -> bool {
        flags(device) & device::ATTACHED != 0
    }
}

impl KernelArrival<'_> {
    #[inline(always)]
    fn device(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.0.skb.skb).ifindex }
    }

    /// By which device, 0 if by none, and from which address of the node. Kernels before 6.7 do not know the address, and refuse
    /// the question: then it is that of the default route.
    ///
    /// A function of its own, for the sake of its stack; it must not return what needs a pointer into its caller's.
    #[inline(never)]
    fn look_up(&self, source: Address, destination: Address, found: &mut Address) -> u32 {
        let v4 = destination.is_v4();
        // SAFETY: all fields are numbers, for which zero is a value.
        let mut question: bpf_fib_lookup = unsafe { core::mem::zeroed() };
        question.family = if v4 { INET } else { INET6 };
        question.ifindex = self.device();
        if v4 {
            question.__bindgen_anon_3.ipv4_src = source.v4_word();
            question.__bindgen_anon_4.ipv4_dst = destination.v4_word();
        } else {
            question.__bindgen_anon_3.ipv6_src = source.words();
            question.__bindgen_anon_4.ipv6_dst = destination.words();
        }
        let mut result = self.ask(&mut question, FIB_FLAGS.load());
        let knows_source = result != INVALID;
        if !knows_source {
            // It has not touched the question: flags are looked at first.
            result = self.ask(&mut question, 0);
        }
        // A packet that is too long is fragmented, or its sender told; whether the neighbour is known is of no interest. The
        // device is there in all three cases (Linux 5.10, commit d1c362e1dd68).
        let goes =
            [BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH];
        let goes = goes.into_iter().any(|code| result == i64::from(code));
        *found = if goes && knows_source {
            // SAFETY: the helper has written the field of the family.
            unsafe {
                match v4 {
                    true => Address::from_v4_word(question.__bindgen_anon_3.ipv4_src),
                    false => Address::from_words(question.__bindgen_anon_3.ipv6_src),
                }
            }
        } else {
            KernelTables.node().map_or(Address::UNSPECIFIED, |node| usual(node, v4))
        };
        if goes { question.ifindex } else { 0 }
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the question has 64 bytes")]
    fn ask(&self, question: &mut bpf_fib_lookup, flags: u32) -> i64 {
        // SAFETY: the helper reads and writes the question, of which it gets the size.
        unsafe {
            generated::bpf_fib_lookup(
                self.0.skb.skb.cast(),
                &raw mut *question,
                size_of::<bpf_fib_lookup>() as i32,
                flags,
            )
        }
    }
}

/// What the agent says of a device.
#[inline(always)]
fn flags(device: u32) -> u32 {
    // SAFETY: one aligned word, which the agent replaces whole.
    unsafe { DEVICES.get(device) }.copied().unwrap_or(0)
}

/// The node's address towards its default route. While the agent changes it, the word that tells whether there is one is
/// zero: the last one of IPv4, the first one of IPv6.
#[inline(always)]
fn usual(node: &Node, v4: bool) -> Address {
    let address = if v4 { node.snat_v4 } else { node.snat_v6 };
    let telling = if v4 { address.v4_word() } else { address.words()[0] };
    if telling == 0 { Address::UNSPECIFIED } else { address }
}
