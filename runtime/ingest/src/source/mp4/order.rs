//! What is decoded next, and when it is shown: the edits of the track, played once.

use super::edits::{self, Edit, Pass};
use super::samples::Sample;
use crate::source::Times;
use millrace_frame::Timebase;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The sample of this number.
    Sample(usize),
    /// The decoder has to begin again: what follows does not refer to what came before.
    Jump,
    End,
}

/// Plays a track.
pub(super) struct Player {
    pass: Pass,
    later: std::vec::IntoIter<Vec<Edit>>,
    part: usize,
    next: usize,
    timebase: Timebase,
    /// Added to all decoding times.
    spare: i64,
    last_dts: i64,
}

impl Player {
    pub(super) fn new(edits: &[Edit], samples: &[Sample], timebase: Timebase) -> Self {
        let mut later = edits::passes(edits).into_iter();
        let pass = Pass::new(later.next().unwrap_or_default(), samples);
        let spare = spare(&pass, samples);
        let next = pass.parts.first().map_or(0, |part| part.start);
        Self { pass, later, part: 0, next, timebase, spare, last_dts: i64::MIN }
    }

    pub(super) fn step(&mut self, samples: &[Sample]) -> Step {
        loop {
            let Some(part) = self.pass.parts.get(self.part) else {
                let Some(edits) = self.later.next() else { return Step::End };
                self.pass = Pass::new(edits, samples);
                self.part = 0;
                let Some(first) = self.pass.parts.first() else { continue };
                self.next = first.start;
                return Step::Jump;
            };
            if self.next < part.end {
                self.next += 1;
                if !self.leads(part.start, &samples[self.next - 1], &samples[part.start]) {
                    return Step::Sample(self.next - 1);
                }
                continue;
            }
            self.part += 1;
            if let Some(part) = self.pass.parts.get(self.part) {
                self.next = part.start;
                return Step::Jump;
            }
        }
    }

    /// Whether a sample is shown before the one that a part starts at, and so cannot be decoded: it refers to what was left
    /// out. It is not shown, or the part would start earlier.
    fn leads(&self, start: usize, sample: &Sample, first: &Sample) -> bool {
        start > 0 && sample.pts() < first.pts() && !self.pass.edit_of(sample.pts()).1
    }

    pub(super) fn times(&mut self, sample: &Sample) -> Times {
        let (edit, shown) = self.pass.edit_of(sample.pts());
        let dts = edit.shown_at(sample.dts).saturating_add(self.spare).max(self.last_dts);
        self.last_dts = dts;
        Times {
            pts_ns: self.timebase.to_ns(edit.shown_at(sample.pts())),
            dts_ns: self.timebase.to_ns(dts),
            duration_ns: self.timebase.to_ns(i64::from(sample.duration.max(0))),
            timebase: self.timebase,
            stated: sample.pts(),
            shown,
        }
    }

    /// When the earliest picture behind sample `number` is shown.
    pub(super) fn earliest_next_pts_ns(&self, number: usize) -> i64 {
        match self.pass.earliest_next[number] {
            i64::MAX => i64::MAX,
            time => self.timebase.to_ns(self.pass.edit_of(time).0.shown_at(time)),
        }
    }
}

/// How much later all pictures can be decoded, so that the one with the least time left is decoded just when it is shown.
/// Composition offsets are often larger than the reordering needs, and some are smaller; a file at real speed would be shown
/// late by as much, or uneven.
fn spare(pass: &Pass, samples: &[Sample]) -> i64 {
    // shown, of the pictures that wait for those before them
    let mut waiting = std::collections::BinaryHeap::new();
    let mut spare: Option<i64> = None;
    for (sample, earliest_next) in samples.iter().zip(&pass.earliest_next) {
        let (edit, shown) = pass.edit_of(sample.pts());
        if shown && sample.is_there() {
            waiting.push(std::cmp::Reverse(sample.pts()));
        }
        while let Some(&std::cmp::Reverse(time)) = waiting.peek()
            && time < *earliest_next
        {
            waiting.pop();
            let left = pass.edit_of(time).0.shown_at(time).saturating_sub(edit.shown_at(sample.dts));
            spare = Some(spare.map_or(left, |spare| spare.min(left)));
        }
    }
    spare.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::mp4::samples::Content;

    /// Samples by their decoding and presentation times; what is shown before 0 is cut away by the edit list.
    fn player(times: &[(i64, i64)]) -> (Player, Vec<Sample>) {
        let samples: Vec<Sample> = times
            .iter()
            .enumerate()
            .map(|(n, &(dts, pts))| Sample {
                offset: 0,
                content: Content::Bytes(1),
                dts,
                composition: (pts - dts) as i32,
                duration: 1,
                entry: 0,
                sync: n == 0,
            })
            .collect();
        let edit = Edit { from: 0, until: i64::MAX, at: 0 };
        (Player::new(&[edit], &samples, Timebase::NANOSECONDS), samples)
    }

    #[test]
    fn the_earliest_time_behind_each_sample() {
        // I0 P4 B2 b1 b3 P5, and one that is not shown at all
        let (player, _) = player(&[(0, 0), (1, 4), (2, 2), (3, 1), (4, -9), (5, 3), (6, 5)]);
        let earliest: Vec<i64> = (0..7).map(|n| player.earliest_next_pts_ns(n)).collect();
        assert_eq!(earliest, [1, 1, 1, 3, 3, 5, i64::MAX]);
    }

    #[test]
    fn decoding_times_leave_no_picture_late_and_none_needlessly_early() {
        for shift in [-7, 0, 2, 50] {
            // depth 2: the picture that is shown second is the fourth to be decoded, so it has the least time left
            let times = [(0, 0), (1, 4), (2, 2), (3, 1), (4, 3)];
            let (mut player, samples) = player(&times.map(|(dts, pts)| (dts + shift, pts)));
            let dts: Vec<i64> = samples.iter().map(|sample| player.times(sample).dts_ns).collect();
            assert_eq!(dts, [-2, -1, 0, 1, 2], "moved by {shift}");
        }
    }

    #[test]
    fn an_empty_track_ends_at_once() {
        let (mut player, samples) = player(&[]);
        assert_eq!(player.step(&samples), Step::End);
    }
}
