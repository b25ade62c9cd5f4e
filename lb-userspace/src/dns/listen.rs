//! Where questions come to: sockets for datagrams and connections on the same address and port.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context as _, Result, bail};
use rustix::net::sockopt::ipv6_v6only;
use socket2::{Domain, Socket, Type};

use crate::host::Inherited;
use crate::plan::Family;

/// So often another free port is tried, when the one for datagrams is taken for connections.
const ATTEMPTS: usize = 16;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1_024;

/// Addresses to ask the kernel for a route to; nothing is sent (RFC 5737, RFC 3849).
const ELSEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// A place where questions come to.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
    pub(super) at: SocketAddr,
}

impl Listener {
    /// Opens both sockets, also on an address that the node does not have yet.
    pub(super) fn bind(at: SocketAddr) -> Result<Self> {
        let udp = open(at, Type::DGRAM).with_context(|| format!("{at}, UDP"))?;
        let udp: UdpSocket = udp.into();
        let at = udp.local_addr()?;
        let tcp = open(at, Type::STREAM).and_then(|tcp| tcp.listen(BACKLOG).map(|()| tcp));
        let tcp = tcp.with_context(|| format!("{at}, TCP"))?.into();
        Ok(Self { udp, tcp, at })
    }

    /// Opens both sockets on `preferred`, the port of an earlier agent, or on any that is free.
    pub(super) fn bind_free(address: IpAddr, preferred: Option<u16>) -> Result<Self> {
        if let Some(port) = preferred
            && let Ok(listener) = Self::bind((address, port).into())
        {
            return Ok(listener);
        }
        let mut result = Self::bind((address, 0).into());
        for _ in 1..ATTEMPTS {
            if result.is_ok() {
                break;
            }
            result = Self::bind((address, 0).into());
        }
        result
    }

    /// What systemd has opened: one listener for each address and port.
    ///
    /// # Errors
    ///
    /// If there is only one of the two sockets somewhere.
    pub(super) fn inherited(sockets: Inherited) -> Result<Vec<Self>> {
        let mut tcp: BTreeMap<SocketAddr, TcpListener> = BTreeMap::new();
        for listener in sockets.tcp {
            tcp.insert(listener.local_addr()?, listener);
        }
        let mut listeners = Vec::new();
        for udp in sockets.udp {
            let at = udp.local_addr()?;
            let Some(tcp) = tcp.remove(&at) else { bail!(alone(at, "ListenStream=")) };
            listeners.push(Self { udp, tcp, at });
        }
        match tcp.first_key_value() {
            Some((at, _)) => bail!(alone(*at, "ListenDatagram=")),
            None => Ok(listeners),
        }
    }

    /// Where it is.
    pub(super) fn place(&self) -> Place {
        let own = Family::of(self.at.ip());
        let only_own = || self.at.is_ipv4() || ipv6_v6only(&self.udp).unwrap_or(true);
        let families = if only_own() { vec![own] } else { vec![Family::V4, Family::V6] };
        Place { at: self.at, families }
    }
}

/// Where a listener is, and who reaches it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) at: SocketAddr,
    pub(super) families: Vec<Family>,
}

fn alone(at: SocketAddr, missing: &str) -> String {
    format!(
        "of the sockets that were passed, the one at {at} is alone; a socket unit for names has \
         ListenDatagram= and ListenStream= with the same address and port, and lacks {missing}"
    )
}

fn open(at: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), kind, None)?;
    if kind == Type::STREAM {
        // Connections of an earlier agent may linger.
        socket.set_reuse_address(true)?;
    }
    if at.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&at.into())?;
    Ok(socket)
}

/// The node address of one family that questions should come to: `current` as long as the node has
/// it, else the one that the node is known by elsewhere, else any. Not a loopback or link-local one,
/// which means another place to each pod.
pub(super) fn choose(
    family: Family,
    addresses: &BTreeSet<IpAddr>,
    current: Option<IpAddr>,
) -> Option<IpAddr> {
    let fits = |address: &IpAddr| {
        Family::of(*address) == family && !address.is_loopback() && !is_link_local(*address)
    };
    let usable = |address: &IpAddr| fits(address) && addresses.contains(address);
    let known_by = || ELSEWHERE.into_iter().find_map(|target| source_towards(target, family));
    let any = || addresses.iter().copied().find(fits);
    current.filter(usable).or_else(|| known_by().filter(usable)).or_else(any)
}

/// The address that the kernel would send from.
fn source_towards(target: SocketAddr, family: Family) -> Option<IpAddr> {
    let any = match target.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok().filter(|_| Family::of(any) == family)?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_address_is_kept_while_it_is_there_and_loopback_is_none() {
        let set = |words: &[&str]| -> BTreeSet<IpAddr> {
            words.iter().map(|word| word.parse().expect("an address")).collect()
        };
        let ip = |word: &str| word.parse::<IpAddr>().expect("an address");
        for (family, addresses, current, chosen) in [
            (Family::V4, set(&["127.0.0.1"]), None, None),
            (Family::V4, set(&["127.0.0.1", "203.0.113.7"]), None, Some("203.0.113.7")),
            (
                Family::V4,
                set(&["203.0.113.7", "203.0.113.9"]),
                Some("203.0.113.9"),
                Some("203.0.113.9"),
            ),
            (Family::V4, set(&["203.0.113.7"]), Some("203.0.113.9"), Some("203.0.113.7")),
            (Family::V4, set(&["203.0.113.7"]), Some("127.0.0.1"), Some("203.0.113.7")),
            (Family::V4, set(&["169.254.0.5"]), None, None),
            (Family::V6, set(&["203.0.113.7", "fe80::1"]), None, None),
            (Family::V6, set(&["fe80::1", "fd00::7"]), None, Some("fd00::7")),
        ] {
            assert_eq!(
                choose(family, &addresses, current.map(ip)),
                chosen.map(ip),
                "{addresses:?}"
            );
        }
    }

    #[test]
    fn a_socket_that_was_passed_alone_is_named() {
        let at = || SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let udp = UdpSocket::bind(at()).expect("a free port");
        let tcp = TcpListener::bind(udp.local_addr().expect("bound")).expect("a free port");
        let both = Inherited {
            udp: vec![udp.try_clone().expect("another")],
            tcp: vec![tcp.try_clone().expect("another")],
        };
        assert_eq!(Listener::inherited(both).expect("a pair").len(), 1);
        for (alone, missing) in [
            (Inherited { udp: vec![udp], tcp: Vec::new() }, "lacks ListenStream="),
            (Inherited { udp: Vec::new(), tcp: vec![tcp] }, "lacks ListenDatagram="),
        ] {
            let error = Listener::inherited(alone).expect_err("one is missing").to_string();
            assert!(error.contains(missing), "{error}");
        }
    }

    #[test]
    fn a_port_that_is_taken_for_connections_is_not_used_for_datagrams_either() {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = Listener::bind_free(loopback, None).expect("a free port");
        assert!(Listener::bind(first.at).is_err(), "it is taken");
        let second = Listener::bind_free(loopback, Some(first.at.port())).expect("another");
        assert_ne!(first.at, second.at);
        let port = second.at.port();
        drop(second);
        let again = Listener::bind_free(loopback, Some(port)).expect("the same");
        assert_eq!(again.at.port(), port);
    }
}
