//! The output side: slots to write, publications, and the wait for consumers that lossless flow asks for.

mod pools;

use crate::context::StopFlag;
use crate::error::NodeError;
use crate::gpu::{Held, Queue, Sync};
use crate::link::{Link, Signal, Topology};
use crate::metrics::Metrics;
use crate::node::{PortOut, Ports};
use crate::settings::{Common, Doorbell, Exchange, Handover};
use arrow::array::StructArray;
use millrace_cuda::Span;
use millrace_frame::wire::{compact, row};
use millrace_frame::{CameraStatus, Detections, Device, Fence, Item, Payload, Timing};
use millrace_pool::{Flow, Place, Pool, Slot};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// All output ports of a node.
pub struct Outputs {
    pub(crate) link: Box<dyn Link>,
    /// Signals that came while a node waited in here; the harness's loop takes them first.
    pub(crate) signals: VecDeque<Signal>,
    /// How long the node waited in here for its consumers; the harness's loop sets it back.
    pub(crate) waited: Duration,
    ports: Vec<Port>,
    node: String,
    restarts: u64,
    common: Common,
    metrics: Metrics,
    stop: StopFlag,
    held: Held,
}

struct Port {
    spec: &'static PortOut,
    consumers: Vec<String>,
    pool: Option<Pool>,
    /// Outgrown pools that somebody still reads.
    retired: Vec<Pool>,
    pools_made: u64,
    /// Where the pool is.
    place: Place,
    /// When its consumers were last told of something.
    rung: Instant,
}

impl Port {
    /// Drops the outgrown pools that nobody reads. One on a GPU is not freed under its readers: they leave when they have seen its
    /// end and given the last lease back.
    fn let_go(&mut self) {
        self.retired.retain(|pool| !pool.behind().is_empty() || pool.is_mapped());
    }
}

/// A slot to write. Dropped unpublished, it goes back to its pool.
#[derive(Debug)]
pub struct SlotMut {
    slot: Slot,
    port: &'static str,
    /// With `EXCHANGE: copy`, what is written here is copied into the slot when it is published.
    apart: Option<Vec<u8>>,
}

impl SlotMut {
    /// The slot's bytes; what a former frame left stands in them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.apart {
            Some(apart) => apart,
            None => self.slot.bytes_mut(),
        }
    }
}

/// A slot on a GPU to write. Dropped unpublished, it goes back to its pool.
#[derive(Debug)]
pub struct DeviceSlotMut {
    slot: Slot,
    span: Span,
    port: &'static str,
}

impl DeviceSlotMut {
    /// Where it lies. It is written by work in the queue that it was asked for with.
    pub fn span(&self) -> Span {
        self.span
    }
}

/// While it waits for a consumer, a producer rings again this often, and looks whether that one is dead.
const RING_AGAIN: Duration = Duration::from_millis(100);
/// Whatever bells it could ring, a producer sends a dora message this often: the successor of a consumer that died knows
/// of nothing, and dora's own tools see that the output lives.
const TELL_AGAIN: Duration = Duration::from_millis(500);
/// How long a producer that waits for a slot lets a stop wait.
const LISTEN: Duration = Duration::from_millis(20);
/// How long a producer that hands over by blocking waits for its consumers.
const HANDOVER_LIMIT: Duration = Duration::from_secs(2);
/// At the end of a live stream, consumers get this long to read what stands in the pool.
const LIVE_DRAIN: Duration = Duration::from_secs(3);

impl Outputs {
    pub(crate) fn new(
        link: Box<dyn Link>,
        ports: &Ports,
        graph: &Topology,
        common: Common,
        metrics: Metrics,
        stop: StopFlag,
    ) -> Self {
        let port = |spec: &'static PortOut| Port {
            spec,
            consumers: graph.consumers.get(spec.name).cloned().unwrap_or_default(),
            pool: None,
            retired: Vec::new(),
            pools_made: 0,
            place: Place::Host,
            rung: Instant::now(),
        };
        Self {
            link,
            signals: VecDeque::new(),
            waited: Duration::ZERO,
            ports: ports.outputs.iter().map(port).collect(),
            node: graph.node.clone(),
            restarts: graph.restarts,
            common,
            metrics,
            stop,
            held: Held::default(),
        }
    }

    /// Reports a camera's state: to every node behind ([`Node::on_camera`](crate::Node::on_camera)), to the node's own
    /// report and to the log, where it differs from what was reported before. For sources; other nodes pass on what
    /// comes in by themselves.
    pub fn camera(&mut self, status: CameraStatus) {
        self.metrics.camera(status);
    }

    /// The camera was removed: its pools are closed, and nothing more is said of it once its readers are through.
    pub fn remove_camera(&mut self, source: &str) {
        self.metrics.remove_camera(source);
    }

    /// Somebody in this graph reads the port. Where nobody does, the work for it can be left undone.
    pub fn connected(&self, port: &str) -> bool {
        self.ports.iter().any(|p| p.spec.name == port && !p.consumers.is_empty())
    }

    /// The dataflow stops.
    pub fn stopping(&self) -> bool {
        self.stop.is_set()
    }

    /// A free slot of `port` with room for `bytes`, for a frame of camera `source`. In live flow `None` means that every
    /// slot is leased: the frame is lost, counted as `pool_full`. In lossless flow it waits for the slowest consumer.
    ///
    /// # Errors
    /// No memory for the pool; a lossless consumer that stays away; a stop while waiting.
    ///
    /// # Panics
    /// When the node has no such port.
    pub fn slot(&mut self, port: &'static str, source: &str, bytes: u64) -> Result<Option<SlotMut>, NodeError> {
        let apart = (self.common.exchange == Exchange::Copy).then(|| vec![0; bytes as usize]);
        Ok(self.acquire(port, source, bytes, &Place::Host)?.map(|slot| SlotMut { slot, port, apart }))
    }

    /// A free slot of `port` on the GPU of `queue`, as [`slot`](Self::slot) gives one in host memory. Work that is queued
    /// from here on begins after all use of the slot's former frame.
    ///
    /// # Errors
    /// As [`slot`](Self::slot), and those of the GPU.
    ///
    /// # Panics
    /// When the node has no such port.
    pub fn device_slot(
        &mut self,
        port: &'static str,
        source: &str,
        bytes: u64,
        queue: &Queue,
    ) -> Result<Option<DeviceSlotMut>, NodeError> {
        if self.common.exchange == Exchange::Copy {
            return Err(NodeError::fatal(format!(
                "output '{port}': EXCHANGE=copy is for frames in host memory, and this node's lie on a GPU; leave EXCHANGE out, or set MEMORY=host where the node has it"
            )));
        }
        let Some(slot) = self.acquire(port, source, bytes, &queue.place())? else { return Ok(None) };
        slot.follow(queue.stream()).map_err(NodeError::fatal)?;
        let span = slot.span().expect("the pool was made on a GPU");
        Ok(Some(DeviceSlotMut { slot, span, port }))
    }

    /// Publishes a slot that work in `queue` writes, with the event that says when it is complete.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), and those of the GPU.
    pub fn publish_device(&mut self, slot: DeviceSlotMut, mut item: Item, queue: &Queue) -> Result<(), NodeError> {
        item.device = Device::Cuda(queue.gpu().ordinal());
        // also where this process waits itself: the next one to write the slot follows the event
        let fence = slot.slot.mark_ready(queue.stream()).map_err(NodeError::fatal)?;
        item.fence = match queue.sync() {
            Sync::Device => fence,
            Sync::Host => {
                queue.stream().synchronize().map_err(NodeError::fatal)?;
                self.metrics.count("host_syncs", &item.source, 1);
                Fence::Complete
            }
        };
        self.publish_with(SlotMut { slot: slot.slot, port: slot.port, apart: None }, &item, None)
    }

    /// Keeps something (a lease, a mapped surface) until everything queued so far is done, and drops it then.
    ///
    /// # Errors
    /// Those of the GPU; what was to be kept is dropped after a wait.
    pub fn hold(&mut self, keep: impl Send + 'static, queue: &Queue) -> Result<(), NodeError> {
        self.held.hold(Box::new(keep), queue).map_err(NodeError::fatal)
    }

    /// Lets go of what the GPU has done with, and of pools that nobody reads any more.
    pub(crate) fn settle(&mut self) -> Result<(), NodeError> {
        self.ports.iter_mut().for_each(Port::let_go);
        self.held.settle().map_err(NodeError::fatal)
    }

    fn acquire(
        &mut self,
        port: &'static str,
        source: &str,
        bytes: u64,
        place: &Place,
    ) -> Result<Option<Slot>, NodeError> {
        let at = self.at(port);
        self.ensure_pool(at, bytes, place)?;
        let live = self.flow() == Flow::Live;
        let mut waited = Waited::default();
        loop {
            let pool = self.ports[at].pool.as_mut().expect("ensure_pool made it");
            if let Some(slot) = pool.acquire() {
                return Ok(Some(slot));
            }
            if live || waited.is_due() {
                let (dead, missing) = (pool.reap(false), pool.expected());
                if let Some(slot) = pool.acquire() {
                    return Ok(Some(slot));
                }
                if live {
                    self.metrics.drop_port("pool_full", port, source, 1);
                    return Ok(None);
                }
                self.give_up_on(port, &dead, &missing, &waited)?;
                self.ring_again(at);
            }
            self.wait(at)?;
        }
    }

    /// Publishes a written slot and rings the port's consumers.
    pub fn publish(&mut self, slot: SlotMut, item: &Item) -> Result<(), NodeError> {
        self.publish_with(slot, item, None)
    }

    /// Publishes detections on `port`.
    pub fn detections(&mut self, port: &'static str, found: &Detections, timing: Timing) -> Result<(), NodeError> {
        let bytes = compact::detections_to_bytes(found)
            .map_err(|e| NodeError::frame("unencodable", &found.source, format!("frame {}: {e}", found.seq)))?;
        let Some(mut slot) = self.slot(port, &found.source, bytes.len() as u64)? else { return Ok(()) };
        slot.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        let item = Item::of_detections(found, timing, bytes.len() as u32);
        self.metrics.count("boxes", &found.source, found.boxes.len() as u64);
        self.publish_with(slot, &item, Some(found))
    }

    fn publish_with(&mut self, mut slot: SlotMut, item: &Item, found: Option<&Detections>) -> Result<(), NodeError> {
        let lost = |cause, e: String| NodeError::frame(cause, &item.source, format!("frame {}: {e}", item.seq));
        let at = self.at(slot.port);
        let spec = self.ports[at].spec;
        assert_eq!(item.payload.kind(), spec.carries, "output '{}' carries what it declares", spec.name);
        let bytes = compact::item_to_bytes(item).map_err(|e| lost("unencodable", e.to_string()))?;
        if let Some(apart) = slot.apart.take() {
            let len = apart.len().min(item.payload.end_bytes() as usize);
            slot.slot.bytes_mut()[..len].copy_from_slice(&apart[..len]);
            self.metrics.copied(&item.source, item.payload.bytes());
        }
        let pool = self.ports[at].pool.as_mut().expect("the slot came from it");
        let published = pool.publish(slot.slot, &bytes).map_err(|e| lost("unpublishable", e.to_string()))?;
        self.metrics.count_port("out", spec.name, &item.source, 1);
        self.metrics.count_port("bytes_out", spec.name, &item.source, item.payload.bytes());
        let deaf = pool.ring();
        let always = self.common.doorbell == Doorbell::Always;
        if deaf || always || self.ports[at].rung.elapsed() >= TELL_AGAIN {
            self.tell(at, row::encode(&published, item, found), &item.source);
        }
        match self.common.handover {
            Handover::Event => Ok(()),
            Handover::Blocking => self.await_return(at, &item.source),
        }
    }

    /// Sends a dora message to a port's consumers.
    fn tell(&mut self, at: usize, message: StructArray, source: &str) {
        let spec = self.ports[at].spec;
        self.ports[at].rung = Instant::now();
        self.metrics.count_port("doorbells", spec.name, source, 1);
        // A doorbell that cannot be rung is like one that got lost: the pool has the frame, the next bell brings it.
        if let Err(e) = self.link.ring(spec.name, message) {
            self.metrics.drop_port("doorbell", spec.name, source, 1);
            tracing::warn!("{e}");
        }
    }

    /// `HANDOVER: blocking`: waits until every consumer has given everything back. One that keeps a frame longer than
    /// [`HANDOVER_LIMIT`], or has died, is not waited for: that is counted.
    fn await_return(&mut self, at: usize, source: &str) -> Result<(), NodeError> {
        let began = Instant::now();
        self.metrics.count("handover_waits", source, 1);
        while let Some(pool) = self.ports[at].pool.as_mut() {
            if pool.behind().is_empty() {
                break;
            }
            if began.elapsed() >= HANDOVER_LIMIT {
                pool.reap(false);
                self.metrics.count("handover_timeouts", source, 1);
                break;
            }
            self.wait(at)?;
        }
        self.metrics.observe_ns("handover", source, began.elapsed().as_nanos() as u64);
        Ok(())
    }

    /// Closes every pool and waits until its consumers have read what stands in it: in lossless flow for as long as they
    /// live, in live flow for a few seconds. A stop cuts both short.
    pub(crate) fn finish(&mut self) -> Result<(), NodeError> {
        self.held.finish().map_err(NodeError::fatal)?;
        self.close_pools();
        let mut waited = Waited::default();
        for at in 0..self.ports.len() {
            while !self.stop.is_set() {
                let name = self.ports[at].spec.name;
                let due = waited.is_due();
                let (mut dead, mut missing) = (Vec::new(), Vec::new());
                self.ports[at].retired.retain_mut(|pool| {
                    if due {
                        dead.extend(pool.reap(false));
                        missing.extend(pool.expected());
                    }
                    !pool.behind().is_empty()
                });
                if self.ports[at].retired.is_empty() {
                    break;
                }
                if due {
                    self.ring_again(at);
                }
                if self.flow() == Flow::Lossless {
                    self.give_up_on(name, &dead, &missing, &waited)?;
                } else if waited.total() > LIVE_DRAIN {
                    let behind = self.ports[at].retired.iter().flat_map(Pool::behind);
                    for (consumer, tickets, _) in behind {
                        self.metrics.drop_port("unread_at_end", name, "", tickets);
                        tracing::warn!("output '{name}': {consumer} left {tickets} unread at the end");
                    }
                    break;
                }
                self.wait(at)?;
            }
        }
        Ok(())
    }

    /// No port publishes any more; what stands in the pools can still be read.
    pub(crate) fn close_pools(&mut self) {
        for port in &mut self.ports {
            if let Some(mut pool) = port.pool.take() {
                pool.close();
                pool.ring();
                port.retired.push(pool);
            }
        }
    }

    /// Makes a pool for each port that somebody reads, rings its consumers, and waits until they have come. A node takes no
    /// input before: so a graph starts from its sinks, and no frame is lost or gets old while a model is opened.
    pub(crate) fn open_ports(&mut self) -> Result<(), NodeError> {
        for at in 0..self.ports.len() {
            if !self.ports[at].consumers.is_empty() {
                self.make_pool(at, 1, &Place::Host)?; // the first frame gets one of its size
                self.ring_again(at);
            }
        }
        (0..self.ports.len()).try_for_each(|at| self.await_consumers(at))
    }

    /// Waits until every consumer that the graph names has opened the port's pool.
    fn await_consumers(&mut self, at: usize) -> Result<(), NodeError> {
        let mut waited = Waited::default();
        while let Some(pool) = &self.ports[at].pool {
            let missing = pool.expected();
            if missing.is_empty() {
                break;
            }
            if waited.is_due() {
                let (name, ms) = (self.ports[at].spec.name, self.common.start_timeout_ms);
                if self.flow() == Flow::Lossless {
                    self.give_up_on(name, &[], &missing, &waited)?;
                } else if waited.total().as_millis() > u128::from(ms) {
                    let names = missing.join(", ");
                    tracing::warn!(
                        "output '{name}': going on without {names}, which did not begin to read within {ms} ms"
                    );
                    break;
                }
                self.ring_again(at);
            }
            self.wait(at)?;
        }
        Ok(())
    }

    /// In lossless flow the dead and those who never came are waited for, but not for ever.
    fn give_up_on(&self, port: &str, dead: &[String], missing: &[String], waited: &Waited) -> Result<(), NodeError> {
        let longer_than = |ms: u64| waited.total().as_millis() > u128::from(ms);
        if !dead.is_empty() && longer_than(self.common.restart_timeout_ms) {
            return Err(NodeError::fatal(format!(
                "output '{port}': {} crashed and was not started again within {} ms; its frames cannot be delivered (lossless flow). Mend that node, give it a restart_policy, or raise RESTART_TIMEOUT_MS",
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

    /// Waits a moment for a lease to come back, and keeps the node's ears open meanwhile.
    fn wait(&mut self, at: usize) -> Result<(), NodeError> {
        let began = Instant::now();
        self.metrics.beat();
        self.settle()?;
        let port = &self.ports[at];
        if let Some(pool) = port.pool.as_ref().or(port.retired.first()) {
            pool.wait(LISTEN);
        }
        self.waited += began.elapsed();
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

    /// Rings with no new frame to tell of.
    fn ring_again(&mut self, at: usize) {
        let port = &mut self.ports[at];
        let Some(pool) = port.pool.as_mut().or(port.retired.first_mut()) else { return };
        pool.ring();
        if let Err(e) = self.link.ring(port.spec.name, row::encode(&pool.locator(), &nothing(), None)) {
            tracing::debug!("{e}");
        }
    }

    fn flow(&self) -> Flow {
        self.common.flow.into()
    }

    fn at(&self, port: &str) -> usize {
        self.ports
            .iter()
            .position(|p| p.spec.name == port)
            .unwrap_or_else(|| panic!("the node declares its output '{port}'"))
    }
}

/// What a doorbell describes that names a pool and no new frame.
fn nothing() -> Item {
    let timing =
        Timing { pts_ns: 0, timebase: millrace_frame::Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
    Item::on_host("", 0, timing, Payload::Detections { len_bytes: 0 })
}

#[derive(Debug, Default)]
struct Waited {
    since: Option<Instant>,
    looked: Option<Instant>,
}

impl Waited {
    fn total(&self) -> Duration {
        self.since.map(|at| at.elapsed()).unwrap_or_default()
    }

    /// Once every [`RING_AGAIN`] of waiting.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if now - self.looked.unwrap_or(since) < RING_AGAIN {
            return false;
        }
        self.looked = Some(now);
        true
    }
}
