//! Questions in datagrams.

use std::convert::Infallible;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, socket_recv_buffer_size};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Transport;
use super::inbox::{Datagram, Inbox};
use super::message::MOST;
use super::metrics::Dropped;
use super::respond::Reply;
use super::server::Shared;

/// Datagrams taken from the socket with one system call.
const BATCH: usize = 32;

/// Room for one buffer: the kernel may hand over several datagrams of one sender in one.
const BUFFER: usize = 64 << 10;

/// So often the socket is emptied before anything is answered.
const TAKES: usize = 16;

/// So many are answered before others on this thread have their turn.
const TURN: usize = 64;

/// The socket's buffer, in bytes: room for some thousand questions.
const RECEIVE_BUFFER: usize = 2 << 20;

/// A socket that questions come to.
#[derive(Debug)]
struct Socket {
    socket: UdpSocket,
    /// For a socket on every address: an answer must come from the one that was asked. Where there is
    /// only one, plain calls are cheaper.
    any_address: Option<UdpSocketState>,
}

/// Answers what comes to a socket, for ever.
pub(super) async fn serve(
    socket: std::net::UdpSocket,
    shared: Arc<Shared>,
) -> io::Result<Infallible> {
    let socket = Arc::new(Socket::new(socket)?);
    let mut buffers = vec![0; BUFFER * if socket.any_address.is_some() { BATCH } else { 1 }];
    let mut inbox = Inbox::default();
    loop {
        if inbox.is_empty() {
            socket.socket.readable().await?;
        }
        for _ in 0..TAKES {
            match socket.receive(&mut buffers, |packet, source, to| {
                // Nobody can be answered there, and some who pretend hope for it.
                let client = source.ip().to_canonical();
                if source.port() == 0 || client.is_unspecified() || client.is_multicast() {
                    return;
                }
                let (packet, trusted) = (packet.to_vec(), shared.clients.trust(source));
                if !inbox.push(Datagram { packet, source, trusted, to }) {
                    shared.responder.metrics.dropped(Dropped::Flood);
                }
            }) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // What an earlier answer met on its way, such as a port that is closed again.
                Err(error) => tracing::debug!("receiving questions: {error}"),
            }
        }
        for _ in 0..TURN {
            let Some(datagram) = inbox.pop() else { break };
            answer(&socket, &shared, datagram);
        }
        tokio::task::yield_now().await;
    }
}

fn answer(socket: &Arc<Socket>, shared: &Arc<Shared>, datagram: Datagram) {
    let Datagram { packet, source, trusted, to } = datagram;
    match shared.respond(packet, source, Transport::Udp, trusted) {
        Reply::None => {}
        Reply::Now(bytes) => socket.send(&bytes, source, to),
        Reply::Later(pending) => match shared.asking.take(source.ip(), trusted) {
            None => socket.send(&shared.responder.give_up(&pending), source, to),
            Some(place) => {
                let (socket, shared) = (Arc::clone(socket), Arc::clone(shared));
                tokio::spawn(async move {
                    let bytes = shared.responder.finish(*pending).await;
                    socket.send(&bytes, source, to);
                    drop(place);
                });
            }
        },
    }
}

impl Socket {
    fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // A burst is worth keeping: whoever loses a question waits for seconds. Beyond the limit that
        // holds for others (net.core.rmem_max), where we may. One that somebody keeps for us may be
        // larger.
        let enlarged = socket_recv_buffer_size(&socket).and_then(|size| {
            if size >= RECEIVE_BUFFER {
                return Ok(());
            }
            set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)
        });
        if let Err(error) = enlarged {
            tracing::debug!("the socket's buffer stays small: {error}");
        }
        let any_address = if socket.local_addr()?.ip().is_unspecified() {
            Some(UdpSocketState::new((&socket).into())?)
        } else {
            None
        };
        Ok(Self { socket: UdpSocket::from_std(socket)?, any_address })
    }

    /// Hands what waits in the socket to `take`, up to a batch, with the address that it came from and,
    /// where that is needed, the one that it was sent to. Whether there may be more.
    fn receive(
        &self,
        buffers: &mut [u8],
        mut take: impl FnMut(&[u8], SocketAddr, Option<IpAddr>),
    ) -> io::Result<bool> {
        let Some(state) = &self.any_address else {
            for _ in 0..BATCH {
                let (length, source) = self.socket.try_recv_from(buffers)?;
                if length <= MOST {
                    take(&buffers[..length], source, None);
                }
            }
            return Ok(true);
        };
        let mut metas = [RecvMeta::default(); BATCH];
        let filled = {
            let mut slices = buffers.chunks_mut(BUFFER).map(IoSliceMut::new);
            let mut slices: [IoSliceMut<'_>; BATCH] =
                std::array::from_fn(|_| slices.next().unwrap_or(IoSliceMut::new(&mut [])));
            self.socket.try_io(Interest::READABLE, || {
                state.recv((&self.socket).into(), &mut slices, &mut metas)
            })?
        };
        for (buffer, meta) in buffers.chunks(BUFFER).zip(&metas).take(filled) {
            let datagrams = buffer[..meta.len].chunks(meta.stride.max(1));
            for packet in datagrams.filter(|packet| packet.len() <= MOST) {
                take(packet, meta.addr, meta.dst_ip);
            }
        }
        Ok(filled == BATCH)
    }

    /// Sends an answer, or loses it, as datagrams may be.
    fn send(&self, contents: &[u8], destination: SocketAddr, src_ip: Option<IpAddr>) {
        let sent = match &self.any_address {
            None => self.socket.try_send_to(contents, destination).map(drop),
            Some(state) => {
                let transmit =
                    Transmit { destination, ecn: None, contents, segment_size: None, src_ip };
                state.try_send((&self.socket).into(), &transmit)
            }
        };
        if let Err(error) = sent {
            tracing::debug!("an answer to {destination} is lost: {error}");
        }
    }
}
