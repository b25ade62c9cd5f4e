//! Ages as kubectl writes them.

use jiff::{SignedDuration, Timestamp};

/// Time since `then`; `<unknown>` where an object has no such time.
pub(super) fn age(then: Option<Timestamp>, now: Timestamp) -> String {
    then.map_or_else(|| "<unknown>".to_owned(), |then| human(now.duration_since(then)))
}

/// `HumanDuration` of k8s.io/apimachinery `pkg/util/duration`: two units at most, fewer as time goes by.
pub(super) fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    let hours = minutes / 60;
    let days = hours / 24;
    match () {
        // Clocks may differ a little.
        () if seconds < -1 => "<invalid>".to_owned(),
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 2 * 60 => format!("{seconds}s"),
        () if minutes < 10 => two((minutes, "m"), (seconds % 60, "s")),
        () if minutes < 3 * 60 => format!("{minutes}m"),
        () if hours < 8 => two((hours, "h"), (minutes % 60, "m")),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two((days, "d"), (hours % 24, "h")),
        () if days < 2 * 365 => format!("{days}d"),
        () if days < 8 * 365 => two((days / 365, "y"), (days % 365, "d")),
        () => format!("{}y", days / 365),
    }
}

fn two((large, large_unit): (i64, &str), (small, small_unit): (i64, &str)) -> String {
    if small == 0 {
        format!("{large}{large_unit}")
    } else {
        format!("{large}{large_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        const MINUTE: i64 = 60;
        const HOUR: i64 = 60 * MINUTE;
        const DAY: i64 = 24 * HOUR;
        // The cases of apimachinery's duration_test.go, and the borders between.
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (1, "1s"),
            (70, "70s"),
            (119, "119s"),
            (2 * MINUTE, "2m"),
            (190, "3m10s"),
            (10 * MINUTE, "10m"),
            (70 * MINUTE, "70m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 10 * MINUTE, "3h10m"),
            (8 * HOUR, "8h"),
            (47 * HOUR, "47h"),
            (2 * DAY, "2d"),
            (49 * HOUR, "2d1h"),
            (8 * DAY + HOUR, "8d"),
            (729 * DAY, "729d"),
            (730 * DAY, "2y"),
            (367 * 2 * DAY, "2y4d"),
            (8 * 365 * DAY, "8y"),
        ] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), expected, "{seconds} s");
        }
    }

    #[test]
    fn an_object_without_a_time_has_no_age() {
        assert_eq!(age(None, Timestamp::now()), "<unknown>");
    }
}
