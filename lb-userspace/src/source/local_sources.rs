//! Whether a client is on this node, by the address that its packets come from.
//!
//! What the node does for its own workloads only, such as recursion in DNS, must not be had from
//! elsewhere. Lists of ranges would have to be kept in step with the node; its routes are so already.
//! A source is on this node if
//!
//! 1. it is an address of the node (a route of type local), or loopback; or if
//! 2. the route to it has no gateway and leaves by a device behind which are workloads of this node
//!    alone: one end of a veth pair, a netkit device, the tap of a virtual machine, or a bridge that
//!    has no other ports than those. Everything else leads out of the node: hardware, bond, vlan and
//!    macvlan (the network), tunnels such as vxlan, ipip and wireguard, and a tun device that is none
//!    of Ethernet (a VPN), as does a bridge that has one of them for a port.
//!
//! A node may be a container or a small virtual machine itself, whose way out is a veth or a tap. So a
//! device by which the rest of the world is reached leads out, whatever it is, and so does a route
//! that is wider than any node's own network.
//!
//! The rule errs on the side of "elsewhere": pods behind a gateway of their own (Cilium's
//! `cilium_host`), behind Open vSwitch or in a VRF are not recognised. What it cannot see is that the
//! other end of a veth pair or of a tap is not where a workload is but, say, a router. Over UDP a
//! source can be forged, but the answer goes to the one whose address it is: to this node.

mod rule;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::route;
use crate::host::{Netlink, NetlinkError};
use rule::{Place, leads_to, leads_to_workloads};

/// How long an answer holds. A pod's address may soon be another's, hardly ever one elsewhere.
const LIFETIME: Duration = Duration::from_secs(5);

/// How many sources are remembered; then all are forgotten. Sources can be forged in any number.
const REMEMBERED: usize = 4096;

/// Tells which sources are on this node, and remembers it for some seconds. It speaks for the network
/// namespace of the thread that asks first.
#[derive(Debug, Default)]
pub struct LocalSources {
    netlink: Option<Netlink>,
    sources: Remembered<(IpAddr, u32)>,
    devices: Remembered<u32>,
    complained: Option<Instant>,
}

impl LocalSources {
    /// Asks nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether this is on the node. A link-local IPv6 address is not without its scope, the index of
    /// the device that it came by. An address of which the kernel cannot be asked is elsewhere.
    pub fn contains(&mut self, source: SocketAddr) -> bool {
        let ip = source.ip().to_canonical();
        if ip.is_loopback() {
            return true;
        }
        let scope = match source {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => Some(v6.scope_id()),
            SocketAddr::V4(_) | SocketAddr::V6(_) => None,
        };
        // As destinations, the kernel takes them for this host and for a device of its choice.
        if ip.is_unspecified() || scope == Some(0) {
            return false;
        }
        let scope = scope.unwrap_or(0);
        let now = Instant::now();
        if let Some(answer) = self.sources.get(&(ip, scope), now) {
            return answer;
        }
        match self.ask(ip, scope, now) {
            Ok(answer) => {
                self.sources.put((ip, scope), answer, now);
                answer
            }
            Err(error) => {
                self.netlink = None;
                // One who sends much does not fill the log.
                if self.complained.is_none_or(|last| now.duration_since(last) > LIFETIME) {
                    tracing::warn!("whether {ip} is on this node cannot be found out: {error}");
                    self.complained = Some(now);
                }
                false
            }
        }
    }

    fn ask(&mut self, ip: IpAddr, scope: u32, now: Instant) -> Result<bool, NetlinkError> {
        let netlink = match &mut self.netlink {
            Some(netlink) => netlink,
            none @ None => none.insert(Netlink::open()?),
        };
        let Some(route) = route::get(netlink, ip, scope)? else { return Ok(false) };
        match leads_to(&route) {
            Place::ThisNode => Ok(true),
            Place::Elsewhere => Ok(false),
            Place::Behind(device) => match self.devices.get(&device, now) {
                Some(answer) => Ok(answer),
                None => {
                    let answer = leads_to_workloads(netlink, device)?;
                    self.devices.put(device, answer, now);
                    Ok(answer)
                }
            },
        }
    }
}

/// Answers for a while, never more than [`REMEMBERED`].
#[derive(Debug)]
struct Remembered<K>(HashMap<K, (bool, Instant)>);

impl<K> Default for Remembered<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Remembered<K> {
    fn get(&self, key: &K, now: Instant) -> Option<bool> {
        let (answer, since) = self.0.get(key)?;
        (now.duration_since(*since) < LIFETIME).then_some(*answer)
    }

    fn put(&mut self, key: K, answer: bool, now: Instant) {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&key) {
            self.0.clear();
        }
        self.0.insert(key, (answer, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_for_a_while_and_never_more_than_the_limit() {
        let mut remembered = Remembered::default();
        let start = Instant::now();
        remembered.put(0, true, start);
        assert_eq!(remembered.get(&0, start + LIFETIME / 2), Some(true));
        assert_eq!(remembered.get(&0, start + LIFETIME), None);
        remembered.put(0, false, start + LIFETIME);
        assert_eq!(remembered.get(&0, start + LIFETIME), Some(false));
        for key in 0..3 * REMEMBERED {
            remembered.put(key, false, start);
            assert!(remembered.0.len() <= REMEMBERED);
            assert_eq!(remembered.get(&key, start), Some(false), "the last one is kept");
        }
    }

    #[test]
    fn this_machines_addresses_are_on_this_node_and_the_world_is_not() {
        let mut sources = LocalSources::new();
        for (source, expected) in [
            ("127.0.0.1:1", true),
            ("127.8.9.10:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("[::ffff:0.0.0.0]:1", false),
            ("192.0.2.1:1", false),
            ("[2001:db8::1]:1", false),
            ("224.0.0.1:1", false),
            ("255.255.255.255:1", false),
            ("[fe80::1]:1", false),
        ] {
            let source: SocketAddr = source.parse().expect("an address");
            assert_eq!(sources.contains(source), expected, "{source}");
        }
    }
}
