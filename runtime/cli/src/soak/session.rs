//! A soak while it runs: the graph, its reports, the faults, the samples, and the record that comes of it.

use super::balance::Balances;
use super::delivery::Delivery;
use super::injector::{Injector, News, World};
use super::sample::Sampler;
use super::store::Store;
use crate::cameras::Cameras;
use crate::life::{BackOff, Launch, Life, comes_back_within, is_lost};
use crate::out::errln;
use crate::run::{HURRY, PATIENT};
use crate::signals::Signals;
use crate::status::{NodeReport, State};
use crate::totals::{LOOK, Totals};
use crate::trial::gpu::Probe;
use crate::vitals::Vitals;
use millrace_ab::soak::Soak;
use millrace_graph::check::Checked;
use millrace_graph::schedule::Schedule;
use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// How often the record is stored.
const SAVED: Duration = Duration::from_secs(30);
/// How often the cameras' time is accounted for and the fault that goes on is looked at: nodes report half as often.
const ACCOUNTED: Duration = Duration::from_millis(250);
/// How often what nodes gave is compared with what others received.
const BALANCED: Duration = Duration::from_secs(1);
/// Reasons of ends that are kept.
const MOST_ENDS: usize = 100;

/// All that a soak consists of.
pub(super) struct Session<'a> {
    launch: &'a Launch<'a>,
    soak: Soak,
    /// Measured time when this part of the soak began, and when that was.
    base: (f64, Instant),
    nodes: Vec<Totals>,
    /// How long each may take to come back.
    comes_back: Vec<Duration>,
    cameras: Cameras,
    vitals: Vitals,
    delivery: Delivery,
    balances: Balances,
    sampler: Sampler,
    injector: Injector,
    lost_before: BTreeMap<String, BTreeMap<String, u64>>,
    life: Option<Life>,
    began_life: Instant,
    back_off: BackOff,
    looked: Instant,
    accounted: Instant,
    balanced: Instant,
    saved: Instant,
    /// Why the graph is ended although the soak goes on.
    ending: Option<String>,
    quiet: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(launch: &'a Launch<'a>, checked: &Checked, soak: Soak, schedule: Schedule, quiet: bool) -> Self {
        let graph = launch.graph;
        let healed = Duration::from_secs_f64(soak.asked.healed_s);
        let now = Instant::now();
        Self {
            launch,
            base: (soak.measured_s, now),
            nodes: graph.nodes.iter().map(|node| Totals::new(&node.id.value)).collect(),
            comes_back: graph.nodes.iter().map(comes_back_within).collect(),
            cameras: Cameras::default(),
            vitals: Vitals::default(),
            delivery: Delivery::new(graph, &soak.cameras, healed),
            balances: Balances::new(graph, soak.balances.clone()),
            sampler: Sampler::new(Probe::of_checked(&checked.nodes), soak.measured_s),
            injector: Injector::new(schedule, Duration::from_secs_f64(soak.asked.seen_s), healed),
            lost_before: soak.lost.clone(),
            life: None,
            began_life: now,
            back_off: BackOff::new(now),
            looked: now,
            accounted: now,
            balanced: now,
            saved: now,
            ending: None,
            quiet,
            soak,
        }
    }

    /// Runs until the time is over or somebody asks to stop; the graph has ended then.
    pub(super) fn run(&mut self, store: &Store, signals: &Signals) -> anyhow::Result<()> {
        loop {
            let now = Instant::now();
            self.soak.measured_s = self.base.0 + now.saturating_duration_since(self.base.1).as_secs_f64();
            let is_over = self.soak.measured_s >= self.soak.asked.seconds && !self.injector.is_active();
            if is_over || signals.count() > 0 {
                self.soak.complete = is_over;
                break;
            }
            self.keep_alive(now)?;
            self.receive();
            let now = Instant::now();
            if now - self.looked >= LOOK {
                self.looked = now;
                self.look(now, store)?;
            }
            if now - self.saved >= SAVED {
                self.saved = now;
                self.record();
                store.save(&self.soak)?;
            }
        }
        if let Some(life) = &self.life {
            self.injector.abort(&life.family);
        }
        self.soak.pending_undo = None;
        self.record();
        store.save(&self.soak)?;
        self.stop()
    }

    /// The record, once it is over.
    pub(super) fn end(self) -> Soak {
        self.soak
    }

    fn say(&mut self, line: String) {
        if !self.quiet {
            errln!("{line}");
        }
        self.soak.event(line);
    }

    /// Starts the graph where it does not run.
    fn keep_alive(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.life.is_some() || !self.back_off.is_due(now) {
            // a loop without a graph has nothing to wait for
            if self.life.is_none() {
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        let life = Life::begin(self.launch)?;
        self.soak.starts += 1;
        let log = life.log.display().to_string();
        (self.life, self.began_life) = (Some(life), now);
        self.say(format!("{} the graph is started; dora's log is {log}", crate::clock::now()));
        Ok(())
    }

    fn receive(&mut self) {
        let until = Instant::now() + Duration::from_millis(50);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Some(status) = self.life.as_mut().and_then(|life| life.next(left)) else { break };
            self.take(status);
        }
    }

    fn take(&mut self, status: NodeReport) {
        let now = Instant::now();
        let error = status.error.clone().filter(|_| matches!(status.state, State::Failed | State::Incomplete));
        let Some(at) = self.nodes.iter().position(|node| node.id == status.node) else { return };
        let restart = self.nodes[at].take(status, now);
        let node = &self.nodes[at];
        let id = node.id.clone();
        if let Some(restart) = restart {
            self.delivery.restarted(node, now);
            self.injector.noticed(&id, now);
            if let Some(life) = &self.life {
                let line = self.vitals.restarted(&id, restart, &life.log);
                // the processes of an earlier start of the graph ended with it, and the log says nothing of how
                if now.checked_sub(restart.silent).is_some_and(|last_report| last_report >= self.began_life) {
                    self.say(line);
                }
            }
        }
        if let Some(error) = error {
            self.injector.noticed(&id, now);
            self.say(format!("{id}: {error}"));
        }
    }

    /// Everything but the reports.
    fn look(&mut self, now: Instant, store: &Store) -> anyhow::Result<()> {
        if let Some(status) = self.life.as_mut().map(|life| life.look(now)).transpose()?.flatten() {
            self.ended(status, now);
        }
        self.look_at_nodes(now);
        if now - self.accounted >= ACCOUNTED {
            self.accounted = now;
            self.delivery.look(&self.nodes, self.injector.excuses(now), now);
            self.turn(now, store)?;
        }
        if now - self.balanced >= BALANCED {
            self.balanced = now;
            self.balances.look(&self.nodes, self.injector.is_active() || self.life.is_none(), now);
        }
        if self.soak.measured_s - self.sampler.at_s() >= self.soak.rows.every_s
            && let Some(life) = &self.life
        {
            let row = self.sampler.row(&self.nodes, &life.family, life.root(), &self.delivery, self.soak.measured_s);
            self.soak.rows.push(row);
        }
        Ok(())
    }

    fn turn(&mut self, now: Instant, store: &Store) -> anyhow::Result<()> {
        let Some(life) = &self.life else { return Ok(()) };
        let world = World {
            nodes: &self.nodes,
            family: &life.family,
            root: life.root(),
            delivery: &self.delivery,
            now,
            measured_s: self.soak.measured_s,
            end_s: self.soak.asked.seconds,
        };
        match self.injector.turn(&mut self.soak.turn, &world) {
            None => {}
            Some(News::Begun(name, undo)) => {
                self.say(format!("{} fault: {name}", crate::clock::now()));
                if undo.is_some() {
                    // whatever happens to this process, the next one can undo it
                    self.soak.pending_undo = undo;
                    self.record();
                    store.save(&self.soak)?;
                }
            }
            Some(News::Over(fault)) => {
                self.soak.pending_undo = None;
                let when = |what: &str, value: Option<f64>| {
                    value.map_or(format!("not {what}"), |s| format!("{what} after {s:.1} s"))
                };
                let trouble = if fault.trouble.is_empty() { String::new() } else { format!("; {}", fault.trouble) };
                let seen = match fault.seen_s {
                    None if !fault.has_to_be_seen => "not to be seen".to_owned(),
                    seen => when("seen", seen),
                };
                let healed = when("healed", fault.healed_s);
                self.say(format!("{} fault {}: {seen}, {healed}{trouble}", crate::clock::now(), fault.name));
                self.soak.fault(fault);
            }
        }
        Ok(())
    }

    fn look_at_nodes(&mut self, now: Instant) {
        let Some(life) = self.life.as_ref().filter(|life| !life.is_stopping()) else { return };
        let mut lines = Vec::new();
        let mut lost = None;
        for (node, within) in self.nodes.iter_mut().zip(&self.comes_back) {
            let process = life.family.process(node.last.as_ref().map_or(0, NodeReport::works_in));
            if let Some(line) = self.vitals.look(node, process, *within, now) {
                lines.push((node.id.clone(), line));
            }
            if is_lost(node, process, *within, self.began_life, now) {
                lost = Some(node.id.clone());
            }
        }
        for (id, line) in lines {
            self.injector.noticed(&id, now);
            self.say(line);
        }
        for line in self.cameras.update(&self.nodes) {
            self.say(line);
        }
        if let Some(id) = lost.filter(|_| self.ending.is_none()) {
            self.ending = Some(format!("node {id} does not come back"));
            if let Some(life) = &mut self.life {
                life.stop(PATIENT);
            }
        }
    }

    /// The graph has ended by itself, or because a node is lost: it is started again.
    fn ended(&mut self, status: ExitStatus, now: Instant) {
        while let Some(status) = self.life.as_mut().and_then(Life::rest) {
            self.take(status);
        }
        if let Some(mut life) = self.life.take() {
            life.sweep();
        }
        self.injector.noticed_end(now);
        let why = self.ending.take().unwrap_or_else(|| format!("dora ended with {status}"));
        if !self.injector.ended_dora() && self.soak.unasked_ends.len() < MOST_ENDS {
            self.soak.unasked_ends.push(why.clone());
        }
        self.back_off.ended(self.began_life, now);
        self.say(format!("{} the graph has ended: {why}; it is started again", crate::clock::now()));
    }

    /// Takes what is known into the record.
    fn record(&mut self) {
        self.soak.cameras = self.delivery.accounts();
        self.soak.balances = self.balances.found();
        let mut lost = self.lost_before.clone();
        for node in &self.nodes {
            for ((cause, _, camera), count) in node.losses_of_cameras().filter(|((_, _, camera), _)| !camera.is_empty())
            {
                let of_camera = lost.entry(camera.clone()).or_default();
                *of_camera.entry(format!("{}: {cause}", node.id)).or_default() += count;
            }
        }
        self.soak.lost = lost;
    }

    /// Ends the graph.
    fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut life) = self.life.take() else { return Ok(()) };
        // somebody who interrupts it sits and waits
        life.stop(if self.soak.complete { PATIENT } else { HURRY });
        while life.look(Instant::now())?.is_none() {
            // nothing of its end is measured, and nobody may wait for a reader
            let _ = life.next(Duration::from_millis(50));
        }
        Ok(())
    }
}
