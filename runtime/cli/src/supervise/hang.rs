//! Which processes hang for so long that they are ended.

use crate::status::NodeReport;
use crate::totals::Totals;
use crate::vitals::{Process, Vital};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Between two looks. Where it was longer, this process did not run, and what the nodes did meanwhile is not known.
const LONGEST_GAP: Duration = Duration::from_secs(2);

/// Judges which nodes hang.
#[derive(Debug)]
pub(super) struct Hang {
    after: Duration,
    /// Since when this process has watched without a gap.
    watched: Instant,
    looked: Instant,
    /// Processes that were ended, which may take a moment to be gone.
    ended: BTreeSet<u32>,
}

impl Hang {
    pub(super) const fn new(after: Duration, now: Instant) -> Self {
        Self { after, watched: now, looked: now, ended: BTreeSet::new() }
    }

    /// Another look begins. How long nobody looked, where that was too long.
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        let gap = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        let paused = gap >= LONGEST_GAP;
        if paused {
            self.watched = now;
        }
        paused.then_some(gap)
    }

    /// The graph has been started: a number of a process says nothing any more.
    pub(super) fn started(&mut self, now: Instant) {
        self.watched = now;
        self.ended.clear();
    }

    /// Something that has been so since then has been so for too long.
    pub(super) fn is_too_long(&self, since: Instant, now: Instant) -> bool {
        now.saturating_duration_since(since.max(self.watched)) >= self.after
    }

    /// The process to end, and since when its node hangs, where it is that long.
    pub(super) fn judge(&mut self, node: &Totals, process: Process, now: Instant) -> Option<(u32, Duration)> {
        let (Vital::Silent(for_) | Vital::Stuck(for_)) = node.vital else { return None };
        let since = now.checked_sub(for_)?;
        let there = matches!(process, Process::Runs | Process::Stopped);
        let pid = node.last.as_ref().map(NodeReport::works_in)?;
        (there && self.is_too_long(since, now) && self.ended.insert(pid)).then_some((pid, for_))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn node(pid: u32, vital: Vital) -> Totals {
        let mut node = Totals::new("detect");
        node.last = Some(NodeReport { pid, ..NodeReport::default() });
        node.vital = vital;
        node
    }

    #[test]
    fn a_node_that_hangs_is_ended_once_and_one_that_ended_or_works_is_not() {
        let start = Instant::now();
        let mut hang = Hang::new(s(10), start);
        let now = start + s(100);
        for vital in [Vital::Silent(s(10)), Vital::Stuck(s(11))] {
            for process in [Process::Runs, Process::Stopped] {
                hang.started(start);
                let ill = node(7, vital);
                assert!(hang.judge(&ill, process, now).is_some_and(|(pid, _)| pid == 7), "{vital:?} {process:?}");
                assert_eq!(hang.judge(&ill, process, now), None, "once");
            }
            assert_eq!(hang.judge(&node(8, vital), Process::Ended, now), None, "dora starts it again");
            assert_eq!(hang.judge(&node(8, vital), Process::Unknown, now), None);
        }
        for vital in [Vital::Well, Vital::Silent(s(9)), Vital::Stuck(s(9)), Vital::Gone(s(50))] {
            assert_eq!(hang.judge(&node(9, vital), Process::Runs, now), None, "{vital:?}");
        }
    }

    #[test]
    fn nobody_is_ended_for_a_time_in_which_this_process_did_not_run() {
        let start = Instant::now();
        let mut hang = Hang::new(s(10), start);
        assert_eq!(hang.look(start + s(1)), None);
        assert_eq!(hang.look(start + s(60)), Some(s(59)), "it was stopped, or the machine was");
        let ill = node(7, Vital::Silent(s(59)));
        assert_eq!(hang.judge(&ill, Process::Runs, start + s(60)), None);
        assert_eq!(hang.look(start + s(61)), None);
        assert_eq!(hang.judge(&ill, Process::Runs, start + s(69)), None);
        assert!(hang.judge(&ill, Process::Runs, start + s(70)).is_some());
    }
}
