//! What a node knows of the graph around it.

use crate::gpu::Sync;
use crate::inputs::port_of;
use crate::metrics::Metrics;
use millrace_cuda::Waker;
use millrace_pool::Flow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Given to [`crate::Node::open`]; cheap to clone.
#[derive(Clone, Debug)]
pub struct Context {
    pub(crate) node: Arc<str>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: StopFlag,
    pub(crate) connected: Arc<[String]>,
    pub(crate) flow: Flow,
    pub(crate) waker: Waker,
    pub(crate) slots: u32,
    pub(crate) restarts: u64,
    /// `SYNC: host`, for all queues of the node.
    pub(crate) sync: Arc<AtomicBool>,
}

impl Context {
    /// The node's id in the graph.
    pub fn node_id(&self) -> &str {
        &self.node
    }

    /// Counters and histograms, to use from any thread.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Set when the dataflow stops; threads of the node watch it.
    pub fn stopping(&self) -> StopFlag {
        self.stop.clone()
    }

    /// Who waits for whom on this node's outputs, and so most likely in the whole graph, as the node started.
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// How often dora has started the node again: what it wrote before is there.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Wakes the node's loop, from any thread: what it then finds to do is [`Node::produce`](crate::Node::produce)'s.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Slots of each camera's pool that this node fills: `SLOTS`.
    pub fn slots(&self) -> usize {
        self.slots as usize
    }

    /// From the next frame on, all queues of the node publish so: for [`Node::change`](crate::Node::change).
    pub fn set_sync(&self, sync: Sync) {
        self.sync.store(sync == Sync::Host, Ordering::Relaxed);
    }

    /// The graph connects this input port.
    pub fn input_connected(&self, port: &str) -> bool {
        self.connected.iter().any(|input| port_of(input) == port)
    }

    /// Says something that a user wants to see once, such as the address of a page.
    pub fn note(&self, text: String) {
        tracing::info!("{text}");
        self.metrics.note(text);
    }
}

/// A stop, seen from any thread.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// The dataflow stops.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
