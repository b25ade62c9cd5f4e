//! One look at all sockets of the node: which are connected to a dead peer, and closing those that
//! the rules allow.
//!
//! A socket is listed first, and its memory read then. So what is read is of the connection that
//! was listed, or of a later one. It is destroyed by its addresses and its cookie, and only if the
//! memory names the address that the kernel has: a socket that was connected elsewhere meanwhile
//! is not found.

use std::collections::BTreeMap;
use std::io;
use std::sync::LazyLock;

use lb_common::abi::{self, Peer};

use super::diag::{Diag, Socket, States, Table, written};
use super::netns::{self, Namespace};
use super::{Cause, DeadPeer, stored};
use crate::api::types::{CloseReport, ClosedSocket};
use crate::datapath::SocketTables;
use crate::plan::Protocol;

/// The sockets of one namespace that are connected to dead peers.
struct Found {
    namespace: Namespace,
    diag: Diag,
    sockets: Vec<(DeadPeer, Socket)>,
    /// UDP sockets without slot, connected to what may be a dead peer. They may have storage.
    unclear: Vec<Socket>,
}

/// Closes the sockets that `judge` gives a cause for, or only says which. `None` if nobody judges.
pub(super) fn sweep(
    tables: &SocketTables,
    judge: impl FnOnce(Vec<DeadPeer>) -> Option<Vec<Option<Cause>>>,
    dry_run: bool,
) -> Option<CloseReport> {
    let (found, problems) = find(tables);
    // A thousand sockets may have one peer.
    let mut peers: BTreeMap<DeadPeer, Option<Cause>> =
        found.iter().flat_map(|found| &found.sockets).map(|(peer, _)| (*peer, None)).collect();
    if !peers.is_empty() {
        let verdicts = judge(peers.keys().copied().collect())?;
        peers.values_mut().zip(verdicts).for_each(|(cause, verdict)| *cause = verdict);
    }
    let mut report = CloseReport { sockets: Vec::new(), problems };
    for Found { namespace, mut diag, sockets, .. } in found {
        for (peer, socket) in sockets {
            let Some(cause) = peers[&peer] else { continue };
            let result = if dry_run { Ok(()) } else { diag.destroy(&socket) };
            match result {
                // The application was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => report.sockets.push(ClosedSocket {
                    namespace: namespace.to_string(),
                    protocol: if is_udp(&socket) { Protocol::Udp } else { Protocol::Tcp },
                    local: written(socket.local),
                    frontend: written((peer.frontend.address, peer.frontend.port)),
                    backend: written(peer.backend),
                    cause,
                    error: result.err().map(|error| error.to_string()),
                }),
            }
        }
    }
    Some(report)
}

fn find(tables: &SocketTables) -> (Vec<Found>, Vec<String>) {
    let mut found = Vec::new();
    let ended = LazyLock::new(|| tables.ended());
    let problems = netns::visit(|namespace| {
        let mut diag = Diag::open()?;
        let (mut sockets, mut unclear) = (Vec::new(), Vec::new());
        for table in Table::ALL {
            let storage = Some(tables.overflow());
            diag.list(table, States::WITH_PEER, storage, |socket| {
                match tables.peer(socket.cookie).or(socket.stored) {
                    Some(peer) => sockets.extend(dead(tables, &peer, socket)),
                    None if is_udp(&socket) && ended.contains(&socket.remote) => {
                        unclear.push(socket);
                    }
                    None => {}
                }
            })?;
        }
        if !(sockets.is_empty() && unclear.is_empty()) {
            found.push(Found { namespace, diag, sockets, unclear });
        }
        Ok(())
    });
    clear_up(tables, &mut found);
    (found, problems)
}

/// Finds out which of the unclear sockets are connected through a frontend.
fn clear_up(tables: &SocketTables, found: &mut [Found]) {
    let unclear = found.iter().flat_map(|found| &found.unclear);
    let peers = stored::peers(tables, &unclear.map(|s| (s.inode, s.cookie)).collect());
    for Found { sockets, unclear, .. } in found {
        for socket in unclear.drain(..) {
            if let Some(peer) = peers.get(&socket.cookie) {
                sockets.extend(dead(tables, peer, socket));
            }
        }
    }
}

/// The socket with its peer, if it is connected to it and the peer is dead.
fn dead(tables: &SocketTables, peer: &Peer, socket: Socket) -> Option<(DeadPeer, Socket)> {
    if !is_connected_to(peer, &socket) {
        return None;
    }
    Some((DeadPeer::new(peer, tables.life(peer.backend_id)?)?, socket))
}

/// A socket that only sent to its peer has no other address in the kernel, or that of somebody
/// whom it was connected to directly.
fn is_connected_to(peer: &Peer, socket: &Socket) -> bool {
    peer.connected != 0
        && peer.protocol == socket.protocol
        && (peer.backend, peer.backend_port) == socket.remote
}

fn is_udp(socket: &Socket) -> bool {
    socket.protocol == abi::protocol::UDP
}
