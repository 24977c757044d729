//! Pictures that a file shows in another order than their stream does get the file's times in the stream's order.
//!
//! An MP4 that lost its composition offsets, or a Matroska file that was made of an AVI, states when pictures are decoded
//! where it should state when they are shown. By the stream's own word, the order count, it is known which picture is shown
//! first, second, and so on: they get the earliest of the file's times, the second, and so on. Where the file states the
//! right times, each picture gets its own.

use super::{Source, SourceEvent, Times};
use crate::ranks::Ranks;
use crate::{Counted, IngestError};
use millrace_frame::{Orientation, Timebase};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A source of pictures with times.
pub(super) struct InOrder<S> {
    source: S,
    waiting: Ranks<SourceEvent>,
    /// A picture in front of which something was said.
    ready: Option<SourceEvent>,
    /// What comes behind all that waits.
    behind: Option<Result<SourceEvent, IngestError>>,
    /// Times of the pictures that have no number yet, and of those that have one and are not out.
    times: BinaryHeap<Reverse<StatedTime>>,
    by_rank: BTreeMap<i64, StatedTime>,
    /// So many pictures have got a time. The last of them, and when the last that is shown is.
    timed: i64,
    last: Option<StatedTime>,
    last_pts_ns: Option<i64>,
    /// When the earliest picture is shown that is not read yet, and that is not out.
    earliest_unread_ns: Option<i64>,
    earliest_next_ns: Option<i64>,
}

/// When a picture is shown, as the file states it. Times are compared first by the container's own time, which the edit
/// list does not change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct StatedTime {
    stated: i64,
    pts_ns: i64,
    duration_ns: i64,
    tick_ns: i64,
    shown: bool,
}

impl StatedTime {
    fn of(times: &Times) -> Self {
        let &Times { stated, pts_ns, duration_ns, timebase, shown, .. } = times;
        Self { stated, pts_ns, duration_ns, tick_ns: timebase.to_ns(1).max(1), shown }
    }
}

impl<S: Source> InOrder<S> {
    pub(super) fn new(source: S) -> Self {
        Self {
            source,
            waiting: Ranks::new(),
            ready: None,
            behind: None,
            times: BinaryHeap::new(),
            by_rank: BTreeMap::new(),
            timed: 0,
            last: None,
            last_pts_ns: None,
            earliest_unread_ns: None,
            earliest_next_ns: None,
        }
    }

    fn read(&mut self) {
        match self.source.next() {
            Ok(SourceEvent::Unit { unit, times: Some(times), after_loss }) => {
                self.earliest_unread_ns = self.source.earliest_next_pts_ns();
                let facts = unit.facts.clone();
                if after_loss || facts.gap {
                    // the order counts may have begun anew with what is missing
                    self.finish();
                }
                if facts.output {
                    self.times.push(Reverse(StatedTime::of(&times)));
                }
                self.waiting.push(&facts, SourceEvent::Unit { unit, times: Some(times), after_loss });
                self.give_times();
            }
            event @ (Ok(SourceEvent::Flush | SourceEvent::End) | Err(_)) => {
                self.finish();
                self.behind = Some(event);
            }
            Ok(event) => self.waiting.push_unranked(event),
        }
    }

    /// What follows is in no order with what came.
    fn finish(&mut self) {
        self.waiting.finish();
        self.give_times();
        (self.last, self.last_pts_ns) = (None, None);
    }

    /// Each picture that has a number now gets the earliest of the times that are left. No two are shown at one time.
    fn give_times(&mut self) {
        while self.timed < self.waiting.ranked()
            && let Some(Reverse(mut time)) = self.times.pop()
        {
            if let Some(last) = self.last.filter(|last| time.stated < last.stated) {
                // no time of this picture: it follows the one before it
                (time.stated, time.pts_ns, time.shown) = (last.stated, last.pts_ns, last.shown);
            }
            if time.shown {
                if let Some(last_ns) = self.last_pts_ns.filter(|last_ns| time.pts_ns <= *last_ns) {
                    time.pts_ns = last_ns.saturating_add(time.tick_ns);
                }
                self.last_pts_ns = Some(time.pts_ns);
            }
            self.last = Some(time);
            self.by_rank.insert(self.timed, time);
            self.timed += 1;
        }
    }

    /// What waited first, a picture with the time of its number. Where that is not its own, this is said before.
    fn give_out(&mut self, event: SourceEvent, rank: i64) -> SourceEvent {
        let SourceEvent::Unit { unit, times: Some(own), after_loss } = event else { return event };
        let given = if unit.facts.output { self.by_rank.remove(&rank) } else { None };
        let &StatedTime { pts_ns, duration_ns, shown, .. } = &given.unwrap_or_else(|| StatedTime::of(&own));
        let left = self.by_rank.values().chain(self.times.iter().map(|Reverse(time)| time));
        let earliest_read_ns = left.filter(|time| time.shown).map(|time| time.pts_ns).min();
        self.earliest_next_ns = self.earliest_unread_ns.map(|unread| unread.min(earliest_read_ns.unwrap_or(i64::MAX)));
        let unit = SourceEvent::Unit { unit, times: Some(Times { pts_ns, duration_ns, shown, ..own }), after_loss };
        if pts_ns == own.pts_ns {
            return unit;
        }
        self.ready = Some(unit);
        let [stated, in_order] = [own.pts_ns, pts_ns].map(|ns| ns as f64 / 1e9);
        let detail = format!(
            "the file shows its pictures in another order than their stream: the picture that it states at {stated:.3} s is \
             shown at {in_order:.3} s, where its order count puts it"
        );
        SourceEvent::Counted(Counted { name: "time_order_ignored", count: 1, detail })
    }
}

impl<S: Source> Source for InOrder<S> {
    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        loop {
            if let Some(unit) = self.ready.take() {
                return Ok(unit);
            }
            if let Some((event, rank)) = self.waiting.next() {
                return Ok(self.give_out(event, rank));
            }
            if let Some(behind) = self.behind.take() {
                return behind;
            }
            self.read();
        }
    }

    fn earliest_next_pts_ns(&self) -> Option<i64> {
        self.earliest_next_ns
    }

    fn frame_rate(&self) -> Option<Timebase> {
        self.source.frame_rate()
    }

    fn orientation(&self) -> Result<Orientation, IngestError> {
        self.source.orientation()
    }
}
