//! The bind guard: `post_bind`, which runs when the kernel has found a port free.

#![expect(clippy::needless_pass_by_value, reason = "aya's macros pass contexts by value")]

use aya_ebpf::Global;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use lb_common::abi::protocol::{TCP, UDP};
use lb_common::abi::{Address, Port};
use lb_common::path::{Action, Destination, Operation, socket};

use super::socket::{PASS, refuse};
use crate::maps::KernelTables;
use crate::maps::caller::KernelCaller;
use crate::report::report;

/// 1 where `bpf_set_retval` can be called here (6.0). Elsewhere a refused caller gets `EPERM`.
#[unsafe(no_mangle)]
static HAS_BIND_RETVAL: Global<u8> = Global::new(1);

#[cgroup_sock(post_bind4)]
fn post_bind4(context: SockContext) -> i32 {
    // SAFETY: the context is valid while the program runs; this hook may read this field.
    bind(&context, Address::from_v4_word(unsafe { (*context.sock).src_ip4 }))
}

#[cgroup_sock(post_bind6)]
fn post_bind6(context: SockContext) -> i32 {
    // SAFETY: as above. Volatile, so that four accesses at fixed offsets remain: the verifier
    // rejects the address arithmetic of a copy.
    let address = unsafe {
        let words = &raw const (*context.sock).src_ip6;
        Address::from_words([
            (&raw const (*words)[0]).read_volatile(),
            (&raw const (*words)[1]).read_volatile(),
            (&raw const (*words)[2]).read_volatile(),
            (&raw const (*words)[3]).read_volatile(),
        ])
    };
    bind(&context, address)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the fields hold 8 and 16 bits")]
fn bind(context: &SockContext, address: Address) -> i32 {
    // SAFETY: as above.
    let (protocol, port) = unsafe { ((*context.sock).protocol as u8, (*context.sock).src_port) };
    if protocol != TCP && protocol != UDP {
        return PASS;
    }
    // The kernel gives this one port in its own byte order.
    let wanted = Destination::new(address, Port::new(port as u16), protocol);
    let verdict = socket::bind(&KernelTables, &KernelCaller(context), &wanted);
    report(context, Operation::Bind, verdict.reason, &wanted);
    match verdict.reason.action() {
        Action::Refuse(errno) => refuse(errno, HAS_BIND_RETVAL.load() != 0),
        Action::Pass | Action::Rewrite => PASS,
    }
}
