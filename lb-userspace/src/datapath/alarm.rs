//! What wakes the thread that collects flows: `WAKE`, and the word of `NODE` that says whether it sleeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use lb_common::abi::Node;

use super::grace::Grace;
use super::load::Loaded;
use super::shared::Shared;
use crate::flows::Lack;

/// More words than the ring holds at once: programs may ring without end.
const WORDS: usize = 1024;

/// `FLOWS` is full; other words than these two say that it has a first flow.
const FULL: u32 = 2;
/// No port is left by which the node can stand in for a client of some endpoint.
const PORTS_TAKEN: u32 = 3;

/// Rings when a first flow was made, if it was armed, and whenever a flow found no room or no port. Readable while it rings.
#[derive(Debug)]
pub struct Alarm {
    ring: Ring,
    node: Shared<Node>,
    grace: Grace,
}

impl Alarm {
    /// To be called before others take `GRACE` and `NODE` out of the object.
    pub(super) fn new(loaded: &mut Loaded) -> Result<Self> {
        let ring = RingBuf::try_from(loaded.take_map("WAKE")?).context("map WAKE")?;
        Ok(Self { ring: Ring(ring), node: loaded.view("NODE")?, grace: Grace::new(loaded)? })
    }

    /// From here on the first flow rings. Flows that were made before are in the table when this returns: it waits for the
    /// programs that may have made them without having seen that they should ring.
    ///
    /// # Errors
    ///
    /// If the kernel does not let us wait.
    pub fn arm(&mut self) -> io::Result<()> {
        self.asleep().store(1, Ordering::SeqCst);
        self.grace.wait()
    }

    /// No flow rings any more.
    pub fn disarm(&mut self) {
        self.asleep().store(0, Ordering::SeqCst);
    }

    /// Stops the ringing; says what flows lacked.
    pub fn hush(&mut self) -> Lack {
        let mut lack = Lack::default();
        for _ in 0..WORDS {
            let Some(word) = self.ring.0.next() else { break };
            lack.room |= *word == FULL.to_ne_bytes();
            lack.ports |= *word == PORTS_TAKEN.to_ne_bytes();
        }
        lack
    }

    fn asleep(&self) -> &AtomicU32 {
        // SAFETY: the pointer is to an entry of the mapping.
        let asleep = self.node.field(0, |node| unsafe { &raw mut (*node).flows_asleep });
        // SAFETY: an aligned word of the mapping, which lives as long as self.
        unsafe { AtomicU32::from_ptr(asleep) }
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.0.as_fd()
    }
}

/// `WAKE`.
struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WAKE")
    }
}
