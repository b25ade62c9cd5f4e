//! Who makes a call: its network namespace and its cgroup.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{SockAddrContext, SockContext};
use lb_common::abi::{OWN_SOCKET_PRIORITY, entries};
use lb_common::path::Caller;

/// Ids of the cgroups whose processes are left alone, at any depth below them.
#[map]
static EXEMPT: HashMap<u64, u64> = HashMap::with_max_entries(entries::EXEMPT, 0);

/// Levels of cgroups that are looked at, the root's included. kubelet in a container in a systemd
/// slice makes eight.
const LEVELS: i32 = 16;

/// The caller that a hook runs for.
pub(crate) struct KernelCaller<'c, C>(pub(crate) &'c C);

/// A hook's context, with the priority of the socket that it runs for.
pub(crate) trait CallContext: EbpfContext {
    /// `SO_PRIORITY`, where the hook may know it.
    fn priority(&self) -> Option<u32>;
}

impl CallContext for SockAddrContext {
    #[inline(always)]
    fn priority(&self) -> Option<u32> {
        // SAFETY: the context is valid while the program runs, and so is the socket in it, which
        // the verifier wants compared with null.
        unsafe { (*self.sock_addr).__bindgen_anon_1.sk.as_ref().map(|socket| socket.priority) }
    }
}

/// The hooks of `bind`, which may not read it (`__sock_filter_check_attach_type`,
/// net/core/filter.c).
impl CallContext for SockContext {
    #[inline(always)]
    fn priority(&self) -> Option<u32> {
        None
    }
}

impl<C: CallContext> Caller for KernelCaller<'_, C> {
    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the pointer is the program's own context.
        unsafe { bpf_get_netns_cookie(self.0.as_ptr()) }
    }

    #[inline(always)]
    fn is_exempt(&self) -> bool {
        is_current_exempt()
    }

    #[inline(always)]
    fn is_own(&self) -> bool {
        self.0.priority() == Some(OWN_SOCKET_PRIORITY)
    }
}

/// A function of its own: the verifier forgets its stack when it returns, and goes on from fewer
/// states.
#[inline(never)]
fn is_current_exempt() -> bool {
    for level in 0..LEVELS {
        // SAFETY: the helper has no preconditions; below the caller's own cgroup it gives 0.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            break;
        }
        // SAFETY: only whether there is an element counts.
        if unsafe { EXEMPT.get(id) }.is_some() {
            return true;
        }
    }
    false
}
