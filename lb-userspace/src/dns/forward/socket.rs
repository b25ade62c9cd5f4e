//! The sockets that upstreams are asked through: the agent's own, which its kernel programs leave
//! alone, so that an upstream behind a ClusterIP never is this server (docs/decisions/0015).

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Once;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hickory_resolver::net::runtime::iocompat::AsyncIoTokioAsStd;
use hickory_resolver::net::runtime::{
    DnsUdpSocket, RuntimeProvider, TokioHandle, TokioRuntimeProvider, TokioTime,
};
use lb_common::abi::OWN_SOCKET_PRIORITY;
use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;
use tracing::warn;

/// Makes sockets to one upstream. It, not the library's address, is where they lead: the library
/// knows no scopes of link-local addresses.
#[derive(Clone)]
pub(super) struct Sockets {
    runtime: TokioRuntimeProvider,
    upstream: SocketAddr,
    patience: Duration,
}

impl Sockets {
    /// Connections that are not there after `patience` are given up.
    pub(super) fn new(upstream: SocketAddr, patience: Duration) -> Self {
        Self { runtime: TokioRuntimeProvider::new(), upstream, patience }
    }
}

type Made<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl RuntimeProvider for Sockets {
    type Handle = TokioHandle;
    type Timer = TokioTime;
    type Udp = ConnectedUdp;
    type Tcp = AsyncIoTokioAsStd<TcpStream>;

    fn create_handle(&self) -> Self::Handle {
        self.runtime.create_handle()
    }

    fn connect_tcp(
        &self,
        _upstream: SocketAddr,
        _bind: Option<SocketAddr>,
        wait_for: Option<Duration>,
    ) -> Made<Self::Tcp> {
        let upstream = self.upstream;
        let patience = wait_for.unwrap_or(self.patience);
        Box::pin(async move {
            let socket = TcpSocket::from_std_stream(own_socket(upstream, Type::STREAM)?.into());
            socket.set_nodelay(true)?;
            let stream = timeout(patience, socket.connect(upstream)).await;
            stream.map_err(|_elapsed| io::ErrorKind::TimedOut)?.map(AsyncIoTokioAsStd)
        })
    }

    fn bind_udp(&self, _local: SocketAddr, _upstream: SocketAddr) -> Made<Self::Udp> {
        let upstream = self.upstream;
        Box::pin(async move { ConnectedUdp::new(upstream) })
    }
}

/// A UDP socket on a random port, for one question. It is connected, so that nobody but the upstream
/// is heard, and an upstream that is not there is known at once (ICMP, port unreachable).
pub(super) struct ConnectedUdp {
    socket: UdpSocket,
    upstream: SocketAddr,
}

impl ConnectedUdp {
    fn new(upstream: SocketAddr) -> io::Result<Self> {
        let socket = own_socket(upstream, Type::DGRAM)?;
        let any = match upstream {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        // The kernel's choice of a port is random (RFC 6056), and out of the way of NodePorts.
        socket.bind(&SocketAddr::new(any, 0).into())?;
        socket.connect(&upstream.into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, upstream })
    }
}

impl DnsUdpSocket for ConnectedUdp {
    type Time = TokioTime;

    fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.socket.poll_recv(cx, &mut buffer))?;
        Poll::Ready(Ok((buffer.filled().len(), self.upstream)))
    }

    /// As `async_trait` writes it. Other than [`Self::poll_recv_from`], this one wakes for errors, too.
    fn recv_from<'life0, 'life1, 'async_trait>(
        &'life0 self,
        buffer: &'life1 mut [u8],
    ) -> Pin<Box<dyn Future<Output = io::Result<(usize, SocketAddr)>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let wake = Interest::READABLE | Interest::ERROR;
            let receive = || Ok(recv(&self.socket, &mut *buffer, RecvFlags::empty())?.0);
            Ok((self.socket.async_io(wake, receive).await?, self.upstream))
        })
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        message: &[u8],
        _upstream: SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, message)
    }
}

/// A socket that is never translated. Without the privilege to be one it is an ordinary socket: then
/// only an upstream behind a ClusterIP of this node is another one than meant.
fn own_socket(upstream: SocketAddr, kind: Type) -> io::Result<Socket> {
    static UNPRIVILEGED: Once = Once::new();
    let protocol = if kind == Type::STREAM { Protocol::TCP } else { Protocol::UDP };
    let socket = Socket::new(Domain::for_address(upstream), kind.nonblocking(), Some(protocol))?;
    if let Err(error) = socket.set_priority(OWN_SOCKET_PRIORITY) {
        UNPRIVILEGED.call_once(|| {
            warn!(
                "SO_PRIORITY of the sockets to DNS upstreams: {error}; they are subject to Services, \
                 too (give the agent CAP_NET_ADMIN)"
            );
        });
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    #[test]
    fn own_sockets_have_the_priority_where_they_may() {
        let upstream: SocketAddr = "127.0.0.1:53".parse().expect("an address");
        for kind in [Type::DGRAM, Type::STREAM] {
            let socket = own_socket(upstream, kind).expect("a socket");
            let ours = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
            let may = ours.set_priority(OWN_SOCKET_PRIORITY).is_ok();
            let expected = if may { OWN_SOCKET_PRIORITY } else { 0 };
            assert_eq!(socket.priority().expect("it can be asked"), expected);
        }
    }

    #[test]
    fn a_process_without_privilege_cannot_make_an_own_socket() {
        let refused = thread::spawn(|| {
            let mut sets = capabilities(None).expect("its own");
            sets.effective.remove(CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW);
            set_capabilities(None, sets).expect("fewer are always allowed");
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.set_priority(OWN_SOCKET_PRIORITY)
        });
        let error = refused.join().expect("no panic").expect_err("it lacks the capabilities");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
