//! When a batch is launched: at once, after a wait that a setting states, or when waiting longer does not pay.

use std::time::{Duration, Instant};

/// What an automatic wait aims at: a launch costs about the same for this many frames as for one.
const AIM: usize = 6;
/// The longest automatic wait. Where so many frames do not come in this time, waiting costs latency and saves little.
const LONGEST: Duration = Duration::from_millis(4);
/// How much of the measured rate an observation replaces.
const WEIGHT: f64 = 0.05;

/// Decides when waiting frames are launched.
#[derive(Default)]
pub(crate) struct Pace {
    /// Since when frames wait.
    since: Option<Instant>,
    /// Frames a second, as they came lately.
    rate: f64,
    /// When frames were taken last.
    taken: Option<Instant>,
}

impl Pace {
    /// How much longer `waiting` frames wait for more; `None`: launch. `most`: what a batch has room for. `wait`: what the
    /// node asks for, or `None` for an automatic wait.
    pub(crate) fn patience(
        &mut self,
        waiting: usize,
        most: usize,
        wait: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let (enough, limit) = match wait {
            Some(wait) => (most, wait),
            None => (most.min(AIM), self.automatic(most.min(AIM))),
        };
        let left = limit.checked_sub(now.saturating_duration_since(since))?;
        (waiting < enough && !left.is_zero()).then_some(left)
    }

    /// The time in which a batch fills at the present rate, where that is short.
    fn automatic(&self, aim: usize) -> Duration {
        if aim < 2 || self.rate * LONGEST.as_secs_f64() < aim as f64 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(aim as f64 / self.rate)
    }

    /// `frames` are launched now. Returns how long the first of them has waited.
    pub(crate) fn launched(&mut self, frames: usize, now: Instant) -> Duration {
        if let Some(before) = self.taken.replace(now) {
            let apart = now.saturating_duration_since(before).as_secs_f64().max(1e-6);
            // weighted by the frames, so that many small launches weigh as much as one large one
            let weight = 1.0 - (1.0 - WEIGHT).powi(frames as i32);
            self.rate += (frames as f64 / apart - self.rate) * weight;
        }
        self.since.take().map(|since| now.saturating_duration_since(since)).unwrap_or_default()
    }

    /// No frame waits.
    pub(crate) fn idle(&mut self) {
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Launches per second and the longest wait of a frame, where frames come evenly at `rate` and a launch costs nothing.
    fn simulate(rate: f64, wait: Option<Duration>) -> (f64, Duration) {
        let start = Instant::now();
        let mut pace = Pace::default();
        let (mut waiting, mut launches, mut longest) = (0, 0, Duration::ZERO);
        let frames = 4000;
        let at = |n: usize| start + Duration::from_secs_f64(n as f64 / rate);
        let mut launch = |pace: &mut Pace, waiting: &mut usize, now| {
            longest = longest.max(pace.launched(std::mem::take(waiting), now));
            launches += 1;
        };
        for n in 0..frames {
            waiting += 1;
            // looks at each arrival, and when the patience is over before the next one
            let mut now = at(n);
            while waiting > 0 {
                match pace.patience(waiting, 16, wait, now) {
                    None => launch(&mut pace, &mut waiting, now),
                    Some(left) if now + left < at(n + 1) => now += left,
                    Some(_) => break,
                }
            }
        }
        (f64::from(launches) / (frames as f64 / rate), longest)
    }

    #[test]
    fn batches_form_by_themselves_where_frames_come_fast_and_nobody_waits_where_they_do_not() {
        let (launches, longest) = simulate(64.0 * 30.0, None);
        assert!(64.0 * 30.0 / launches >= 4.0, "{launches} launches a second");
        assert!(longest <= LONGEST, "{longest:?}");
        let (launches, longest) = simulate(8.0 * 30.0, None);
        assert!((launches - 240.0).abs() < 1.0 && longest.is_zero(), "{launches} launches a second, {longest:?}");
        // what a setting states counts, whatever the rate
        let (launches, longest) = simulate(240.0, Some(Duration::from_millis(20)));
        assert!(launches < 60.0 && longest <= Duration::from_millis(21), "{launches} {longest:?}");
    }
}
