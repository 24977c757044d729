//! The figures of one camera.

use crate::protocol::CameraStats;
use millrace_frame::CameraStatus;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Ages are those of the frames of the last seconds, and of no more frames than this.
const AGES: usize = 512;
const AGES_WINDOW: Duration = Duration::from_secs(10);
/// The rate is that of the frames of the last seconds.
const RATE_WINDOW: Duration = Duration::from_secs(2);

/// Counts what a camera delivered.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    frames: u64,
    missing: u64,
    restarts: u64,
    pub(crate) packets: u64,
    last_seq: Option<u64>,
    /// When each of the last frames came, and how old it was.
    recent: VecDeque<(Instant, u64)>,
}

impl Counters {
    /// Counts the detections of frame `seq`, published at `now`, `age_ns` after the frame had arrived at the first node.
    pub(crate) fn frame(&mut self, seq: u64, age_ns: u64, now: Instant) {
        match self.last_seq {
            Some(last) if seq > last => self.missing += seq - last - 1,
            Some(_) => self.restarts += 1,
            // a viewer that starts late has missed nothing
            None => {}
        }
        self.last_seq = Some(seq);
        self.frames += 1;
        if self.recent.len() == AGES {
            self.recent.pop_front();
        }
        self.recent.push_back((now, age_ns));
        self.forget_before(now);
    }

    fn forget_before(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > AGES_WINDOW) {
            self.recent.pop_front();
        }
    }

    /// When the last detections were published.
    pub(crate) fn last_at(&self) -> Option<Instant> {
        self.recent.back().map(|(at, _)| *at)
    }

    fn fps(&self, now: Instant) -> f64 {
        let recent = || {
            let times = self.recent.iter().map(|(at, _)| *at);
            times.filter(|at| now.saturating_duration_since(*at) <= RATE_WINDOW)
        };
        // n arrivals span n - 1 intervals; a camera that has gone silent falls to 0 within the window
        let span = match (recent().next(), recent().next_back()) {
            (Some(first), Some(last)) => last.duration_since(first).max(now.saturating_duration_since(last)),
            _ => Duration::ZERO,
        };
        if span.is_zero() {
            return 0.0;
        }
        // what waited while the process was stopped comes at once
        let most = recent().count() as f64 / RATE_WINDOW.as_secs_f64();
        most.min((recent().count() - 1) as f64 / span.as_secs_f64())
    }

    /// The figures at `now` of a camera in this state, without its model.
    pub(crate) fn report<'a>(&mut self, status: &'a CameraStatus, now: Instant) -> CameraStats<'a> {
        self.forget_before(now);
        let mut sorted: Vec<u64> = self.recent.iter().map(|(_, age_ns)| *age_ns).collect();
        sorted.sort_unstable();
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|q| quantile_ms(&sorted, q));
        CameraStats {
            camera: status.into(),
            frames: self.frames,
            fps: (self.fps(now) * 100.0).round() / 100.0,
            missing: self.missing,
            restarts: self.restarts,
            age_p50_ms: p50,
            age_p95_ms: p95,
            age_p99_ms: p99,
            latency_p50_ms: p50,
            latency_p99_ms: p99,
            packets: self.packets,
            model: "",
            about: "",
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
    fn gaps_and_restarts_are_distinguished() {
        let mut c = Counters::default();
        let now = Instant::now();
        for seq in [5, 6, 9, 0, 1, 1] {
            c.frame(seq, 0, now);
        }
        let status = CameraStatus::new("a");
        let r = c.report(&status, now);
        assert_eq!((r.frames, r.missing, r.restarts), (6, 2, 2));
    }

    #[test]
    fn rates_and_ages_are_of_the_recent_past() {
        let mut c = Counters::default();
        let (start, status) = (Instant::now(), CameraStatus::new("a"));
        for k in 0..100u32 {
            c.frame(k.into(), u64::from(k + 1) * 1_000_000, start + Duration::from_millis(40) * k);
        }
        let now = start + Duration::from_millis(40) * 99;
        let r = c.report(&status, now);
        assert_eq!(r.fps, 25.0);
        // of the ages 1 to 100 ms: the 50th, the 95th and the 99th
        assert_eq!((r.age_p50_ms, r.age_p95_ms, r.age_p99_ms), (Some(50.0), Some(95.0), Some(99.0)));
        assert_eq!((r.latency_p50_ms, r.latency_p99_ms), (Some(50.0), Some(99.0)));
        assert_eq!(c.report(&status, now + Duration::from_secs(3)).fps, 0.0);
        // 8 s after the last frame: of those of the last 10 s, the last 51
        assert_eq!(c.report(&status, now + Duration::from_secs(8)).age_p50_ms, Some(75.0));
        let dead = c.report(&status, now + Duration::from_secs(11));
        assert_eq!((dead.age_p50_ms, dead.latency_p99_ms, dead.frames), (None, None, 100), "a dead camera has no age");
        assert_eq!(Counters::default().report(&status, now).age_p50_ms, None);
    }

    #[test]
    fn what_comes_at_once_after_a_pause_is_no_higher_rate_than_its_number_in_the_window() {
        let (mut c, start, status) = (Counters::default(), Instant::now(), CameraStatus::new("a"));
        for k in 0..6 {
            c.frame(k, 0, start + Duration::from_micros(k));
        }
        assert_eq!(c.report(&status, start + Duration::from_micros(9)).fps, 3.0);
    }
}
