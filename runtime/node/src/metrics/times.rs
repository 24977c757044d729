//! The durations of one kind and camera: all of them since the start, and those of the last seconds.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Durations are recorded from a microsecond to a minute; what is outside counts as the nearest of the two.
const SHORTEST_NS: u64 = 1_000;
const LONGEST_NS: u64 = 60_000_000_000;

/// The recent past is the last one to two spans.
const SPAN: Duration = Duration::from_secs(5);

/// What a reader of a [`Times`] gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quantiles {
    pub(super) p50_ns: u64,
    pub(super) p95_ns: u64,
    pub(super) p99_ns: u64,
}

#[derive(Debug)]
pub(super) struct Times {
    all: Histogram<u32>,
    /// Two histograms that are emptied in turn, one span apart: the older one always holds the last one to two spans, so
    /// that nothing has to be merged to read it.
    recent: [Histogram<u32>; 2],
    /// The one of the two that was emptied last.
    younger: usize,
    turned: Instant,
}

impl Times {
    pub(super) fn new(now: Instant) -> Self {
        Self { all: empty(), recent: [empty(), empty()], younger: 0, turned: now }
    }

    pub(super) fn record(&mut self, ns: u64, now: Instant) {
        self.turn(now);
        let ns = ns.clamp(SHORTEST_NS, LONGEST_NS);
        for histogram in std::iter::once(&mut self.all).chain(&mut self.recent) {
            // It grows to whatever a minute needs, which an index can always count.
            let _ = histogram.record(ns);
        }
    }

    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.turned);
        if age < SPAN {
            return;
        }
        let older = 1 - self.younger;
        self.recent[older].clear();
        self.younger = older;
        if age >= 2 * SPAN {
            self.recent[1 - older].clear();
        }
        self.turned = now;
    }

    /// How many were recorded since the start.
    pub(super) fn count(&self) -> u64 {
        self.all.len()
    }

    /// The longest since the start.
    pub(super) fn max_ns(&self) -> u64 {
        self.all.max()
    }

    /// Since the start.
    pub(super) fn all(&self) -> Quantiles {
        quantiles(&self.all)
    }

    /// Of the last 5 s to 10 s; `None` where nothing was recorded in them.
    pub(super) fn recent(&mut self, now: Instant) -> Option<Quantiles> {
        self.turn(now);
        let older = &self.recent[1 - self.younger];
        (!older.is_empty()).then(|| quantiles(older))
    }
}

/// Grows with what is recorded, to two significant digits: most nodes never record a second.
fn empty() -> Histogram<u32> {
    let mut histogram = Histogram::new_with_bounds(SHORTEST_NS, 2 * SHORTEST_NS, 2)
        .expect("the bounds are constants that hdrhistogram accepts");
    histogram.auto(true);
    histogram
}

fn quantiles(of: &Histogram<u32>) -> Quantiles {
    let mut values = of.value_at_quantiles([0.5, 0.95, 0.99]);
    let mut next = || values.next().unwrap_or(0);
    Quantiles { p50_ns: next(), p95_ns: next(), p99_ns: next() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn near(ns: u64, ms: f64) -> bool {
        (ns as f64 / 1e6 / ms - 1.0).abs() < 0.01
    }

    #[test]
    fn recent_quantiles_are_of_the_last_seconds_and_fade() {
        let start = Instant::now();
        let mut times = Times::new(start);
        // 20 s at 100 a second: first 1 ms each, then 1 to 100 ms
        for k in 0..2000u64 {
            let ms = if k < 1000 { 1 } else { k % 100 + 1 };
            times.record(ms * 1_000_000, start + Duration::from_millis(10 * k));
        }
        let end = start + Duration::from_secs(20);
        let recent = times.recent(end).unwrap();
        assert!(near(recent.p50_ns, 50.0) && near(recent.p95_ns, 95.0) && near(recent.p99_ns, 99.0), "{recent:?}");
        let all = times.all();
        assert!(near(all.p50_ns, 1.0) && near(all.p99_ns, 98.0), "{all:?}");
        assert_eq!(times.count(), 2000);
        assert!(times.recent(end + Duration::from_secs(4)).is_some());
        assert_eq!(times.recent(end + Duration::from_secs(11)), None, "nothing for 10 s");
        times.record(7_000_000, end + Duration::from_secs(12));
        assert!(near(times.recent(end + Duration::from_secs(12)).unwrap().p50_ns, 7.0));
    }

    #[test]
    fn what_is_too_short_or_too_long_counts_as_the_nearest() {
        let now = Instant::now();
        let mut times = Times::new(now);
        times.record(0, now);
        times.record(u64::MAX, now);
        assert_eq!(times.count(), 2);
        assert!(near(times.max_ns(), 60_000.0), "{}", times.max_ns());
        assert!(times.all().p50_ns <= 1_024);
    }
}
