//! Which nodes give signs of life, and the lines that tell of a change.

use crate::clock;
use crate::status::NodeReport;
use crate::totals::{Restart, Totals};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// A node that is never restarted is gone as soon as its last report must have come.
const LAST_REPORT: Duration = Duration::from_secs(1);

/// How a node is, with the time since its last sign of life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Vital {
    /// It reports and works, or has ended as it said.
    #[default]
    Well,
    /// No report comes.
    Silent(Duration),
    /// Reports come, and its event loop does not turn.
    Stuck(Duration),
    /// Its process has ended without a word, and no other has taken its place.
    Gone(Duration),
}

impl Vital {
    /// As a table has it; empty where all is well.
    pub(crate) fn text(self) -> String {
        let since = |for_: Duration| clock::span(for_.as_secs());
        match self {
            Self::Well => String::new(),
            Self::Silent(for_) | Self::Stuck(for_) => format!("HUNG for {}", since(for_)),
            Self::Gone(for_) => format!("GONE for {}", since(for_)),
        }
    }

    /// Those that are news to each other. A process that goes on after it was stopped first reports that its event loop
    /// has not turned: it hangs in both cases.
    pub(crate) fn kind(self) -> u8 {
        match self {
            Self::Well => 0,
            Self::Silent(_) | Self::Stuck(_) => 1,
            Self::Gone(_) => 2,
        }
    }
}

/// A process as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    /// It is not known which one it is.
    Unknown,
    Runs,
    /// Somebody stopped it (SIGSTOP).
    Stopped,
    Ended,
}

/// All nodes' signs of life.
#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// The nodes that are not well: how, and since when, by their last sign of life.
    ill: BTreeMap<String, (Vital, Instant)>,
}

impl Vitals {
    /// Judges a node whose process is in this state, and that comes back within `come_back` where it comes back at all. A
    /// line for the user where this is news.
    pub(crate) fn look(
        &mut self,
        node: &mut Totals,
        process: Process,
        come_back: Duration,
        now: Instant,
    ) -> Option<String> {
        node.vital = judge(node, process, come_back.max(LAST_REPORT), now);
        let before = self.ill.get(&node.id).copied();
        if before.map_or(0, |(vital, _)| vital.kind()) == node.vital.kind() {
            return None;
        }
        let (id, pid) = (&node.id, node.last.as_ref().map_or(0, NodeReport::works_in));
        let line = match node.vital {
            Vital::Well => {
                let (was, since) = self.ill.remove(id)?;
                let for_ = clock::span(now.saturating_duration_since(since).as_secs());
                match was {
                    Vital::Gone(_) => format!("node {id}: it is back after {for_}"),
                    _ => format!("node {id}: it works again after {for_}"),
                }
            }
            Vital::Silent(for_) => {
                let process = match process {
                    Process::Stopped => {
                        format!("; its process {pid} is stopped (SIGSTOP): 'kill -CONT {pid}' lets it go on")
                    }
                    Process::Runs => format!("; its process {pid} runs"),
                    Process::Ended => format!("; its process {pid} has ended, and may be started again"),
                    Process::Unknown => String::new(),
                };
                format!("node {id}: no sign of life since {}{process}", clock::ago(for_))
            }
            Vital::Stuck(for_) => format!(
                "node {id}: its event loop has not turned since {}, although its process {pid} reports: it hangs, or works \
                 on one item for that long",
                clock::ago(for_)
            ),
            Vital::Gone(for_) => format!(
                "node {id} IS GONE: its process {pid} ended without a word, {} s after its last report nothing has taken its \
                 place, and the graph goes on without it. dora has given it up (restart_policy, max_restarts) or waits longer \
                 (restart_delay)",
                for_.as_secs()
            ),
        };
        if node.vital != Vital::Well {
            let since = match node.vital {
                Vital::Stuck(for_) | Vital::Silent(for_) | Vital::Gone(for_) => now.checked_sub(for_),
                Vital::Well => None,
            };
            let since = before.map(|(_, since)| since).or(since).unwrap_or(now);
            self.ill.insert(node.id.clone(), (node.vital, since));
        }
        Some(format!("{} {line}", clock::now()))
    }

    /// The line that says how a process ended, by dora's words in `log`, and that another runs in its place. It is all that
    /// is to be said of the return.
    pub(crate) fn restarted(&mut self, node: &str, restart: Restart, log: &Path) -> String {
        self.ill.remove(node);
        let Restart { before, pid, failed, silent } = restart;
        let end = match crate::dora::end_of_process(log, node) {
            _ if failed => "has failed".to_owned(),
            Some(end) => end,
            None => "has ended without a word".to_owned(),
        };
        let gone = silent.as_secs_f64();
        format!(
            "{} node {node}: its process {before} {end}; started again as process {pid}, which reports {gone:.1} s after the \
             last report of the other",
            clock::now()
        )
    }
}

fn judge(node: &mut Totals, process: Process, come_back: Duration, now: Instant) -> Vital {
    let Some(last_report_at) = node.last_report_at.filter(|_| node.should_run()) else { return Vital::Well };
    let silent = now.saturating_duration_since(last_report_at);
    if process == Process::Ended {
        let since = *node.process_gone.get_or_insert(now);
        if now.saturating_duration_since(since) >= come_back {
            return Vital::Gone(silent);
        }
    } else {
        node.process_gone = None;
    }
    match (node.silent_for(now).filter(|silent| *silent >= crate::totals::SILENT), node.stuck_for(now)) {
        (Some(silent), _) => Vital::Silent(silent),
        (None, Some(stuck)) => Vital::Stuck(stuck),
        (None, None) => Vital::Well,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::State;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn report(pid: u32, uptime_s: u64) -> NodeReport {
        NodeReport {
            node: "cam1".into(),
            pid,
            uptime_ns: uptime_s * 1_000_000_000,
            loop_age_ms: Some(50),
            ..NodeReport::default()
        }
    }

    #[test]
    fn a_node_that_is_stopped_is_seen_and_so_is_its_return() {
        let (mut vitals, mut node, start) = (Vitals::default(), Totals::new("cam1"), Instant::now());
        assert_eq!(vitals.look(&mut node, Process::Unknown, s(5), start), None, "it has not started");
        node.take(report(7, 1), start);
        assert_eq!(vitals.look(&mut node, Process::Stopped, s(5), start + s(2)), None);
        // the last report may have come just before the stop, and the next look comes a moment later
        let room = crate::totals::LOOK + Duration::from_millis(300);
        assert!(vitals.look(&mut node, Process::Stopped, s(5), start + s(3) - room).is_some(), "within 3 s, with room");
        node.take(report(7, 2), start + s(3) - room);
        vitals.look(&mut node, Process::Runs, s(5), start + s(3) - room);
        let start = start + s(3) - room;
        let line = vitals.look(&mut node, Process::Stopped, s(5), start + s(3)).unwrap();
        let since = clock::ago(s(3));
        assert!(line.contains("node cam1: no sign of life since "), "{line}");
        assert!(line.contains("; its process 7 is stopped (SIGSTOP)") && line.contains(&since[..5]), "{line}");
        assert_eq!(node.vital.text(), "HUNG for 3 s");
        assert_eq!(vitals.look(&mut node, Process::Stopped, s(5), start + s(90)), None, "each change once");
        assert_eq!(node.vital.text(), "HUNG for 1:30");
        // its thread that reports may run before its event loop
        node.take(NodeReport { loop_age_ms: Some(91_000), ..report(7, 91) }, start + s(91));
        assert_eq!(vitals.look(&mut node, Process::Runs, s(5), start + s(91)), None);
        assert_eq!(node.vital.text(), "HUNG for 1:31");
        node.take(report(7, 91), start + s(91));
        let line = vitals.look(&mut node, Process::Runs, s(5), start + s(91)).unwrap();
        assert!(line.ends_with("node cam1: it works again after 1:31"), "{line}");
        assert_eq!(node.vital, Vital::Well);
    }

    #[test]
    fn a_loop_that_hangs_is_seen_although_reports_come() {
        let (mut vitals, mut node, start) = (Vitals::default(), Totals::new("cam1"), Instant::now());
        node.take(NodeReport { loop_age_ms: Some(3_100), ..report(7, 1) }, start);
        let line = vitals.look(&mut node, Process::Runs, s(5), start).unwrap();
        assert!(line.contains("its event loop has not turned since "), "{line}");
    }

    #[test]
    fn a_node_that_is_not_started_again_is_gone() {
        let (mut vitals, mut node, start) = (Vitals::default(), Totals::new("cam1"), Instant::now());
        node.take(report(7, 10), start);
        assert_eq!(vitals.look(&mut node, Process::Ended, s(5), start + s(1)), None, "dora may start it again");
        assert_eq!(node.rates(start + s(1)), Some((0.0, 0.0)), "it does nothing meanwhile");
        let silent = vitals.look(&mut node, Process::Ended, s(5), start + s(4)).unwrap();
        assert!(silent.contains("its process 7 has ended, and may be started again"), "{silent}");
        let gone = vitals.look(&mut node, Process::Ended, s(5), start + s(6)).unwrap();
        assert!(
            gone.contains("node cam1 IS GONE: its process 7 ended without a word, 6 s after its last report"),
            "{gone}"
        );
        assert_eq!(node.vital.text(), "GONE for 6 s");
        node.take(report(8, 0), start + s(30));
        let back = vitals.look(&mut node, Process::Runs, s(5), start + s(30)).unwrap();
        assert!(back.ends_with("node cam1: it is back after 30 s"), "{back}");
        // a node that is never restarted is gone at once
        node.take(report(8, 1), start + s(31));
        vitals.look(&mut node, Process::Ended, s(0), start + s(31));
        assert!(vitals.look(&mut node, Process::Ended, s(0), start + s(32)).unwrap().contains("IS GONE"));
        // and one that has said so has ended
        node.take(NodeReport { state: State::Done, ..report(8, 2) }, start + s(33));
        vitals.look(&mut node, Process::Ended, s(0), start + s(60));
        assert_eq!(node.vital, Vital::Well);
    }
}
