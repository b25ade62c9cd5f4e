//! Waiting for a condition, never for a time.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take that has no promise of its own: far more than it needs, since the
/// machine may be busy with other work.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Asks again until the condition holds; panics with its last reason after [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, condition)
}

/// [`eventually`] with a deadline of its own.
#[track_caller]
pub(crate) fn within<T>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match condition() {
            Ok(value) => return value,
            Err(reason) if start.elapsed() > deadline => {
                panic!("{what}: not within {deadline:?}: {reason}")
            }
            Err(_) => sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
