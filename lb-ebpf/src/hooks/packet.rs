//! The packet path's hooks: TC, on a device's way in and out.

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

#[classifier]
fn tc_ingress(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[classifier]
fn tc_egress(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Of a device whose packets have no link header, such as a tunnel.
#[classifier]
fn tc_ingress_ip(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Likewise.
#[classifier]
fn tc_egress_ip(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}
