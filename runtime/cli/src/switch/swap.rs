//! The steps themselves, each written down before it is taken.

use super::control::Control;
use super::countdown::Countdown;
use super::guard::Guard;
use super::journal::{Journal, JournalLock, Runs};
use super::watch::Watch;
use crate::out::outln;
use crate::status::State;
use anyhow::Context;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a new node may take to work, and the frames of all cameras to reach the end again.
const SETTLE: Duration = Duration::from_secs(60);
/// How long a look at the nodes takes.
const LOOK: Duration = Duration::from_millis(300);

/// A switch on its way.
pub(crate) struct Swap {
    control: Control,
    journal_lock: JournalLock,
    journal: Journal,
    guard: Guard,
    watch: Watch,
    last: Vec<String>,
    interrupted: Arc<AtomicBool>,
}

impl Swap {
    pub(crate) fn new(
        control: Control,
        journal_lock: JournalLock,
        journal: Journal,
        guard: Guard,
        mut watch: Watch,
    ) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
        }
        watch.listen(Duration::from_millis(1_500));
        let node_of = |stream: &str| Some(stream.split_once(" at ")?.1.split('/').next()?.to_owned());
        let last = journal.before.streams().into_iter().filter_map(node_of).collect();
        Ok(Self { control, journal_lock, journal, guard, watch, last, interrupted })
    }

    /// Goes on to B and watches it, or puts A back, whatever the journal says. `true` where B is kept.
    pub(crate) fn finish(mut self) -> anyhow::Result<bool> {
        // B's processes of an earlier attempt stay what they are
        let ids: Vec<String> = self.watch.nodes().map(str::to_owned).collect();
        ids.iter().for_each(|id| self.watch.expect(id));
        if self.journal.back.is_none() {
            let reason = match self.forward() {
                Ok(()) => match self.guarded() {
                    Ok(()) => {
                        self.journal_lock.close()?;
                        outln!("kept: dataflow '{}' runs {}", self.called(), self.journal.graph);
                        return Ok(true);
                    }
                    Err(reason) => reason,
                },
                Err(reason) => reason,
            };
            self.journal.back = Some(reason);
        }
        self.back().with_context(|| {
            format!(
                "A could not be put back as a whole; what runs is a mixture. Mend what is named here and call \
                 'millrace switch --back --dataflow {}' again; the journal {} has all definitions",
                self.called(),
                self.journal_lock.path().display()
            )
        })?;
        Ok(false)
    }

    fn called(&self) -> String {
        let Journal { name, dataflow, .. } = &self.journal;
        if name.is_empty() { dataflow.clone() } else { name.clone() }
    }

    /// Replaces what is A's still. An error is the reason to go back.
    fn forward(&mut self) -> Result<(), String> {
        for at in 0..self.journal.steps.len() {
            if self.journal.steps[at].runs == Runs::B {
                continue;
            }
            let node = self.replace(at, Runs::B).map_err(|e| format!("{e:#}"))?;
            self.settle(&node)?;
        }
        Ok(())
    }

    /// Replaces one node, so that it `becomes` A's or B's: written down before and after. Gives its id.
    fn replace(&mut self, at: usize, becomes: Runs) -> anyhow::Result<String> {
        let step = &mut self.journal.steps[at];
        step.runs = Runs::Either;
        let node = step.node.clone();
        let (definition, doing) = match becomes {
            Runs::A => (step.a.clone(), format!("putting '{node}' back")),
            Runs::B | Runs::Either => (step.b.clone(), format!("replacing '{node}'")),
        };
        self.journal_lock.write(&self.journal)?;
        outln!("{doing}");
        self.watch.excuse(&node);
        self.watch.begin();
        self.control.replace(&self.journal.dataflow, &node, &definition)?;
        self.journal.steps[at].runs = becomes;
        self.journal_lock.write(&self.journal)?;
        Ok(node)
    }

    /// Waits until the node's new process works and every camera that came to the end before comes there again.
    fn settle(&mut self, node: &str) -> Result<(), String> {
        let began = Instant::now();
        let before = self.watch.base_pid(node);
        let mut works = false;
        let mut still = self.journal.before.streams().into_iter().map(str::to_owned).collect::<Vec<_>>();
        while began.elapsed() < SETTLE {
            self.watch.listen(LOOK);
            self.heed(true)?;
            if !works {
                let newest = self.watch.newest(node);
                works = newest.is_some_and(|status| Some(status.pid) != before && status.state == State::Running);
                if works {
                    self.watch.expect(node);
                    // only what comes from now on counts as come again
                    self.watch.begin();
                }
                continue;
            }
            let now = self.measure();
            still.retain(|stream| now.fps.get(stream).is_none_or(|fps| *fps <= 0.0));
            if still.is_empty() {
                return Ok(());
            }
        }
        let seconds = SETTLE.as_secs();
        Err(if works {
            format!("no frame of {} came within {seconds} s after '{node}' was replaced", still.join(", "))
        } else {
            format!("node '{node}' did not begin to work within {seconds} s")
        })
    }

    fn measure(&self) -> super::measure::Measures {
        self.watch.measure(&|node| self.last.iter().any(|last| last == node))
    }

    /// Health, and a request to stop.
    fn heed(&mut self, stop: bool) -> Result<(), String> {
        if stop && self.interrupted.load(Ordering::Relaxed) {
            return Err("the switch was interrupted".to_owned());
        }
        self.watch.illness().map_or(Ok(()), Err)
    }

    /// Watches B for the set time. An error is the reason to go back.
    fn guarded(&mut self) -> Result<(), String> {
        let time = Duration::from_millis(self.journal.watch_ms);
        outln!("all nodes are replaced; watching for {:.0} s", time.as_secs_f64());
        self.watch.begin();
        let mut countdown = Countdown::new(time);
        while let Some(left) = countdown.left() {
            self.watch.listen(left.min(LOOK));
            self.heed(true)?;
        }
        drop(countdown);
        let pairs = self.journal.before.beside(&self.measure());
        for pair in &pairs {
            outln!("  {pair}");
        }
        let mut unmeasured = Vec::new();
        let broken = self.guard.judge(&pairs, &mut unmeasured);
        for condition in unmeasured {
            outln!("  not judged, as A had nothing to measure there: {condition}");
        }
        if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
    }

    /// Puts A back, in reverse.
    fn back(&mut self) -> anyhow::Result<()> {
        let reason = self.journal.back.clone().unwrap_or_default();
        outln!("putting back what ran before: {reason}");
        self.journal_lock.write(&self.journal)?;
        let mut failed = Vec::new();
        for at in (0..self.journal.steps.len()).rev() {
            if self.journal.steps[at].runs == Runs::A {
                continue;
            }
            if let Err(e) = self.replace(at, Runs::A) {
                // the others are better off with A all the same
                failed.push(format!("node '{}': {e:#}", self.journal.steps[at].node));
            }
        }
        anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
        self.flows_again()?;
        self.journal_lock.close()?;
        outln!("put back: dataflow '{}' runs what it ran before, because {reason}", self.called());
        Ok(())
    }

    /// All is back; now it has to work.
    fn flows_again(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let wanted: Vec<String> = self.journal.before.streams().into_iter().map(str::to_owned).collect();
        self.watch.begin();
        loop {
            self.watch.listen(LOOK);
            let now = self.measure();
            let still: Vec<&String> =
                wanted.iter().filter(|stream| now.fps.get(*stream).is_none_or(|fps| *fps <= 0.0)).collect();
            if still.is_empty() {
                return Ok(());
            }
            if began.elapsed() > SETTLE {
                let illness = self.watch.illness().map(|illness| format!(" ({illness})")).unwrap_or_default();
                anyhow::bail!(
                    "A's definitions are back, but no frame came of {still:?} within {} s{illness}",
                    SETTLE.as_secs()
                );
            }
        }
    }
}
