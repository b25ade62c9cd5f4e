//! Error numbers as a test names them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a system call failed with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Errno(pub(crate) i32);

impl Errno {
    /// No endpoints, or no such port.
    pub(crate) const REFUSED: Self = Self(libc::ECONNREFUSED);
    /// A NodePort.
    pub(crate) const IN_USE: Self = Self(libc::EADDRINUSE);
    /// An address of the Service range that no Service has.
    pub(crate) const HOST_UNREACHABLE: Self = Self(libc::EHOSTUNREACH);
    /// Not translated: the stage has no route to the Service ranges.
    pub(crate) const NET_UNREACHABLE: Self = Self(libc::ENETUNREACH);
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            libc::ECONNREFUSED => f.write_str("ECONNREFUSED"),
            libc::EHOSTUNREACH => f.write_str("EHOSTUNREACH"),
            libc::EADDRINUSE => f.write_str("EADDRINUSE"),
            libc::ENETUNREACH => f.write_str("ENETUNREACH (not translated)"),
            libc::EPERM => f.write_str("EPERM"),
            libc::EAGAIN => f.write_str("EAGAIN (no answer in time)"),
            libc::EINPROGRESS => f.write_str("EINPROGRESS (not connected in time)"),
            libc::ENOTCONN => f.write_str("ENOTCONN"),
            libc::ECONNRESET => f.write_str("ECONNRESET"),
            number => write!(f, "{}", std::io::Error::from_raw_os_error(number)),
        }
    }
}

/// Panics unless the attempt failed with just this error.
#[track_caller]
pub(crate) fn assert_refused<T: fmt::Debug>(what: &str, got: Result<T, Errno>, wanted: Errno) {
    match got {
        Err(errno) if errno == wanted => {}
        other => panic!("{what}: must fail with {wanted:?}, was {other:?}"),
    }
}
