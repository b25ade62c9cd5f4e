//! The storage of UDP sockets, which the kernel shows to those who have a descriptor of them.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use lb_common::abi::Peer;
use rustix::net::sockopt::socket_cookie;

use crate::datapath::SocketTables;
use crate::host::socket_descriptors;

/// The peers of sockets by cookie, where they have storage. Sockets are found by the inode of
/// their file.
pub(super) fn peers(tables: &SocketTables, inodes: &BTreeMap<u32, u64>) -> BTreeMap<u64, Peer> {
    let mut found = BTreeMap::new();
    if inodes.is_empty() {
        return found;
    }
    for descriptor in socket_descriptors().into_iter().flatten() {
        let inode = u32::try_from(descriptor.inode).ok();
        let Some(cookie) = inode.and_then(|inode| inodes.get(&inode)) else { continue };
        let Some(socket) = descriptor.borrow() else { continue };
        // The descriptor may be another socket's by now.
        if socket_cookie(&socket).is_ok_and(|found| found == *cookie) {
            found.extend(tables.stored(socket.as_fd()).map(|peer| (*cookie, peer)));
        }
    }
    found
}
