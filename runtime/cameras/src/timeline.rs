//! A camera's presentation times over several openings of its source: they go on, and never back.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

#[derive(Debug, Default)]
pub(crate) struct Timeline(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the first unit of all came, and its time.
    zero: Option<(Instant, i64)>,
    last_pts_ns: Option<i64>,
}

impl Timeline {
    /// What is added to the times of a source that was just opened, whose first unit has this time. Nothing for the first
    /// source of all; later ones go on from when they were opened.
    pub(crate) fn offset_ns(&self, first_pts_ns: i64) -> i64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (zero, zero_pts_ns) = *state.zero.get_or_insert((now, first_pts_ns));
        let Some(last_ns) = state.last_pts_ns else { return 0 };
        let since_ns = now.duration_since(zero).as_nanos() as i64;
        let begins_ns = zero_pts_ns.saturating_add(since_ns).max(last_ns.saturating_add(1));
        begins_ns.saturating_sub(first_pts_ns)
    }

    /// A unit has this time.
    pub(crate) fn reached(&self, pts_ns: i64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.last_pts_ns = Some(state.last_pts_ns.map_or(pts_ns, |last_ns| last_ns.max(pts_ns)));
    }
}

/// How far apart the pictures of a file are by its own times, on average: what rate the file has.
#[derive(Debug, Default)]
pub(crate) struct Spacing {
    first_dts_ns: Option<i64>,
    /// Units after the first.
    after: i64,
}

impl Spacing {
    /// One more unit, in decoding order; the mean so far, from the second unit on.
    pub(crate) fn add(&mut self, dts_ns: i64) -> Option<i64> {
        let Some(first_ns) = self.first_dts_ns else {
            self.first_dts_ns = Some(dts_ns);
            return None;
        };
        self.after += 1;
        Some(dts_ns.saturating_sub(first_ns) / self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_as_far_apart_as_the_file_says() {
        let mut spacing = Spacing::default();
        let means = [-80, -40, 0, 50].map(|ms| spacing.add(ms * 1_000_000));
        assert_eq!(means, [None, Some(40_000_000), Some(40_000_000), Some(43_333_333)]);
    }

    #[test]
    fn times_go_on_where_the_source_is_opened_again() {
        let timeline = Timeline::default();
        assert_eq!(timeline.offset_ns(7_000), 0, "the first source keeps its own times");
        timeline.reached(3_600_000_000_000);
        timeline.reached(3_599_000_000_000);
        // a file that was played faster than its own speed: the next one begins behind its end
        assert_eq!(timeline.offset_ns(0), 3_600_000_000_001);
    }

    #[test]
    fn a_pause_shows_in_the_times() {
        let timeline = Timeline::default();
        timeline.offset_ns(0);
        timeline.reached(0);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(timeline.offset_ns(500) >= 20_000_000 - 500);
    }
}
