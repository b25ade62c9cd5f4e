//! What the pods run: servers that say who they are.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A datagram has no more bytes.
const MAX_DATAGRAM: usize = 65_535;

/// A server a pod runs on each of its addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Listen {
    /// Greets with the pod's name and a line feed, then echoes.
    Tcp(u16),
    /// The same, for clients that speak MPTCP.
    Mptcp(u16),
    /// Answers `<pod's name>:<what came>`.
    Udp(u16),
}

/// Who came last, by whichever of a pod's servers.
#[derive(Clone, Default, Debug)]
pub(crate) struct GuestBook(Arc<Mutex<Option<SocketAddr>>>);

impl GuestBook {
    fn note(&self, client: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(client);
    }

    /// The source of the latest connection or datagram.
    #[track_caller]
    pub(crate) fn latest(&self) -> SocketAddr {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).expect("somebody has come")
    }
}

/// A running server; dropped, it is stopped and its connections are closed.
pub(crate) struct Server {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds in the calling thread's network namespace and serves.
    pub(crate) fn start(
        name: &str,
        address: IpAddr,
        listen: Listen,
        guests: GuestBook,
    ) -> io::Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        let name = name.to_owned();
        let thread = match listen {
            Listen::Tcp(port) => {
                let listener = TcpListener::bind((address, port))?;
                thread::spawn(move || serve_tcp(&listener, &name, &guests, &stopped))
            }
            Listen::Mptcp(port) => {
                let listener = mptcp_listener(SocketAddr::new(address, port))?;
                thread::spawn(move || serve_tcp(&listener, &name, &guests, &stopped))
            }
            Listen::Udp(port) => {
                let socket = UdpSocket::bind((address, port))?;
                thread::spawn(move || serve_udp(&socket, &name, &guests, &stopped))
            }
        };
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn mptcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::MPTCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(128)?;
    Ok(socket.into())
}

fn serve_udp(socket: &UdpSocket, name: &str, guests: &GuestBook, stopped: &UnixStream) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let ready = readable(&[stopped.as_fd(), socket.as_fd()]);
        if ready[0] {
            return;
        }
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        guests.note(from);
        let answer = [name.as_bytes(), b":", &buffer[..length]].concat();
        // A client that has closed its socket meanwhile is no concern of the server's.
        let _ = socket.send_to(&answer, from);
    }
}

fn serve_tcp(listener: &TcpListener, name: &str, guests: &GuestBook, stopped: &UnixStream) {
    listener.set_nonblocking(true).expect("a listener can be non-blocking");
    let mut connections: Vec<TcpStream> = Vec::new();
    loop {
        let mut sources = vec![stopped.as_fd(), listener.as_fd()];
        sources.extend(connections.iter().map(AsFd::as_fd));
        let ready = readable(&sources);
        if ready[0] {
            return;
        }
        let mut flags = ready[2..].iter();
        connections.retain_mut(|connection| {
            !flags.next().copied().unwrap_or(false) || echo(connection).is_ok()
        });
        while let Ok((mut connection, client)) = listener.accept() {
            guests.note(client);
            if connection.write_all(format!("{name}\n").as_bytes()).is_ok() {
                connections.push(connection);
            }
        }
    }
}

/// Sends back what has come; an error when the connection is over.
fn echo(connection: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    match connection.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => connection.write_all(&buffer[..length]),
    }
}

/// Waits until one of the sources has something, and says which have.
fn readable(sources: &[std::os::fd::BorrowedFd<'_>]) -> Vec<bool> {
    let mut polled: Vec<_> =
        sources.iter().map(|source| PollFd::from_borrowed_fd(*source, PollFlags::IN)).collect();
    while let Err(error) = poll(&mut polled, None) {
        assert_eq!(error, rustix::io::Errno::INTR, "poll of the test's own sockets");
    }
    polled.iter().map(|source| !source.revents().is_empty()).collect()
}
