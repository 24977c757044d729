//! The output side: slots to write, publications, and the waits for consumers.

mod pools;
mod waiting;

use crate::context::StopFlag;
use crate::directory::{Directory, Listing, Published};
use crate::error::NodeError;
use crate::gpu::{GpuKeepAlive, Queue, SyncMode};
use crate::link::{Link, Signal, Topology};
use crate::metrics::Metrics;
use crate::node::{PortOut, Ports};
use crate::settings::{CommonSettings, Doorbell, Exchange, Handover};
use arrow::array::StructArray;
use millrace_cuda::Span;
use millrace_frame::wire::{compact, row};
use millrace_frame::{CameraStatus, Detections, Device, Fence, Item, Payload, PayloadKind, Timing};
use millrace_pool::{Flow, MemorySpec, Slot};
use pools::CameraPools;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
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
    pools_made: u64,
    common: CommonSettings,
    metrics: Metrics,
    stop: StopFlag,
    keep_alive: GpuKeepAlive,
    /// What the node's directories say of cameras.
    cameras: BTreeMap<String, CameraStatus>,
    /// What the node waits for before it has cameras.
    waits: String,
    /// Where images and tensors will be, as far as the node knows when it opens.
    pub(crate) device: Device,
}

struct Port {
    spec: &'static PortOut,
    consumers: Vec<String>,
    /// `None` where the graph has no consumer for the port.
    directory: Option<Directory>,
    /// The pools of each camera.
    cameras: BTreeMap<Arc<str>, CameraPools>,
    /// The directory does not show yet what has changed.
    unlisted: bool,
    /// Some camera has a closed pool, or none any more.
    retiring: bool,
    /// When the directory was last announced by a dora message.
    announced: Instant,
    opened: Instant,
}

/// A slot to write. Dropped unpublished, it goes back to its pool.
#[derive(Debug)]
pub struct SlotMut {
    slot: Slot,
    port: &'static str,
    camera: Arc<str>,
    /// With `EXCHANGE: copy`, what is written here is copied into the slot when it is published.
    apart: Option<Vec<u8>>,
}

impl SlotMut {
    /// The slot's bytes. They still have the contents of an earlier frame.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match &mut self.apart {
            Some(apart) => apart,
            None => self.slot.bytes_mut(),
        }
    }

    /// What the node said of these bytes when it wrote them last, by [`set_contents`](Self::set_contents); 0 where it said
    /// nothing. It is asked for once: what is then left half written says nothing.
    pub fn take_contents(&mut self) -> u64 {
        if self.apart.is_some() { 0 } else { self.slot.take_contents() }
    }

    /// Says what the bytes hold, by a number of the node's own, for when it writes them again.
    pub fn set_contents(&mut self, contents: u64) {
        self.slot.set_contents(contents);
    }
}

/// A slot on a GPU to write. Dropped unpublished, it goes back to its pool.
#[derive(Debug)]
pub struct DeviceSlotMut {
    slot: Slot,
    span: Span,
    port: &'static str,
    camera: Arc<str>,
}

impl DeviceSlotMut {
    /// The slot's address. Work in the queue that the slot was asked for with writes it.
    pub fn span(&self) -> Span {
        self.span
    }

    /// As [`SlotMut::take_contents`].
    pub fn take_contents(&mut self) -> u64 {
        self.slot.take_contents()
    }

    /// As [`SlotMut::set_contents`].
    pub fn set_contents(&mut self, contents: u64) {
        self.slot.set_contents(contents);
    }
}

/// How often each port announces its directory by a dora message: a consumer that was started again knows of nothing, and
/// dora's own tools see that the output lives.
const ANNOUNCE: Duration = Duration::from_millis(500);
/// The same at the start, while a consumer is missing.
const ANNOUNCE_TO_MISSING: Duration = Duration::from_millis(100);
const START: Duration = Duration::from_secs(30);

impl Outputs {
    pub(crate) fn new(
        link: Box<dyn Link>,
        ports: &Ports,
        graph: &Topology,
        common: CommonSettings,
        metrics: Metrics,
        stop: StopFlag,
    ) -> Self {
        let port = |spec: &'static PortOut| Port {
            spec,
            consumers: graph.consumers.get(spec.name).cloned().unwrap_or_default(),
            directory: None,
            cameras: BTreeMap::new(),
            unlisted: false,
            retiring: false,
            announced: Instant::now(),
            opened: Instant::now(),
        };
        Self {
            link,
            signals: VecDeque::new(),
            waited: Duration::ZERO,
            ports: ports.outputs.iter().map(port).collect(),
            node: graph.node.clone(),
            restarts: graph.restarts,
            pools_made: 0,
            common,
            metrics,
            stop,
            keep_alive: GpuKeepAlive::default(),
            cameras: BTreeMap::new(),
            waits: String::new(),
            device: Device::Host,
        }
    }

    /// Reports a camera's state: to every node behind ([`Node::on_camera`](crate::Node::on_camera)), to the node's own
    /// report, and to the log where it has changed. For sources; other nodes pass on what comes in by themselves.
    pub fn camera(&mut self, status: CameraStatus) {
        self.metrics.camera(status.clone(), true);
        self.list_camera(status);
    }

    /// Passes on what another node has reported and logged.
    pub(crate) fn pass_on(&mut self, status: CameraStatus) {
        self.metrics.camera(status.clone(), false);
        self.list_camera(status);
    }

    fn list_camera(&mut self, status: CameraStatus) {
        self.cameras.insert(status.source.clone(), status);
        self.ports.iter_mut().for_each(|port| port.unlisted = true);
    }

    /// Says what the node waits for before it has cameras, such as `waits for a file`; with an empty text, that it waits no
    /// more. Every node behind shows it at the cameras that it knew.
    pub fn waits(&mut self, what: &str) {
        self.waits = what.to_owned();
        self.ports.iter_mut().for_each(|port| port.unlisted = true);
    }

    /// The camera was removed: its pools are closed, and consumers read them to their end.
    pub fn remove_camera(&mut self, source: &str) {
        self.metrics.remove_camera(source);
        self.cameras.remove(source);
        for port in &mut self.ports {
            port.unlisted = true;
            if let Some(camera) = port.cameras.get_mut(source) {
                camera.close();
                port.retiring = true;
            }
            // wakes its consumers to read the end
            port.directory.as_mut().map(Directory::wake);
        }
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
        let acquired = self.acquire(port, source, bytes, &MemorySpec::Host)?;
        Ok(acquired.map(|(slot, camera)| SlotMut { slot, port, camera, apart }))
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
        let Some((slot, camera)) = self.acquire(port, source, bytes, &queue.memory())? else { return Ok(None) };
        slot.follow(queue.stream()).map_err(NodeError::fatal)?;
        let span = slot.span().expect("the pool was made on a GPU");
        Ok(Some(DeviceSlotMut { slot, span, port, camera }))
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
            SyncMode::Device => fence,
            SyncMode::Host => {
                queue.stream().synchronize().map_err(NodeError::fatal)?;
                self.metrics.count("host_syncs", &item.source, 1);
                Fence::Complete
            }
        };
        let DeviceSlotMut { slot, port, camera, .. } = slot;
        self.publish_with(SlotMut { slot, port, camera, apart: None }, &item, None)
    }

    /// Since when the GPU has had the oldest of what is held.
    pub(crate) fn held_since(&self) -> Option<std::time::Instant> {
        self.keep_alive.since()
    }

    /// How long the event loop may sleep before it looks again whether the GPU has done with what is held.
    pub(crate) fn next_look(&self) -> Duration {
        self.keep_alive.next_look()
    }

    /// Keeps something (a lease, a mapped surface) until everything queued so far is done, and drops it then.
    ///
    /// # Errors
    /// Those of the GPU; what was to be kept is dropped after a wait.
    pub fn hold(&mut self, keep: impl Send + 'static, queue: &Queue) -> Result<(), NodeError> {
        self.keep_alive.hold(Box::new(keep), queue).map_err(NodeError::fatal)
    }

    /// Lets go of what the GPU has done with and of pools that nobody reads any more, and tells consumers what has changed.
    pub(crate) fn settle(&mut self) -> Result<(), NodeError> {
        self.let_go();
        for port_index in 0..self.ports.len() {
            self.list(port_index)?;
            self.announce_if_due(port_index);
        }
        self.keep_alive.settle().map_err(NodeError::fatal)
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
        let port_index = self.port_index(slot.port);
        let spec = self.ports[port_index].spec;
        assert_eq!(item.payload.kind(), spec.carries, "output '{}' carries what it declares", spec.name);
        let bytes = compact::item_to_bytes(item).map_err(|e| lost("unencodable", e.to_string()))?;
        if let Some(apart) = slot.apart.take() {
            let len = apart.len().min(item.payload.end_bytes() as usize);
            slot.slot.bytes_mut()[..len].copy_from_slice(&apart[..len]);
            self.metrics.copied(&item.source, item.payload.bytes());
        }
        let camera = self.ports[port_index].cameras.get_mut(&slot.camera);
        let pool = camera.and_then(|camera| camera.pool.as_mut()).ok_or_else(|| {
            lost("unpublishable", format!("camera '{}' was removed while the frame was in work", slot.camera))
        })?;
        let published = pool.publish(slot.slot, &bytes).map_err(|e| lost("unpublishable", e.to_string()))?;
        self.metrics.count_port("out", spec.name, &item.source, 1);
        self.metrics.count_port("bytes_out", spec.name, &item.source, item.payload.bytes());
        let deaf = self.ports[port_index].directory.as_mut().is_some_and(Directory::wake);
        if deaf || self.common.doorbell == Doorbell::Always {
            self.tell(port_index, row::encode(&published, item, found), &item.source);
        }
        match self.common.handover {
            Handover::Event => Ok(()),
            Handover::Blocking => self.await_return(port_index, &slot.camera),
        }
    }

    /// Sends a dora message about a publication to a port's consumers.
    fn tell(&mut self, port_index: usize, message: StructArray, source: &str) {
        let spec = self.ports[port_index].spec;
        self.metrics.count_port("doorbells", spec.name, source, 1);
        // A message that cannot be sent is like one that got lost: the pool has the frame, and the directory has the pool.
        if let Err(e) = self.link.ring(spec.name, message) {
            self.metrics.drop_port("doorbell", spec.name, source, 1);
            self.metrics.warn_sometimes("doorbell", source, || e);
        }
    }

    /// Announces a port's directory by a dora message, from time to time.
    fn announce_if_due(&mut self, port_index: usize) {
        let Port { directory, announced, opened, .. } = &mut self.ports[port_index];
        let Some(directory) = directory else { return };
        let elapsed = announced.elapsed();
        if elapsed < ANNOUNCE_TO_MISSING {
            return;
        }
        // a reader that is no Millrace node is missing for ever
        let starting = opened.elapsed() < START;
        if elapsed >= ANNOUNCE {
            directory.reap();
            self.announce(port_index);
        } else if starting && !directory.missing().is_empty() {
            self.announce(port_index);
        }
    }

    fn announce(&mut self, port_index: usize) {
        let port = &mut self.ports[port_index];
        let Some(directory) = &mut port.directory else { return };
        port.announced = Instant::now();
        directory.wake();
        let device = match port.spec.carries {
            PayloadKind::Image | PayloadKind::Tensor => self.device,
            PayloadKind::Packet | PayloadKind::Detections => Device::Host,
        };
        if let Err(e) = self.link.ring(port.spec.name, row::encode(&directory.locator(), &announcement(device), None)) {
            tracing::debug!("{e}");
        }
    }

    /// Publishes a port's directory, where something has changed.
    fn list(&mut self, port_index: usize) -> Result<(), NodeError> {
        let cameras = &self.cameras;
        let port = &mut self.ports[port_index];
        let Some(directory) = port.directory.as_mut().filter(|_| port.unlisted) else { return Ok(()) };
        let pools = port.cameras.iter().flat_map(|(source, camera)| camera.entries(source)).collect();
        let listing = Listing { pools, cameras: cameras.values().cloned().collect(), waits: self.waits.clone() };
        match directory.publish(&listing)? {
            Published::Yes => port.unlisted = false,
            Published::InNewPool => {
                port.unlisted = false;
                self.announce(port_index);
                return Ok(());
            }
            // tried again at the next look
            Published::NoSlot => return Ok(()),
        }
        directory.wake();
        Ok(())
    }

    /// Who waits for whom on this node's outputs, as it is now.
    pub fn flow(&self) -> Flow {
        self.common.flow.into()
    }

    /// The index of the output `port`.
    ///
    /// # Panics
    /// When the node has no such port.
    fn port_index(&self, port: &str) -> usize {
        self.ports
            .iter()
            .position(|p| p.spec.name == port)
            .unwrap_or_else(|| panic!("the node declares its output '{port}'"))
    }
}

/// The description in a message that announces a directory and no frame: a camera without a name.
fn announcement(device: Device) -> Item {
    Item { device, ..Item::on_host("", 0, Timing::default(), Payload::Detections { len_bytes: 0 }) }
}
