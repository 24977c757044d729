//! A graph while it is kept alive.

use super::hang::Hang;
use super::notify::Notify;
use crate::cameras::Cameras;
use crate::clock;
use crate::life::{BackOff, Launch, Life, comes_back_within, is_lost};
use crate::run::{HURRY, PATIENT, end_of};
use crate::signals::Signals;
use crate::status::{NodeReport, State};
use crate::totals::{LOOK, Totals};
use crate::view::{End, View};
use crate::vitals::{Process, Vital, Vitals};
use millrace_graph::check::Checked;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

/// A node that has not reported so long after the start of the graph does not start.
const FIRST_REPORT: Duration = Duration::from_secs(60);
/// A loop without a graph has nothing to wait for.
const IDLE: Duration = Duration::from_millis(50);

/// All that is known of the graph, in all its lives.
pub(super) struct Keeper<'a> {
    launch: &'a Launch<'a>,
    nodes: Vec<Totals>,
    /// How long each may take to come back.
    comes_back: Vec<Duration>,
    /// Millrace nodes, which report.
    reports: Vec<bool>,
    cameras: Cameras,
    vitals: Vitals,
    hang: Hang,
    view: View,
    notify: Notify,
    /// What each node last said of its own end.
    shown_errors: BTreeMap<String, String>,
    life: Option<Life>,
    /// When this life began, or the last one.
    began: Instant,
    back_off: BackOff,
    /// Since when dora itself is stopped.
    dora_stopped: Option<Instant>,
    /// Why the graph is ended, where that was decided here; why it ended, once it has.
    why: Option<String>,
    looked: Instant,
    start: Instant,
    /// Starts of the graph, starts of single nodes beside them, and processes that hung and were ended.
    starts: u32,
    again: u32,
    hung: u32,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(launch: &'a Launch<'a>, checked: &Checked, hang: Duration, quiet: bool) -> Self {
        let (graph, now) = (launch.graph, Instant::now());
        Self {
            launch,
            nodes: graph.nodes.iter().map(|node| Totals::new(&node.id.value)).collect(),
            comes_back: graph.nodes.iter().map(comes_back_within).collect(),
            reports: checked.nodes.iter().map(|node| node.description.is_some()).collect(),
            cameras: Cameras::default(),
            vitals: Vitals::default(),
            hang: Hang::new(hang, now),
            view: View::new(quiet, false),
            notify: Notify::of_environment(),
            shown_errors: BTreeMap::new(),
            life: None,
            began: now,
            back_off: BackOff::new(now),
            dora_stopped: None,
            why: None,
            looked: now,
            start: now,
            starts: 0,
            again: 0,
            hung: 0,
        }
    }

    /// Runs until somebody stops it, or the graph has done its work.
    pub(super) fn run(mut self, signals: &Signals) -> anyhow::Result<ExitCode> {
        loop {
            if signals.count() > 0 {
                self.stop(signals)?;
                return Ok(self.end(ExitCode::SUCCESS));
            }
            let now = Instant::now();
            if self.life.is_none() && self.back_off.is_due(now) {
                self.begin(now);
            }
            self.receive();
            let now = Instant::now();
            if now - self.looked < LOOK {
                continue;
            }
            self.looked = now;
            if let Some(status) = self.life.as_mut().map(|life| life.look(now)).transpose()?.flatten()
                && let Some(code) = self.ended(status, now)
            {
                return Ok(self.end(code));
            }
            self.look(now);
            self.tell(now);
        }
    }

    /// Says what was done, with the time of day.
    fn done(&mut self, what: &str) {
        self.view.alarm(&format!("{} {what}", clock::now()));
    }

    fn begin(&mut self, now: Instant) {
        self.starts += 1;
        self.began = now;
        match Life::begin(self.launch) {
            Ok(life) => {
                let log = life.log.display().to_string();
                self.view.say(&format!("{} the graph is started; dora's log is {log}", clock::now()));
                self.life = Some(life);
                // what nodes reported before says nothing of these processes
                self.nodes.iter_mut().for_each(Totals::begin_life);
                self.vitals = Vitals::default();
                self.hang.started(now);
                self.dora_stopped = None;
                self.why = None;
            }
            Err(error) => self.wait(format!("it cannot be started: {error:#}"), now),
        }
    }

    fn receive(&mut self) {
        if self.life.is_none() {
            std::thread::sleep(IDLE);
        }
        let until = Instant::now() + IDLE;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Some(status) = self.life.as_mut().and_then(|life| life.next(left)) else { break };
            self.take(status);
        }
    }

    fn take(&mut self, status: NodeReport) {
        let error = status.error.clone().filter(|_| matches!(status.state, State::Failed | State::Incomplete));
        if let Some(error) = error
            && self.shown_errors.insert(status.node.clone(), error.clone()).is_none_or(|before| before != error)
        {
            self.done(&format!("node {}: {error}", status.node));
        }
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == status.node) else { return };
        let is_first = node.last_report_at.is_none();
        if let Some(restart) = node.take(status, Instant::now()).filter(|_| !is_first)
            && let Some(life) = &self.life
        {
            self.again += 1;
            let line = self.vitals.restarted(&node.id, restart, &life.log);
            self.view.alarm(&line);
        }
    }

    /// Says what is news of nodes and cameras, and ends what hangs.
    fn look(&mut self, now: Instant) {
        if let Some(gap) = self.hang.look(now) {
            let gap = clock::span(gap.as_secs());
            self.done(&format!("this process, or the machine, did not run for {gap}; nobody is ended for that"));
        }
        self.view.note(&self.nodes);
        let Some(life) = self.life.as_ref().filter(|life| !life.is_stopping()) else { return };
        let (mut lines, mut lost) = (Vec::new(), None);
        for ((node, within), reports) in self.nodes.iter_mut().zip(&self.comes_back).zip(&self.reports) {
            let pid = node.last.as_ref().filter(|_| node.last_report_at.is_some()).map_or(0, NodeReport::works_in);
            let process = life.family.process(pid);
            lines.extend(self.vitals.look(node, process, *within, now));
            if let Some((pid, for_)) = self.hang.judge(node, process, now)
                && life.family.signal(pid, Signal::KILL)
            {
                self.hung += 1;
                let (id, for_) = (&node.id, clock::span(for_.as_secs()));
                lines.push(format!(
                    "{} node {id} has hung for {for_}: its process {pid} is ended (SIGKILL)",
                    clock::now()
                ));
            }
            let silent =
                *reports && node.last_report_at.is_none() && now.saturating_duration_since(self.began) >= FIRST_REPORT;
            if silent {
                lost = Some(format!("node {} has not reported once in {} s", node.id, FIRST_REPORT.as_secs()));
            } else if is_lost(node, process, *within, self.began, now) {
                lost = Some(format!("node {} does not come back", node.id));
            }
        }
        let stopped = life.family.process(life.root()) == Process::Stopped;
        self.dora_stopped = self.dora_stopped.filter(|_| stopped).or(stopped.then_some(now));
        if self.dora_stopped.is_some_and(|since| self.hang.is_too_long(since, now)) {
            lost = Some(format!("dora's process {} is stopped (SIGSTOP)", life.root()));
        }
        lines.iter().for_each(|line| self.view.alarm(line));
        for line in self.cameras.update(&self.nodes) {
            self.view.say(&line);
        }
        if let (Some(why), Some(life)) = (lost, &mut self.life) {
            if self.dora_stopped.is_some() {
                life.family.kill();
            }
            life.stop(PATIENT);
            self.done(&format!("{why}: the graph is ended, to be started again"));
            self.why = Some(why);
        }
    }

    /// dora has ended. The exit code, where there is nothing left to do.
    fn ended(&mut self, status: ExitStatus, now: Instant) -> Option<ExitCode> {
        while let Some(status) = self.life.as_mut().and_then(Life::rest) {
            self.take(status);
        }
        if let Some(mut life) = self.life.take() {
            life.sweep();
        }
        let mut reporting = self.nodes.iter().zip(&self.reports).filter(|(_, reports)| **reports).peekable();
        let is_done = |node: &Totals| node.last_report_at.is_some() && node.state() == Some(State::Done);
        if self.why.is_none()
            && status.success()
            && reporting.peek().is_some()
            && reporting.all(|(node, _)| is_done(node))
        {
            self.done("the graph has done its work, and is not started again");
            return Some(ExitCode::SUCCESS);
        }
        let why = self.why.take().unwrap_or_else(|| format!("dora ended with {status}"));
        self.wait(format!("the graph has ended: {why}"), now);
        None
    }

    fn wait(&mut self, why: String, now: Instant) {
        let wait = self.back_off.ended(self.began, now);
        self.done(&format!("{why}; it is started again in {} s", wait.as_secs()));
        self.why = Some(why);
    }

    /// Tells the service manager how the graph is.
    fn tell(&mut self, now: Instant) {
        let Some(life) = &self.life else {
            self.notify.status(format!("waits to start the graph again: {}", self.why.as_deref().unwrap_or_default()));
            // the wait is this program's work
            self.notify.well(now);
            return;
        };
        let reporting: Vec<&Totals> =
            self.nodes.iter().zip(&self.reports).filter(|(_, reports)| **reports).map(|(node, _)| node).collect();
        let has_come = |node: &Totals| node.last_report_at.is_some() && node.state() != Some(State::Opening);
        let works = |node: &Totals| has_come(node) && node.should_run() && node.vital == Vital::Well;
        // one that has ended, and that dora starts again, hangs nowhere
        let hangs = |node: &Totals| match node.vital {
            Vital::Well => node.last_report_at.is_none(),
            Vital::Silent(_) => node.process_gone.is_none(),
            Vital::Stuck(_) | Vital::Gone(_) => true,
        };
        let well = !life.is_stopping() && self.dora_stopped.is_none() && !reporting.iter().any(|node| hangs(node));
        let (all, working) = (reporting.len(), reporting.iter().filter(|node| works(node)).count());
        let ready = reporting.iter().all(|node| has_come(node));
        let cameras = Some(self.cameras.counts()).filter(|counts| !counts.is_empty());
        let cameras = cameras.map_or(String::new(), |counts| format!("cameras: {counts}; "));
        self.notify.status(format!("{working} of {all} nodes work; {cameras}{}", self.counts()));
        if ready {
            self.notify.ready();
        }
        if well {
            self.notify.well(now);
        }
    }

    fn stop(&mut self, signals: &Signals) -> anyhow::Result<()> {
        self.notify.stopping();
        let Some(mut life) = self.life.take() else { return Ok(()) };
        life.stop(HURRY);
        while life.look(Instant::now())?.is_none() {
            if signals.count() > 1 {
                life.family.kill();
            }
            if let Some(status) = life.next(IDLE) {
                self.take(status);
            }
        }
        while let Some(status) = life.rest() {
            self.take(status);
        }
        Ok(())
    }

    /// Says what became of it all.
    fn end(mut self, code: ExitCode) -> ExitCode {
        let ends: Vec<String> = self.nodes.iter().map(|node| end_of(node, false)).collect();
        let end = End { ends, elapsed: self.start.elapsed(), code: None, more: vec![self.counts()] };
        self.view.summary(&self.nodes, &self.cameras, &end);
        code
    }

    /// What was done so far.
    fn counts(&self) -> String {
        let Self { starts, again, hung, .. } = self;
        format!(
            "starts of the graph: {starts}; of single nodes: {again} more; processes that hung and were ended: {hung}"
        )
    }
}
