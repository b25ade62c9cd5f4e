//! The network namespace that the agent runs in.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;

/// `SO_NETNS_COOKIE`, include/uapi/asm-generic/socket.h; libc does not have it.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The number by which kernel programs know this thread's network namespace.
///
/// # Errors
///
/// Before Linux 5.14 there is no way to ask.
pub fn netns_cookie() -> io::Result<u64> {
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of the cookie.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_the_same_whenever_it_is_asked_for() {
        let cookie = netns_cookie().expect("Linux 5.14");
        assert_ne!(cookie, 0);
        assert_eq!(netns_cookie().expect("as before"), cookie);
    }
}
