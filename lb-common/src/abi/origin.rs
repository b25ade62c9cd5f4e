//! `ORIGIN` and its overflow: what a socket asked for, before it was given a backend.

use super::{Address, Port};

/// An unconnected UDP socket can talk to this many frontends besides its first.
pub const MAX_FURTHER_PEERS: usize = 16;

/// One translation that a socket uses. Holds the backend's address as well as its id, so that
/// the way back needs no other table and no id can come to mean another endpoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address that the application named.
    #[cfg(not(feature = "next-layout"))]
    pub frontend: Address,
    /// Address that the kernel got.
    pub backend: Address,
    /// Address that the application named.
    #[cfg(feature = "next-layout")]
    pub frontend: Address,
    /// Port that the application named.
    pub frontend_port: Port,
    /// Port that the kernel got.
    pub backend_port: Port,
    /// Protocol number.
    pub protocol: u8,
    /// 1 if the socket was connected to this peer, 0 if it only sent to it. `connect(AF_UNSPEC)`
    /// undoes a connection without a hook, so the socket's own state counts, too.
    pub connected: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Index into `BACKENDS`.
    pub backend_id: u32,
    /// [`super::Life::generation`] of that id at the time.
    pub backend_generation: u32,
    /// Index into `SERVICES` at the time.
    pub service: u32,
    /// Zero.
    pub reserved2: u32,
}

impl Peer {
    /// No peer: no backend has the address `::`.
    pub const NONE: Self = Self {
        frontend: Address::UNSPECIFIED,
        backend: Address::UNSPECIFIED,
        frontend_port: Port::NONE,
        backend_port: Port::NONE,
        protocol: 0,
        connected: 0,
        reserved: [0; 2],
        backend_id: 0,
        backend_generation: 0,
        service: 0,
        reserved2: 0,
    };
}

/// Value of `ORIGIN`, indexed by socket cookie modulo the number of slots.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct OriginSlot {
    /// Cookie of the socket that holds the slot; 0 is free. Taken by compare-and-swap. Stays first
    /// in every layout: so do agents of other layouts count the sockets that still need this one.
    pub cookie: u64,
    /// Its peer.
    pub peer: Peer,
}

/// The further peers of an unconnected UDP socket, in socket storage.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Peers {
    /// How many of `list` were ever in use; the others are [`Peer::NONE`].
    pub count: u32,
    /// What a search found; see [`Self::search`].
    pub(super) found: u32,
    /// The peers.
    pub list: [Peer; MAX_FURTHER_PEERS],
}

impl Peers {
    /// No peers.
    pub const NONE: Self = Self { count: 0, found: 0, list: [Peer::NONE; MAX_FURTHER_PEERS] };

    /// The index of the peer that `wanted` accepts, the last one if there are several;
    /// [`MAX_FURTHER_PEERS`] if there is none.
    ///
    /// The result takes its way through the map's memory, whose contents the verifier does not
    /// follow: else it would look at all that comes after a search once for every result, and at
    /// two searches once for every pair (6 s instead of 0.5 s for `sendmsg4`).
    #[inline(always)]
    #[expect(unsafe_code, reason = "volatile access, so that the way through memory is taken")]
    pub fn search(&mut self, wanted: impl Fn(&Peer) -> bool) -> usize {
        let found = &raw mut self.found;
        // SAFETY: a field of our own, to which no reference exists.
        unsafe { found.write_volatile(u32::MAX) };
        for (index, peer) in (0..).zip(&self.list) {
            if index >= self.count {
                break;
            }
            if wanted(peer) {
                // SAFETY: as above.
                unsafe { found.write_volatile(index) };
            }
        }
        // SAFETY: as above.
        MAX_FURTHER_PEERS.min(unsafe { found.read_volatile() } as usize)
    }
}
