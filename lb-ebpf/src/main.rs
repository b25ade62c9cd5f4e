//! The kernel programs: hooks and maps around the decisions of `lb-common`.
//!
//! Nothing is decided here. `hooks` turn a kernel context into a call of `lb_common::path` and its
//! verdict into a return value; `maps` implement the traits that it reads through.
//!
//! Built for BPF by `cargo xtask build-ebpf`. On the host it is an empty program, so that the
//! workspace's tools see one tree.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "see maps::origin::claim"))]

#[cfg(target_arch = "bpf")]
mod arrival;
#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod report;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

/// BPF programs cannot panic: the verifier rejects a program in which this is reachable.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Most helpers that lb calls are for GPL-compatible programs only.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
