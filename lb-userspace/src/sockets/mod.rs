//! The sockets of this node that lb has translated: closing those whose backend is gone, and
//! freeing the slots of those that are gone themselves. See `docs/closing-sockets.md`.
//!
//! Everything happens on one thread of its own, [`worker`], which sleeps while there is nothing to
//! do: backends that died wake it. It reads what the programs remember, asks the kernel for its
//! sockets, and the engine for a verdict ([`rules`]).

pub mod diag;
pub mod netns;
mod reclaim;
mod rules;
mod schedule;
mod stored;
mod sweep;
mod worker;

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::diag::{Diag, Table};
pub use self::rules::{Cause, DeadPeer, Facts, Membership};
pub use self::worker::{Handle, Judge, start};
use crate::api::types::CloseReport;

/// How sockets are treated.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// `--close-tcp`
    pub close_tcp: bool,
    /// `--reclaim-after`: a slot is freed if its socket is missing from two listings this far apart.
    pub reclaim_after: Duration,
}

/// What `lb close` asks for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloseRequest {
    /// TCP sockets are treated as UDP sockets are.
    #[serde(default)]
    pub tcp: bool,
    /// Say what would be closed, and close nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// Who wants to know what was closed.
pub type CloseReply = tokio::sync::oneshot::Sender<CloseReport>;

/// The sockets' part of `lb status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// TCP sockets closed since the agent has started.
    pub closed_tcp: u64,
    /// UDP sockets closed since the agent has started.
    pub closed_udp: u64,
    /// Sockets that were to be closed and could not be.
    pub failed: u64,
    /// Slots freed whose sockets were gone.
    pub reclaimed: u64,
    /// When sockets were last looked for, RFC 3339.
    pub last_sweep: Option<String>,
    /// What could not be looked at the last time.
    pub problems: Vec<String>,
}

/// What this kernel cannot do about sockets, and what follows.
///
/// # Errors
///
/// If it did not let us ask.
pub fn limits() -> io::Result<Vec<String>> {
    let mut diag = Diag::open()?;
    let mut limits = Vec::new();
    for (table, protocol, module) in
        [(Table::TCP_V4, "TCP", "tcp_diag"), (Table::UDP_V4, "UDP", "udp_diag")]
    {
        match diag.probe(table) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => limits.push(format!(
                "the kernel lacks {module} or CONFIG_INET_DIAG_DESTROY: {protocol} sockets whose \
                 backends are gone stay open"
            )),
            Err(error) => return Err(error),
        }
    }
    Ok(limits)
}
