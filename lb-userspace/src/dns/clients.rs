//! Who may ask: workloads of this node, and who is allowed by name. An open resolver is a weapon
//! (RFC 5358), so everybody else is refused, for names of the cluster as well.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use ipnet::IpNet;

use crate::source::LocalSources;

/// Tells clients that may ask from others.
#[derive(Debug)]
pub(super) struct Clients {
    allowed: Vec<IpNet>,
    local: Mutex<LocalSources>,
}

impl Clients {
    /// Clients in `allowed`, and those of this node.
    pub(super) fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed, local: Mutex::new(LocalSources::new()) }
    }

    /// Whether a client gets answers.
    pub(super) fn trust(&self, client: SocketAddr) -> bool {
        let address: IpAddr = client.ip().to_canonical();
        if self.allowed.iter().any(|range| range.contains(&address)) {
            return true;
        }
        self.local.lock().unwrap_or_else(PoisonError::into_inner).contains(client)
    }
}
