//! Datagrams that wait to be answered: each client has a queue of its own, and they take turns. So a
//! client that sends more than can be answered delays and loses only its own. Strangers, whose
//! addresses may be forged in any number, are one client together.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// Datagrams that one client may have waiting.
const OF_A_CLIENT: usize = 256;

/// Datagrams that may wait in all.
const OF_ALL: usize = 4_096;

/// Queues that are kept for clients that come again, so that they need not be made for each question.
const REMEMBERED: usize = 256;

/// A request in one datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) packet: Vec<u8>,
    pub(super) source: SocketAddr,
    /// Whether its sender may ask.
    pub(super) trusted: bool,
    /// Which of this node's addresses it was sent to, and must be answered from.
    pub(super) to: Option<IpAddr>,
}

/// The datagrams that wait.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// By client; strangers are `None`.
    queues: BTreeMap<Option<IpAddr>, VecDeque<Datagram>>,
    /// The clients that have datagrams waiting, in the order of their turns.
    turns: VecDeque<Option<IpAddr>>,
    waiting: usize,
}

impl Inbox {
    /// Takes a datagram in; false if there is no room for it.
    pub(super) fn push(&mut self, datagram: Datagram) -> bool {
        let client = datagram.trusted.then(|| datagram.source.ip().to_canonical());
        if self.waiting >= OF_ALL {
            return false;
        }
        let queue = self.queues.entry(client).or_default();
        if queue.len() >= OF_A_CLIENT {
            return false;
        }
        if queue.is_empty() {
            self.turns.push_back(client);
        }
        queue.push_back(datagram);
        self.waiting += 1;
        true
    }

    /// The datagram whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Datagram> {
        let client = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&client)?;
        let datagram = queue.pop_front();
        if !queue.is_empty() {
            self.turns.push_back(client);
        } else if self.queues.len() > REMEMBERED {
            self.queues.retain(|_, queue| !queue.is_empty());
        }
        self.waiting -= usize::from(datagram.is_some());
        datagram
    }

    /// Whether nothing waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.waiting == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(client: u8, id: u8) -> Datagram {
        let source = SocketAddr::from(([10, 0, 0, client], 1_000));
        Datagram { packet: vec![id], source, trusted: true, to: None }
    }

    #[test]
    fn a_client_that_floods_delays_nobody_else() {
        let mut inbox = Inbox::default();
        let taken = (0..1_000).filter(|_| inbox.push(datagram(1, 0))).count();
        assert_eq!(taken, OF_A_CLIENT);
        assert!(inbox.push(datagram(2, 1)));
        assert!(inbox.push(datagram(2, 2)));
        let first: Vec<u8> = (0..4).filter_map(|_| inbox.pop()).map(|d| d.packet[0]).collect();
        assert_eq!(first, [0, 1, 0, 2]);
    }

    #[test]
    fn all_strangers_together_have_the_room_and_the_turns_of_one() {
        let mut inbox = Inbox::default();
        let stranger = |client| Datagram { trusted: false, ..datagram(client, 0) };
        let taken = (0..=255).flat_map(|client| [stranger(client), stranger(client)]);
        assert_eq!(taken.filter(|it| inbox.push(it.clone())).count(), OF_A_CLIENT);
        assert!(inbox.push(datagram(1, 1)));
        let first: Vec<u8> = (0..2).filter_map(|_| inbox.pop()).map(|d| d.packet[0]).collect();
        assert_eq!(first, [0, 1]);
    }

    #[test]
    fn what_was_taken_in_comes_out_once_and_each_client_s_in_order() {
        let mut inbox = Inbox::default();
        for id in 0..100 {
            assert!(inbox.push(datagram(id % 7, id)));
        }
        let mut out: Vec<Vec<u8>> = vec![Vec::new(); 7];
        while let Some(datagram) = inbox.pop() {
            let id = datagram.packet[0];
            out[usize::from(id % 7)].push(id);
        }
        assert!(inbox.is_empty() && inbox.turns.is_empty());
        assert!(inbox.queues.values().all(VecDeque::is_empty));
        assert!(out.iter().all(|ids| ids.is_sorted()), "{out:?}");
        assert_eq!(out.iter().map(Vec::len).sum::<usize>(), 100);
    }

    #[test]
    fn no_more_wait_than_there_is_room_for() {
        let mut inbox = Inbox::default();
        let all = (0..=255).flat_map(|client| (0..=255).map(move |id| datagram(client, id)));
        assert_eq!(all.filter(|datagram| inbox.push(datagram.clone())).count(), OF_ALL);
        assert_eq!(inbox.queues.len(), inbox.turns.len(), "no queue is left without a turn");
        while inbox.pop().is_some() {}
        assert!(inbox.queues.len() <= REMEMBERED, "{}", inbox.queues.len());
    }
}
