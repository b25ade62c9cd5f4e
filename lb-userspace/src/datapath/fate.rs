//! What has become of a backend that sockets remember.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use lb_common::abi::FrontendKey;

use super::maps::Maps;
use super::set::Endpoint;
use super::writer::Writer;
use crate::sockets::{DeadPeer, Membership};

/// How long an endpoint may be away before it counts as gone: on its way from one slice to another
/// it can be in none for a moment.
pub(crate) const SETTLED: Duration = Duration::from_secs(1);

/// The endpoints that were given up a moment ago.
#[derive(Clone, Debug, Default)]
pub(super) struct Deaths {
    recent: VecDeque<(Instant, Endpoint)>,
    unheard: bool,
}

impl Deaths {
    /// An endpoint was given up.
    pub(super) fn note(&mut self, endpoint: Endpoint, now: Instant) {
        while self.recent.front().is_some_and(|(at, _)| now - *at >= SETTLED) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, endpoint));
        self.unheard = true;
    }

    /// Whether there were any since this was last asked.
    pub(super) fn take(&mut self) -> bool {
        std::mem::take(&mut self.unheard)
    }

    /// Endpoints that have not been away for long enough to be sure. One that went before this agent
    /// started has been.
    pub(super) fn unsettled(&self, now: Instant) -> impl Iterator<Item = Endpoint> {
        let recent = self.recent.iter().filter(move |(at, _)| now - *at < SETTLED);
        recent.map(|(_, endpoint)| *endpoint)
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
            Some(port) if port.set.has(peer.backend) => Membership::Member,
            Some(_) => Membership::Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{Address, Port};

    use super::*;

    #[test]
    fn an_endpoint_counts_as_gone_a_second_after_it_was_last_given_up() {
        const MS: Duration = Duration::from_millis(1);
        let start = Instant::now();
        let mut deaths = Deaths::default();
        let endpoint = |port| (Address::UNSPECIFIED, Port::new(port));
        let unsettled = |deaths: &Deaths, ms| {
            deaths.unsettled(start + ms * MS).map(|(_, port)| port.number()).collect::<Vec<_>>()
        };
        deaths.note(endpoint(7), start);
        deaths.note(endpoint(8), start + 600 * MS);
        assert_eq!(unsettled(&deaths, 999), [7, 8]);
        assert_eq!(unsettled(&deaths, 1000), [8]);
        deaths.note(endpoint(7), start + 1200 * MS);
        assert_eq!(unsettled(&deaths, 1599), [8, 7]);
        assert_eq!(unsettled(&deaths, 1600), [7]);
        assert_eq!(unsettled(&deaths, 2200), [0; 0]);
        assert_eq!(deaths.recent.len(), 2, "what is settled is forgotten with the next death");
        assert!(deaths.take() && !deaths.take(), "deaths are told once");
    }
}
