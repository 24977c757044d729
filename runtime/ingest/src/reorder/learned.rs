//! What a stream that states nothing has needed so far.
//!
//! Encoders count their pictures: from one picture to the next in presentation order, the order count grows by the same
//! step (2 by most, 1 by some). So a picture whose count is one step behind that of the picture before it is next, and
//! goes out at once; with pictures whose counts have no gaps nothing is ever held back longer than the stream's own
//! reordering needs. Where there is a gap, either the pictures in between are still to come, or the encoder left the
//! counts out: after a frame that it skipped, or always, where it counts time. Pictures that are still to come arrive
//! before pictures behind the gap do, in the usual order of a pyramid of B pictures. So the first pictures behind a gap
//! are held back until as many others have come behind them as the stream has been seen to send ahead (`patience`).
//! A stream with many gaps that are never filled is held back by the depth of its reordering instead.

use super::MOST_HELD;
use crate::Order;

#[derive(Debug)]
pub(super) struct Learned {
    /// The greatest common divisor of the differences of order counts, and of how many.
    divisor: u32,
    differences: u32,
    before: Option<Order>,
    /// The most pictures that preceded a picture in decoding order and followed it in presentation order.
    depth: u32,
    /// Pictures behind a gap that come before those that fill it, at the most.
    patience: u32,
    /// The last gap was taken for real because of `patience`.
    patience_ended: bool,
    /// Gaps taken for real, among so many pictures; both fade.
    gaps: u32,
    pictures: u32,
    /// What to hold back at least, since the stated bound was broken.
    correction: u32,
    /// A picture was shown before the one that began its sequence.
    first_is_overtaken: bool,
}

/// So many differences show the step of the counts.
const DIFFERENCES_FOR_STEP: u32 = 8;
/// After so many pictures old gaps count half.
const MEMORY_PICTURES: u32 = 128;

impl Default for Learned {
    fn default() -> Self {
        Self {
            divisor: 0,
            differences: 0,
            before: None,
            depth: 0,
            patience: 1,
            patience_ended: false,
            gaps: 0,
            pictures: 0,
            correction: 0,
            first_is_overtaken: false,
        }
    }
}

impl Learned {
    /// A picture was decoded.
    pub(super) fn saw(&mut self, order: Order) {
        let before = self.before.replace(order).filter(|before| before.sequence == order.sequence);
        let Some(difference) = before.map(|before| before.poc.abs_diff(order.poc)).filter(|&d| d > 0) else { return };
        self.divisor = greatest_common_divisor(self.divisor, difference);
        self.differences = self.differences.saturating_add(1);
        if self.differences == DIFFERENCES_FOR_STEP {
            // until now every step of more than 1 looked like a gap
            self.gaps = 0;
        }
    }

    /// The stream was interrupted: the next picture says nothing about the step.
    pub(super) fn interrupted(&mut self) {
        self.before = None;
    }

    /// So many pictures that are held follow one that was decoded after them.
    pub(super) fn needed(&mut self, overtaken_by: u32) {
        self.depth = self.depth.max(overtaken_by);
    }

    /// So many pictures follow one that was decoded after them, and some of them are out already: perhaps even the first
    /// of its sequence.
    pub(super) fn was_late(&mut self, overtaken_by: u32, before_the_first: bool) {
        self.first_is_overtaken |= before_the_first;
        let overtaken_by = overtaken_by.min(MOST_HELD);
        self.depth = self.depth.max(overtaken_by);
        self.correction = self.correction.max(overtaken_by);
        if std::mem::take(&mut self.patience_ended) {
            self.patience = (self.patience + 1).min(MOST_HELD);
            self.gaps = self.gaps.saturating_sub(1);
        }
    }

    /// Whether a picture that begins a sequence is shown before all that follow it.
    pub(super) fn first_is_shown_first(&self) -> bool {
        !self.first_is_overtaken
    }

    /// What to hold back whatever the stream states.
    pub(super) fn correction(&self) -> u32 {
        self.correction
    }

    /// Whether nothing can be shown between the two, by the step of the counts.
    pub(super) fn follows(&self, last: Order, next: Order) -> bool {
        let step = if self.differences < DIFFERENCES_FOR_STEP { 1 } else { self.divisor };
        last.sequence == next.sequence && last.poc.abs_diff(next.poc) <= step
    }

    /// Whether the gap in front of the first picture that is held will not be filled: `above` pictures have come behind
    /// that picture, and `held` are held in all.
    pub(super) fn gap_is_real(&mut self, above: u32, held: usize) -> bool {
        let impatient = above >= self.patience;
        let usual = self.gaps >= 2 && (self.depth == 0 || self.gaps * 8 > self.pictures);
        let real = impatient || usual && held > self.depth as usize;
        if real {
            self.gaps += 1;
            self.patience_ended |= impatient;
        }
        real
    }

    /// A picture went out.
    pub(super) fn released(&mut self) {
        self.pictures += 1;
        if self.pictures >= MEMORY_PICTURES {
            (self.pictures, self.gaps) = (self.pictures / 2, self.gaps / 2);
        }
    }
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
