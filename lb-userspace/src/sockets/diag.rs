//! The kernel's tables of TCP and UDP sockets, by `NETLINK_SOCK_DIAG` (sock_diag(7)): listing them
//! with their cookies and lb's storage, and destroying one.
//!
//! Numbers are in the machine's order, addresses and ports in the network's. The usual crate for this
//! protocol (netlink-packet-sock-diag) does not know the attributes of requests, by which lb's storage
//! is asked for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use lb_common::abi::{Address, Peer, Port, protocol};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// include/uapi/linux/sock_diag.h, include/uapi/linux/inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;

/// `struct nlmsghdr`, `struct inet_diag_msg`, `struct nlattr`
const HEADER: usize = 16;
const SOCKET: usize = 72;
const ATTRIBUTE: usize = 4;
/// Bits of an attribute's type that are flags.
const ATTRIBUTE_FLAGS: u16 = 0xc000;

/// How often a listing that others interrupted is begun again.
const ATTEMPTS: u32 = 5;

/// States of sockets, as bits (`enum` in include/net/tcp_states.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States(u32);

impl States {
    /// Connected, or on the way there or from there. UDP sockets are either this or closed.
    pub const WITH_PEER: Self = Self(1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11);
    /// All of an application's sockets. Those in `TIME_WAIT` and `NEW_SYN_RECV` are none.
    pub const ALL: Self = Self(!(1 << 6 | 1 << 12));
    /// None, to ask whether there is such a table.
    pub const NONE: Self = Self(0);
}

/// One table of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    family: u8,
    protocol: u8,
}

impl Table {
    /// Every table whose sockets lb translates.
    pub const ALL: [Self; 4] = [
        Self::TCP_V4,
        Self { family: FAMILY_V6, protocol: protocol::TCP },
        Self::UDP_V4,
        Self { family: FAMILY_V6, protocol: protocol::UDP },
    ];
    /// TCP sockets of IPv4.
    pub const TCP_V4: Self = Self { family: FAMILY_V4, protocol: protocol::TCP };
    /// UDP sockets of IPv4.
    pub const UDP_V4: Self = Self { family: FAMILY_V4, protocol: protocol::UDP };
}

#[expect(clippy::cast_possible_truncation, reason = "2 and 10")]
const FAMILY_V4: u8 = libc::AF_INET as u8;
#[expect(clippy::cast_possible_truncation, reason = "2 and 10")]
const FAMILY_V6: u8 = libc::AF_INET6 as u8;

/// A socket as the kernel lists it.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Protocol number.
    pub protocol: u8,
    /// Unique among all sockets since the node has started.
    pub cookie: u64,
    /// Of the file that it is; 0 if the application has closed it.
    pub inode: u32,
    /// Where it receives.
    pub local: (Address, Port),
    /// Whom it is connected to.
    pub remote: (Address, Port),
    /// Its storage in the map that was asked for. The kernel lists that of TCP sockets only.
    pub stored: Option<Peer>,
    family: u8,
    /// `struct inet_diag_sockid`
    id: [u8; 48],
}

/// An address as people write it.
pub fn written((address, port): (Address, Port)) -> SocketAddr {
    SocketAddr::new(IpAddr::from(address), port.number())
}

/// An opening to the tables of one network namespace.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Diag {
    /// An opening to the tables of the calling thread's network namespace; it leads there from any
    /// thread.
    pub fn open() -> io::Result<Self> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
        // The kernel fills up to 32 KiB at a time.
        Ok(Self { socket, sequence: 0, buffer: vec![0; 64 << 10] })
    }

    /// Lists the sockets of a table that are in one of `states`, with their storage in the map
    /// `storage`. A listing that was interrupted is begun again: `each` may see a socket twice.
    ///
    /// # Errors
    ///
    /// If not all sockets could be listed.
    pub fn list(
        &mut self,
        table: Table,
        states: States,
        storage: Option<BorrowedFd<'_>>,
        mut each: impl FnMut(Socket),
    ) -> io::Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let request = request(table, states, &[0; 48]);
        let storage = storage.map(|map| {
            let fd = attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &map.as_raw_fd().to_ne_bytes());
            attribute(INET_DIAG_REQ_SK_BPF_STORAGES, &fd)
        });
        let body = [&request[..], &storage.unwrap_or_default()].concat();
        for _ in 0..ATTEMPTS {
            self.send(SOCK_DIAG_BY_FAMILY, flags, &body)?;
            if self.receive_all(table.protocol, &mut each)? {
                return Ok(());
            }
        }
        Err(io::Error::other("the list of sockets kept changing while it was read"))
    }

    /// Ends a socket's connection: its next call fails with `ECONNABORTED`, and one that waits
    /// returns.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such socket any more.
    pub fn destroy(&mut self, socket: &Socket) -> io::Result<()> {
        let table = Table { family: socket.family, protocol: socket.protocol };
        self.destroy_by_id(table, &socket.id)
    }

    /// Whether the kernel lists and destroys the sockets of `table`: `Unsupported` if not.
    pub fn probe(&mut self, table: Table) -> io::Result<()> {
        // Without the module there is no such table; `NotFound` would be taken for its answer.
        self.list(table, States::NONE, None, drop).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOENT) => io::ErrorKind::Unsupported.into(),
            _ => error,
        })?;
        // No socket has port 0, nor the cookie 0.
        match self.destroy_by_id(table, &[0; 48]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            result => result,
        }
    }

    fn destroy_by_id(&mut self, table: Table, id: &[u8; 48]) -> io::Result<()> {
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.send(SOCK_DESTROY, flags, &request(table, States::ALL, id))?;
        self.receive_all(table.protocol, &mut drop).map(drop)
    }

    fn send(&mut self, kind: u16, flags: libc::c_int, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let flags = u16::try_from(flags).map_err(io::Error::other)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }

    /// Reads the answer to the latest request. False if the kernel says that it is not complete.
    fn receive_all(&mut self, protocol: u8, each: &mut impl FnMut(Socket)) -> io::Result<bool> {
        let mut complete = true;
        loop {
            let (_, length) = recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC)?;
            let Some(mut rest) = self.buffer.get(..length) else {
                return Err(io::Error::other("a message of the kernel was cut off"));
            };
            while let Some((message, following)) = Message::first(rest) {
                rest = following;
                if message.sequence != self.sequence {
                    continue;
                }
                complete &= i32::from(message.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => {
                        return match number(message.body, 0).map(u32::cast_signed) {
                            None | Some(0) => Ok(complete),
                            Some(error) => Err(io::Error::from_raw_os_error(-error)),
                        };
                    }
                    _ => Socket::parse(protocol, message.body).into_iter().for_each(&mut *each),
                }
            }
        }
    }
}

/// `struct inet_diag_req_v2`
fn request(table: Table, states: States, id: &[u8; 48]) -> [u8; 56] {
    let mut request = [0; 56];
    request[0] = table.family;
    request[1] = table.protocol;
    request[4..8].copy_from_slice(&states.0.to_ne_bytes());
    request[8..].copy_from_slice(id);
    request
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(ATTRIBUTE + value.len()).expect("a few bytes");
    [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat()
}

/// One message of the kernel.
struct Message<'b> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'b [u8],
}

impl<'b> Message<'b> {
    /// The first message, and what follows it.
    fn first(bytes: &'b [u8]) -> Option<(Self, &'b [u8])> {
        let length = number(bytes, 0)? as usize;
        let body = bytes.get(HEADER..length)?;
        let (kind, flags) = (half(bytes, 4)?, half(bytes, 6)?);
        let message = Self { kind, flags, sequence: number(bytes, 8)?, body };
        Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
    }
}

impl Socket {
    /// From `struct inet_diag_msg` and its attributes.
    fn parse(protocol: u8, body: &[u8]) -> Option<Self> {
        let (fixed, attributes) = body.split_at_checked(SOCKET)?;
        let family = fixed[0];
        let id: [u8; 48] = fixed[4..52].try_into().ok()?;
        let address = |at: usize| {
            let bytes: [u8; 16] = id[at..at + 16].try_into().expect("16 bytes");
            match (family, bytes) {
                (FAMILY_V4, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]).into(),
                _ => Address::from_bytes(bytes),
            }
        };
        let port = |at: usize| Port::new(u16::from_be_bytes([id[at], id[at + 1]]));
        let cookie = u64::from(number(&id, 40)?) | u64::from(number(&id, 44)?) << 32;
        Some(Self {
            protocol,
            cookie,
            inode: number(fixed, 68)?,
            local: (address(4), port(0)),
            remote: (address(20), port(2)),
            stored: find(attributes, INET_DIAG_SK_BPF_STORAGES)
                .and_then(|storages| find(storages, SK_DIAG_BPF_STORAGE))
                .and_then(|storage| find(storage, SK_DIAG_BPF_STORAGE_MAP_VALUE))
                .and_then(peer_from),
            family,
            id,
        })
    }
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(attributes, 0)?);
        let value = attributes.get(ATTRIBUTE..length)?;
        if half(attributes, 2)? & !ATTRIBUTE_FLAGS == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

/// A peer from the value of a map.
pub fn peer_from(value: &[u8]) -> Option<Peer> {
    let value = value.get(..size_of::<Peer>())?;
    // SAFETY: as many bytes as a Peer has, which consists of integers only.
    Some(unsafe { value.as_ptr().cast::<Peer>().read_unaligned() })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().expect("four bytes")))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().expect("two bytes")))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use rustix::net::sockopt::socket_cookie;

    use super::*;

    fn list(table: Table, states: States, of: &UdpSocket) -> Option<Socket> {
        let cookie = socket_cookie(of).expect("a socket has a cookie");
        let mut found = None;
        let mut diag = Diag::open().expect("a netlink socket");
        let listed = diag.list(table, states, None, |socket| {
            if socket.cookie == cookie {
                found = Some(socket);
            }
        });
        listed.expect("the kernel lists UDP sockets");
        found
    }

    #[test]
    fn sockets_are_listed_with_their_addresses_if_their_state_is_asked_for() {
        let v6 = Table { family: FAMILY_V6, ..Table::UDP_V4 };
        for (table, address) in [(Table::UDP_V4, "127.0.0.1:0"), (v6, "[::1]:0")] {
            let [waiting, connected] =
                [(); 2].map(|()| UdpSocket::bind(address).expect("loopback has an address"));
            let [to, from] = [&waiting, &connected].map(|s| s.local_addr().expect("bound"));
            connected.connect(to).expect("connect on loopback");

            let found = list(table, States::WITH_PEER, &connected).expect("connected");
            assert_eq!((written(found.local), written(found.remote)), (from, to));
            assert!(list(table, States::WITH_PEER, &waiting).is_none(), "not connected");
            assert!(list(table, States::ALL, &waiting).is_some(), "in some state");
            assert!(list(Table::TCP_V4, States::ALL, &connected).is_none(), "another table");
        }
    }
}
