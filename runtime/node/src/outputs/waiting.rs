//! What a producer waits for: a free slot, its consumers at the start, and what they have yet to read at the end.

use super::Outputs;
use super::pools::LIVE_DRAIN;
use crate::error::NodeError;
use crate::link::Signal;
use millrace_pool::{Flow, MemorySpec, Slot};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// While it waits for a consumer, a producer announces itself this often, and looks whether that one is dead.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The most that a wait for a slot delays a stop.
const STOP_DELAY: Duration = Duration::from_millis(20);
/// How long a producer that hands over by blocking waits for its consumers.
const HANDOVER_LIMIT: Duration = Duration::from_secs(2);

impl Outputs {
    /// A free slot in the pool of camera `source`. In live flow `None`: the frame is lost, and counted.
    pub(super) fn acquire(
        &mut self,
        port: &'static str,
        source: &str,
        bytes: u64,
        memory: &MemorySpec,
    ) -> Result<Option<(Slot, Arc<str>)>, NodeError> {
        let port_index = self.port_index(port);
        let Some(name) = self.ensure_pool(port_index, source, bytes, memory)? else {
            self.metrics.drop_port("pool_budget", port, source, 1);
            self.metrics.warn_sometimes("pool_budget", source, || {
                format!(
                    "output '{port}', camera '{source}': POOL_MIB has no room for its pool; raise it, or lower SLOTS"
                )
            });
            return Ok(None);
        };
        let live = self.flow() == Flow::Live;
        let mut timer = WaitTimer::default();
        loop {
            if let Some(slot) = self.free_slot(port_index, &name) {
                return Ok(Some((slot, name)));
            }
            if live || timer.is_due() {
                let camera = self.ports[port_index].cameras.get_mut(&name).and_then(|camera| camera.pool.as_mut());
                let (dead, missing) = camera.map(|pool| (pool.reap(false), pool.expected())).unwrap_or_default();
                if let Some(slot) = self.free_slot(port_index, &name) {
                    return Ok(Some((slot, name)));
                }
                if live {
                    if !self.leave_stuck_consumers(port_index, &name, bytes, memory)? {
                        self.metrics.drop_port("pool_full", port, source, 1);
                        return Ok(None);
                    }
                    continue;
                }
                self.give_up_on(port, &dead, &missing, &timer)?;
                self.announce(port_index);
            }
            self.wait(port_index, &name)?;
        }
    }

    fn free_slot(&mut self, port_index: usize, name: &Arc<str>) -> Option<Slot> {
        let camera = self.ports[port_index].cameras.get_mut(name)?;
        camera.pool.as_mut()?.acquire()
    }

    /// Gives a camera a new pool where the consumers that lease every slot of the present one have not moved for
    /// `LEASE_TIMEOUT_MS`. They keep what they hold, in the old pool, and hold up nobody.
    fn leave_stuck_consumers(
        &mut self,
        port_index: usize,
        name: &Arc<str>,
        bytes: u64,
        memory: &MemorySpec,
    ) -> Result<bool, NodeError> {
        let limit = Duration::from_millis(self.common.lease_timeout_ms);
        let stuck = self.ports[port_index].cameras.get_mut(name).is_some_and(|camera| camera.is_stuck(limit));
        if !stuck {
            return Ok(false);
        }
        let port = self.ports[port_index].spec.name;
        self.metrics.count_port("lease_timeouts", port, name, 1);
        self.metrics.warn_sometimes("lease_timeouts", name, || {
            let ms = limit.as_millis();
            format!("output '{port}', camera '{name}': its consumers have held every slot for {ms} ms without a sign of life; they keep these slots, and a new pool is used")
        });
        self.replace_pool(port_index, name, bytes, memory)
    }

    /// `HANDOVER: blocking`: waits until every consumer has given everything back. One that keeps a frame longer than
    /// [`HANDOVER_LIMIT`], or has died, is not waited for: that is counted.
    pub(super) fn await_return(&mut self, port_index: usize, name: &Arc<str>) -> Result<(), NodeError> {
        let began = Instant::now();
        self.metrics.count("handover_waits", name, 1);
        while let Some(pool) = self.ports[port_index].cameras.get_mut(name).and_then(|camera| camera.pool.as_mut()) {
            if pool.behind().is_empty() {
                break;
            }
            if began.elapsed() >= HANDOVER_LIMIT {
                pool.reap(false);
                self.metrics.count("handover_timeouts", name, 1);
                break;
            }
            self.wait(port_index, name)?;
        }
        self.metrics.observe_ns("handover", name, began.elapsed().as_nanos() as u64);
        Ok(())
    }

    /// Closes every pool and waits until its consumers have read what is in it: in lossless flow for as long as they live,
    /// in live flow for a few seconds. A stop cuts both short.
    pub(crate) fn finish(&mut self) -> Result<(), NodeError> {
        self.keep_alive.finish().map_err(NodeError::fatal)?;
        self.close_pools();
        let mut timer = WaitTimer::default();
        for port_index in 0..self.ports.len() {
            while !self.stop.is_set() {
                let port = self.ports[port_index].spec.name;
                let due = timer.is_due();
                let (mut dead, mut missing) = (Vec::new(), Vec::new());
                let mut unread = None;
                for (name, camera) in &mut self.ports[port_index].cameras {
                    camera.retired.retain_mut(|(pool, _)| {
                        if due {
                            dead.extend(pool.reap(false));
                            missing.extend(pool.expected());
                        }
                        !pool.behind().is_empty()
                    });
                    if !camera.retired.is_empty() {
                        unread.get_or_insert_with(|| name.clone());
                    }
                }
                let Some(name) = unread else { break };
                if due {
                    self.announce(port_index);
                }
                if self.flow() == Flow::Lossless {
                    self.give_up_on(port, &dead, &missing, &timer)?;
                } else if timer.total() > LIVE_DRAIN {
                    self.count_unread(port_index);
                    break;
                }
                self.wait(port_index, &name)?;
            }
        }
        self.close_directories();
        Ok(())
    }

    fn count_unread(&self, port_index: usize) {
        let port = &self.ports[port_index];
        for (name, camera) in &port.cameras {
            for (consumer, tickets, _) in camera.retired.iter().flat_map(|(pool, _)| pool.behind()) {
                self.metrics.drop_port("unread_at_end", port.spec.name, name, tickets);
                tracing::warn!(
                    "output '{}', camera '{name}': {consumer} left {tickets} unread at the end",
                    port.spec.name
                );
            }
        }
    }

    /// Waits until every consumer that the graph names has attached to the port.
    pub(super) fn await_consumers(&mut self, port_index: usize) -> Result<(), NodeError> {
        let mut timer = WaitTimer::default();
        while let Some(directory) = &self.ports[port_index].directory {
            let missing = directory.missing();
            if missing.is_empty() {
                break;
            }
            // a producer that failed at its start has closed the inputs, and dora sends no stop to a node without inputs
            if self.has_nothing_to_do() {
                return Err(NodeError::stopped());
            }
            if timer.is_due() {
                let (name, ms) = (self.ports[port_index].spec.name, self.common.start_timeout_ms);
                if self.flow() == Flow::Lossless {
                    self.give_up_on(name, &[], &missing, &timer)?;
                } else if timer.total().as_millis() > u128::from(ms) {
                    let names = missing.join(", ");
                    tracing::warn!(
                        "output '{name}': going on without {names}, which did not begin to read within {ms} ms"
                    );
                    break;
                }
                self.announce(port_index);
            }
            self.listen(STOP_DELAY)?;
        }
        Ok(())
    }

    /// Every input has closed before anything was announced on it.
    fn has_nothing_to_do(&self) -> bool {
        let mut closed = false;
        for signal in &self.signals {
            match signal {
                Signal::Announced { .. } => return false,
                Signal::AllClosed => closed = true,
                _ => {}
            }
        }
        closed
    }

    /// In lossless flow the dead and those who never came are waited for, but not for ever.
    fn give_up_on(&self, port: &str, dead: &[String], missing: &[String], timer: &WaitTimer) -> Result<(), NodeError> {
        let longer_than = |ms: u64| timer.total().as_millis() > u128::from(ms);
        if !dead.is_empty() && longer_than(self.common.restart_timeout_ms) {
            return Err(NodeError::fatal(format!(
                "output '{port}': {} crashed and was not started again within {} ms; its frames cannot be delivered (lossless flow). Repair that node, give it a restart_policy, or raise RESTART_TIMEOUT_MS",
                dead.join(", "),
                self.common.restart_timeout_ms
            )));
        }
        if !missing.is_empty() && longer_than(self.common.start_timeout_ms) {
            return Err(NodeError::fatal(format!(
                "output '{port}': {} did not begin to read within {} ms; see its own errors, or raise START_TIMEOUT_MS",
                missing.join(", "),
                self.common.start_timeout_ms
            )));
        }
        Ok(())
    }

    /// Waits a moment for a camera's consumers to do something, and for a stop.
    fn wait(&mut self, port_index: usize, name: &Arc<str>) -> Result<(), NodeError> {
        let began = Instant::now();
        self.settle()?;
        let camera = self.ports[port_index].cameras.get(name);
        let pool = camera.and_then(|camera| camera.pool.as_ref().or(camera.retired.first().map(|(pool, _)| pool)));
        if let Some(pool) = pool {
            pool.wait(STOP_DELAY);
        }
        self.waited += began.elapsed();
        self.listen(Duration::ZERO)
    }

    /// Puts what dora says aside for the event loop, and acts on a stop at once.
    fn listen(&mut self, pause: Duration) -> Result<(), NodeError> {
        self.metrics.beat();
        std::thread::sleep(pause);
        loop {
            match self.link.next() {
                Signal::Quiet => break,
                Signal::Stop => {
                    self.stop.set();
                    self.signals.push_back(Signal::Stop);
                    break;
                }
                signal => self.signals.push_back(signal),
            }
        }
        if self.stop.is_set() { Err(NodeError::stopped()) } else { Ok(()) }
    }
}

/// The time that a wait has lasted, and when the wait last looked at its consumers.
#[derive(Debug, Default)]
pub(super) struct WaitTimer {
    since: Option<Instant>,
    looked: Option<Instant>,
}

impl WaitTimer {
    fn total(&self) -> Duration {
        self.since.map(|at| at.elapsed()).unwrap_or_default()
    }

    /// `true` once in each [`LOOK_AGAIN`] of waiting.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if now - self.looked.unwrap_or(since) < LOOK_AGAIN {
            return false;
        }
        self.looked = Some(now);
        true
    }
}
