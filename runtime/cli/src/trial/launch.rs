//! One run of a graph under dora, watched to its end.

use super::gpu;
use super::plan::Plan;
use crate::logs::{is_noise, log_file};
use crate::procs::{Family, pss_bytes};
use crate::run::{HURRY, PATIENT, start};
use crate::scratch::Scratch;
use crate::signals::Signals;
use crate::status::{Inbox, NodeReport, State};
use crate::totals::Totals;
use anyhow::Context;
use millrace_frame::monotonic_ns;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is needed for every run.
pub(crate) struct Launcher<'a> {
    pub(crate) dora: PathBuf,
    pub(crate) signals: &'a Signals,
}

/// What a run gave, besides what its nodes wrote.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) nodes: Vec<NodeWatch>,
    /// Memory of each node, in the order of `nodes`: one list a look.
    pub(crate) memory: Vec<Vec<u64>>,
    pub(crate) gpu: Vec<(i64, gpu::Sample)>,
    /// Why the run is worth nothing.
    pub(crate) failure: Option<String>,
    /// Somebody asked to stop.
    pub(crate) interrupted: bool,
}

/// One node's reports.
pub(crate) struct NodeWatch {
    pub(crate) totals: Totals,
    /// Processor time that it had taken at a time of the Unix clock.
    pub(crate) cpu: Vec<(i64, u64)>,
}

/// Between two looks at the processes, the GPU and the view.
const LOOK: Duration = Duration::from_millis(500);
/// Looks from one at the memory to the next: the kernel walks through all pages of a process for it.
const LOOKS_A_MEMORY: u32 = 4;
/// A graph without progress for this long has stopped working.
const STANDSTILL: Duration = Duration::from_secs(60);
/// A node that is gone without a last word gets so long for one.
const LAST_WORD: Duration = Duration::from_millis(1_500);

impl Launcher<'_> {
    /// Runs a graph to its end, or until `enough`, which is asked several times a second, says so. So often `show` is called,
    /// too.
    pub(crate) fn run(
        &self,
        plan: &Plan,
        scratch: &Scratch,
        enough: &mut dyn FnMut(&[NodeWatch]) -> bool,
        show: &mut dyn FnMut(&[NodeWatch]),
    ) -> anyhow::Result<Watched> {
        crate::dora::has_room(plan.nodes.len())?;
        let file = plan.write(scratch, "ab")?;
        let mut inbox = Inbox::new(scratch.status_socket()?);
        let log = scratch.path("dora.log");
        let mut child = start(&self.dora, &file, &scratch.status_path(), &log)?;
        let mut watch = Watch::of(plan, child.id());
        let mut last_look = Instant::now();
        let status = loop {
            let turn = Instant::now() + Duration::from_millis(50);
            while let Some(left) = turn.checked_duration_since(Instant::now()) {
                let Some(status) = inbox.next(left) else { break };
                watch.take(status);
            }
            let now = Instant::now();
            if now - last_look >= LOOK {
                last_look = now;
                watch.look();
                show(&watch.out.nodes);
            }
            if let Some(status) = child.try_wait()? {
                while let Some(status) = inbox.next(Duration::from_millis(1)) {
                    watch.take(status);
                }
                break status;
            }
            watch.consider_stopping(self.signals.count(), enough, now);
        };
        if !watch.family.gone_within(Duration::from_millis(300)) {
            watch.family.kill();
            watch.family.gone_within(Duration::from_millis(500));
        }
        watch.family.sweep();
        let mut out = watch.out;
        out.interrupted |= self.signals.count() > 0;
        let silent = out.nodes.iter().filter(|node| !matches!(node.totals.state(), Some(State::Done | State::Stopped)));
        let silent: Vec<&str> = silent.map(|node| node.totals.id.as_str()).collect();
        let ended = status.success() || watch.had_enough;
        if out.failure.is_none() && (!ended || !silent.is_empty()) {
            let who = if silent.is_empty() { "dora".to_owned() } else { silent.join(", ") };
            out.failure = Some(format!("{who} did not end as it should ({status})"));
        }
        if let (Some(why), false) = (&mut out.failure, out.interrupted) {
            why.push_str(&keep_log(&log)?);
        }
        Ok(out)
    }
}

/// Puts dora's log where it stays, and gives its last lines of any use.
fn keep_log(log: &Path) -> anyhow::Result<String> {
    let kept = log_file("ab")?;
    let text = std::fs::read_to_string(log).unwrap_or_default();
    std::fs::write(&kept, &text).with_context(|| format!("{} cannot be written", kept.display()))?;
    let useful: Vec<&str> = text.lines().filter(|line| !is_noise(line)).collect();
    let panics = useful.iter().position(|line| line.contains("panicked at"));
    let first = panics.unwrap_or(useful.len().saturating_sub(8));
    let lines: Vec<String> = useful[first..].iter().take(8).map(|line| format!("\n  {line}")).collect();
    Ok(format!("\ndora's log, {}:{}", kept.display(), lines.concat()))
}

struct Watch {
    out: Watched,
    family: Family,
    had_enough: bool,
    looks: u32,
    gpu: gpu::Probe,
    /// When something last moved, and what stood where then.
    moved: (Instant, u64),
    /// Nodes whose process is gone without a last word.
    gone: Option<Instant>,
    stopping: Option<Instant>,
    hurried: bool,
    killed: bool,
}

impl Watch {
    fn of(plan: &Plan, root: u32) -> Self {
        let node = |id: &str| NodeWatch { totals: Totals::new(id), cpu: Vec::new() };
        let out = Watched { nodes: plan.nodes.iter().map(|n| node(&n.id)).collect(), ..Watched::default() };
        let moved = (Instant::now(), 0);
        let gpu = gpu::Probe::of(plan);
        Self {
            out,
            family: Family::of(root),
            had_enough: false,
            looks: 0,
            gpu,
            moved,
            gone: None,
            stopping: None,
            hurried: false,
            killed: false,
        }
    }

    fn take(&mut self, status: NodeReport) {
        let Some(node) = self.out.nodes.iter_mut().find(|node| node.totals.id == status.node) else { return };
        node.cpu.push((monotonic_ns(), status.cpu_ns));
        if status.state == State::Failed && self.out.failure.is_none() {
            self.out.failure = Some(format!("{}: {}", status.node, status.error.as_deref().unwrap_or("failed")));
        }
        node.totals.take(status, Instant::now());
    }

    fn look(&mut self) {
        self.family.look();
        self.looks += 1;
        // the first after a second: a short run has one, too
        if self.looks % LOOKS_A_MEMORY == 2 {
            self.out.memory.push(self.memory());
        }
        if let Some(sample) = self.gpu.sample() {
            self.out.gpu.push((monotonic_ns(), sample));
        }
    }

    /// Memory of each node. Those that share a process have equal shares of it.
    fn memory(&self) -> Vec<u64> {
        let process = |node: &NodeWatch| node.totals.last.as_ref().map_or(0, NodeReport::works_in);
        let all: Vec<u32> = self.out.nodes.iter().map(process).collect();
        let share = |pid: &u32| pss_bytes(*pid) / all.iter().filter(|other| *other == pid).count() as u64;
        all.iter().map(share).collect()
    }

    fn consider_stopping(&mut self, asked: usize, enough: &mut dyn FnMut(&[NodeWatch]) -> bool, now: Instant) {
        match self.stopping {
            None => {
                let count = self.out.nodes.iter().map(|node| node.totals.frames()).sum();
                if count != self.moved.1 {
                    self.moved = (now, count);
                }
                if asked > 0 {
                    self.out.interrupted = true;
                } else if self.out.failure.is_some() {
                    // its own words say why
                } else if enough(&self.out.nodes) {
                    self.had_enough = true;
                } else if let Some(id) = self.lost(now) {
                    self.out.failure = Some(format!("{id} ended without a word: it crashed, or was killed"));
                } else if now - self.moved.0 >= STANDSTILL {
                    let seconds = STANDSTILL.as_secs();
                    self.out.failure = Some(format!("nothing moved in the graph for {seconds} s"));
                } else {
                    return;
                }
                self.family.look();
                self.family.signal_root(Signal::INT);
                self.stopping = Some(now);
            }
            // a run that failed has nothing to finish, and somebody waits for the reason
            Some(since) => {
                let (hurry, kill) = if self.had_enough { PATIENT } else { HURRY };
                if (asked > 1 || now - since >= kill) && !self.killed {
                    self.family.kill();
                    self.killed = true;
                } else if now - since >= hurry && !self.hurried {
                    self.family.signal_root(Signal::INT);
                    self.hurried = true;
                }
            }
        }
    }

    /// A node whose process has been gone for a while, although it never said that it ends.
    fn lost(&mut self, now: Instant) -> Option<String> {
        let is_gone = |node: &&NodeWatch| {
            let last = node.totals.last.as_ref().filter(|last| matches!(last.state, State::Opening | State::Running));
            last.is_some_and(|last| last.pid > 0 && has_ended(last.pid))
        };
        let Some(id) = self.out.nodes.iter().find(is_gone).map(|node| node.totals.id.clone()) else {
            self.gone = None;
            return None;
        };
        (now - *self.gone.get_or_insert(now) >= LAST_WORD).then_some(id)
    }
}

fn has_ended(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // the state is behind the name, which may have any characters
    stat.rfind(')').is_some_and(|at| stat[at + 1..].trim_start().starts_with(['Z', 'X']))
}
