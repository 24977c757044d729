//! How long a part of a switch still takes: a line that changes on a terminal, and nothing elsewhere.

use crate::clock;
use crate::out::{draws, out};
use std::time::{Duration, Instant};

/// Taken off the terminal when dropped.
pub(super) struct Countdown {
    until: Instant,
    terminal: bool,
    shown: Option<u64>,
}

impl Countdown {
    pub(super) fn new(length: Duration) -> Self {
        Self { until: Instant::now() + length, terminal: draws(&std::io::stdout()), shown: None }
    }

    /// The time that is left; none once it is over.
    pub(super) fn left(&mut self) -> Option<Duration> {
        let left = self.until.checked_duration_since(Instant::now())?;
        let seconds = left.as_secs() + 1;
        if self.terminal && self.shown != Some(seconds) {
            out!("\r\x1b[K  {} left", clock::span(seconds));
            self.shown = Some(seconds);
        }
        Some(left)
    }
}

impl Drop for Countdown {
    fn drop(&mut self) {
        if self.shown.is_some() {
            out!("\r\x1b[K");
        }
    }
}
