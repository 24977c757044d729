//! One run of a graph under dora, from its start to its end; and when the next one begins, where it is started again.

use crate::load::{Loaded, absolute_sets};
use crate::logs::log_file;
use crate::procs::Family;
use crate::run::start;
use crate::running::Record;
use crate::scratch::Scratch;
use crate::status::{Inbox, NodeReport, State};
use crate::totals::Totals;
use crate::vitals::{Process, Vital};
use anyhow::Context;
use millrace_graph::check::Set;
use millrace_graph::model::{Graph, Node};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// dora's log of a run over days is cut off here: what it said long ago helps nobody.
const LARGEST_LOG_BYTES: u64 = 64 << 20;
/// From the request to stop to the last word of the nodes.
const LAST_WORDS: Duration = Duration::from_millis(1);

/// A graph that ended, or lacks a node, is started again after so long, and after twice as long each time that it does not
/// live for a minute.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
const LIVED: Duration = Duration::from_secs(60);
/// A node that dora starts again may need so long for it, beside the delay that the graph says.
const COME_BACK: Duration = Duration::from_secs(5);

/// How long a node may take to come back; no time at all where dora does not start it again.
pub(crate) fn comes_back_within(node: &Node) -> Duration {
    node.restarts.map_or(Duration::ZERO, |restarts| restarts.longest_delay + COME_BACK)
}

/// Whether a node whose process is in this state does not come back, although the graph that has run since `began` goes on.
pub(crate) fn is_lost(node: &Totals, process: Process, within: Duration, began: Instant, now: Instant) -> bool {
    // what it said in an earlier life of the graph is over
    let Some(last_report_at) = node.last_report_at.filter(|last_report_at| *last_report_at > began) else {
        return false;
    };
    let failed = node.state() == Some(State::Failed) && now.saturating_duration_since(last_report_at) >= within;
    failed || (matches!(node.vital, Vital::Gone(_)) && process == Process::Ended)
}

/// When a graph is started again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackOff {
    due: Instant,
    wait: Duration,
}

impl BackOff {
    /// Of a graph that has not been started: at once.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { due: now, wait: AGAIN.0 }
    }

    /// The time has come.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// The graph that was started at `began` has ended now. The time until the next start.
    pub(crate) fn ended(&mut self, began: Instant, now: Instant) -> Duration {
        let lived = now.saturating_duration_since(began) >= LIVED;
        let wait = if lived { AGAIN.0 } else { self.wait };
        (self.due, self.wait) = (now + wait, (wait * 2).min(AGAIN.1));
        wait
    }
}

/// What every start of the graph needs.
pub(crate) struct Launch<'a> {
    pub(crate) dora: PathBuf,
    pub(crate) graph: &'a Graph,
    pub(crate) folder: PathBuf,
    pub(crate) sets: Vec<Set>,
    pub(crate) stem: String,
    /// The command that runs it, and the graph file.
    pub(crate) by: &'static str,
    pub(crate) file: PathBuf,
}

impl<'a> Launch<'a> {
    /// Of a graph that was loaded from `file`.
    pub(crate) fn of(by: &'static str, dora: PathBuf, file: &Path, loaded: &'a Loaded) -> anyhow::Result<Self> {
        Ok(Self {
            dora,
            graph: loaded.checked.graph.as_ref().context("there is no graph")?,
            folder: loaded.folder.clone(),
            sets: absolute_sets(&loaded.checked)?,
            by,
            file: file.to_path_buf(),
            stem: file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("graph").to_owned(),
        })
    }
}

/// The graph while it runs.
pub(crate) struct Life {
    child: Child,
    pub(crate) family: Family,
    inbox: Inbox,
    pub(crate) log: PathBuf,
    looked: Instant,
    /// Since when it is to end; when it is asked to hurry, and when it is killed.
    stopping: Option<(Instant, (Duration, Duration))>,
    hurried: bool,
    killed: bool,
    _scratch: Scratch,
}

impl Life {
    /// Starts the graph.
    pub(crate) fn begin(launch: &Launch<'_>) -> anyhow::Result<Self> {
        crate::dora::has_room(launch.graph.nodes.len())?;
        let scratch = Scratch::new()?;
        let file = scratch.write_graph(launch.graph, &launch.stem, &launch.folder, &launch.sets)?;
        let inbox = Inbox::new(scratch.status_socket()?);
        let log = log_file(&launch.stem)?;
        let child = start(&launch.dora, &file, &scratch.status_path(), &log)?;
        Record::new(launch.by, &launch.file, &log).write(&scratch)?;
        let family = Family::of(child.id());
        let looked = Instant::now();
        Ok(Self { child, family, inbox, log, looked, stopping: None, hurried: false, killed: false, _scratch: scratch })
    }

    /// dora's process.
    pub(crate) fn root(&self) -> u32 {
        self.child.id()
    }

    /// The next report that comes within this time.
    pub(crate) fn next(&mut self, patience: Duration) -> Option<NodeReport> {
        self.inbox.next(patience)
    }

    /// What is left to read after the end.
    pub(crate) fn rest(&mut self) -> Option<NodeReport> {
        self.inbox.next(LAST_WORDS)
    }

    /// Looks who has come, and after a stop whether it is time to insist; the exit status once dora is gone.
    pub(crate) fn look(&mut self, now: Instant) -> anyhow::Result<Option<ExitStatus>> {
        if now - self.looked >= Duration::from_millis(500) {
            self.looked = now;
            self.family.look();
            bound(&self.log)?;
        }
        if let Some((since, (hurry, kill))) = self.stopping {
            if now - since >= kill && !self.killed {
                self.family.kill();
                self.killed = true;
            } else if now - since >= hurry && !self.hurried {
                self.family.signal_root(Signal::INT);
                self.hurried = true;
            }
        }
        Ok(self.child.try_wait()?)
    }

    /// Asks it to end, and insists after these times.
    pub(crate) fn stop(&mut self, patience: (Duration, Duration)) {
        self.family.look();
        self.family.signal_root(Signal::INT);
        self.stopping = Some((Instant::now(), patience));
    }

    /// It was asked to end.
    pub(crate) const fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Ends what dora has left, once it is gone itself.
    pub(crate) fn sweep(&mut self) {
        if !self.family.gone_within(Duration::from_millis(300)) {
            self.family.kill();
            self.family.gone_within(Duration::from_secs(2));
        }
        self.family.sweep();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // whatever ends the soak ends the graph
        self.family.kill();
        let _ = self.child.wait();
        self.sweep();
    }
}

/// Cuts a log off that has become too large. Its writers append, so they go on at its new end.
fn bound(log: &Path) -> anyhow::Result<()> {
    if std::fs::metadata(log).is_ok_and(|about| about.len() > LARGEST_LOG_BYTES) {
        let file = std::fs::File::options().write(true).open(log);
        file.and_then(|file| file.set_len(0))
            .with_context(|| format!("the log {} cannot be cut off", log.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_that_does_not_live_is_started_ever_more_rarely_and_one_that_lived_at_once() {
        const fn s(seconds: u64) -> Duration {
            Duration::from_secs(seconds)
        }
        let mut now = Instant::now();
        let mut back_off = BackOff::new(now);
        assert!(back_off.is_due(now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let began = now;
            now += s(3);
            let wait = back_off.ended(began, now);
            assert!(!back_off.is_due(now + wait - Duration::from_millis(1)) && back_off.is_due(now + wait));
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(back_off.ended(now, now + s(60)), s(1), "it has lived for a minute");
        assert_eq!(back_off.ended(now + s(61), now + s(62)), s(2));
    }
}
