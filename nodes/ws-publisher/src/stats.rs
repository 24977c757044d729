//! The figures of one camera.

use crate::protocol::CameraStats;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Frames over which latency is told.
const LATENCIES: usize = 512;
/// Time over which the rate is told.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Counts what a camera delivered.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    frames: u64,
    missing: u64,
    restarts: u64,
    pub(crate) packets: u64,
    last_seq: Option<u64>,
    latencies_ns: VecDeque<u64>,
    arrivals: VecDeque<Instant>,
}

impl Counters {
    /// Counts the detections of frame `seq`, published at `now`, `latency_ns` after their capture.
    pub(crate) fn frame(&mut self, seq: u64, latency_ns: u64, now: Instant) {
        match self.last_seq {
            Some(last) if seq > last => self.missing += seq - last - 1,
            Some(_) => self.restarts += 1,
            // a viewer that starts late has missed nothing
            None => {}
        }
        self.last_seq = Some(seq);
        self.frames += 1;
        if self.latencies_ns.len() == LATENCIES {
            self.latencies_ns.pop_front();
        }
        self.latencies_ns.push_back(latency_ns);
        self.arrivals.push_back(now);
        self.forget_before(now);
    }

    fn forget_before(&mut self, now: Instant) {
        while self.arrivals.front().is_some_and(|&t| now.saturating_duration_since(t) > RATE_WINDOW) {
            self.arrivals.pop_front();
        }
    }

    /// The figures at `now`.
    pub(crate) fn report<'a>(&mut self, source: &'a str, now: Instant) -> CameraStats<'a> {
        self.forget_before(now);
        // n arrivals span n - 1 intervals; a camera that has gone silent falls to 0 within the window
        let span = match (self.arrivals.front(), self.arrivals.back()) {
            (Some(&first), Some(&last)) => last.duration_since(first).max(now.saturating_duration_since(last)),
            _ => Duration::ZERO,
        };
        let fps = if span.is_zero() { 0.0 } else { (self.arrivals.len() - 1) as f64 / span.as_secs_f64() };
        let mut sorted: Vec<u64> = self.latencies_ns.iter().copied().collect();
        sorted.sort_unstable();
        CameraStats {
            source,
            frames: self.frames,
            fps: (fps * 100.0).round() / 100.0,
            missing: self.missing,
            restarts: self.restarts,
            latency_p50_ms: quantile_ms(&sorted, 0.5),
            latency_p99_ms: quantile_ms(&sorted, 0.99),
            packets: self.packets,
        }
    }
}

/// The nearest-rank quantile `q` of sorted nanoseconds, in milliseconds.
fn quantile_ms(sorted: &[u64], q: f64) -> Option<f64> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    let ns = *sorted.get(rank.max(1) - 1)?;
    Some((ns as f64 / 1e4).round() / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_restarts_are_told_apart() {
        let mut c = Counters::default();
        let now = Instant::now();
        for seq in [5, 6, 9, 0, 1, 1] {
            c.frame(seq, 0, now);
        }
        let r = c.report("a", now);
        assert_eq!((r.frames, r.missing, r.restarts), (6, 2, 2));
    }

    #[test]
    fn rate_and_latency_are_of_the_recent_past() {
        let mut c = Counters::default();
        let start = Instant::now();
        for k in 0..100u32 {
            c.frame(k.into(), u64::from(k + 1) * 1_000_000, start + Duration::from_millis(40) * k);
        }
        let now = start + Duration::from_millis(40) * 99;
        let r = c.report("a", now);
        assert_eq!(r.fps, 25.0);
        // of the latencies 1 to 100 ms: the 50th and the 99th
        assert_eq!((r.latency_p50_ms, r.latency_p99_ms), (Some(50.0), Some(99.0)));
        assert_eq!(c.report("a", now + Duration::from_secs(3)).fps, 0.0);
        assert_eq!(Counters::default().report("b", now).latency_p50_ms, None);
    }
}
