//! What a node knows of the graph around it.

use crate::error::NodeError;
use crate::gpu::SyncMode;
use crate::inputs::port_of;
use crate::metrics::Metrics;
use millrace_cuda::{Gpu, Waker};
use millrace_pool::Flow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

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
    /// The GPU that the node's frames will be on, by its number.
    pub(crate) frames_on: Arc<OnceLock<u32>>,
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
    pub fn set_sync(&self, sync: SyncMode) {
        self.sync.store(sync == SyncMode::Host, Ordering::Relaxed);
    }

    /// The node's images and tensors will be on `gpu`, so that its consumers get ready for them before the first one
    /// comes. To be called in [`Node::open`](crate::Node::open), once.
    pub fn frames_are_on(&self, gpu: &Gpu) {
        // a second GPU is not announced: its first frame is
        let _ = self.frames_on.set(gpu.ordinal());
    }

    /// Ends the node's set-up: its libraries are loaded, and nothing that strangers send was read. From here on, a node with
    /// a [`Sandbox`](crate::Sandbox) is in it. To be called in [`Node::open`](crate::Node::open), once.
    ///
    /// # Errors
    /// `SANDBOX` is `required`, and the machine does not have all of it.
    pub fn seal(&self) -> Result<(), NodeError> {
        crate::sandbox::seal()
    }

    /// The graph connects this input port.
    pub fn input_connected(&self, port: &str) -> bool {
        self.connected.iter().any(|input| port_of(input) == port)
    }

    /// Says something that a user wants to see once, such as the address of a page.
    pub fn note(&self, text: String) {
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
