//! Questions over connections (RFC 7766).

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::Transport;
use super::message::MOST;
use super::metrics::Dropped;
use super::respond::Reply;
use super::server::Shared;

/// How long a connection may be idle.
const IDLE: Duration = Duration::from_secs(10);

/// How long that of a stranger may be.
const STRANGER: Duration = Duration::from_secs(1);

/// How long a question may be on its way once it has begun, and an answer until it is taken.
const STALLED: Duration = Duration::from_secs(3);

/// How long to wait when no connection can be accepted: there are too many open files, say.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers what comes over connections, for ever.
pub(super) async fn serve(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
) -> io::Result<Infallible> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                let trusted = shared.clients.trust(source);
                let Some(place) = shared.connections.take(source.ip(), trusted) else {
                    shared.responder.metrics.dropped(Dropped::Connections);
                    continue;
                };
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, source, trusted, &shared).await {
                        tracing::debug!("the connection from {source} ends: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("no connection can be accepted: {error}");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Answers one question after another until the client has no more, or takes too long.
async fn converse(
    mut stream: TcpStream,
    source: SocketAddr,
    trusted: bool,
    shared: &Shared,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut length = [0; 2];
        timeout(if trusted { IDLE } else { STRANGER }, stream.read_exact(&mut length)).await??;
        let length = usize::from(u16::from_be_bytes(length));
        if length > MOST {
            return Err(io::Error::other(format!("a request of {length} bytes")));
        }
        let mut packet = vec![0; length];
        timeout(STALLED, stream.read_exact(&mut packet)).await??;
        let answer = match shared.respond(packet, source, Transport::Tcp, trusted) {
            Reply::None => return Ok(()),
            Reply::Now(bytes) => bytes,
            Reply::Later(pending) => match shared.asking.take(source.ip(), trusted) {
                None => shared.responder.give_up(&pending),
                Some(_place) => shared.responder.finish(*pending).await,
            },
        };
        timeout(STALLED, write(&mut stream, &answer)).await??;
        if !trusted {
            return Ok(());
        }
    }
}

async fn write(stream: &mut TcpStream, answer: &[u8]) -> io::Result<()> {
    let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
    // One segment: some clients take a length alone for the whole.
    let mut bytes = Vec::with_capacity(2 + answer.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(answer);
    stream.write_all(&bytes).await
}
