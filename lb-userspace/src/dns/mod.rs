//! Names: every Service answers by its DNS name.
//!
//! A question's road: [`server`] (UDP, TCP) → [`respond`] → [`zone`], or for names outside the
//! cluster's zones [`forward`]. What the names lead to comes from the engine, through [`Zones`].

mod clients;
mod forward;
mod inbox;
mod listen;
mod message;
mod metrics;
mod names;
mod respond;
mod reverse;
mod server;
mod service;
mod tcp;
mod udp;
mod zone;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hickory_server::proto::rr::Name;
use ipnet::IpNet;

use crate::object::Key;
pub use forward::{
    Config as ForwardConfig, Status as ForwardStatus, UpstreamState, UpstreamStatus,
};
pub use hickory_server::net::xfer::Protocol as Transport;
pub use names::{Host, Names};
pub use respond::{Pending, Reply, Responder};
pub use server::{Config, Monitor, Server, Status};
pub use service::{NAME, NAMESPACE, PORT};
use zone::Zone;

/// The cluster's zones, shared between the engine, which keeps them in step with its objects, and
/// those who answer questions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Zones(Arc<RwLock<Zone>>);

impl Zones {
    /// Zones without Services: `domain`, and the reverse names of `ranges`. Answers hold for `ttl`
    /// seconds.
    pub fn new(domain: &Name, ttl: u32, ranges: Vec<IpNet>) -> Self {
        Self(Arc::new(RwLock::new(Zone::new(domain, ttl, ranges))))
    }

    /// Sets or removes the names of Services. The next answer shows it.
    pub fn set(&self, services: Vec<(&Key, Option<Names>)>) {
        let mut zone = self.write();
        for (key, names) in services {
            zone.set(key, names);
        }
    }

    /// Every source has been heard: from now on a name that is not here does not exist.
    pub fn set_complete(&self) {
        self.write().set_complete();
    }

    /// Says which Service is the server of these zones, if any.
    pub fn set_server(&self, service: Option<&Key>) {
        self.write().set_server(service);
    }

    /// The ClusterIPs of that Service.
    pub fn server_addresses(&self) -> Vec<IpAddr> {
        self.read().server_addresses().to_vec()
    }

    /// The domain, as people write it.
    pub fn domain(&self) -> String {
        self.read().domain().to_ascii().trim_end_matches('.').to_owned()
    }

    // A panic elsewhere leaves at worst one Service's names half set, and they are set anew with its
    // next change: better than no answers.
    fn read(&self) -> RwLockReadGuard<'_, Zone> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Zone> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
