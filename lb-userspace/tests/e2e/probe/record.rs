//! Visits, each with its time: for a test that knows at what time who was to answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::Errno;
use super::protocol::Kind;
use super::sockets::visit;

/// One visit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Which of the targets.
    pub(crate) target: usize,
    /// Before the call, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) begin: u64,
    /// When the first byte had come, or the failure.
    pub(crate) end: u64,
    /// The pod that answered, or why none did.
    pub(crate) outcome: Result<String, String>,
}

/// Nanoseconds of the clock that all processes share.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).expect("after boot") * 1_000_000_000
        + u64::try_from(time.tv_nsec).expect("below a second")
}

/// Visits in the background, one target after the other.
pub(super) struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Record>>,
}

impl Recorder {
    pub(super) fn start(targets: Vec<(Kind, SocketAddr)>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut records = Vec::new();
            for (target, &(kind, to)) in targets.iter().enumerate().cycle() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let begin = now();
                let outcome = outcome(kind, to);
                records.push(Record { target, begin, end: now(), outcome });
                // Leaves the machine's few processors something for the agent.
                thread::sleep(Duration::from_micros(100));
            }
            records
        });
        Self { stop, thread }
    }

    pub(super) fn stop(self) -> Vec<Record> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn outcome(kind: Kind, to: SocketAddr) -> Result<String, String> {
    match visit(kind, to) {
        Ok((pod, peer)) if peer == to => Ok(pod),
        Ok((pod, peer)) => Err(format!("{pod} answered, and getpeername shows {peer}")),
        Err(error) => Err(describe(&error)),
    }
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno(number)),
        None => error.to_string(),
    }
}
