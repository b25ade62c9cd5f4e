//! Many connections, counted by who answered.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Errno;
use super::protocol::Kind;
use super::sockets::visit;

/// What came of many attempts.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Answers by the pod's name.
    pub(crate) answers: BTreeMap<String, u64>,
    /// Failures by what the system call said.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Peers that `getpeername` showed and that are not the address connected to.
    pub(crate) strange_peers: BTreeMap<String, u64>,
}

impl Tally {
    fn record(&mut self, to: SocketAddr, outcome: io::Result<(String, SocketAddr)>) {
        match outcome {
            Ok((name, peer)) => {
                *self.answers.entry(name).or_default() += 1;
                if peer != to {
                    *self.strange_peers.entry(peer.to_string()).or_default() += 1;
                }
            }
            Err(error) => {
                let text = match error.raw_os_error() {
                    Some(number) => format!("{:?}", Errno(number)),
                    None => error.to_string(),
                };
                *self.failures.entry(text).or_default() += 1;
            }
        }
    }

    /// How often this pod answered.
    pub(crate) fn by(&self, pod: &str) -> u64 {
        self.answers.get(pod).copied().unwrap_or(0)
    }

    /// How often any pod answered.
    pub(crate) fn answered(&self) -> u64 {
        self.answers.values().sum()
    }

    /// Panics unless there were attempts, all answered, all showing the address connected to.
    #[track_caller]
    pub(crate) fn assert_all_answered(&self, what: &str) {
        assert!(self.answered() > 0, "{what}: nothing was answered: {self:?}");
        assert!(self.failures.is_empty(), "{what}: attempts failed: {self:?}");
        assert!(self.strange_peers.is_empty(), "{what}: getpeername shows others: {self:?}");
    }
}

/// So many visits, one after another.
pub(super) fn burst(kind: Kind, to: SocketAddr, count: u32) -> Tally {
    let mut tally = Tally::default();
    (0..count).for_each(|_| tally.record(to, visit(kind, to)));
    tally
}

/// Visits in the background.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    tallies: Arc<Mutex<Vec<Tally>>>,
    thread: JoinHandle<()>,
}

impl Load {
    pub(super) fn start(kind: Kind, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tallies = Arc::new(Mutex::new(vec![Tally::default()]));
        let (stopped, shared) = (Arc::clone(&stop), Arc::clone(&tallies));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // Belongs to the period it begins in: an attempt that is on its way while the
                // test makes a change may see the old or the new world.
                let period = shared.lock().expect("no panic holds it").len() - 1;
                let outcome = visit(kind, to);
                shared.lock().expect("no panic holds it")[period].record(to, outcome);
                // Leaves the machine's few processors something for the agent.
                thread::sleep(Duration::from_micros(200));
            }
        });
        Self { stop, tallies, thread }
    }

    /// Begins a new period.
    pub(super) fn mark(&self) {
        self.tallies.lock().expect("no panic holds it").push(Tally::default());
    }

    /// The tally of each period.
    pub(super) fn stop(self) -> Vec<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        self.tallies.lock().expect("no panic holds it").clone()
    }
}
