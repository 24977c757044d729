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

/// The pictures that are read ahead. Times are ticks of the container's.
pub(super) struct Ahead {
    timebase: Timebase,
    /// The time that counts as 0; `None` until it is known, where that is the first picture's.
    origin: Option<i64>,
    queue: VecDeque<Waiting>,
    /// Presentation times of the pictures that went out last.
    recent: VecDeque<i64>,
    /// Presentation times of the pictures whose number in presentation order is not used up yet.
    unused: BinaryHeap<Reverse<i64>>,
    /// So much before its number's presentation time a picture is decoded.
    delay: Option<i64>,
    last_dts: i64,
    /// How long the last picture was shown.
    step: i64,
}

struct Waiting {
    unit: ParsedUnit,
    pts: i64,
    after_loss: bool,
}

impl Ahead {
    /// `origin` is the time that counts as 0, the first picture's where there is none. `step` is how long a picture is shown,
    /// where the container says so; else 0.
    pub(super) fn new(timebase: Timebase, origin: Option<i64>, step: i64) -> Self {
        Self {
            timebase,
            origin,
            queue: VecDeque::new(),
            recent: VecDeque::new(),
            unused: BinaryHeap::new(),
            delay: None,
            last_dts: i64::MIN,
            step,
        }
    }

    pub(super) fn push(&mut self, unit: ParsedUnit, pts: i64, after_loss: bool) {
        if unit.facts.output {
            self.unused.push(Reverse(pts));
        }
        self.queue.push_back(Waiting { unit, pts, after_loss });
    }

    /// The next picture, once enough is known, and when the earliest picture behind it is shown.
    pub(super) fn next(&mut self, ended: bool) -> Option<(SourceEvent, Option<i64>)> {
        if self.queue.len() <= LOOK_AHEAD && !ended {
            return None;
        }
        let delay = *self.delay.get_or_insert_with(|| delay(&self.queue));
        let origin = match self.origin {
            Some(origin) => origin,
            None => *self.origin.insert(shown_times(&self.queue).min().unwrap_or(0)),
        };
        let to_ns = |ticks: i64| self.timebase.to_ns(ticks.saturating_sub(origin));
        let Waiting { unit, pts, after_loss } = self.queue.pop_front()?;
        let earliest_next = shown_times(&self.queue).min();
        let around = shown_times(&self.queue).chain(self.recent.iter().copied());
        if let Some(next) = around.filter(|&next| next > pts).min() {
            self.step = next - pts;
        }
        self.recent.push_back(pts);
        if self.recent.len() > LOOK_AHEAD {
            self.recent.pop_front();
        }
        let due = earliest_next.unwrap_or(pts).min(pts);
        let dts = match unit.facts.output {
            true => self.unused.pop().map_or(due, |Reverse(ranked)| ranked.saturating_sub(delay).min(due)),
            false => due,
        };
        self.last_dts = self.last_dts.max(dts);
        let times = Times {
            pts_ns: to_ns(pts),
            dts_ns: to_ns(self.last_dts),
            duration_ns: self.timebase.to_ns(self.step),
            timebase: self.timebase,
            stated: pts,
            shown: true,
        };
        let earliest_next_ns = earliest_next.map(to_ns).or(ended.then_some(i64::MAX));
        Some((SourceEvent::Unit { unit, times: Some(times), after_loss }, earliest_next_ns))
    }
}

/// Presentation times of the pictures of a row that are shown.
fn shown_times(row: &VecDeque<Waiting>) -> impl Iterator<Item = i64> + Clone {
    row.iter().filter(|waiting| waiting.unit.facts.output).map(|waiting| waiting.pts)
}

/// By how much the pictures of a row are decoded before the picture that has their number in presentation order is shown,
/// so that none is decoded too late.
fn delay(row: &VecDeque<Waiting>) -> i64 {
    let mut sorted: Vec<i64> = shown_times(row).collect();
    sorted.sort_unstable();
    shown_times(row).zip(sorted).map(|(pts, ranked)| ranked.saturating_sub(pts)).max().unwrap_or(0).max(0)
}
