//! Sockets that have storage in the maps of a former layout.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::syscall;
use crate::host::socket_descriptors;

/// How many sockets that processes hold have storage in one of these maps, each of values of some
/// size. Only a socket that a process holds can be asked for its peer, or received from.
pub(super) fn count_stored(maps: &[(OwnedFd, u32)]) -> io::Result<u64> {
    let mut seen = BTreeSet::new();
    let mut stored = 0;
    for descriptor in socket_descriptors()?.filter(|descriptor| seen.insert(descriptor.inode)) {
        let Some(socket) = descriptor.borrow() else { continue };
        if maps.iter().any(|(map, size)| has_storage(map.as_fd(), *size, socket.as_fd())) {
            stored += 1;
        }
    }
    Ok(stored)
}

fn has_storage(map: BorrowedFd<'_>, size: u32, socket: BorrowedFd<'_>) -> bool {
    let mut value = vec![0; size as usize];
    syscall::look_up(map, socket, &mut value).is_ok()
}
