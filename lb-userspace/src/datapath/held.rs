//! The sockets that processes hold. Only they can be asked for their peer, or received from.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::syscall;

/// How many sockets have storage in one of these maps, each of values of some size. The kernel lists
/// the storage of TCP sockets only (`inet_sk_diag_fill`, net/ipv4/inet_diag.c); of any socket it tells
/// those who have a descriptor, so one is borrowed for a moment.
pub(super) fn count_stored(maps: &[(OwnedFd, u32)]) -> io::Result<u64> {
    let mut seen = BTreeSet::new();
    let mut stored = 0;
    for process in numbered(Path::new("/proc"))? {
        // A process or descriptor that goes while we look holds nothing any more.
        for descriptor in numbered(&process.join("fd")).unwrap_or_default() {
            let Some(inode) = socket_inode(&descriptor) else { continue };
            if !seen.insert(inode) {
                continue;
            }
            let Some(socket) = borrow(&process, &descriptor) else { continue };
            if maps.iter().any(|(map, size)| has_storage(map.as_fd(), *size, socket.as_fd())) {
                stored += 1;
            }
        }
    }
    Ok(stored)
}

fn has_storage(map: BorrowedFd<'_>, size: u32, socket: BorrowedFd<'_>) -> bool {
    let mut value = vec![0; size as usize];
    syscall::look_up(map, socket, &mut value).is_ok()
}

/// Of the socket that a descriptor in /proc leads to.
fn socket_inode(descriptor: &Path) -> Option<u64> {
    let target = fs::read_link(descriptor).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn borrow(process: &Path, descriptor: &Path) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(number(process)?)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(process, number(descriptor)?, PidfdGetfdFlags::empty()).ok()
}

/// The entries of a folder whose names are numbers.
fn numbered(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    Ok(entries.filter(|path| number(path).is_some()).collect())
}

fn number(path: &Path) -> Option<i32> {
    path.file_name()?.to_str()?.parse().ok()
}
