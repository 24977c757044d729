//! What the pictures behind a picture say of its times, for containers that have no table of all of them.
//!
//! No picture buffer has room for more than [`MOST_HELD`] pictures, so the earliest time of the pictures behind a picture
//! is among the times of so many and one more.

use super::{SourceEvent, Times};
use crate::reorder::MOST_HELD;
use crate::syntax::ParsedUnit;
use millrace_frame::Timebase;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const LOOK_AHEAD: usize = MOST_HELD as usize + 1;

/// The pictures that are read ahead.
pub(super) struct Ahead {
    timebase: Timebase,
    queue: VecDeque<Waiting>,
    /// Presentation times of the pictures whose number in presentation order is not used up yet.
    unused: BinaryHeap<Reverse<i64>>,
    /// So much before its number's presentation time a picture is decoded.
    delay_ns: Option<i64>,
    last_dts_ns: i64,
    /// How long the last picture was shown.
    step_ns: i64,
}

struct Waiting {
    unit: ParsedUnit,
    pts_ns: i64,
    after_loss: bool,
}

impl Ahead {
    /// `step_ns` is how long a picture is shown, where the container says so; else 0.
    pub(super) fn new(timebase: Timebase, step_ns: i64) -> Self {
        Self {
            timebase,
            queue: VecDeque::new(),
            unused: BinaryHeap::new(),
            delay_ns: None,
            last_dts_ns: i64::MIN,
            step_ns,
        }
    }

    pub(super) fn push(&mut self, unit: ParsedUnit, pts_ns: i64, after_loss: bool) {
        if unit.facts.output {
            self.unused.push(Reverse(pts_ns));
        }
        self.queue.push_back(Waiting { unit, pts_ns, after_loss });
    }

    /// The next picture, once enough is known, and when the earliest picture behind it is shown.
    pub(super) fn next(&mut self, ended: bool) -> Option<(SourceEvent, Option<i64>)> {
        if self.queue.len() <= LOOK_AHEAD && !ended {
            return None;
        }
        let delay_ns = *self.delay_ns.get_or_insert_with(|| delay_ns(&self.queue));
        let Waiting { unit, pts_ns, after_loss } = self.queue.pop_front()?;
        let shown_behind = self.queue.iter().filter(|w| w.unit.facts.output).map(|w| w.pts_ns);
        let earliest_next_pts_ns = shown_behind.clone().min().or(ended.then_some(i64::MAX));
        if let Some(next_pts_ns) = shown_behind.filter(|&next_pts_ns| next_pts_ns > pts_ns).min() {
            self.step_ns = next_pts_ns - pts_ns;
        }
        let due_ns = earliest_next_pts_ns.unwrap_or(pts_ns).min(pts_ns);
        let dts_ns = match unit.facts.output {
            true => self.unused.pop().map_or(due_ns, |Reverse(ns)| ns.saturating_sub(delay_ns).min(due_ns)),
            false => due_ns,
        };
        self.last_dts_ns = self.last_dts_ns.max(dts_ns);
        let times = Times {
            pts_ns,
            dts_ns: self.last_dts_ns,
            duration_ns: self.step_ns,
            timebase: self.timebase,
            shown: true,
        };
        Some((SourceEvent::Unit { unit, times: Some(times), after_loss }, earliest_next_pts_ns))
    }
}

/// By how much the pictures of a row are decoded before the picture that has their number in presentation order is shown,
/// so that none is decoded too late.
fn delay_ns(row: &VecDeque<Waiting>) -> i64 {
    let shown = row.iter().filter(|w| w.unit.facts.output).map(|w| w.pts_ns);
    let mut sorted: Vec<i64> = shown.clone().collect();
    sorted.sort_unstable();
    shown.zip(sorted).map(|(pts_ns, ranked_ns)| ranked_ns.saturating_sub(pts_ns)).max().unwrap_or(0).max(0)
}
