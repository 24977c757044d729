//! Faults, one at a time: begun when they are due, ended, and followed until all is well again.

use super::delivery::{Delivery, Mark};
use super::shell::Shell;
use crate::procs::Family;
use crate::status::{NodeReport, State};
use crate::totals::Totals;
use crate::vitals::Vital;
use millrace_ab::soak::{FaultRecord, ScheduleProgress};
use millrace_frame::{CameraState, unix_ns};
use millrace_graph::schedule::{Action, Blow, Planned, Schedule, Target};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A fault after whose cure not all is well is given up after so many times the bound, and a minute.
const GIVEN_UP: (u32, Duration) = (3, Duration::from_secs(60));
/// A camera's loss is seen when its connection ends, or when it has stalled; a shorter one need not be.
const LEAST_OUTAGE: Duration = Duration::from_secs(4);

/// The time in which a process handles a signal.
const HANDLED: Duration = Duration::from_millis(20);

/// What the injector looks at.
pub(super) struct World<'a> {
    pub(super) nodes: &'a [Totals],
    pub(super) family: &'a Family,
    pub(super) root: u32,
    pub(super) delivery: &'a Delivery,
    pub(super) now: Instant,
    pub(super) measured_s: f64,
    /// When the soak ends, in measured time.
    pub(super) end_s: f64,
}

/// What has become of the fault that goes on.
pub(super) enum News {
    /// It begins; the command that undoes it.
    Begun(String, Option<String>),
    /// It is over.
    Over(FaultRecord),
}

/// All faults of a schedule.
pub(super) struct Injector {
    schedule: Schedule,
    seen: Duration,
    healed: Duration,
    active: Option<Active>,
}

struct Active {
    planned: Planned,
    record: FaultRecord,
    began: Instant,
    began_unix_ns: i64,
    /// The processes that were hit, and the nodes in them.
    pids: Vec<u32>,
    nodes: Vec<String>,
    /// The cameras that were served before.
    cameras: BTreeSet<String>,
    phase: Phase,
}

enum Phase {
    /// Its command runs.
    Beginning(Shell),
    /// It goes on.
    On,
    /// The command that undoes it runs.
    Ending(Shell),
    /// It is cured; once the nodes are well, more has to come than this.
    Healing(Instant, Option<Mark>),
}

impl Injector {
    /// Of a schedule, with the bounds on seeing and healing.
    pub(super) const fn new(schedule: Schedule, seen: Duration, healed: Duration) -> Self {
        Self { schedule, seen, healed, active: None }
    }

    /// A fault goes on, or has not healed.
    pub(super) const fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// The time is that of a fault: from its begin until it has healed, or should have.
    pub(super) fn excuses(&self, now: Instant) -> bool {
        self.active.as_ref().is_some_and(|active| match active.phase {
            Phase::Healing(cured, _) => now.saturating_duration_since(cured) <= self.healed,
            _ => true,
        })
    }

    /// Whether dora was killed on purpose.
    pub(super) fn ended_dora(&self) -> bool {
        let is_dora =
            |active: &Active| matches!(&active.planned.action, Action::Signal(Blow::Kill | Blow::Segv, Target::Dora));
        self.active.as_ref().is_some_and(is_dora)
    }

    /// The graph's reports say something of this node.
    pub(super) fn noticed(&mut self, node: &str, now: Instant) {
        if let Some(active) = self.active.as_mut().filter(|active| active.nodes.iter().any(|id| id == node)) {
            active.see(now.saturating_duration_since(active.began));
        }
    }

    /// The graph has ended.
    pub(super) fn noticed_end(&mut self, now: Instant) {
        if let Some(active) = &mut self.active {
            active.see(now.saturating_duration_since(active.began));
        }
    }

    /// Begins what is due, and goes on with what has begun.
    pub(super) fn turn(&mut self, turn: &mut ScheduleProgress, world: &World<'_>) -> Option<News> {
        match self.active.take() {
            None => {
                let planned = self.due(turn, world)?;
                let active = Active::begin(planned, world, self.seen);
                let undo = match &active.planned.action {
                    Action::Run { undo, .. } => undo.clone(),
                    Action::Signal(..) => None,
                };
                let news = News::Begun(active.planned.name.clone(), undo);
                self.active = Some(active);
                Some(news)
            }
            Some(mut active) => {
                active.look_at_cameras(world);
                let give_up = (self.healed * GIVEN_UP.0).max(GIVEN_UP.1);
                if active.go_on(world, give_up) {
                    return Some(News::Over(active.record));
                }
                self.active = Some(active);
                None
            }
        }
    }

    /// The next fault whose time has come, where the graph is well and the fault ends before the soak does.
    fn due(&self, turn: &mut ScheduleProgress, world: &World<'_>) -> Option<Planned> {
        let faults = &self.schedule.faults;
        let in_turn: Vec<&Planned> = faults.iter().filter(|fault| fault.at.is_none()).collect();
        let mut fixed: Vec<&Planned> = faults.iter().filter(|fault| fault.at.is_some()).collect();
        fixed.sort_by_key(|fault| fault.at);
        let fits =
            |fault: &Planned| world.measured_s + fault.length.as_secs_f64() + self.healed.as_secs_f64() <= world.end_s;
        let well = world.delivery.is_steady() && world.nodes.iter().all(|node| node.last.is_none() || is_well(node));
        let next = usize::try_from(turn.fixed).ok().and_then(|number| fixed.get(number));
        if let Some(fault) = next.filter(|fault| fault.at.is_some_and(|at| at.as_secs_f64() <= world.measured_s)) {
            return (well && fits(fault)).then(|| {
                turn.fixed += 1;
                (*fault).clone()
            });
        }
        let next_s = *turn.next_s.get_or_insert(self.schedule.first.as_secs_f64());
        let number = turn.begun % u64::try_from(in_turn.len()).ok().filter(|count| *count > 0)?;
        let fault = in_turn.get(usize::try_from(number).ok()?)?;
        (world.measured_s >= next_s && well && fits(fault)).then(|| {
            turn.begun += 1;
            turn.next_s = Some(world.measured_s + self.schedule.every.as_secs_f64());
            (*fault).clone()
        })
    }

    /// Ends what goes on, at once: the soak is over.
    pub(super) fn abort(&mut self, family: &Family) {
        let Some(active) = self.active.take() else { return };
        active.pids.iter().for_each(|pid| {
            family.signal(*pid, Signal::CONT);
        });
        if let (Action::Run { undo: Some(undo), .. }, false) =
            (&active.planned.action, matches!(active.phase, Phase::Healing(..)))
        {
            // there is nobody left to whom its failure would matter more than the end
            let _ = Shell::begin(undo).map(Shell::finish);
        }
    }
}

/// It runs, and gives signs of life.
fn is_well(node: &Totals) -> bool {
    node.vital == Vital::Well && node.state() == Some(State::Running) && node.process_gone.is_none()
}

impl Active {
    fn begin(planned: Planned, world: &World<'_>, seen: Duration) -> Self {
        let has_to_be_seen = match &planned.action {
            // a dora that hangs shows when it is needed, and not before
            Action::Signal(Blow::Stop, target) => *target != Target::Dora && planned.length > seen,
            Action::Signal(..) => true,
            Action::Run { .. } => !planned.cameras.is_empty() && planned.length >= LEAST_OUTAGE,
        };
        let record = FaultRecord {
            name: planned.name.clone(),
            at_s: world.measured_s,
            has_to_be_seen,
            ..FaultRecord::default()
        };
        let mut active = Self {
            planned,
            record,
            began: world.now,
            began_unix_ns: unix_ns(),
            pids: Vec::new(),
            nodes: Vec::new(),
            cameras: world.delivery.served(),
            phase: Phase::On,
        };
        match active.planned.action.clone() {
            Action::Signal(blow, target) => active.strike(blow, &target, world),
            Action::Run { command, .. } => match Shell::begin(&command) {
                Ok(shell) => active.phase = Phase::Beginning(shell),
                Err(error) => active.record.trouble = format!("its command cannot be started: {error}"),
            },
        }
        active
    }

    fn strike(&mut self, blow: Blow, target: &Target, world: &World<'_>) {
        let process = |node: &Totals| node.last.as_ref().map_or(0, NodeReport::works_in);
        let pid = match target {
            Target::Dora => world.root,
            Target::Node(id) => world.nodes.iter().find(|node| node.id == *id).map_or(0, process),
        };
        let hit = |node: &&Totals| *target == Target::Dora || process(node) == pid;
        self.nodes = world.nodes.iter().filter(hit).map(|node| node.id.clone()).collect();
        let signal = match blow {
            Blow::Kill => Signal::KILL,
            Blow::Stop => Signal::STOP,
            Blow::Segv => Signal::SEGV,
        };
        let mut struck = world.family.signal(pid, signal);
        if blow == Blow::Segv {
            // Rust's handler looks for an overflow of a stack, and otherwise only puts the default back: the instruction that
            // read what it must not is to fail again. A signal that somebody sent has no such instruction.
            std::thread::sleep(HANDLED);
            struck = world.family.signal(pid, signal) || struck;
        }
        if !struck {
            self.record.trouble = format!("process {pid} is not one of the graph any more");
        }
        // nodes that dora restarts have other processes then
        self.pids = match target {
            Target::Dora if blow != Blow::Stop => self.nodes_pids(world),
            _ => vec![pid],
        };
        if blow != Blow::Stop {
            self.phase = Phase::Healing(world.now, None);
        }
    }

    fn nodes_pids(&self, world: &World<'_>) -> Vec<u32> {
        world.nodes.iter().filter_map(|node| node.last.as_ref()).map(NodeReport::works_in).collect()
    }

    fn see(&mut self, after: Duration) {
        self.record.seen_s.get_or_insert(after.as_secs_f64());
    }

    /// The cameras of the fault are seen to be gone when the last of them is.
    fn look_at_cameras(&mut self, world: &World<'_>) {
        if self.record.seen_s.is_some() || self.planned.cameras.is_empty() {
            return;
        }
        let mut last_ns = self.began_unix_ns;
        for id in &self.planned.cameras {
            match world.delivery.status(id) {
                // a camera whose state was another before the fault tells nothing of it
                Some(status) if status.state != CameraState::Live && status.since_ns >= self.began_unix_ns => {
                    last_ns = last_ns.max(status.since_ns);
                }
                _ => return,
            }
        }
        let so_far = world.now.saturating_duration_since(self.began);
        let after_ns = u64::try_from(last_ns - self.began_unix_ns).unwrap_or(0);
        self.see(Duration::from_nanos(after_ns).min(so_far));
    }

    /// One step on; true at its end.
    fn go_on(&mut self, world: &World<'_>, give_up: Duration) -> bool {
        let phase = std::mem::replace(&mut self.phase, Phase::On);
        self.phase = match phase {
            Phase::Beginning(mut shell) => match shell.outcome() {
                None => Phase::Beginning(shell),
                Some(outcome) => {
                    self.note(outcome, "its command");
                    Phase::On
                }
            },
            Phase::On if world.now.saturating_duration_since(self.began) < self.planned.length => Phase::On,
            Phase::On => self.cure(world),
            Phase::Ending(mut shell) => match shell.outcome() {
                None => Phase::Ending(shell),
                Some(outcome) => {
                    self.note(outcome, "the command that undoes it");
                    self.cured(world.now)
                }
            },
            Phase::Healing(cured, mark) => {
                if mark.as_ref().is_some_and(|mark| world.delivery.is_past(mark)) {
                    self.record.healed_s = Some(world.now.saturating_duration_since(cured).as_secs_f64());
                    return true;
                }
                if world.now.saturating_duration_since(cured) > give_up {
                    return true;
                }
                let mark =
                    mark.or_else(|| self.are_nodes_well(world, cured).then(|| world.delivery.mark(&self.cameras)));
                Phase::Healing(cured, mark)
            }
        };
        false
    }

    fn note(&mut self, outcome: Result<(), String>, what: &str) {
        if let (Err(why), true) = (outcome, self.record.trouble.is_empty()) {
            self.record.trouble = format!("{what} {why}");
        }
    }

    fn cure(&mut self, world: &World<'_>) -> Phase {
        match &self.planned.action {
            Action::Run { undo: Some(undo), .. } => match Shell::begin(undo) {
                Ok(shell) => Phase::Ending(shell),
                Err(error) => {
                    self.record.trouble = format!("the command that undoes it cannot be started: {error}");
                    self.cured(world.now)
                }
            },
            Action::Run { undo: None, .. } => self.cured(world.now),
            Action::Signal(..) => {
                for pid in &self.pids {
                    world.family.signal(*pid, Signal::CONT);
                }
                self.cured(world.now)
            }
        }
    }

    fn cured(&mut self, now: Instant) -> Phase {
        self.record.lasted_s = now.saturating_duration_since(self.began).as_secs_f64();
        Phase::Healing(now, None)
    }

    /// Those that were killed have other processes, and all report that they work.
    fn are_nodes_well(&self, world: &World<'_>, cured: Instant) -> bool {
        let killed = !matches!(self.planned.action, Action::Signal(Blow::Stop, _) | Action::Run { .. });
        let is_new = |node: &Totals| {
            let pid = node.last.as_ref().map_or(0, NodeReport::works_in);
            !killed || !self.pids.contains(&pid)
        };
        let reported = |node: &Totals| node.last_report_at.is_some_and(|last_report_at| last_report_at > cured);
        let hit = |node: &&Totals| self.nodes.contains(&node.id);
        world.nodes.iter().filter(hit).all(|node| is_well(node) && is_new(node) && reported(node))
    }
}

#[cfg(test)]
#[path = "injector_tests.rs"]
mod tests;
