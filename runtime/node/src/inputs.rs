//! The input side: doorbells become leases on frames, in order, with every loss counted.

use crate::NodeError;
use crate::link::Topology;
use crate::metrics::Metrics;
use crate::node::{Order, PortIn, Ports};
use crate::settings::Exchange;
use millrace_cuda::{Gpu, Span, Stream};
use millrace_frame::wire::compact;
use millrace_frame::{Detections, Device, Item, Payload, PayloadKind, SlotRef};
use millrace_pool::{Bell, Flow, Next, PoolError, Reader};
use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One thing that came in.
#[derive(Clone, Debug)]
pub enum Input {
    /// An image, a tensor or a packet, where it lies.
    Frame(Lease),
    /// Detections; their slot is given back already.
    Detections(Detections),
}

impl Input {
    /// The camera that it is of.
    pub fn source(&self) -> &str {
        match self {
            Self::Frame(lease) => &lease.item().source,
            Self::Detections(found) => &found.source,
        }
    }
}

/// The right to read one frame. Cheap to clone; the last clone dropped gives the slot back, so keep it no longer than
/// the work on the frame takes.
#[derive(Clone, Debug)]
pub struct Lease {
    item: Arc<Item>,
    frame: Frame,
}

/// Where a frame that was taken lies.
#[derive(Clone, Debug)]
enum Frame {
    /// In its producer's slot.
    Shared(millrace_pool::Lease),
    /// In memory of this process; the slot was given back (`EXCHANGE: copy`).
    Copied(Arc<Vec<u8>>),
}

impl Lease {
    /// What it is. Checked against the slot's size: every plane and row that it names is there.
    pub fn item(&self) -> &Item {
        &self.item
    }

    /// The slot's bytes, from its start.
    ///
    /// # Panics
    /// When they lie on a GPU, which only a port with `on_gpu` lets in.
    pub fn bytes(&self) -> &[u8] {
        match &self.frame {
            Frame::Shared(lease) => lease.bytes(),
            Frame::Copied(bytes) => bytes,
        }
    }

    /// The slot's bytes in host memory: where they lie, or a copy of a frame on a GPU, which this thread waits for.
    ///
    /// # Errors
    /// Those of the GPU: the frame is lost, as `copy`.
    pub fn on_host(&self) -> Result<Cow<'_, [u8]>, NodeError> {
        let lost = |e| NodeError::frame("copy", &self.item.source, format!("frame {}: {e}", self.item.seq));
        match &self.frame {
            Frame::Shared(lease) if lease.gpu().is_some() => {
                lease.read(&self.item.fence, lease.slot_bytes() as usize).map(Cow::Owned).map_err(lost)
            }
            _ => Ok(Cow::Borrowed(self.bytes())),
        }
    }

    /// Waits, in this thread, until the frame is complete, and touches no byte of it: for nodes that only look when.
    ///
    /// # Errors
    /// Those of the GPU: the frame is lost, as `fence`.
    pub fn complete(&self) -> Result<(), NodeError> {
        let lost = |e| NodeError::frame("fence", &self.item.source, format!("frame {}: {e}", self.item.seq));
        match &self.frame {
            Frame::Shared(lease) => lease.complete(&self.item.fence).map_err(lost),
            Frame::Copied(_) => Ok(()),
        }
    }

    /// The GPU that the frame lies on; `None` for host memory.
    pub fn gpu(&self) -> Option<&Gpu> {
        match &self.frame {
            Frame::Shared(lease) => lease.gpu(),
            Frame::Copied(_) => None,
        }
    }

    /// Where the slot lies on its GPU. What is queued in `stream` from here on begins when the frame is complete; the lease
    /// is to be held until that work is done ([`Outputs::hold`](crate::Outputs::hold)).
    ///
    /// # Errors
    /// The frame lies in host memory, or its producer's event cannot be opened: the frame is lost, as `fence`.
    pub fn span(&self, stream: &Stream) -> Result<Span, NodeError> {
        let lost = |e: String| NodeError::frame("fence", &self.item.source, format!("frame {}: {e}", self.item.seq));
        match &self.frame {
            Frame::Shared(lease) => lease.span(&self.item.fence, stream).map_err(|e| lost(e.to_string())),
            Frame::Copied(_) => Err(lost("it was copied to host memory, by EXCHANGE=copy".to_owned())),
        }
    }
}

/// All input ports of a node.
pub(crate) struct Inputs {
    ports: Vec<Port>,
    node: String,
    metrics: Metrics,
    bell: Bell,
    exchange: Exchange,
    ready: VecDeque<(&'static str, Input)>,
    /// Pools where a predecessor of this process still has its place, by port.
    occupied: Vec<(&'static str, SlotRef)>,
    tried: Instant,
    /// The last of them that was logged.
    told: u128,
}

/// How often a place is asked for that a predecessor has not left yet.
const TRY_AGAIN: Duration = Duration::from_millis(20);

struct Port {
    spec: &'static PortIn,
    /// The pools that feed this port, oldest first: an older one is read to its end before the next.
    readers: Vec<Reader>,
    closed: bool,
    /// Pools that were read to their end or could not be opened, newest last: a late doorbell of theirs is no news.
    done_with: VecDeque<u128>,
}

impl Inputs {
    /// `bell` is the node's: the producers ring it.
    pub(crate) fn new(ports: &Ports, graph: &Topology, metrics: Metrics, bell: Bell, exchange: Exchange) -> Self {
        let ports = graph.inputs.iter().filter_map(|name| ports.input(name));
        let ports =
            ports.map(|spec| Port { spec, readers: Vec::new(), closed: false, done_with: VecDeque::new() }).collect();
        let (node, ready, occupied) = (graph.node.clone(), VecDeque::new(), Vec::new());
        Self { ports, node, metrics, bell, exchange, ready, occupied, tried: Instant::now(), told: 0 }
    }

    /// Opens the pools whose place a predecessor had, if it has left by now.
    pub(crate) fn try_again(&mut self) {
        if self.occupied.is_empty() || self.tried.elapsed() < TRY_AGAIN {
            return;
        }
        self.tried = Instant::now();
        for (port, at) in std::mem::take(&mut self.occupied) {
            self.bell(port, &at);
        }
    }

    /// Opens the pool that a doorbell names, if it is new.
    pub(crate) fn bell(&mut self, port: &str, at: &SlotRef) {
        let name = format!("{}/{port}", self.node);
        let Some(port) = self.ports.iter_mut().find(|p| p.spec.name == port) else { return };
        self.occupied.retain(|(other, pool)| *other != port.spec.name || pool.pool != at.pool);
        if port.readers.iter().any(|r| r.pool() == at.pool) || port.done_with.contains(&at.pool) {
            return;
        }
        port.closed = false;
        match Reader::open(at, &name) {
            Ok(reader) => {
                tracing::debug!(port = port.spec.name, pool = format!("{:032x}", at.pool), "opened");
                reader.listen(&self.bell);
                port.readers.push(reader);
            }
            // it has ended between its doorbell and now: what stood in it is lost
            Err(PoolError::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                port.done_with(at.pool);
                self.metrics.drop_port("pool_ended", port.spec.name, "", 1);
                tracing::warn!(
                    "input '{}': its producer has ended before this node could read from it",
                    port.spec.name
                );
            }
            // the process that this one takes the place of (`dora node replace`) has not ended yet
            Err(PoolError::NameTaken { pid, .. }) => {
                if self.told != at.pool {
                    self.told = at.pool;
                    tracing::info!(
                        "input '{}': waiting until process {pid} has left this node's place",
                        port.spec.name
                    );
                }
                self.occupied.push((port.spec.name, *at));
            }
            Err(e) => {
                port.done_with(at.pool);
                self.metrics.drop_port("pool_refused", port.spec.name, "", 1);
                tracing::error!("input '{}': {e}", port.spec.name);
            }
        }
    }

    /// Every port has a pool to read from.
    pub(crate) fn all_opened(&self) -> bool {
        self.ports.iter().all(|port| !port.readers.is_empty())
    }

    pub(crate) fn close(&mut self, port: &str) {
        for port in self.ports.iter_mut().filter(|p| p.spec.name == port) {
            port.closed = true;
        }
    }

    pub(crate) fn close_all(&mut self) {
        for port in &mut self.ports {
            port.closed = true;
        }
    }

    /// Every input is closed and read to its end.
    pub(crate) fn finished(&self) -> bool {
        !self.ports.is_empty() && self.ready.is_empty() && self.ports.iter().all(|p| p.closed && p.readers.is_empty())
    }

    /// The next item of any port, oldest pool first.
    pub(crate) fn next(&mut self) -> Option<(&'static str, Input)> {
        if self.ready.is_empty() {
            for port in &mut self.ports {
                port.collect(&self.metrics, self.exchange, &mut self.ready);
            }
        }
        self.ready.pop_front()
    }
}

impl Port {
    fn done_with(&mut self, pool: u128) {
        const REMEMBERED: usize = 16;
        if self.done_with.len() == REMEMBERED {
            self.done_with.pop_front();
        }
        self.done_with.push_back(pool);
    }

    /// Moves what is there into `ready`: at most one item of a port that wants every one (so that ports take turns), and
    /// the newest of each camera of a port that wants only that.
    fn collect(&mut self, metrics: &Metrics, exchange: Exchange, ready: &mut VecDeque<(&'static str, Input)>) {
        let mut newest: Vec<(&'static str, Input)> = Vec::new();
        let mut place: HashMap<String, usize> = HashMap::new();
        while let Some(reader) = self.readers.first_mut() {
            let thin = self.spec.order == Order::Newest && reader.flow() == Flow::Live;
            match reader.poll() {
                Next::Frame(lease) => {
                    let Some((source, input)) = accept(self.spec, lease, metrics, exchange) else { continue };
                    if !thin {
                        ready.push_back((self.spec.name, input));
                        return;
                    }
                    if let Some(&at) = place.get(&source) {
                        metrics.drop_port("stale", self.spec.name, &source, 1);
                        newest[at].1 = input;
                    } else {
                        place.insert(source, newest.len());
                        newest.push((self.spec.name, input));
                    }
                }
                Next::Gone(_) => metrics.drop_port("gone", self.spec.name, "", 1),
                Next::End => {
                    let pool = self.readers.remove(0).pool();
                    self.done_with(pool);
                }
                Next::Empty => {
                    // The producer may be gone without a goodbye: its pool is left when nothing more can come of it.
                    if (self.closed || self.readers.len() > 1) && self.readers[0].producer_is_dead() {
                        // it may have published between our look and its death
                        if self.readers[0].pending() == 0 {
                            let pool = self.readers.remove(0).pool();
                            self.done_with(pool);
                        }
                        continue;
                    }
                    break;
                }
            }
        }
        ready.extend(newest);
    }
}

/// Checks what another process says of a slot before anyone touches a byte of it.
fn accept(
    spec: &PortIn,
    lease: millrace_pool::Lease,
    metrics: &Metrics,
    exchange: Exchange,
) -> Option<(String, Input)> {
    let refuse = |source: &str, cause: &'static str, why: String| {
        metrics.drop_port(cause, spec.name, source, 1);
        tracing::warn!("input '{}', camera '{source}': {why}", spec.name);
        None
    };
    let item = match compact::item_from_bytes(lease.item()) {
        Ok(item) => item,
        Err(e) => return refuse("", "bad_description", e.to_string()),
    };
    let kind = item.payload.kind();
    if !spec.accepts.contains(&kind) {
        return refuse(&item.source, "wrong_kind", format!("takes {:?}, got {kind:?}", spec.accepts));
    }
    if let Err(e) = item.payload.validate(lease.slot_bytes()) {
        return refuse(&item.source, "bad_description", format!("frame {}: {e}", item.seq));
    }
    if lease.gpu().is_some() != matches!(item.device, Device::Cuda(_)) {
        return refuse(&item.source, "bad_description", format!("frame {}: it does not lie where it says", item.seq));
    }
    if let (Some(gpu), false) = (lease.gpu(), spec.on_gpu && kind != PayloadKind::Detections) {
        let why = format!(
            "its frames lie on the GPU {}, and this node reads host memory: give their producer MEMORY=host, or put a node here that works on a GPU",
            gpu.name()
        );
        return refuse(&item.source, "on_gpu", why);
    }
    let source = item.source.clone();
    metrics.count_port("in", spec.name, &source, 1);
    metrics.count_port("bytes_in", spec.name, &source, item.payload.bytes());
    metrics.observe_ns("age", &source, item.timing.age_ns());
    if kind != PayloadKind::Detections {
        let frame = if exchange == Exchange::Copy && lease.gpu().is_none() {
            metrics.copied(&source, item.payload.bytes());
            Frame::Copied(Arc::new(lease.bytes()[..item.payload.end_bytes() as usize].to_vec()))
        } else {
            Frame::Shared(lease)
        };
        return Some((source, Input::Frame(Lease { item: Arc::new(item), frame })));
    }
    let Payload::Detections { len_bytes } = item.payload else { return None };
    match compact::detections_from_bytes(&lease.bytes()[..len_bytes as usize]) {
        Ok(found) => Some((source, Input::Detections(found))),
        Err(e) => refuse(&source, "bad_description", format!("frame {}: {e}", item.seq)),
    }
}
