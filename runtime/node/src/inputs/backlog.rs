//! The backlog of a camera at an input port: the pools that its frames wait in, and its share of the port.

use super::accept::{accept, described};
use super::frame_lease::Input;
use super::{Bounds, Counts};
use crate::node::{Order, PortIn};
use millrace_pool::{Flow, PollResult, Reader};
use std::collections::VecDeque;

/// Tickets that are looked at in one turn.
const MOST_LOOKS: usize = 1 << 17;

/// The frames of one camera that wait at one input port, as one producer publishes them.
pub(super) struct CameraBacklog {
    pub(super) source: String,
    /// The index of its connection in the port.
    pub(super) connection: usize,
    /// Its pools, the oldest first: each is read to its end before the next.
    pools: VecDeque<BacklogPool>,
    weight: f64,
    /// Frames that were served, divided by the weight. The camera with the least is served next.
    served: f64,
    /// It had no frame at the last look. An idle camera does not save up a share for later.
    idle: bool,
}

struct BacklogPool {
    reader: Reader,
    /// The directory that listed it.
    directory: u128,
    /// The producer is dead: nothing more will be published.
    orphaned: bool,
}

impl BacklogPool {
    /// Nothing will be published in it any more.
    fn is_ending(&self) -> bool {
        self.orphaned || self.reader.is_closed()
    }
}

impl CameraBacklog {
    pub(super) fn new(source: String, connection: usize) -> Self {
        Self { source, connection, pools: VecDeque::new(), weight: 1.0, served: 0.0, idle: true }
    }

    pub(super) fn push(&mut self, reader: Reader, directory: u128) {
        self.pools.push_back(BacklogPool { reader, directory, orphaned: false });
    }

    pub(super) fn reads(&self, pool: u128) -> bool {
        self.pools.iter().any(|p| p.reader.pool() == pool)
    }

    pub(super) fn is_over(&self) -> bool {
        self.pools.is_empty()
    }

    pub(super) fn set_weight(&mut self, weight: f32) {
        let weight = f64::from(weight);
        self.weight = if weight.is_finite() && weight > 0.0 { weight.clamp(1e-3, 1e3) } else { 1.0 };
    }

    /// The producer behind `directory` is dead. Returns whether it published in the memory of a GPU.
    pub(super) fn orphan(&mut self, directory: u128) -> bool {
        let mut on_gpu = false;
        for pool in self.pools.iter_mut().filter(|p| p.directory == directory) {
            pool.orphaned = true;
            on_gpu |= pool.reader.is_on_gpu();
        }
        on_gpu
    }

    /// Publications that nobody has looked at yet.
    pub(super) fn waiting(&self) -> u64 {
        self.pools.iter().map(|p| p.reader.pending()).sum()
    }

    /// Nothing will be published in it any more.
    pub(super) fn is_ending(&self) -> bool {
        self.pools.iter().all(BacklogPool::is_ending)
    }

    /// Its place in the order of service, where `now` is the port's.
    pub(super) fn place(&mut self, waiting: bool, now: f64) -> Option<f64> {
        if !waiting {
            self.idle = true;
            return None;
        }
        if std::mem::take(&mut self.idle) {
            self.served = self.served.max(now);
        }
        Some(self.served)
    }

    /// Counts one frame of service, and returns the place that it had before.
    pub(super) fn serve(&mut self) -> f64 {
        let before = self.served;
        self.served += 1.0 / self.weight;
        before
    }

    /// Removes pools that have come to their end, and returns their ids.
    pub(super) fn sweep(&mut self) -> Vec<u128> {
        let mut over = Vec::new();
        // at each wake-up of the node, for each camera: nothing is allocated where no pool is over
        self.pools.retain(|p| {
            let is_over = p.reader.pending() == 0 && p.is_ending() && p.reader.pending() == 0;
            if is_over {
                over.push(p.reader.pool());
            }
            !is_over
        });
        over
    }

    /// Leases the oldest frame that is within the bounds. What is outside of them is lost, counted by cause.
    pub(super) fn take(&mut self, spec: &'static PortIn, bounds: Bounds, counts: &Counts) -> Option<Input> {
        let Counts { metrics, exchange } = counts;
        for pool in &mut self.pools {
            let live = pool.reader.flow() == Flow::Live;
            let most = (live && spec.order == Order::Newest).then(|| bounds.waiting(pool.reader.slots()));
            let passed = pool.reader.pass_over();
            if passed > 0 {
                metrics.drop_port("gone", spec.name, &self.source, passed);
            }
            // a producer that is faster than this loop gets the next turn
            for _ in 0..MOST_LOOKS {
                let next = pool.reader.poll();
                let too_many = most.is_some_and(|most| pool.reader.pending() >= most);
                match next {
                    PollResult::Frame(_) | PollResult::Gone(_) if too_many => {
                        metrics.drop_port("backlog", spec.name, &self.source, 1);
                    }
                    PollResult::Frame(lease) => {
                        let Some(item) = described(spec, &self.source, &lease, metrics) else { continue };
                        let max_age_ns = bounds.max_age_ns(spec.order, item.payload.kind()).filter(|_| live);
                        let is_late = max_age_ns.is_some_and(|max_ns| item.timing.under_way_ns() > max_ns);
                        if is_late && item.timing.arrival_ns != 0 {
                            metrics.drop_port("late", spec.name, &self.source, 1);
                            continue;
                        }
                        if let Some(input) = accept(spec, lease, item, metrics, *exchange) {
                            return Some(input);
                        }
                    }
                    PollResult::Gone(_) => metrics.drop_port("gone", spec.name, &self.source, 1),
                    PollResult::Empty | PollResult::End => break,
                }
            }
        }
        None
    }
}
