//! The sockets that processes hold: found in /proc, and borrowed for a moment. Of a UDP socket the
//! kernel shows its storage only to those who have a descriptor of it (`inet_sk_diag_fill`,
//! net/ipv4/inet_diag.c, lists that of TCP sockets alone).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// A process's descriptor of a socket.
#[derive(Debug)]
pub struct SocketDescriptor {
    process: i32,
    descriptor: i32,
    /// Inode of the socket's file: descriptors that share it are of one socket.
    pub inode: u64,
}

impl SocketDescriptor {
    /// The socket itself, or another one that has come in its place; `None` if it is gone, or its
    /// process may not be inspected.
    pub fn borrow(&self) -> Option<OwnedFd> {
        let process = pidfd_open(Pid::from_raw(self.process)?, PidfdFlags::empty()).ok()?;
        pidfd_getfd(process, self.descriptor, PidfdGetfdFlags::empty()).ok()
    }
}

/// Every descriptor of a socket. A process or descriptor that goes meanwhile is left out.
///
/// # Errors
///
/// If /proc cannot be read.
pub fn socket_descriptors() -> io::Result<impl Iterator<Item = SocketDescriptor>> {
    let processes = numbered(Path::new("/proc"))?.into_iter();
    Ok(processes.flat_map(|process| {
        let descriptors = numbered(&process.join("fd")).unwrap_or_default().into_iter();
        descriptors.filter_map(move |descriptor| {
            let inode = socket_inode(&descriptor)?;
            let (process, descriptor) = (number(&process)?, number(&descriptor)?);
            Some(SocketDescriptor { process, descriptor, inode })
        })
    }))
}

/// The numbered entries of a folder of /proc; none if its process has ended.
///
/// # Errors
///
/// If the folder cannot be read for another reason.
pub fn numbered(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if has_ended(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    // An entry that cannot be read is of a process that is ending.
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| number(path).is_some()).collect())
}

/// Whether the process that was looked at has ended meanwhile.
pub fn has_ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

fn number(path: &Path) -> Option<i32> {
    path.file_name()?.to_str()?.parse().ok()
}

/// Of the socket that a descriptor in /proc leads to.
fn socket_inode(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_socket_of_our_own_is_found_and_can_be_borrowed() {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
        let ours = (std::process::id().cast_signed(), socket.as_raw_fd());
        let mut found = socket_descriptors().expect("/proc");
        let found = found.find(|found| (found.process, found.descriptor) == ours);
        let borrowed = UdpSocket::from(found.expect("it is open").borrow().expect("it is ours"));
        assert_eq!(borrowed.local_addr().ok(), socket.local_addr().ok());
    }
}
