//! When a frame is shown and when it was captured.

use serde::{Deserialize, Serialize};

/// Seconds per tick as a fraction: a timestamp of `t` ticks is at `t * num / den` seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timebase {
    /// Numerator, seconds.
    pub num: u32,
    /// Denominator, ticks.
    pub den: u32,
}

impl Default for Timebase {
    fn default() -> Self {
        Self::NANOSECONDS
    }
}

impl Timebase {
    /// Nanoseconds.
    pub const NANOSECONDS: Self = Self { num: 1, den: 1_000_000_000 };

    /// `ticks` in nanoseconds, rounded to the nearest (halves away from zero), saturating at the ends of `i64`.
    pub fn to_ns(self, ticks: i64) -> i64 {
        let scaled = i128::from(ticks) * i128::from(self.num) * 1_000_000_000;
        let den = i128::from(self.den.max(1));
        let half = if scaled < 0 { -den / 2 } else { den / 2 };
        ((scaled + half) / den).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }
}

/// The times of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// Presentation time in nanoseconds, from the stream's own zero.
    pub pts_ns: i64,
    /// The timebase that `pts_ns` was computed from.
    pub timebase: Timebase,
    /// When the frame's last byte arrived at the first node, in nanoseconds of the Unix clock.
    pub capture_ns: i64,
    /// The same moment in nanoseconds of `CLOCK_MONOTONIC`, which all processes of a machine share. Ages are computed
    /// from it, so that a step of the system clock does not change them.
    pub arrival_ns: i64,
    /// When the picture could be shown, in nanoseconds of `CLOCK_MONOTONIC`; 0 where no decoder said so. Of a camera: when
    /// the picture had arrived by which its place in presentation order is known, itself or a later one. Of a file: when it
    /// was decoded, or when its time had come.
    pub ready_ns: i64,
    /// The camera's own wall clock for this picture, in nanoseconds of the Unix clock, by its RTCP sender reports
    /// (RFC 3550, 6.4.1); `None` where it sent none.
    pub sender_ns: Option<i64>,
}

impl Timing {
    /// How old the frame is, in nanoseconds since its arrival.
    pub fn age_ns(&self) -> u64 {
        monotonic_ns().saturating_sub(self.arrival_ns).max(0) as u64
    }

    /// How long the frame has been under way since it could be shown, in nanoseconds: its age without the time for which the
    /// stream's own reordering held it back. Since its arrival where no decoder said when it was ready.
    pub fn under_way_ns(&self) -> u64 {
        let since_ns = if self.ready_ns == 0 { self.arrival_ns } else { self.ready_ns };
        monotonic_ns().saturating_sub(since_ns).max(0) as u64
    }
}

/// Now, in nanoseconds of `CLOCK_MONOTONIC`.
pub fn monotonic_ns() -> i64 {
    nanoseconds(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic))
}

/// Now, in nanoseconds of the Unix clock.
pub fn unix_ns() -> i64 {
    nanoseconds(rustix::time::clock_gettime(rustix::time::ClockId::Realtime))
}

fn nanoseconds(time: rustix::time::Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_round_to_the_nearest_nanosecond() {
        let ninety_khz = Timebase { num: 1, den: 90_000 };
        assert_eq!(ninety_khz.to_ns(90_000), 1_000_000_000);
        assert_eq!(ninety_khz.to_ns(1), 11_111);
        assert_eq!(ninety_khz.to_ns(-1), -11_111);
        assert_eq!(Timebase { num: 1, den: 3 }.to_ns(2), 666_666_667);
        assert_eq!(Timebase { num: u32::MAX, den: 1 }.to_ns(i64::MAX), i64::MAX);
    }
}
