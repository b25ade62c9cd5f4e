//! When to look for sockets to close.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A sweep when what died counts as gone, and one for connections that were on their way past the
/// hooks meanwhile. Running programs need not be waited for: the later sweep finds theirs, too.
const AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

/// Wishes that are no further apart are served by one sweep.
const TOGETHER: Duration = Duration::from_millis(200);

/// A sweep that takes long is followed by a rest this many times as long.
const REST: u32 = 10;

/// The sweeps that are due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: BTreeSet<Instant>,
    rest_until: Option<Instant>,
}

impl Schedule {
    /// Backends have died.
    pub(super) fn after_deaths(&mut self, now: Instant) {
        for after in AFTER {
            let at = now + after;
            if self.due.range(at..=at + TOGETHER).next().is_none() {
                self.due.insert(at + TOGETHER);
            }
        }
    }

    /// When the next sweep is to begin.
    pub(super) fn next(&self) -> Option<Instant> {
        let first = *self.due.first()?;
        Some(self.rest_until.map_or(first, |rest| rest.max(first)))
    }

    /// Whether a sweep is to begin. What is due by now is taken for done.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let due = self.next().is_some_and(|at| at <= now);
        if due {
            self.due.retain(|at| *at > now);
        }
        due
    }

    /// A sweep has ended.
    pub(super) fn rest(&mut self, began: Instant, now: Instant) {
        self.rest_until = Some(now + (now - began) * REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_death_is_followed_by_sweeps_after_one_and_ten_seconds() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        assert_eq!(schedule.next(), None, "nothing to do, nothing to wait for");
        // A death every ten milliseconds for two seconds, and sweeps as they come.
        let mut sweeps = Vec::new();
        for ms in 0..15_000 {
            let now = start + ms * MS;
            if ms < 2000 && ms % 10 == 0 {
                schedule.after_deaths(now);
            }
            if schedule.begin(now) {
                sweeps.push(ms);
            }
        }
        assert_eq!(schedule.next(), None, "nothing is left to do");
        for death in (0..2000).step_by(10) {
            for after in [1000, 10_000] {
                let soon = death + after..=death + after + 200;
                assert!(sweeps.iter().any(|ms| soon.contains(ms)), "{death} ms: {sweeps:?}");
            }
        }
        assert!(sweeps.len() <= 22, "few sweeps serve all: {sweeps:?}");
    }

    #[test]
    fn long_sweeps_are_followed_by_long_rests() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.after_deaths(start);
        assert!(!schedule.begin(start + 1199 * MS));
        assert!(schedule.begin(start + 1200 * MS));
        schedule.rest(start + 1200 * MS, start + 3200 * MS);
        schedule.after_deaths(start + 3200 * MS);
        assert_eq!(schedule.next(), Some(start + 23_200 * MS));
        assert!(schedule.begin(start + 23_200 * MS));
        assert_eq!(schedule.next(), None, "one sweep serves all that had to wait");
    }
}
