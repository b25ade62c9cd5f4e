//! Which network devices an agent attaches its packet programs to.

use anyhow::Result;
use clap::Args;

use crate::datapath::TcAttach;
use crate::source::{Devices, Pattern};

#[derive(Args, Debug)]
pub(super) struct DeviceArgs {
    /// Network device whose packets are translated, or a pattern with * and ?; may be repeated
    /// [default: those with a default route, bridges and taps]
    #[arg(
        long,
        env = "LB_DEVICE",
        value_name = "NAME|PATTERN",
        value_delimiter = ',',
        conflicts_with = "no_packet_path"
    )]
    device: Vec<Pattern>,
    /// Translate no packets, but only what sockets of this node do
    #[arg(long, env = "LB_NO_PACKET_PATH")]
    no_packet_path: bool,
    /// How programs are attached to devices, to find out about trouble with one way
    #[arg(long, env = "LB_TC_ATTACH", value_enum, default_value = "auto", hide = true)]
    pub(super) tc_attach: TcAttach,
}

impl DeviceArgs {
    /// Whether packets are translated at all.
    pub(super) const fn has_packet_path(&self) -> bool {
        !self.no_packet_path
    }

    /// The chosen devices from now on; `None` if there is to be no packet path.
    pub(super) fn subscribe(&self) -> Result<Option<Devices>> {
        if self.no_packet_path {
            return Ok(None);
        }
        Devices::subscribe(self.device.clone()).map(Some)
    }
}
