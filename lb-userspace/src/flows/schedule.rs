//! When to look at flows. Pure.

use std::time::{Duration, Instant};

/// While there are flows, sweeps are no closer than this,
const SOONEST: Duration = Duration::from_secs(5);
/// and no further apart: connections are closed that had an hour to live.
const LATEST: Duration = Duration::from_secs(60);
/// A sweep that takes long is followed by a rest this many times as long,
const REST: u32 = 10;
/// or, while the table is full, this many times, within limits: connections are refused meanwhile.
const SHORT_REST: u32 = 3;
const SHORTEST_REST: Duration = Duration::from_millis(250);
const LONGEST_SHORT_REST: Duration = Duration::from_secs(2);

/// The sweep that is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Until then nothing happens, whoever asks.
    pub(super) rest_until: Instant,
    /// `None` if there is nothing to look at.
    pub(super) due: Option<Instant>,
}

impl Schedule {
    /// A sweep is due at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { rest_until: now, due: Some(now) }
    }

    /// A sweep has ended, after which the next connection is over in `nearest`.
    pub(super) fn after_sweep(&mut self, began: Instant, now: Instant, nearest: Option<Duration>) {
        let took = now - began;
        self.rest_until = now + (took * SHORT_REST).clamp(SHORTEST_REST, LONGEST_SHORT_REST);
        self.due =
            nearest.map(|nearest| (began + nearest.clamp(SOONEST, LATEST)).max(now + took * REST));
    }

    /// The table could not be read.
    pub(super) fn after_failure(&mut self, now: Instant) {
        (self.rest_until, self.due) = (now + SOONEST, Some(now + LATEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_next_sweep_comes_with_the_next_end_within_limits() {
        let start = Instant::now();
        let after = |took: u32, nearest: Option<u32>| {
            let mut schedule = Schedule::new(start);
            let nearest = nearest.map(|ms| ms * MS);
            schedule.after_sweep(start, start + took * MS, nearest);
            let ms = |at: Instant| (at - start).as_millis();
            (ms(schedule.rest_until), schedule.due.map(ms))
        };
        // (it took, the nearest end) → (rest, next), all in milliseconds
        for (took, nearest, expected) in [
            (1, None, (251, None)),
            (1, Some(0), (251, Some(5000))),
            (1, Some(4999), (251, Some(5000))),
            (1, Some(7000), (251, Some(7000))),
            (1, Some(3_600_000), (251, Some(60_000))),
            (200, Some(0), (800, Some(5000))),
            (1000, Some(0), (3000, Some(11_000))),
            (1000, None, (3000, None)),
        ] {
            assert_eq!(after(took, nearest), expected, "took {took}, nearest {nearest:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_tried_again_later() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        assert_eq!((schedule.rest_until, schedule.due), (start, Some(start)), "at the start");
        schedule.after_failure(start);
        assert_eq!(schedule.rest_until, start + 5000 * MS);
        assert_eq!(schedule.due, Some(start + 60_000 * MS));
    }
}
