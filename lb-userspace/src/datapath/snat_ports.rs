//! `--snat-ports` in the agent's life: reserved before a program knows them, and looked after.

use std::time::{Duration, Instant};

use crate::host::{PortRange, ReservedPorts, no_port_left, taken_ports};

/// How often is looked whether somebody has written the setting anew (`sysctl --system`).
const LOOK: Duration = Duration::from_secs(60);

/// The ports in use, if any.
#[derive(Debug)]
pub(super) struct SnatPorts {
    pub(super) range: Option<PortRange>,
    reserved: ReservedPorts,
    looked: Instant,
}

impl SnatPorts {
    /// Keeps local sockets away from `range`. Ports that they could get are not used: packets of two
    /// connections could not be told apart.
    pub(super) fn begin(
        range: Option<PortRange>,
        reserved: &ReservedPorts,
        limits: &mut Vec<String>,
    ) -> Self {
        let range = range.filter(|range| match reserved.reserve(*range) {
            Ok(()) => true,
            Err(error) => {
                limits.push(format!(
                    "--snat-ports {range} cannot be reserved, so that packets to endpoints on other \
                     nodes are dropped: {error:#}"
                ));
                false
            }
        });
        match range.map(no_port_left) {
            Some(Ok(limit)) => limits.extend(limit),
            Some(Err(error)) => tracing::warn!("ports of local clients: {error:#}"),
            None => {}
        }
        if let Some(range) = range {
            warn_of_sockets(range);
        }
        Self { range, reserved: reserved.clone(), looked: Instant::now() }
    }

    /// The programs know of these ports and no others: what was reserved for an earlier agent goes back.
    pub(super) fn let_go_of_others(&self) {
        if let Err(error) = self.reserved.keep_only(self.range) {
            tracing::warn!("ports that were reserved before stay so: {error:#}");
        }
    }

    /// Reserves anew what somebody has let go of; says in how long to call this again, if ever.
    pub(super) fn upkeep(&mut self) -> Option<Duration> {
        let range = self.range?;
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            if let Err(error) = self.reserved.reserve(range) {
                tracing::warn!("--snat-ports {range} may not be reserved any more: {error:#}");
            }
        }
        Some(LOOK.saturating_sub(self.looked.elapsed()))
    }
}

/// Sockets that were there before the ports were reserved keep theirs.
fn warn_of_sockets(range: PortRange) {
    const NAMED: usize = 8;
    let taken = taken_ports(range);
    if taken.is_empty() {
        return;
    }
    let named: Vec<_> = taken.iter().take(NAMED).map(u16::to_string).collect();
    let more = if taken.len() > NAMED { ", ..." } else { "" };
    tracing::warn!(
        "sockets of this node have ports of --snat-ports {range}: {}{more}; packets to them may be taken for replies to \
         clients that the node stands in for. `ss -anp` shows whose they are; start those anew, or choose other \
         --snat-ports",
        named.join(", ")
    );
}
