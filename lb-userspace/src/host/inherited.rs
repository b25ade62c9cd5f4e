//! Sockets that were open before this process was: sd_listen_fds(3). The one who passes them, systemd
//! for one, keeps them open over a restart, so that what arrives meanwhile waits in them.

use std::env;
use std::fs;
use std::io;
use std::net::{TcpListener, UdpSocket};

use anyhow::{Context, Result, bail, ensure};
use listenfd::ListenFd;
use rustix::net::ipproto::{MPTCP, TCP, UDP};
use rustix::net::sockopt::{socket_acceptconn, socket_protocol};

/// The first descriptor that is passed: `SD_LISTEN_FDS_START`.
const FIRST: usize = 3;

/// A variable that only the crate listenfd knows, by which other descriptors would be meant.
const FIRST_ELSEWHERE: &str = "LISTEN_FDS_FIRST_FD";

/// What says which descriptors are passed, and to whom.
const VARIABLES: [&str; 5] =
    ["LISTEN_FDS", "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDNAMES", FIRST_ELSEWHERE];

/// The sockets that were passed to this process, in their order. None of them blocks, and none is
/// passed on to a child.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Bound sockets of IPv4 or IPv6.
    pub udp: Vec<UdpSocket>,
    /// Listening sockets of IPv4 or IPv6, MPTCP's among them.
    pub tcp: Vec<TcpListener>,
}

impl Inherited {
    /// Takes what was passed, and the variables that say so out of the environment, lest a child take
    /// them for its own. Where `LISTEN_PID` is another process, nothing was passed; where it is
    /// missing, this process is meant.
    ///
    /// # Errors
    ///
    /// If a descriptor is not such a socket; or if there is another thread, which might be reading the
    /// environment: this is for the start of a process.
    pub fn take() -> Result<Self> {
        let mut inherited = Self::default();
        if VARIABLES.iter().all(|variable| env::var_os(variable).is_none()) {
            return Ok(inherited);
        }
        let threads = fs::read_dir("/proc/self/task").context("/proc/self/task cannot be read")?;
        ensure!(threads.count() == 1, "LISTEN_FDS is to be looked at before threads are started");
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        forget(FIRST_ELSEWHERE);
        // Removes variables itself.
        let mut passed = ListenFd::from_env();
        VARIABLES.into_iter().for_each(forget);

        let mut names = names.split(':');
        for index in 0..passed.len() {
            let name = names.next().filter(|name| !name.is_empty()).unwrap_or("without a name");
            inherited.add(&mut passed, index).with_context(|| {
                format!(
                    "descriptor {} ({name}) of LISTEN_FDS; in a socket unit, ListenDatagram= and \
                     ListenStream= with IP addresses are such sockets",
                    FIRST + index
                )
            })?;
        }
        Ok(inherited)
    }

    fn add(&mut self, passed: &mut ListenFd, index: usize) -> Result<()> {
        // Each looks at the kind of socket, and takes it if it is the one.
        if let Ok(Some(socket)) = passed.take_udp_socket(index) {
            // Others are sockets for pings.
            if socket_protocol(&socket).map_err(io::Error::from)? == Some(UDP) {
                socket.set_nonblocking(true)?;
                self.udp.push(socket);
                return Ok(());
            }
        } else if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
            let protocol = socket_protocol(&listener).map_err(io::Error::from)?;
            let listens = socket_acceptconn(&listener).map_err(io::Error::from)?;
            if listens && matches!(protocol, Some(TCP | MPTCP)) {
                listener.set_nonblocking(true)?;
                self.tcp.push(listener);
                return Ok(());
            }
        }
        bail!("it is neither a UDP socket nor a listening TCP socket")
    }
}

fn forget(variable: &str) {
    // SAFETY: the caller has seen that this is the only thread of the process, so nobody reads the
    // environment meanwhile.
    unsafe { env::remove_var(variable) };
}
