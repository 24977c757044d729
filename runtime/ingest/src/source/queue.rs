//! What waits between the task that receives a camera and the thread that decodes it: bounded by age, number and bytes.

use crate::source::SourceEvent;
use crate::{Counted, Loss};
use millrace_frame::monotonic_ns;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The bounds. Beyond them pictures are dropped up to a key picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) units: usize,
    pub(super) bytes: usize,
    pub(super) age: Duration,
}

impl Default for Bounds {
    /// A second, and more pictures than any camera sends in one.
    fn default() -> Self {
        Self { units: 256, bytes: 32 << 20, age: Duration::from_secs(1) }
    }
}

#[derive(Default)]
struct State {
    events: VecDeque<SourceEvent>,
    units: usize,
    bytes: usize,
    /// Pictures were dropped: nothing before the next key picture can be decoded.
    waiting_for_key: bool,
}

/// The queue of one camera.
pub(super) struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    arrived: Condvar,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default(), arrived: Condvar::new() }
    }

    /// Adds what comes next; never waits.
    pub(super) fn push(&self, event: SourceEvent) {
        self.lock().push(event, &self.bounds);
        self.arrived.notify_one();
    }

    /// The next event, waiting for one for up to `patience`.
    pub(super) fn next(&self, patience: Duration) -> Option<SourceEvent> {
        let mut state = self.lock();
        if state.events.is_empty() {
            let waited = self.arrived.wait_timeout_while(state, patience, |state| state.events.is_empty());
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let event = state.events.pop_front();
        if let Some(SourceEvent::Arrived { unit, .. }) = &event {
            state.units -= 1;
            state.bytes -= unit.data.len();
        }
        event
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, event: SourceEvent, bounds: &Bounds) {
        let SourceEvent::Arrived { mut unit, timing, after_loss } = event else {
            if matches!(event, SourceEvent::Flush) {
                // the decoder begins with a key picture after it in any case
                self.waiting_for_key = false;
            }
            join(&mut self.events, event);
            return;
        };
        let key = unit.facts.key;
        if self.exceed(bounds, unit.data.len()) {
            self.drop_pictures(bounds, key, unit.data.len());
        }
        if self.waiting_for_key && !key {
            join(&mut self.events, behind(1));
            return;
        }
        let after_drop = std::mem::take(&mut self.waiting_for_key);
        unit.data.shrink_to_fit();
        self.units += 1;
        self.bytes += unit.data.len();
        self.events.push_back(SourceEvent::Arrived { unit, timing, after_loss: after_loss || after_drop });
    }

    fn exceed(&self, bounds: &Bounds, more_bytes: usize) -> bool {
        let oldest = self.events.iter().find_map(|event| match event {
            SourceEvent::Arrived { timing, .. } => Some(timing.arrival_ns),
            _ => None,
        });
        let age_ns = oldest.map_or(0, |arrival_ns| monotonic_ns().saturating_sub(arrival_ns));
        self.units >= bounds.units
            || self.units > 0 && self.bytes + more_bytes > bounds.bytes
            || i128::from(age_ns) > bounds.age.as_nanos() as i128
    }

    /// Makes room: what waits goes, up to the newest key picture that waits, or up to the next that comes.
    fn drop_pictures(&mut self, bounds: &Bounds, key_comes: bool, more_bytes: usize) {
        let keys = self.events.iter().enumerate();
        let newest_key = keys
            .filter(|(_, event)| matches!(event, SourceEvent::Arrived { unit, .. } if unit.facts.key))
            .map(|(at, _)| at)
            .next_back();
        if let Some(at) = newest_key.filter(|_| !key_comes) {
            self.drop_before(at);
            if let Some(SourceEvent::Arrived { after_loss, .. }) =
                self.events.iter_mut().find(|event| matches!(event, SourceEvent::Arrived { .. }))
            {
                *after_loss = true;
            }
        }
        if self.exceed(bounds, more_bytes) {
            self.drop_before(self.events.len());
            self.waiting_for_key = true;
        }
    }

    /// Drops the pictures before a place, and keeps what else is there.
    fn drop_before(&mut self, place: usize) {
        let rest = self.events.split_off(place);
        let mut dropped = 0;
        let mut kept = VecDeque::new();
        for event in std::mem::take(&mut self.events) {
            match event {
                SourceEvent::Arrived { unit, .. } => {
                    dropped += 1;
                    self.units -= 1;
                    self.bytes -= unit.data.len();
                }
                other => join(&mut kept, other),
            }
        }
        if dropped > 0 {
            join(&mut kept, behind(dropped));
        }
        kept.extend(rest);
        self.events = kept;
    }
}

fn behind(pictures: u64) -> SourceEvent {
    let detail = "pictures that arrived faster than they were decoded, up to a key picture";
    SourceEvent::Loss(Loss::new("decoder_behind", pictures, detail))
}

/// Adds an event that is no picture. Between two pictures there is one of a kind at most, so that a camera that comes and
/// goes while nobody decodes does not fill the memory.
fn join(events: &mut VecDeque<SourceEvent>, event: SourceEvent) {
    let since_picture =
        events.iter().rposition(|event| matches!(event, SourceEvent::Arrived { .. })).map_or(0, |at| at + 1);
    let mut tail = events.range_mut(since_picture..);
    match &event {
        SourceEvent::Loss(Loss { cause, of, count, .. }) => {
            for before in tail {
                if let SourceEvent::Loss(Loss { cause: known, of: counts, count: sum, .. }) = before
                    && (&*known, &*counts) == (cause, of)
                {
                    *sum += count;
                    return;
                }
            }
        }
        SourceEvent::Counted(Counted { name, count, .. }) => {
            for before in tail {
                if let SourceEvent::Counted(Counted { name: known, count: sum, .. }) = before
                    && known == name
                {
                    *sum += count;
                    return;
                }
            }
        }
        SourceEvent::Flush if tail.any(|before| matches!(before, SourceEvent::Flush)) => return,
        SourceEvent::State(_) => {
            let older = events.range(since_picture..).position(|before| matches!(before, SourceEvent::State(_)));
            if let Some(at) = older {
                events.remove(since_picture + at);
            }
        }
        _ => {}
    }
    events.push_back(event);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::SourceState;
    use crate::source::rtsp::testing::{key_and_p, timing_at};

    fn names(queue: &Queue) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(event) = queue.next(Duration::ZERO) {
            names.push(match event {
                SourceEvent::Arrived { unit, timing, after_loss } => {
                    let kind = if unit.facts.key { "key" } else { "p" };
                    format!("{kind} {}{}", timing.pts_ns, if after_loss { " after loss" } else { "" })
                }
                SourceEvent::Loss(loss) => format!("{} {}", loss.cause, loss.count),
                SourceEvent::Counted(counted) => format!("{} {}", counted.name, counted.count),
                SourceEvent::State(state) => format!("state {}", state.tries),
                SourceEvent::Flush => "flush".into(),
                _ => panic!("a camera has no other events"),
            });
        }
        names
    }

    fn unit(n: i64, key: bool, age: Duration) -> SourceEvent {
        let (key_unit, p_unit) = key_and_p();
        let arrival_ns = monotonic_ns() - age.as_nanos() as i64;
        let unit = if key { key_unit } else { p_unit };
        SourceEvent::Arrived { unit, timing: timing_at(n, arrival_ns), after_loss: false }
    }

    fn bounds(units: usize) -> Bounds {
        Bounds { units, bytes: usize::MAX, age: Duration::from_secs(60) }
    }

    #[test]
    fn beyond_the_number_the_oldest_go_up_to_a_key_picture() {
        let queue = Queue::new(bounds(4));
        for (n, key) in [(0, true), (1, false), (2, true), (3, false), (4, false)] {
            queue.push(unit(n, key, Duration::ZERO));
        }
        assert_eq!(names(&queue), ["decoder_behind 2", "key 2 after loss", "p 3", "p 4"]);
    }

    #[test]
    fn without_a_key_picture_all_go_and_the_next_is_waited_for() {
        let queue = Queue::new(bounds(3));
        for n in 0..6 {
            queue.push(unit(n, false, Duration::ZERO));
        }
        queue.push(unit(6, true, Duration::ZERO));
        queue.push(unit(7, false, Duration::ZERO));
        assert_eq!(names(&queue), ["decoder_behind 6", "key 6 after loss", "p 7"]);
    }

    #[test]
    fn pictures_that_wait_too_long_are_dropped() {
        let queue = Queue::new(Bounds { age: Duration::from_millis(500), ..bounds(100) });
        queue.push(unit(0, true, Duration::from_millis(900)));
        queue.push(unit(1, false, Duration::from_millis(800)));
        queue.push(unit(2, true, Duration::from_millis(100)));
        assert_eq!(names(&queue), ["decoder_behind 2", "key 2 after loss"]);
        queue.push(unit(3, false, Duration::from_millis(900)));
        queue.push(unit(4, false, Duration::ZERO));
        assert_eq!(names(&queue), ["decoder_behind 2"], "no key picture yet");
        queue.push(unit(5, false, Duration::ZERO));
        queue.push(unit(6, true, Duration::ZERO));
        assert_eq!(names(&queue), ["decoder_behind 1", "key 6 after loss"]);
    }

    #[test]
    fn bytes_are_bounded_and_counted() {
        let bytes = match unit(0, true, Duration::ZERO) {
            SourceEvent::Arrived { unit, .. } => unit.data.len(),
            _ => 0,
        };
        let queue = Queue::new(Bounds { bytes: 2 * bytes, ..bounds(100) });
        for n in 0..5 {
            queue.push(unit(n, true, Duration::ZERO));
        }
        let waiting_bytes = queue.lock().bytes;
        let waiting = queue.lock().units;
        assert_eq!(waiting_bytes, waiting * bytes);
        let got = names(&queue);
        assert_eq!(got.first().unwrap(), "decoder_behind 4", "{got:?}");
        assert_eq!(queue.lock().bytes, 0);
        assert_eq!(queue.lock().units, 0);
    }

    #[test]
    fn a_camera_that_comes_and_goes_unread_does_not_fill_the_memory() {
        let queue = Queue::new(bounds(2));
        for n in 0..1000 {
            queue.push(unit(n, true, Duration::ZERO));
            queue.push(SourceEvent::Flush);
            queue.push(SourceEvent::Loss(Loss::new("connection_lost", 1, "gone")));
            let state = SourceState { tries: n as u32, ..SourceState::default() };
            queue.push(SourceEvent::State(state));
        }
        let waiting = queue.lock().events.len();
        assert!(waiting < 16, "{waiting}");
        let got = names(&queue);
        let lost = |cause: &str| -> u64 {
            got.iter().filter_map(|n| n.strip_prefix(cause)).map(|n| n.trim().parse::<u64>().unwrap()).sum()
        };
        let left = got.iter().filter(|n| n.starts_with("key")).count() as u64;
        assert_eq!(lost("connection_lost"), 1000);
        assert_eq!(lost("decoder_behind") + left, 1000);
        assert_eq!(got.last().unwrap(), "state 999");
    }
}
