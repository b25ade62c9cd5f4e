//! What the programs remember of sockets, for those who close sockets and free slots.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, SkStorage};
use lb_common::abi::{Address, Backend, Life, OriginSlot, Peer, Port};

use super::load::Loaded;
use super::shared::Shared;
use crate::sockets::diag::peer_from;

/// `ORIGIN`, its overflow and the life of backends, apart from the writer, so that another thread
/// can use them.
#[derive(Debug)]
pub struct SocketTables {
    origin: Shared<OriginSlot>,
    backends: Shared<Backend>,
    overflow: SkStorage<MapData, [u8; size_of::<Peer>()]>,
    overflow_fd: OwnedFd,
}

impl SocketTables {
    pub(super) fn new(loaded: &mut Loaded) -> Result<Self> {
        let overflow = loaded.take_map("ORIGIN_OVERFLOW")?;
        let Map::SkStorage(data) = &overflow else {
            bail!("map ORIGIN_OVERFLOW is no socket storage")
        };
        let overflow_fd = data.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            origin: loaded.view("ORIGIN")?,
            backends: loaded.view("BACKENDS")?,
            overflow_fd: overflow_fd.context("map ORIGIN_OVERFLOW")?,
            overflow: overflow.try_into().context("map ORIGIN_OVERFLOW")?,
        })
    }

    /// Number of slots.
    pub fn slots(&self) -> u32 {
        self.origin.len()
    }

    /// The cookie of the socket that holds a slot; 0 if none does.
    pub fn holder(&self, slot: u32) -> u64 {
        self.cookie(slot).load(Ordering::Relaxed)
    }

    /// The slot that is the socket's, unless another one holds it.
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below 2^32")]
    pub fn slot_of(&self, cookie: u64) -> u32 {
        (cookie % u64::from(self.origin.len())) as u32
    }

    /// The peer of the socket with this cookie, if it holds a slot.
    pub fn peer(&self, cookie: u64) -> Option<Peer> {
        let slot = self.origin.get(self.slot_of(cookie));
        (slot.cookie == cookie).then_some(slot.peer)
    }

    /// Frees the slot of a socket that is gone. False if it does not hold it any more.
    pub fn free(&self, cookie: u64) -> bool {
        let holder = self.cookie(self.slot_of(cookie));
        holder.compare_exchange(cookie, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The life of a backend id.
    pub fn life(&self, id: u32) -> Option<Life> {
        (id < self.backends.len()).then(|| self.backends.get(id).life())
    }

    /// Endpoints whose ids have ended, and are not given to others yet.
    pub fn ended(&self) -> BTreeSet<(Address, Port)> {
        let backends = (0..self.backends.len()).map(|id| self.backends.get(id));
        let ended = backends.filter(|b| !b.life().present && b.address != Address::UNSPECIFIED);
        ended.map(|backend| (backend.address, backend.port)).collect()
    }

    /// `ORIGIN_OVERFLOW`, where sockets have their peer that have no slot.
    pub fn overflow(&self) -> BorrowedFd<'_> {
        self.overflow_fd.as_fd()
    }

    /// The peer in a socket's storage.
    pub fn stored(&self, socket: BorrowedFd<'_>) -> Option<Peer> {
        peer_from(&self.overflow.get(&socket, 0).ok()?)
    }

    fn cookie(&self, slot: u32) -> &AtomicU64 {
        // SAFETY: the pointer is to an entry of the mapping.
        let cookie = self.origin.field(slot, |slot| unsafe { &raw mut (*slot).cookie });
        // SAFETY: an aligned word of the mapping, which lives as long as self.
        unsafe { AtomicU64::from_ptr(cookie) }
    }
}
