//! Freeing slots of `ORIGIN` whose sockets are gone, though nobody saw them go: sockets that were
//! closed while no program was attached, and sockets of the kernel's own.
//!
//! A cookie is never given to a second socket, so a slot with the same cookie belongs to the same
//! socket. A listing can miss a socket (one whose place changes while it is read); two that are
//! some time apart do not miss the same one. A TCP socket without connection is in no list, and
//! its slot in no use.

use std::time::{Duration, Instant};

use super::diag::{Diag, States, Table};
use super::netns;
use crate::datapath::SocketTables;

/// Looking for such slots: begun by [`Reclaim::begin`], ended some time later.
#[derive(Debug)]
pub(super) struct Reclaim {
    after: Duration,
    /// Cookies that were in no listing, and when to look again.
    missing: Option<(Vec<u64>, Instant)>,
    /// When the last search ended.
    ended: Option<Instant>,
}

impl Reclaim {
    /// `after` is the time between the two listings.
    pub(super) fn new(after: Duration) -> Self {
        Self { after, missing: None, ended: None }
    }

    /// Whether a search is worth it: none is under way, nor has one ended a moment ago.
    pub(super) fn may_begin(&self, now: Instant) -> bool {
        self.missing.is_none() && self.ended.is_none_or(|ended| now - ended >= self.after)
    }

    /// The first listing. What could not be looked at is an error, and nothing will be freed.
    pub(super) fn begin(&mut self, tables: &SocketTables) -> Result<(), Vec<String>> {
        let held = (0..tables.slots()).map(|slot| tables.holder(slot)).filter(|&c| c != 0);
        let missing = missing(tables, held);
        self.ended = Some(Instant::now());
        self.missing = Some((missing?, Instant::now() + self.after));
        self.missing.take_if(|(missing, _)| missing.is_empty());
        Ok(())
    }

    /// When the second listing is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.missing.as_ref().map(|(_, at)| *at)
    }

    /// The second listing, and freeing; returns how many.
    pub(super) fn finish(&mut self, tables: &SocketTables) -> Result<u64, Vec<String>> {
        let Some((cookies, _)) = self.missing.take() else { return Ok(0) };
        let missing = missing(tables, cookies);
        self.ended = Some(Instant::now());
        let freed = missing?.into_iter().filter(|&cookie| tables.free(cookie));
        Ok(freed.map(|_| 1).sum())
    }
}

/// Which of the cookies no socket of the node has.
fn missing(
    tables: &SocketTables,
    cookies: impl IntoIterator<Item = u64>,
) -> Result<Vec<u64>, Vec<String>> {
    let mut wanted = vec![0; tables.slots() as usize];
    for cookie in cookies {
        wanted[tables.slot_of(cookie) as usize] = cookie;
    }
    let problems = netns::visit(|_| {
        let mut diag = Diag::open()?;
        for table in Table::ALL {
            diag.list(table, States::ALL, None, |socket| {
                let wanted = &mut wanted[tables.slot_of(socket.cookie) as usize];
                if *wanted == socket.cookie {
                    *wanted = 0;
                }
            })?;
        }
        Ok(())
    });
    if problems.is_empty() {
        wanted.retain(|&cookie| cookie != 0);
        Ok(wanted)
    } else {
        Err(problems)
    }
}
