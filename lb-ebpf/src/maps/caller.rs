//! Who makes a call: its network namespace and its cgroup.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie};
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use lb_common::abi::entries;
use lb_common::path::Caller;

/// Ids of the cgroups whose processes are left alone, at any depth below them.
#[map]
static EXEMPT: HashMap<u64, u64> = HashMap::with_max_entries(entries::EXEMPT, 0);

/// Levels of cgroups that are looked at, the root's included. kubelet in a container in a systemd
/// slice makes eight.
const LEVELS: i32 = 16;

/// The caller that a hook runs for.
pub(crate) struct KernelCaller<'c, C>(pub(crate) &'c C);

impl<C: EbpfContext> Caller for KernelCaller<'_, C> {
    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the pointer is the program's own context.
        unsafe { bpf_get_netns_cookie(self.0.as_ptr()) }
    }

    #[inline(always)]
    fn is_exempt(&self) -> bool {
        is_current_exempt()
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
