//! The requests a test sends to its workload, and the replies.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Type};

use super::Errno;

/// A socket's family and protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    Tcp4,
    Tcp6,
    Udp4,
    Udp6,
    Mptcp4,
    Mptcp6,
}

impl Kind {
    /// A TCP socket of the address's family.
    pub(crate) fn tcp(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::Tcp4 } else { Self::Tcp6 }
    }

    /// A UDP socket of the address's family.
    pub(crate) fn udp(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::Udp4 } else { Self::Udp6 }
    }

    /// The arguments of `socket(2)`.
    pub(super) fn arguments(self) -> (Domain, Type, Option<Protocol>) {
        match self {
            Self::Tcp4 => (Domain::IPV4, Type::STREAM, None),
            Self::Tcp6 => (Domain::IPV6, Type::STREAM, None),
            Self::Udp4 => (Domain::IPV4, Type::DGRAM, None),
            Self::Udp6 => (Domain::IPV6, Type::DGRAM, None),
            Self::Mptcp4 => (Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)),
            Self::Mptcp6 => (Domain::IPV6, Type::STREAM, Some(Protocol::MPTCP)),
        }
    }

    pub(super) fn is_datagram(self) -> bool {
        matches!(self, Self::Udp4 | Self::Udp6)
    }
}

/// What the workload is to do. Sockets have numbers that the test chooses.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Open {
        socket: u32,
        kind: Kind,
    },
    Bind {
        socket: u32,
        to: SocketAddr,
    },
    /// A socket whose cookie is that of `other` modulo the number of slots.
    OpenColliding {
        socket: u32,
        kind: Kind,
        other: u32,
        slots: u64,
    },
    /// `SO_PRIORITY`.
    SetPriority {
        socket: u32,
        priority: u32,
    },
    Connect {
        socket: u32,
        to: SocketAddr,
    },
    /// `connect` with `AF_UNSPEC`.
    Disconnect {
        socket: u32,
    },
    /// The first line of a TCP connection.
    Greeting {
        socket: u32,
    },
    /// Sends on a TCP connection and reads as much back.
    Echo {
        socket: u32,
        payload: String,
    },
    PeerName {
        socket: u32,
    },
    Send {
        socket: u32,
        payload: String,
    },
    SendTo {
        socket: u32,
        to: SocketAddr,
        payload: String,
    },
    /// Whom a datagram is from, and what it holds.
    Receive {
        socket: u32,
    },
    Close {
        socket: u32,
    },
    /// `count` connections (or request–answer pairs), one after another, each on a socket of its
    /// own.
    Burst {
        kind: Kind,
        to: SocketAddr,
        count: u32,
    },
    /// Connects in the background until told to stop.
    LoadStart {
        kind: Kind,
        to: SocketAddr,
    },
    /// Attempts begun from now on are counted apart.
    LoadMark,
    LoadStop,
    /// Visits these one after the other in the background, and notes each.
    RecordStart {
        targets: Vec<(Kind, SocketAddr)>,
    },
    RecordStop,
    /// Connects so many sockets and keeps them.
    Hold {
        kind: Kind,
        to: SocketAddr,
        count: u32,
    },
    /// The same, each bound to the next of these addresses.
    HoldFrom {
        kind: Kind,
        sources: Vec<IpAddr>,
        to: SocketAddr,
        count: u32,
    },
    /// A question on each that is kept, and the answer to it.
    HoldAsk,
    /// What `getpeername` shows of all that are kept.
    HoldLook,
    /// Closes all that are kept.
    HoldEnd,
    /// Sends so many bytes on a TCP connection, and reads the same back.
    Transfer {
        to: SocketAddr,
        bytes: usize,
    },
    /// So many datagrams of so many bytes, each echoed by the address that it was sent to.
    Datagrams {
        to: SocketAddr,
        bytes: usize,
        count: u32,
    },
    /// Sends on a TCP connection in the background, and reads the same back.
    StreamStart {
        to: SocketAddr,
    },
    /// What came of all of them.
    StreamsStop,
    /// `getaddrinfo`.
    Resolve {
        name: String,
        service: String,
    },
}

/// What came of it: a value of the request's own type, or why there is none.
pub(crate) type Reply = Result<serde_json::Value, Failure>;

/// Why a request has no result.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// A system call failed.
    Call(Errno),
    /// The request makes no sense: a mistake of the test.
    Nonsense(String),
}
