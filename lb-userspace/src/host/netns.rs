//! The network namespace that the agent runs in.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
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

/// A number that no other network namespace has at present: the cookie, which none ever had, or where
/// there is none the inode.
///
/// # Errors
///
/// If /proc is not mounted and there are no cookies.
pub fn netns_number() -> io::Result<u64> {
    netns_cookie().or_else(|_| Ok(fs::metadata("/proc/thread-self/ns/net")?.ino()))
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
