//! Socket calls as applications make them, each with a deadline.

use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockAddr, Socket};

use super::protocol::Kind;

/// How long a call may block: an answer that is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// A new socket whose calls end in time.
pub(super) fn open(kind: Kind) -> io::Result<Socket> {
    let (domain, kind, protocol) = kind.arguments();
    let socket = Socket::new(domain, kind, protocol)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // The deadline of a blocking connect, too.
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// A new socket with a cookie that leaves a certain remainder. The kernel hands cookies out nearly in
/// sequence.
pub(super) fn open_in_slot(kind: Kind, slots: u64, slot: u64) -> io::Result<Socket> {
    loop {
        let socket = open(kind)?;
        if socket.cookie()? % slots == slot {
            return Ok(socket);
        }
    }
}

pub(super) fn connect(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    socket.connect(&SockAddr::from(to))
}

/// The peer as `getpeername` says.
pub(super) fn peer(socket: &Socket) -> io::Result<SocketAddr> {
    inet(&socket.peer_addr()?)
}

/// Reads up to the first line feed.
pub(super) fn line(mut socket: &Socket) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        socket.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(String::from_utf8_lossy(&line).into_owned());
        }
        line.push(byte[0]);
    }
}

/// Reads just `length` bytes.
pub(super) fn exactly(mut socket: &Socket, length: usize) -> io::Result<String> {
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Sends everything.
pub(super) fn send(socket: &Socket, payload: &str) -> io::Result<()> {
    match socket.send(payload.as_bytes())? {
        sent if sent == payload.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

pub(super) fn send_to(socket: &Socket, to: SocketAddr, payload: &str) -> io::Result<()> {
    socket.send_to(payload.as_bytes(), &SockAddr::from(to)).map(drop)
}

/// A datagram and its source as `recvfrom` says.
pub(super) fn receive(socket: &Socket) -> io::Result<(SocketAddr, String)> {
    let mut buffer = vec![MaybeUninit::new(0); 65_535];
    let (length, from) = socket.recv_from(&mut buffer)?;
    // SAFETY: every element was initialized above, so the first `length` are.
    let bytes = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
    let payload = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok((inet(&from)?, payload))
}

fn inet(address: &SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::other("not an internet address"))
}

/// One whole visit on a socket of its own: who answered, and who it says it was.
pub(super) fn visit(kind: Kind, to: SocketAddr) -> io::Result<(String, SocketAddr)> {
    let socket = open(kind)?;
    connect(&socket, to)?;
    let peer = peer(&socket)?;
    if kind.is_datagram() {
        send(&socket, "?")?;
        let (_, answer) = receive(&socket)?;
        let name = answer.split(':').next().unwrap_or_default();
        return Ok((name.to_owned(), peer));
    }
    let name = line(&socket)?;
    // Thousands of visits would leave as many ports in TIME_WAIT; a reset leaves none.
    socket.set_linger(Some(Duration::ZERO))?;
    Ok((name, peer))
}
