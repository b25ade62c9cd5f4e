//! One Service, its endpoints and this node → what the kernel should hold for it. Pure.

use std::net::IpAddr;

use crate::object::Key;

/// Transport protocol of a service port that lb serves (SCTP is named and skipped).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Identity of one kernel service: one port of one Service in one family, since a client of a
/// family can only be sent to endpoints of that family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePortId {
    /// The Service.
    pub service: Key,
    /// Family of its frontends and backends.
    pub family: Family,
    /// Protocol of the port.
    pub protocol: Protocol,
    /// `spec.ports[].port`, host byte order.
    pub port: u16,
}

/// What the kernel should hold for one [`ServicePortId`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where clients connect to, sorted.
    pub frontends: Vec<Frontend>,
    /// Every known endpoint that may still be in use, sorted by address and port. An endpoint of
    /// this list that is selected for nobody keeps its backend entry (established connections
    /// drain); one that leaves the list is gone.
    pub backends: Vec<Backend>,
    /// ClientIP affinity in seconds since last use; 0 is none.
    pub affinity_seconds: u32,
}

/// One address and port that clients connect to; the protocol is the [`ServicePortId`]'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// Address.
    pub address: IpAddr,
    /// Port, host byte order.
    pub port: u16,
    /// What sort of address it is.
    pub kind: FrontendKind,
}

/// What sort of address a frontend has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// A ClusterIP: every other TCP and UDP port of this address is refused.
    ClusterIp,
}

/// One endpoint of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Address of the pod.
    pub address: IpAddr,
    /// Its target port, host byte order.
    pub port: u16,
    /// Chosen for traffic from this node (`internalTrafficPolicy`).
    pub internal: bool,
    /// Chosen for traffic from outside (`externalTrafficPolicy`).
    pub external: bool,
}
