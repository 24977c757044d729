//! The numbers of pictures in presentation order, while they come in decoding order.

use crate::reorder::{BoundOrigin, MOST_HELD, PresentationOrder, Reorder, ReorderPolicy};
use crate::syntax::PictureFacts;
use std::collections::VecDeque;

/// Pictures wait until none can precede them in presentation order any more. A file can be read ahead, so this costs no
/// time, and nothing but the standard's own bound is relied on.
pub(crate) struct Ranks<T> {
    order: Reorder<u64>,
    waiting: VecDeque<(T, Option<i64>)>,
    first_waiting: u64,
    ranked: i64,
}

impl<T> Ranks<T> {
    pub(crate) fn new() -> Self {
        let order = Reorder::new(ReorderPolicy::Lossless);
        Self { order, waiting: VecDeque::new(), first_waiting: 0, ranked: 0 }
    }

    /// Adds the next picture in decoding order. One that is never shown has no place in presentation order.
    pub(crate) fn push(&mut self, facts: &PictureFacts, item: T) {
        if !facts.output {
            return self.push_unranked(item);
        }
        let number = self.first_waiting + self.waiting.len() as u64;
        let origin = facts.info.max_reorder_origin;
        // a stated bound may be wrong
        let max_reorder = if origin == BoundOrigin::Impossible { 0 } else { MOST_HELD };
        let (order, first_shown) = (facts.order, facts.first_shown);
        let place =
            PresentationOrder { order, first_shown, pts_ns: 0, earliest_next_pts_ns: None, max_reorder, origin };
        self.waiting.push_back((item, None));
        let pushed = self.order.push(place, number);
        // in a damaged stream a picture may come after all that it should precede: it has to be somewhere
        self.rank(pushed.due.into_iter().chain(pushed.late));
    }

    /// Adds what has no place in presentation order: it stays where it is in decoding order, and has the number of the
    /// picture that is due next.
    pub(crate) fn push_unranked(&mut self, item: T) {
        self.waiting.push_back((item, Some(self.ranked)));
    }

    /// No picture that comes later precedes one of those that wait.
    pub(crate) fn finish(&mut self) {
        let due = self.order.flush();
        self.rank(due);
    }

    /// How many pictures have a number.
    pub(crate) fn ranked(&self) -> i64 {
        self.ranked
    }

    /// The first that waits, once its number is known.
    pub(crate) fn next(&mut self) -> Option<(T, i64)> {
        let rank = self.waiting.front()?.1?;
        self.first_waiting += 1;
        self.waiting.pop_front().map(|(item, _)| (item, rank))
    }

    fn rank(&mut self, due: impl IntoIterator<Item = u64>) {
        for number in due {
            self.waiting[(number - self.first_waiting) as usize].1 = Some(self.ranked);
            self.ranked += 1;
        }
    }
}
