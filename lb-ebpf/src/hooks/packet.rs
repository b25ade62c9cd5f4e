//! The packet path's hooks: TC, on a device's way in and out.

#![expect(clippy::needless_pass_by_value, reason = "aya's macros pass contexts by value")]

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use lb_common::abi::Hook;
use lb_common::abi::protocol::TCP;
use lb_common::path::packet::{Link, decide};
use lb_common::path::{Destination, Reason, Refusal, Treatment};

use super::skb::Skb;
use crate::arrival::KernelArrival;
use crate::maps::KernelTables;
use crate::maps::packet::{Desk, desk};
use crate::report::report;

/// `PACKET_HOST`, include/uapi/linux/if_packet.h: the frame is addressed to this device.
const TO_US: u32 = 0;

/// ICMP messages that a processor makes in a second: as many as the kernel does (`icmp_msgs_per_sec`).
const MESSAGES: u64 = 1000;
const SECOND: u64 = 1_000_000_000;

#[classifier]
fn tc_ingress(context: TcContext) -> i32 {
    ingress(&context, Link::Ethernet)
}

#[classifier]
fn tc_egress(context: TcContext) -> i32 {
    treat(&context, Link::Ethernet, Hook::Egress)
}

/// Of a device whose packets have no link header, such as a tunnel.
#[classifier]
fn tc_ingress_ip(context: TcContext) -> i32 {
    ingress(&context, Link::Ip)
}

/// Likewise.
#[classifier]
fn tc_egress_ip(context: TcContext) -> i32 {
    treat(&context, Link::Ip, Hook::Egress)
}

/// A port of a bridge, and a device that listens to everybody's frames, see also those that are another host's.
#[inline(always)]
fn ingress(context: &TcContext, link: Link) -> i32 {
    // SAFETY: the context is valid while the program runs.
    match unsafe { (*context.skb.skb).pkt_type } {
        TO_US => treat(context, link, Hook::Ingress),
        _ => TC_ACT_UNSPEC,
    }
}

/// What is left alone goes on to other programs and filters, and so does what was rewritten.
#[inline(always)]
fn treat(context: &TcContext, link: Link, hook: Hook) -> i32 {
    let Some(desk) = desk() else { return TC_ACT_UNSPEC };
    let skb = Skb::new(context.skb.skb, &mut desk.bytes);
    let arrival = KernelArrival(context);
    let mut reason = decide(&KernelTables, &arrival, &skb, link, hook, &mut desk.work);
    let done = match reason.treatment() {
        Treatment::Pass => Some(TC_ACT_UNSPEC),
        Treatment::Rewrite => skb.rewrite(&desk.work.rewrite).map(|()| TC_ACT_UNSPEC),
        Treatment::Return => skb.rewrite(&desk.work.rewrite).and_then(|()| skb.send_back(link)),
        Treatment::Refuse(refusal) => {
            let sent = refuse(&skb, desk, link, refusal);
            if sent.is_none() {
                reason = Reason::Unanswered;
            }
            sent
        }
        Treatment::Drop => None,
    };
    let tuple = &desk.work.parsed.outer.tuple;
    let port = Destination::new(tuple.destination, tuple.destination_port, tuple.protocol);
    report(context, hook.operation(), reason, &port);
    done.unwrap_or(TC_ACT_SHOT)
}

/// Answers in the name of a host that is not there. Only as often as the kernel would, where what is sent may be more than
/// what came.
#[inline(always)]
fn refuse(skb: &Skb, desk: &mut Desk, link: Link, refusal: Refusal) -> Option<i32> {
    let Desk { work, answer, second, sent, .. } = desk;
    let resets = refusal == Refusal::Port && work.parsed.outer.tuple.protocol == TCP;
    if !resets {
        use lb_common::path::Tables as _;
        let now = KernelTables.now() / SECOND;
        if *second != now {
            (*second, *sent) = (now, 0);
        }
        if *sent >= MESSAGES {
            return None;
        }
        *sent += 1;
    }
    answer.set(skb, &work.parsed, refusal)?;
    skb.answer(answer)?;
    skb.send_back(link)
}
