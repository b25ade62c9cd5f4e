//! Whether the engine keeps up, judged by the oldest change that waits: an idle agent is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use jiff::Timestamp;

/// How long a change may wait, in milliseconds. As kube-proxy's: twice its sync period of 30 s
/// (`cmd/kube-proxy/app/server.go`).
const PATIENCE: u64 = 60_000;

/// Set by the engine's thread, read by those who are asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<State>);

#[derive(Debug)]
struct State {
    begun: Instant,
    /// Since when the change has waited that is being made; milliseconds after `begun`, plus one;
    /// 0 if there is none.
    waiting: AtomicU64,
    /// When the last one was made: milliseconds since 1970.
    done: AtomicU64,
    serving: AtomicBool,
}

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(State {
            begun: Instant::now(),
            waiting: AtomicU64::new(0),
            done: AtomicU64::new(0),
            serving: AtomicBool::new(false),
        }))
    }
}

impl Pulse {
    /// A change is being made that has waited since then. Those behind it have waited for less.
    pub fn begin(&self, since: Instant) {
        self.0.waiting.store(self.offset(since) + 1, Ordering::Relaxed);
    }

    /// It is made.
    pub fn end(&self) {
        self.0.waiting.store(0, Ordering::Relaxed);
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        self.0.done.store(now, Ordering::Relaxed);
    }

    /// The kernel serves what an earlier agent left, or what every source has said.
    pub fn serving(&self) {
        self.0.serving.store(true, Ordering::Relaxed);
    }

    /// Whether the kernel serves anything that can be relied on.
    pub fn is_serving(&self) -> bool {
        self.0.serving.load(Ordering::Relaxed)
    }

    /// Whether no change waits for longer than it should.
    pub fn keeps_up(&self) -> bool {
        self.keeps_up_at(Instant::now())
    }

    fn keeps_up_at(&self, now: Instant) -> bool {
        match self.0.waiting.load(Ordering::Relaxed) {
            0 => true,
            since => self.offset(now) < since - 1 + PATIENCE,
        }
    }

    /// When the last change was made; the epoch if none was.
    pub fn last_done(&self) -> Timestamp {
        let milliseconds = i64::try_from(self.0.done.load(Ordering::Relaxed)).unwrap_or_default();
        Timestamp::from_millisecond(milliseconds).unwrap_or_default()
    }

    fn offset(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.0.begun);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_idle_agent_is_well_and_one_that_hangs_is_not() {
        let pulse = Pulse::default();
        let later = |seconds| pulse.0.begun + Duration::from_secs(seconds);
        assert!(pulse.keeps_up_at(later(100_000)), "nothing ever waited");
        pulse.begin(later(10));
        assert!(pulse.keeps_up_at(later(69)));
        assert!(!pulse.keeps_up_at(later(71)));
        pulse.end();
        assert!(pulse.keeps_up_at(later(100_000)));
        assert!(pulse.last_done() > Timestamp::UNIX_EPOCH);
    }
}
