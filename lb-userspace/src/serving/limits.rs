//! How much each client, and all together, may have under way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts what is under way.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    of_a_client: usize,
    of_all: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    by_client: BTreeMap<Option<IpAddr>, usize>,
    all: usize,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    client: Option<IpAddr>,
    held: Arc<Mutex<Held>>,
}

impl Limit {
    pub(crate) fn new(of_a_client: usize, of_all: usize) -> Self {
        Self { of_a_client, of_all, held: Arc::default() }
    }

    /// A place for `client`, if there is one. Strangers are one client together.
    pub(crate) fn take(&self, client: IpAddr, trusted: bool) -> Option<Place> {
        let client = trusted.then(|| client.to_canonical());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let its = held.by_client.get(&client).copied().unwrap_or_default();
        if its >= self.of_a_client || held.all >= self.of_all {
            return None;
        }
        held.by_client.insert(client, its + 1);
        held.all += 1;
        Some(Place { client, held: Arc::clone(&self.held) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= 1;
        if let Some(its) = held.by_client.get_mut(&self.client) {
            *its -= 1;
            if *its == 0 {
                held.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_and_all_together_have_a_limit_and_places_come_back() {
        let limit = Limit::new(2, 3);
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        let first = limit.take(ip(1), true);
        let second = limit.take(ip(1), true);
        assert!(first.is_some() && second.is_some());
        assert!(limit.take(ip(1), true).is_none(), "a client's third");
        let other = limit.take(ip(2), true);
        assert!(other.is_some());
        assert!(limit.take(ip(3), true).is_none(), "the fourth of all");
        drop((first, second, other));
        assert_eq!(limit.held.lock().expect("no panic").by_client.len(), 0);
        assert!(limit.take(ip(3), true).is_some());
    }

    #[test]
    fn strangers_share_the_places_of_one_client() {
        let limit = Limit::new(2, 10);
        let stranger = |last| limit.take(IpAddr::from([10, 0, 0, last]), false);
        let places = (stranger(1), stranger(2));
        assert!(places.0.is_some() && places.1.is_some());
        assert!(stranger(3).is_none());
        assert!(limit.take(IpAddr::from([10, 0, 0, 3]), true).is_some());
    }
}
