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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// Presentation time in nanoseconds, from the stream's own zero.
    pub pts_ns: i64,
    /// The timebase that `pts_ns` was computed from.
    pub timebase: Timebase,
    /// When the frame's last byte came into the first node, in nanoseconds of the Unix clock.
    pub capture_ns: i64,
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
