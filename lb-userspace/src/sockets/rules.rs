//! Which sockets may be closed. Pure.
//!
//! A socket's peer is *dead* when its backend id has ended or has come to mean another endpoint. An
//! endpoint that is merely not selected (not ready, terminating, narrowed away) is not dead.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use lb_common::abi::{Address, FrontendKey, Life, Peer, Port, protocol};
use serde::{Deserialize, Serialize};

/// A backend that sockets are connected to and that is gone, with the frontend they know it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadPeer {
    /// What the application connected to.
    pub frontend: FrontendKey,
    /// Where the connection leads.
    pub backend: (Address, Port),
}

impl DeadPeer {
    /// The peer, if it is dead; `life` is what the id means by now.
    pub fn new(peer: &Peer, life: Life) -> Option<Self> {
        let lives = life.present && life.generation == peer.backend_generation;
        (!lives).then(|| Self {
            frontend: FrontendKey::new(peer.frontend, peer.frontend_port, peer.protocol),
            backend: (peer.backend, peer.backend_port),
        })
    }

    /// The backend's address.
    pub fn address(&self) -> IpAddr {
        self.backend.0.into()
    }
}

/// Whether a service port has an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// No service port has the frontend any more.
    NoService,
    /// The service port lacks the endpoint.
    Absent,
    /// The endpoint has come back, under another id.
    Member,
}

/// What decides about dead peers.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Endpoints that went a moment ago.
    pub unsettled: BTreeSet<(Address, Port)>,
    /// Addresses of Pod objects that were deleted and that no other Pod object has.
    pub deleted_pods: BTreeSet<IpAddr>,
    /// TCP sockets are treated as UDP sockets are (`--close-tcp`).
    pub close_tcp: bool,
}

/// Why a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The endpoint is in no slice of the Service.
    EndpointGone,
    /// The Pod object was deleted.
    PodDeleted,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndpointGone => "the endpoint is gone",
            Self::PodDeleted => "the Pod was deleted",
        })
    }
}

impl Facts {
    /// Why sockets connected to a dead peer are closed; `None` if they are left alone.
    ///
    /// A TCP connection to an endpoint that left its slices often goes on well (a relabelled pod,
    /// one that moves to another slice), and where it does not, the kernel notices. A UDP socket
    /// would send into the void for as long as it is open.
    pub fn judge(&self, peer: &DeadPeer, membership: Membership) -> Option<Cause> {
        if self.unsettled.contains(&peer.backend) || membership == Membership::Member {
            return None;
        }
        if self.deleted_pods.contains(&peer.address()) {
            return Some(Cause::PodDeleted);
        }
        let by_endpoint = peer.frontend.protocol == protocol::UDP || self.close_tcp;
        (by_endpoint && membership == Membership::Absent).then_some(Cause::EndpointGone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(protocol: u8) -> Peer {
        let address = |last| Address::from(IpAddr::from([10, 0, 0, last]));
        Peer {
            frontend: address(1),
            frontend_port: Port::new(53),
            backend: address(2),
            backend_port: Port::new(5353),
            protocol,
            connected: 1,
            backend_id: 7,
            backend_generation: 3,
            ..Peer::NONE
        }
    }

    #[test]
    fn a_peer_is_dead_when_its_id_has_ended_or_means_another_endpoint() {
        let life =
            |present, generation, cluster| Life { generation, cluster, local: false, present };
        for (life, dead, what) in [
            (life(true, 3, true), false, "selected"),
            (life(true, 3, false), false, "not selected, but an endpoint"),
            (life(false, 3, false), true, "ended"),
            (life(true, 4, true), true, "another endpoint has the id"),
            (life(false, 4, false), true, "another endpoint had the id"),
        ] {
            assert_eq!(DeadPeer::new(&peer(protocol::UDP), life).is_some(), dead, "{what}");
        }
    }

    #[test]
    fn sockets_are_closed_by_these_rules_and_no_others() {
        use Cause::{EndpointGone, PodDeleted};
        use Membership::{Absent, Member, NoService};
        use protocol::{TCP, UDP};
        let facts = |settled: bool, deleted: bool, close_tcp| Facts {
            unsettled: BTreeSet::from([(
                Address::from(IpAddr::from([10, 0, 0, 2])),
                Port::new(if settled { 8 } else { 5353 }),
            )]),
            deleted_pods: BTreeSet::from([[10, 0, 0, if deleted { 2 } else { 3 }].into()]),
            close_tcp,
        };
        // protocol, (settled, pod deleted, --close-tcp), the service port's view, verdict
        for (protocol, (settled, deleted, close_tcp), membership, expected) in [
            (UDP, (true, false, false), Absent, Some(EndpointGone)),
            (UDP, (false, false, false), Absent, None),
            (UDP, (true, false, false), Member, None),
            (UDP, (true, false, false), NoService, None),
            (UDP, (true, true, false), Absent, Some(PodDeleted)),
            (UDP, (true, true, false), NoService, Some(PodDeleted)),
            (UDP, (true, true, false), Member, None),
            (UDP, (false, true, false), Absent, None),
            (TCP, (true, false, false), Absent, None),
            (TCP, (true, false, true), Absent, Some(EndpointGone)),
            (TCP, (false, false, true), Absent, None),
            (TCP, (true, false, true), Member, None),
            (TCP, (true, false, true), NoService, None),
            (TCP, (true, true, false), Absent, Some(PodDeleted)),
            (TCP, (true, true, false), NoService, Some(PodDeleted)),
            (TCP, (true, true, true), Member, None),
            (TCP, (false, true, true), Absent, None),
        ] {
            let dead = DeadPeer::new(&peer(protocol), Life::default()).expect("dead");
            let judged = facts(settled, deleted, close_tcp).judge(&dead, membership);
            let case = (protocol, settled, deleted, close_tcp, membership);
            assert_eq!(judged, expected, "(protocol, settled, deleted, tcp, membership) {case:?}");
        }
    }
}
