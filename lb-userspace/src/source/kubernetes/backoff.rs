//! How long to wait after a failure.

use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(500);
/// At the most, as client-go's reflectors do.
const LONGEST: Duration = Duration::from_secs(30);

/// Twice as long after each failure in a row, and never the same for two agents: a server that comes
/// back is not asked by all nodes in one moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something succeeded.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Something failed: how long to wait. The server may have asked for more.
    pub(super) fn next(&mut self, asked: Duration) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        jitter(doubled).max(asked)
    }
}

/// Between a half of it and all.
pub(super) fn jitter(longest: Duration) -> Duration {
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_with_jitter_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        for expected in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            let waited = backoff.next(Duration::ZERO).as_millis();
            assert!((expected / 2..=expected).contains(&waited), "{waited} of {expected}");
        }
        backoff.reset();
        assert!(backoff.next(Duration::ZERO) <= FIRST);
        assert!(backoff.next(Duration::from_secs(60)) >= Duration::from_secs(60), "as asked");
        let mut other = Backoff::default();
        let differ = (0..50).any(|_| {
            other.reset();
            let first = other.next(Duration::ZERO);
            other.reset();
            first != other.next(Duration::ZERO)
        });
        assert!(differ, "no two agents wait alike");
    }
}
