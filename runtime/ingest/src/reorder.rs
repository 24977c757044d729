//! From decoding order to presentation order, with no picture held back longer than it has to be.

mod learned;
#[cfg(test)]
mod tests;

use crate::Order;
use learned::Learned;
use std::collections::{BTreeMap, VecDeque};

/// What may be risked for a low delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReorderPolicy {
    /// A picture goes out as soon as everything that is known says that it is next: the container's times, the stream's
    /// stated bound, or, where there is neither, what the stream has needed so far. A picture that arrives after one that
    /// follows it in presentation order is late: it is lost, and more is held back from then on.
    Live,
    /// A picture goes out when no stream that keeps the standard can have one before it: nothing is late, unless the
    /// stream breaks its own stated bound.
    #[default]
    Lossless,
}

/// Where a stream's bound on reordering comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundOrigin {
    /// The profile or the kind of order counts allows no reordering.
    Impossible,
    /// The parameter sets state it.
    Stated,
    /// The parameter sets state nothing: it is the size of the picture buffer.
    Assumed,
}

/// What is known of a picture's position in presentation order when it is decoded.
#[derive(Clone, Copy, Debug)]
pub struct PresentationOrder {
    /// Coded video sequence and picture order count.
    pub order: Order,
    /// No picture that follows in decoding order is shown before this one.
    pub first_shown: bool,
    /// When it is shown.
    pub pts_ns: i64,
    /// The earliest time at which a picture that follows in decoding order is shown, where the source knows it.
    pub earliest_next_pts_ns: Option<i64>,
    /// At most this many pictures precede a picture in decoding order and follow it in presentation order.
    pub max_reorder: u32,
    /// Where `max_reorder` comes from.
    pub origin: BoundOrigin,
}

/// What came of a picture that was put in.
#[derive(Debug)]
pub struct Pushed<T> {
    /// The pictures that are due now, in presentation order.
    pub due: Vec<T>,
    /// The picture that was put in, when a picture that follows it in presentation order is out already.
    pub late: Option<T>,
}

/// Puts decoded pictures from decoding order into presentation order.
///
/// With [`ReorderPolicy::Lossless`] this is the bumping process of H.264 C.4.5.3 and H.265 C.5.2.4. What
/// [`ReorderPolicy::Live`] does in addition is in the module `learned`.
#[derive(Debug)]
pub struct Reorder<T> {
    policy: ReorderPolicy,
    /// Most pictures that are held beyond the stream's bound because of what was learned.
    most_beyond: u32,
    held: BTreeMap<(Order, u64), HeldPicture<T>>,
    arrivals: u64,
    /// The picture that went out last in the sequence that is under way, and when it is shown.
    last: Option<(Order, i64)>,
    /// The picture that went out first in it.
    opened_by: Option<Order>,
    /// Places of the pictures that went out or were late last, newest last: by them a late picture shows how much has to be
    /// held back.
    recent: VecDeque<Order>,
    /// Everything that is shown before this time has been put in.
    complete_before_ns: Option<i64>,
    /// A picture was late although the container's times promised that none would be.
    times_are_wrong: bool,
    /// Pictures that came behind the first of those held since it became the first.
    above: u32,
    learned: Learned,
}

/// A picture that is held back until it is due.
#[derive(Debug)]
struct HeldPicture<T> {
    item: T,
    first_shown: bool,
    pts_ns: i64,
}

/// No picture buffer has room for more pictures (H.264 A.3.1, H.265 A.4.2).
pub(crate) const MOST_HELD: u32 = 16;

impl<T> Reorder<T> {
    /// Nothing is held, nothing is learned.
    pub fn new(policy: ReorderPolicy) -> Self {
        Self {
            policy,
            most_beyond: MOST_HELD,
            held: BTreeMap::new(),
            arrivals: 0,
            last: None,
            opened_by: None,
            recent: VecDeque::new(),
            complete_before_ns: None,
            times_are_wrong: false,
            above: 0,
            learned: Learned::default(),
        }
    }

    /// Of a stream that breaks its bound, no more than `most` pictures beyond that bound are held: for pictures that lie in
    /// memory of which there is little.
    #[must_use]
    pub fn beyond_bound(mut self, most: u32) -> Self {
        self.most_beyond = most;
        self
    }

    /// Takes the next picture in decoding order.
    pub fn push(&mut self, place: PresentationOrder, item: T) -> Pushed<T> {
        let PresentationOrder { order, .. } = place;
        let mut due = Vec::new();
        // a new coded video sequence: everything of the one before precedes it
        while self.held.first_key_value().is_some_and(|((first, _), _)| first.sequence < order.sequence) {
            due.extend(self.pop());
        }
        if self.last.is_some_and(|(last, _)| last.sequence < order.sequence) {
            (self.last, self.opened_by) = (None, None);
        }
        self.learned.saw(order);
        let overtaken_by = self.held.keys().filter(|(held, _)| *held > order).count() as u32;
        let late = match self.last {
            Some((last, last_pts_ns)) if order < last => {
                self.learn_from_late(&place, last_pts_ns, overtaken_by);
                Some(item)
            }
            _ => {
                self.hold(&place, overtaken_by, item);
                None
            }
        };
        self.complete(place.earliest_next_pts_ns);
        self.release(&place, &mut due);
        Pushed { due, late }
    }

    /// A picture that is decoded and not shown, or that could not be decoded: nothing waits for it.
    pub fn pass(&mut self, place: PresentationOrder) -> Vec<T> {
        let mut due = Vec::new();
        self.complete(place.earliest_next_pts_ns);
        self.release(&place, &mut due);
        due
    }

    /// Everything that is held, in presentation order. What comes next begins a stream; what was learned is kept.
    pub fn flush(&mut self) -> Vec<T> {
        (self.last, self.opened_by, self.complete_before_ns, self.above) = (None, None, None, 0);
        self.recent.clear();
        self.learned.interrupted();
        std::mem::take(&mut self.held).into_values().map(|held| held.item).collect()
    }

    /// Another encoder: nothing of what was learned holds for it.
    pub fn forget(&mut self) {
        self.learned = Learned::default();
        self.times_are_wrong = false;
    }

    /// Pictures that are held back now.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    fn hold(&mut self, place: &PresentationOrder, overtaken_by: u32, item: T) {
        let behind_the_first = self.held.first_key_value().is_some_and(|((first, _), _)| *first <= place.order);
        self.above = if behind_the_first { self.above + 1 } else { 0 };
        self.learned.needed(overtaken_by);
        let held = HeldPicture { item, first_shown: place.first_shown, pts_ns: place.pts_ns };
        self.held.insert((place.order, self.arrivals), held);
        self.arrivals += 1;
    }

    fn learn_from_late(&mut self, place: &PresentationOrder, last_pts_ns: i64, overtaken_by: u32) {
        let out_already = self.recent.iter().filter(|out| **out > place.order).count() as u32;
        self.learned.was_late(overtaken_by + out_already, self.opened_by.is_some_and(|first| place.order < first));
        self.remember(place.order);
        // The times are to blame when they promised that nothing so early would come, or put the two the other way round.
        if let Some(before_ns) = self.complete_before_ns {
            self.times_are_wrong |= place.pts_ns < before_ns || place.pts_ns >= last_pts_ns;
        }
    }

    fn complete(&mut self, earliest_next_pts_ns: Option<i64>) {
        self.complete_before_ns = self.complete_before_ns.max(earliest_next_pts_ns);
    }

    fn release(&mut self, place: &PresentationOrder, due: &mut Vec<T>) {
        while let Some(((first, _), held)) = self.held.first_key_value() {
            let opens = held.first_shown && self.learned.first_is_shown_first();
            let next = self.last.map_or(opens, |(last, _)| self.learned.follows(last, *first));
            let correction = self.learned.correction().min(place.max_reorder.saturating_add(self.most_beyond));
            let bound = place.max_reorder.max(correction).min(MOST_HELD) as usize;
            let times = self.complete_before_ns.filter(|_| !self.times_are_wrong).map(|before| held.pts_ns < before);
            let over_bound = self.held.len() > bound;
            let is_due = match self.policy {
                ReorderPolicy::Lossless => over_bound && (times != Some(false) || self.held.len() > MOST_HELD as usize),
                ReorderPolicy::Live => match times {
                    Some(complete) => complete || over_bound,
                    None if next || over_bound => true,
                    None => {
                        place.origin == BoundOrigin::Assumed && self.learned.gap_is_real(self.above, self.held.len())
                    }
                },
            };
            if !is_due {
                return;
            }
            due.extend(self.pop());
        }
    }

    fn pop(&mut self) -> Option<T> {
        let ((order, _), held) = self.held.pop_first()?;
        self.last = Some((order, held.pts_ns));
        self.opened_by = self.opened_by.or(Some(order));
        self.above = 0;
        self.learned.released();
        self.remember(order);
        Some(held.item)
    }

    fn remember(&mut self, order: Order) {
        self.recent.push_back(order);
        if self.recent.len() > MOST_HELD as usize {
            self.recent.pop_front();
        }
    }
}
