//! How long connections that no socket of the node makes are remembered: flags of `lb agent`.

use std::time::Duration;

use clap::{Args, builder::RangedU64ValueParser, value_parser};

use crate::flows::Lifetimes;

/// A week: what is idle for longer is forgotten by everybody else, too.
const LONGEST: u64 = 604_800;

#[derive(Args, Debug)]
pub(super) struct FlowArgs {
    /// Forget a TCP connection from outside, established but idle for so many seconds
    #[arg(
        long,
        env = "LB_FLOW_ESTABLISHED",
        default_value_t = 3600,
        value_name = "SECONDS",
        value_parser = seconds()
    )]
    flow_established: u64,
    /// ... whose handshake is not complete
    #[arg(
        long,
        env = "LB_FLOW_SYN",
        default_value_t = 60,
        value_name = "SECONDS",
        value_parser = seconds()
    )]
    flow_syn: u64,
    /// ... that both sides have closed, or one has reset
    #[arg(
        long,
        env = "LB_FLOW_CLOSED",
        default_value_t = 10,
        value_name = "SECONDS",
        value_parser = seconds()
    )]
    flow_closed: u64,
    /// Forget a UDP flow from outside, idle for so many seconds
    #[arg(
        long,
        env = "LB_FLOW_UDP",
        default_value_t = 60,
        value_name = "SECONDS",
        value_parser = seconds()
    )]
    flow_udp: u64,
}

fn seconds() -> RangedU64ValueParser {
    value_parser!(u64).range(1..=LONGEST)
}

impl FlowArgs {
    pub(super) fn lifetimes(&self) -> Lifetimes {
        let Self { flow_established, flow_syn, flow_closed, flow_udp } = *self;
        Lifetimes {
            established: Duration::from_secs(flow_established),
            opening: Duration::from_secs(flow_syn),
            closed: Duration::from_secs(flow_closed),
            udp: Duration::from_secs(flow_udp),
        }
    }
}
