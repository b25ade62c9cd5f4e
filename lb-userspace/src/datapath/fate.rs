//! What has become of a backend that sockets remember.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use lb_common::abi::FrontendKey;

use super::maps::Maps;
use super::writer::Writer;
use crate::sockets::{DeadPeer, Membership};

/// How long an endpoint may be away before it counts as gone: on its way from one slice to another
/// it can be in none for a moment.
pub(crate) const SETTLED: Duration = Duration::from_secs(1);

/// The backend ids that were given up a moment ago.
#[derive(Clone, Debug, Default)]
pub(super) struct Deaths {
    recent: VecDeque<(Instant, u32)>,
    unheard: bool,
}

impl Deaths {
    /// An id was given up.
    pub(super) fn note(&mut self, id: u32, now: Instant) {
        while self.recent.front().is_some_and(|(at, _)| now - *at >= SETTLED) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, id));
        self.unheard = true;
    }

    /// Whether there were any since this was last asked.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.unheard)
    }

    /// Ids that have not been dead for long enough to be sure. One that died before this agent
    /// started has been.
    pub(super) fn unsettled(&self, now: Instant) -> impl Iterator<Item = u32> {
        let recent = self.recent.iter().filter(move |(at, _)| now - *at < SETTLED);
        recent.map(|(_, id)| *id)
    }
}

impl<M: Maps> Writer<M> {
    /// Whether the service port that a dead peer's frontend belongs to has that endpoint again.
    pub(super) fn membership(&self, peer: &DeadPeer) -> Membership {
        // All of loopback is served by one entry.
        let address = peer.frontend.address;
        let key = FrontendKey { address: address.loopback().unwrap_or(address), ..peer.frontend };
        let owner = self.frontends.get(&key).and_then(|entry| self.owners.get(&entry.service()));
        match owner.and_then(|id| self.services.get(id)) {
            None => Membership::NoService,
            Some(port) if port.set.members.contains_key(&peer.backend) => Membership::Member,
            Some(_) => Membership::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_as_gone_a_second_after_its_latest_death() {
        const MS: Duration = Duration::from_millis(1);
        let start = Instant::now();
        let mut deaths = Deaths::default();
        let unsettled = |deaths: &Deaths, ms| deaths.unsettled(start + ms * MS).collect::<Vec<_>>();
        deaths.note(7, start);
        deaths.note(8, start + 600 * MS);
        assert_eq!(unsettled(&deaths, 999), [7, 8]);
        assert_eq!(unsettled(&deaths, 1000), [8]);
        deaths.note(7, start + 1200 * MS);
        assert_eq!(unsettled(&deaths, 1599), [8, 7]);
        assert_eq!(unsettled(&deaths, 1600), [7]);
        assert_eq!(unsettled(&deaths, 2200), [0; 0]);
        assert_eq!(deaths.recent.len(), 2, "what is settled is forgotten with the next death");
        assert!(deaths.take() && !deaths.take(), "deaths are told once");
    }
}
