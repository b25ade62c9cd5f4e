//! Many sockets held open at once.

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::bulk::ask_each;
use super::protocol::Kind;
use super::sockets::{connect, open, peer};

/// What `getpeername` shows of many sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Sockets that show the address they were connected to.
    pub(crate) right: usize,
    /// All others.
    pub(crate) wrong: usize,
}

/// Connected sockets.
#[derive(Default)]
pub(super) struct Hold(Vec<(Socket, SocketAddr)>);

impl Hold {
    pub(super) fn more(&mut self, kind: Kind, to: SocketAddr, count: u32) -> io::Result<()> {
        for _ in 0..count {
            let socket = open(kind)?;
            connect(&socket, to)?;
            self.0.push((socket, to));
        }
        Ok(())
    }

    pub(super) fn from(
        &mut self,
        kind: Kind,
        sources: &[IpAddr],
        to: SocketAddr,
        count: u32,
    ) -> io::Result<()> {
        for source in sources.iter().cycle().take(count as usize) {
            let socket = open(kind)?;
            socket.bind(&SocketAddr::new(*source, 0).into())?;
            connect(&socket, to)?;
            self.0.push((socket, to));
        }
        Ok(())
    }

    pub(super) fn ask(&self) -> io::Result<()> {
        ask_each(&self.0)
    }

    pub(super) fn look(&self) -> Held {
        let right = self.0.iter().filter(|(socket, to)| peer(socket).is_ok_and(|p| p == *to));
        let right = right.count();
        Held { right, wrong: self.0.len() - right }
    }
}
