//! The socket path's hooks: `connect`, `sendmsg`, `recvmsg`, `getpeername`, `sock_release`.

#![expect(clippy::needless_pass_by_value, reason = "aya's macros pass contexts by value")]

use aya_ebpf::helpers::generated::{bpf_get_retval, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use aya_ebpf::{EbpfContext as _, Global};
use lb_common::abi::protocol::{TCP, UDP};
use lb_common::path::{Action, Destination, Errno, Operation, Reason, Verdict, socket};

use super::context::{Family, V4, V6, destination, protocol, rewrite};
use crate::maps::KernelTables;
use crate::maps::caller::KernelCaller;
use crate::maps::origin::{SocketMemory, forget};
use crate::report::report;

/// 1 where the kernel has `bpf_set_retval` (5.18). Elsewhere a refused caller gets `EPERM`.
#[unsafe(no_mangle)]
static HAS_RETVAL: Global<u8> = Global::new(1);

/// Let the call go on.
pub(super) const PASS: i32 = 1;
/// Fail the call, with `EPERM` unless `bpf_set_retval` said otherwise.
const REFUSE: i32 = 0;

#[cgroup_sock_addr(connect4)]
fn connect4(context: SockAddrContext) -> i32 {
    connect::<V4>(&context)
}

#[cgroup_sock_addr(connect6)]
fn connect6(context: SockAddrContext) -> i32 {
    connect::<V6>(&context)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(context: SockAddrContext) -> i32 {
    send::<V4>(&context)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(context: SockAddrContext) -> i32 {
    send::<V6>(&context)
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(context: SockAddrContext) -> i32 {
    receive::<V4>(&context)
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(context: SockAddrContext) -> i32 {
    receive::<V6>(&context)
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(context: SockAddrContext) -> i32 {
    peer_name::<V4>(&context)
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(context: SockAddrContext) -> i32 {
    peer_name::<V6>(&context)
}

#[cgroup_sock(sock_release)]
fn sock_release(context: SockContext) -> i32 {
    // SAFETY: the pointer is the program's own context.
    forget(unsafe { bpf_get_socket_cookie(context.as_ptr()) });
    PASS
}

#[inline(always)]
fn connect<F: Family>(context: &SockAddrContext) -> i32 {
    let (operation, protocol) = match transport(context) {
        Some(TCP) => (Operation::TcpConnect, TCP),
        Some(UDP) => (Operation::UdpConnect, UDP),
        Some(_) | None => return PASS,
    };
    let destination = destination::<F>(context, protocol);
    if already_refused() {
        report(context, operation, Reason::AlreadyRefused, &destination);
        return PASS;
    }
    let mut memory = SocketMemory::new(context);
    let caller = KernelCaller(context);
    let verdict = socket::connect(&KernelTables, &caller, &mut memory, &destination);
    conclude::<F>(context, operation, &destination, verdict)
}

#[inline(always)]
fn send<F: Family>(context: &SockAddrContext) -> i32 {
    let Some(UDP) = transport(context) else { return PASS };
    let destination = destination::<F>(context, UDP);
    if already_refused() {
        report(context, Operation::UdpSend, Reason::AlreadyRefused, &destination);
        return PASS;
    }
    let mut memory = SocketMemory::new(context);
    let caller = KernelCaller(context);
    let verdict = socket::send(&KernelTables, &caller, &mut memory, &destination);
    conclude::<F>(context, Operation::UdpSend, &destination, verdict)
}

#[inline(always)]
fn receive<F: Family>(context: &SockAddrContext) -> i32 {
    let Some(UDP) = transport(context) else { return PASS };
    let source = destination::<F>(context, UDP);
    let verdict = socket::receive(&mut SocketMemory::new(context), source.address, source.port);
    show::<F>(context, Operation::UdpReceive, &source, verdict)
}

#[inline(always)]
fn peer_name<F: Family>(context: &SockAddrContext) -> i32 {
    let Some(protocol) = transport(context) else { return PASS };
    let peer = destination::<F>(context, protocol);
    let verdict = socket::peer_name(&mut SocketMemory::new(context), peer.address, peer.port);
    show::<F>(context, Operation::PeerName, &peer, verdict)
}

/// Does what a verdict says to a call that can be refused.
#[inline(always)]
fn conclude<F: Family>(
    context: &SockAddrContext,
    operation: Operation,
    destination: &Destination,
    verdict: Verdict,
) -> i32 {
    report(context, operation, verdict.reason, destination);
    match verdict.reason.action() {
        Action::Pass => PASS,
        Action::Rewrite => {
            rewrite::<F>(context, verdict.address, verdict.port);
            PASS
        }
        Action::Refuse(errno) => refuse(errno, HAS_RETVAL.load() != 0),
    }
}

/// Fails the call, with this error where the hook `has_retval`.
#[inline(always)]
pub(super) fn refuse(errno: Errno, has_retval: bool) -> i32 {
    if has_retval {
        // SAFETY: the helper has no preconditions. Its result only says that the number is an errno,
        // which the type guarantees.
        let _always_zero = unsafe { bpf_set_retval(-(errno as i32)) };
    }
    REFUSE
}

/// Does what a verdict says to a call that only asks.
#[inline(always)]
fn show<F: Family>(
    context: &SockAddrContext,
    operation: Operation,
    shown: &Destination,
    verdict: Verdict,
) -> i32 {
    report(context, operation, verdict.reason, shown);
    if verdict.reason.action() == Action::Rewrite {
        rewrite::<F>(context, verdict.address, verdict.port);
    }
    PASS
}

/// TCP or UDP; lb leaves every other protocol alone.
#[inline(always)]
fn transport(context: &SockAddrContext) -> Option<u8> {
    match protocol(context) {
        p if p == TCP as u32 => Some(TCP),
        p if p == UDP as u32 => Some(UDP),
        _ => None,
    }
}

/// Whether a program that ran before this one has failed the call.
#[inline(always)]
fn already_refused() -> bool {
    // SAFETY: the helper has no preconditions.
    HAS_RETVAL.load() != 0 && unsafe { bpf_get_retval() } != 0
}
