//! One clock for a whole recording out of 33-bit times that wrap round and begin anew.

use super::pes::Stamps;
use crate::Order;
use millrace_frame::{PacketCodec, Timebase};

pub(super) const TIMEBASE: Timebase = Timebase { num: 1, den: 90_000 };
const WRAP: i64 = 1 << 33;
/// Decoding times go back by less than this where a muxer is careless, and forward by less than the other within one
/// recording. What is farther away is another clock, as FFmpeg has it, too (`dts_delta_threshold`).
const MOST_BACK: i64 = 90_000;
const MOST_FORWARD: i64 = 10 * 90_000;

#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The last decoding time, before and after `shift`.
    last: Option<i64>,
    shift: i64,
    /// The latest presentation time.
    latest: Option<i64>,
    /// How far apart the last two decoding times were.
    step: i64,
    /// The last picture that had times, and how many ticks one of order count is.
    known: Option<(Order, i64)>,
    ticks_per_poc: Option<i64>,
}

impl Clock {
    /// Whether these times are of another clock than those before them.
    /// `is_cut`: what comes does not continue what came.
    pub(super) fn is_elsewhere(&self, stamps: Stamps, is_cut: bool) -> bool {
        let away = |last: i64| wrapped(stamps.dts as i64 - (last - self.shift));
        let most_back = if is_cut { 0 } else { MOST_BACK };
        self.last.is_some_and(|last| !(-most_back..=MOST_FORWARD).contains(&away(last)))
    }

    /// The presentation time of a picture that has times of its own, on the recording's clock; and whether another clock
    /// began with it. `begins`: no picture that follows is shown before it.
    pub(super) fn place(&mut self, stamps: Stamps, order: Order, may_change: bool, begins: bool) -> (i64, bool) {
        let mut ahead = wrapped(stamps.pts.wrapping_sub(stamps.dts) as i64);
        let mut raw = stamps.dts as i64;
        if !(-MOST_BACK..=MOST_FORWARD).contains(&ahead) {
            (ahead, raw) = (0, stamps.pts as i64);
        }
        let mut changed = false;
        let dts = match self.last {
            None => raw,
            Some(last) => {
                let away = wrapped(raw - (last - self.shift));
                // a picture that nothing before it is shown behind is never decoded before one of them
                let most_back = if begins { 0 } else { MOST_BACK };
                changed =
                    !(-most_back..=MOST_FORWARD).contains(&away) || may_change && !(0..=MOST_BACK).contains(&away);
                if changed {
                    let step = if self.step > 0 { self.step } else { 3600 };
                    // it is shown behind all that came before, however early those were decoded
                    let behind = self.latest.filter(|_| begins).map_or(i64::MIN, |latest| latest + step - ahead);
                    let next = behind.max(last + step);
                    self.shift = next - raw;
                    next
                } else {
                    if away > 0 {
                        self.step = away;
                    }
                    last + away
                }
            }
        };
        self.last = Some(dts);
        let pts = dts + ahead;
        self.latest = self.latest.max(Some(pts));
        if let Some((before, before_pts)) = self.known.filter(|(before, _)| before.sequence == order.sequence)
            && before.poc != order.poc
        {
            let ticks = (pts - before_pts) / i64::from(order.poc.wrapping_sub(before.poc));
            self.ticks_per_poc = Some(ticks).filter(|&ticks| ticks > 0).or(self.ticks_per_poc);
        }
        self.known = Some((order, pts));
        (pts, changed)
    }

    /// The presentation time of a picture that has none of its own, by its place beside the last one that had.
    pub(super) fn guess(&mut self, order: Order, codec: PacketCodec, frame_rate: Option<(u32, u32)>) -> i64 {
        let (num, den) = frame_rate.filter(|&(num, den)| num > 0 && den > 0).unwrap_or((25, 1));
        let frame = 90_000 * i64::from(den) / i64::from(num);
        // H.264 counts fields
        let stated = if codec == PacketCodec::H264 { frame / 2 } else { frame };
        let ticks = self.ticks_per_poc.unwrap_or(stated);
        let pts = match self.known {
            None => self.last.unwrap_or(0),
            Some((before, pts)) if before.sequence == order.sequence => {
                pts + ticks * i64::from(order.poc.wrapping_sub(before.poc))
            }
            Some((_, pts)) => pts + frame,
        };
        if self.known.is_none_or(|(before, _)| before.sequence != order.sequence) {
            self.known = Some((order, pts));
        }
        pts
    }
}

/// A difference of 33-bit times, the nearer way round.
fn wrapped(ticks: i64) -> i64 {
    let ticks = ticks.rem_euclid(WRAP);
    if ticks >= WRAP / 2 { ticks - WRAP } else { ticks }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(clock: &mut Clock, pts: u64, dts: u64, poc: i32) -> (i64, bool) {
        clock.place(Stamps { pts: pts % (1 << 33), dts: dts % (1 << 33) }, Order { sequence: 1, poc }, false, false)
    }

    #[test]
    fn times_go_on_where_33_bits_wrap_round() {
        let mut clock = Clock::default();
        let start = (1u64 << 33) - 5000;
        for n in 0..10 {
            let dts = start + n * 3600;
            assert_eq!(place(&mut clock, dts + 7200, dts, n as i32), ((dts + 7200) as i64, false));
        }
    }

    #[test]
    fn another_clock_goes_on_where_the_one_before_it_ended() {
        let mut clock = Clock::default();
        assert_eq!(place(&mut clock, 900_000, 900_000, 0), (900_000, false));
        assert_eq!(place(&mut clock, 903_600, 903_600, 2), (903_600, false));
        assert_eq!(place(&mut clock, 100, 100, 4), (907_200, true), "back");
        assert_eq!(place(&mut clock, 3_700, 3_700, 6), (910_800, false));
        assert_eq!(place(&mut clock, 3_603_700, 3_603_700, 8), (914_400, true), "40 s ahead");
        assert_eq!(place(&mut clock, 3_783_700, 3_783_700, 10), (1_094_400, false), "a gap of two seconds stays");
    }

    #[test]
    fn a_recording_that_begins_is_shown_behind_the_one_before_it() {
        let mut clock = Clock::default();
        let mut begins = |pts, dts| clock.place(Stamps { pts, dts }, Order { sequence: 1, poc: 0 }, false, true);
        // shown two frames after it is decoded; then recordings of one picture that are shown at once
        assert_eq!(begins(907_200, 900_000), (907_200, false));
        assert_eq!(begins(100, 100), (910_800, true), "10 s back");
        assert_eq!(begins(50, 50), (914_400, true), "less than a frame back");
    }

    #[test]
    fn a_picture_without_times_is_placed_by_its_order_count() {
        let mut clock = Clock::default();
        let order = |sequence, poc| Order { sequence, poc };
        place(&mut clock, 3600, 0, 2);
        place(&mut clock, 10_800, 3600, 6);
        assert_eq!(clock.guess(order(1, 4), PacketCodec::H264, None), 7200);
        assert_eq!(clock.guess(order(2, 0), PacketCodec::H264, Some((30, 1))), 13_800, "one frame on");
    }
}
