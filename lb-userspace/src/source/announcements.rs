//! The kernel's announcements of changes to this network namespace, by rtnetlink(7).
//!
//! They say only *that* something has changed; *what* there is then, a listing says. So it does not
//! matter how many are lost to a full buffer.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SocketFlags, bind, recv};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::host::open_socket;

/// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR`, include/uapi/linux/rtnetlink.h
pub(super) const ADDRESSES: u32 = 0x10 | 0x100;
/// `RTMGRP_LINK`
pub(super) const LINKS: u32 = 0x1;
/// `RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE`
pub(super) const ROUTES: u32 = 0x40 | 0x400;

/// Announcements of some kinds, from the moment of subscription on.
#[derive(Debug)]
pub(super) struct Announcements {
    socket: AsyncFd<OwnedFd>,
}

impl Announcements {
    /// Of these groups.
    pub(super) fn subscribe(groups: u32) -> io::Result<Self> {
        let socket = open_socket(SocketFlags::NONBLOCK)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        // SAFETY: the descriptor is this value's own, and stays open and the same until it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket })
    }

    /// Waits for an announcement, and takes in all that there are.
    pub(super) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut heard = false;
            loop {
                match recv(&self.socket, &mut [0_u8; 1], RecvFlags::empty()) {
                    // ENOBUFS: there were more than fit in the socket's buffer.
                    Ok(_) | Err(Errno::NOBUFS) => heard = true,
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if heard {
                return Ok(());
            }
        }
    }
}
