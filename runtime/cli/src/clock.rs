//! Times of day as a user reads them.

use chrono::{DateTime, Local, TimeZone, Timelike};
use millrace_frame::unix_ns;
use std::time::Duration;

/// Now: `14:02:11`.
pub(crate) fn now() -> String {
    text(Local::now())
}

/// A time of the Unix clock in nanoseconds, as this machine's time of day: `14:02:11`.
pub(crate) fn time_of_day(unix_ns: i64) -> String {
    text(Local.timestamp_nanos(unix_ns))
}

/// The time of day so long ago.
pub(crate) fn ago(length: Duration) -> String {
    time_of_day(ago_ns(length))
}

/// The same by the Unix clock, in nanoseconds.
pub(crate) fn ago_ns(length: Duration) -> i64 {
    unix_ns().saturating_sub(i64::try_from(length.as_nanos()).unwrap_or(i64::MAX))
}

fn text(time: DateTime<Local>) -> String {
    format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

/// A length of time: `12 s`, `3:05` minutes, `2:00:00` hours.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_are_short() {
        assert_eq!([59, 60, 3599, 7325].map(span), ["59 s", "1:00", "59:59", "2:02:05"]);
        // whatever the time zone, the seconds of 2023-11-14 22:13:20 UTC
        assert!(time_of_day(1_700_000_000_000_000_000).ends_with(":20"));
        assert_eq!(time_of_day(i64::MIN).len(), 8);
    }
}
