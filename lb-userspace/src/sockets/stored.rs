//! The storage of UDP sockets. The kernel lists that of TCP sockets only (`inet_sk_diag_fill`,
//! net/ipv4/inet_diag.c); of another it shows it to those who have a descriptor of the socket, so
//! one is borrowed from its process for a moment.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use lb_common::abi::Peer;
use rustix::net::sockopt::socket_cookie;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::netns::numbered;
use crate::datapath::SocketTables;

/// The peers of sockets by cookie, where they have storage. Sockets are found by the inode of
/// their file.
pub(super) fn peers(tables: &SocketTables, inodes: &BTreeMap<u32, u64>) -> BTreeMap<u64, Peer> {
    let mut found = BTreeMap::new();
    if inodes.is_empty() {
        return found;
    }
    for process in numbered(Path::new("/proc")).unwrap_or_default() {
        for descriptor in numbered(&process.join("fd")).unwrap_or_default() {
            let Some(cookie) = inode(&descriptor).and_then(|inode| inodes.get(&inode)) else {
                continue;
            };
            let Some(socket) = borrow(&process, &descriptor) else { continue };
            // The descriptor may be another socket's by now.
            if socket_cookie(&socket).is_ok_and(|found| found == *cookie) {
                found.extend(tables.stored(socket.as_fd()).map(|peer| (*cookie, peer)));
            }
        }
    }
    found
}

/// Of the socket that a descriptor in /proc leads to.
fn inode(descriptor: &Path) -> Option<u32> {
    let target = fs::read_link(descriptor).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn borrow(process: &Path, descriptor: &Path) -> Option<OwnedFd> {
    let number = |path: &Path| path.file_name()?.to_str()?.parse().ok();
    let process = pidfd_open(Pid::from_raw(number(process)?)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(process, number(descriptor)?, PidfdGetfdFlags::empty()).ok()
}
