//! One run of the graph under dora, from its start to its end.

use crate::procs::Family;
use crate::run::{log_file, start};
use crate::scratch::Scratch;
use crate::status::{Inbox, Status};
use anyhow::Context;
use millrace_graph::check::Set;
use millrace_graph::model::Graph;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// dora's log of a run over days is cut off here: what it said long ago helps nobody.
const LARGEST_LOG_BYTES: u64 = 64 << 20;
/// From the request to stop to the last word of the nodes.
const LAST_WORDS: Duration = Duration::from_millis(1);

/// What every start of the graph needs.
pub(super) struct Launch<'a> {
    pub(super) dora: PathBuf,
    pub(super) graph: &'a Graph,
    pub(super) folder: PathBuf,
    pub(super) sets: Vec<Set>,
    pub(super) stem: String,
}

/// The graph while it runs.
pub(super) struct Life {
    child: Child,
    pub(super) family: Family,
    inbox: Inbox,
    pub(super) log: PathBuf,
    looked: Instant,
    /// Since when it is to end; when it is asked to hurry, and when it is killed.
    stopping: Option<(Instant, (Duration, Duration))>,
    hurried: bool,
    killed: bool,
    _scratch: Scratch,
}

impl Life {
    /// Starts the graph.
    pub(super) fn begin(launch: &Launch<'_>) -> anyhow::Result<Self> {
        crate::dora::has_room(launch.graph.nodes.len())?;
        let scratch = Scratch::new()?;
        let file = scratch.write_graph(launch.graph, &launch.stem, &launch.folder, &launch.sets)?;
        let inbox = Inbox::new(scratch.status_socket()?);
        let log = log_file(&launch.stem)?;
        let child = start(&launch.dora, &file, &scratch.status_path(), &log)?;
        let family = Family::of(child.id());
        let looked = Instant::now();
        Ok(Self { child, family, inbox, log, looked, stopping: None, hurried: false, killed: false, _scratch: scratch })
    }

    /// dora's process.
    pub(super) fn root(&self) -> u32 {
        self.child.id()
    }

    /// The next report that comes within this time.
    pub(super) fn next(&mut self, patience: Duration) -> Option<Status> {
        self.inbox.next(patience)
    }

    /// What is left to read after the end.
    pub(super) fn rest(&mut self) -> Option<Status> {
        self.inbox.next(LAST_WORDS)
    }

    /// Looks who has come, and after a stop whether it is time to insist; the exit status once dora is gone.
    pub(super) fn look(&mut self, now: Instant) -> anyhow::Result<Option<ExitStatus>> {
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
    pub(super) fn stop(&mut self, patience: (Duration, Duration)) {
        self.family.look();
        self.family.signal_root(Signal::INT);
        self.stopping = Some((Instant::now(), patience));
    }

    /// It was asked to end.
    pub(super) const fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Ends what dora has left, once it is gone itself.
    pub(super) fn sweep(&mut self) {
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
