//! What a hook tells the world: its counters, and the programs' own log.

use aya_ebpf::EbpfContext;
use aya_log_ebpf::debug;
use lb_common::path::{Destination, Operation, Reason, counter_index};

use crate::maps::STATS;

/// Counts a decision and, where an operator asked for it, logs it. Successful translations are
/// not logged: they are the hot path.
#[inline(always)]
pub(crate) fn report(
    context: &impl EbpfContext,
    operation: Operation,
    reason: Reason,
    destination: &Destination,
) {
    match reason {
        Reason::NotService => return,
        Reason::Translated
        | Reason::Kept
        | Reason::Reversed
        | Reason::Exempt
        | Reason::Established
        | Reason::Related
        | Reason::EchoReply
        | Reason::Short
        | Reason::Malformed
        | Reason::Unsupported => {}
        Reason::NoEndpoints
        | Reason::UnknownPort
        | Reason::Unallocated
        | Reason::NodePort
        | Reason::SnatPort
        | Reason::OriginFull
        | Reason::AlreadyRefused
        | Reason::Filtered
        | Reason::NoLocalEndpoints
        | Reason::Stray
        | Reason::FlowsFull
        | Reason::NoSnatPort
        | Reason::NoSnatAddress
        | Reason::UnseenDevice
        | Reason::Unanswered
        | Reason::Inconsistent => {
            // Debug only: with its log statements a program takes the verifier a hundred times as
            // long, and every refusal is counted anyway.
            let (what, why) = (operation.name(), reason.name());
            debug!(context, "{}: {} port {}", what, why, destination.port.number());
        }
    }
    if let Some(counter) = STATS.get_ptr_mut(counter_index(operation, reason)) {
        // SAFETY: this processor's own element. A run that preempts this one between load and
        // store can lose one count, which a statistic may.
        unsafe { *counter += 1 };
    }
}
