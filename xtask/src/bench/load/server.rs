//! The server's end of a load: one TCP and one UDP port. It does as little as can be done, so that what is between the
//! two ends is measured, not this.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::net::{RecvFlags, sockopt};

/// Room for datagrams that wait to be counted, in bytes: of a million a second those of several milliseconds.
const QUEUE: usize = 8 << 20;
/// How long they wait.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Datagrams that came.
static DATAGRAMS: AtomicU64 = AtomicU64::new(0);

/// What a connection is for: its first byte. A connection without one is closed as soon as the client closes it.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Wish {
    /// Each byte comes back.
    Echo = b'e',
    /// All is taken, and nothing said.
    Take = b't',
    /// Each byte is answered with how many datagrams came: eight bytes, the least significant first.
    Count = b'c',
    /// The connection's two addresses, as they are at this end, the client's first.
    Who = b'w',
}

impl Wish {
    fn of(byte: u8) -> Option<Self> {
        [Self::Echo, Self::Take, Self::Count, Self::Who]
            .into_iter()
            .find(|wish| *wish as u8 == byte)
    }
}

/// What the process is to do.
#[derive(clap::Args)]
pub(crate) struct Order {
    /// Where to listen, on all addresses
    #[arg(long)]
    port: u16,
}

/// Serves until it is ended.
pub(crate) fn run(order: &Order) -> Result<()> {
    let at = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, order.port);
    let datagrams = UdpSocket::bind(at).with_context(|| format!("cannot bind {at}"))?;
    sockopt::set_socket_recv_buffer_size_force(&datagrams, QUEUE)
        .context("cannot enlarge a socket's queue")?;
    let listener = TcpListener::bind(at).with_context(|| format!("cannot listen at {at}"))?;
    thread::spawn(move || count(&datagrams));
    for connection in listener.incoming() {
        // One after the other: no load has more than one. What becomes of it is for the client to tell.
        if let Err(error) = connection.and_then(serve) {
            eprintln!("a connection broke: {error}");
        }
    }
    Ok(())
}

/// Looks for datagrams now and then while some come: to wake another processor costs a sender more than the way of a
/// packet.
fn count(socket: &UdpSocket) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        socket.recv(&mut buffer)?;
        let mut came = 1;
        while came > 0 {
            DATAGRAMS.fetch_add(came, Ordering::Relaxed);
            thread::sleep(BETWEEN_LOOKS);
            came = 0;
            while rustix::net::recv(socket, &mut buffer, RecvFlags::DONTWAIT).is_ok() {
                came += 1;
            }
        }
    }
}

fn serve(mut connection: TcpStream) -> io::Result<()> {
    let mut wish = [0];
    if connection.read(&mut wish)? == 0 {
        return Ok(());
    }
    connection.set_nodelay(true)?;
    let wish = Wish::of(wish[0]).ok_or_else(|| io::Error::other("nobody wishes this"))?;
    match wish {
        Wish::Echo => answer(&mut connection, |byte| [byte]),
        Wish::Take => take(&mut connection),
        Wish::Count => answer(&mut connection, |_| DATAGRAMS.load(Ordering::Relaxed).to_le_bytes()),
        Wish::Who => {
            let (client, server) = (connection.peer_addr()?, connection.local_addr()?);
            write!(connection, "{client} {server}")
        }
    }
}

fn answer<const N: usize>(
    connection: &mut TcpStream,
    words: impl Fn(u8) -> [u8; N],
) -> io::Result<()> {
    let mut request = [0];
    while connection.read(&mut request)? != 0 {
        connection.write_all(&words(request[0]))?;
    }
    Ok(())
}

fn take(connection: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; super::CHUNK];
    while connection.read(&mut buffer)? != 0 {}
    Ok(())
}
