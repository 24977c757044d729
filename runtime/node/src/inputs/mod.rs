//! The input side of a node: the backlog of each camera, and the leases on the frames that the node works on.
//!
//! A frame that waits is not leased: it stays in its camera's pool, where the bound on the backlog is. So a slow node holds
//! no slot that another consumer or the producer could use, and it works on the frames that are there when it starts, not
//! on those that were there when it woke.

mod accept;
mod backlog;
mod cameras;
mod connection;
mod frame_lease;

pub use frame_lease::{FrameLease, Input};

use crate::directory::{Entry, Listing};
use crate::link::Topology;
use crate::metrics::Metrics;
use crate::node::{Order, PortIn, Ports};
use crate::settings::{CommonSettings, Exchange};
use backlog::CameraBacklog;
use cameras::Cameras;
pub(crate) use cameras::Change;
use connection::{InputConnection, Occupied};
use millrace_frame::{PayloadKind, SlotRef};
use millrace_pool::protocol::Attached;
use millrace_pool::{Bell, PoolError, Reader};
use std::time::{Duration, Instant};

/// All input ports of a node.
pub(crate) struct Inputs {
    ports: Vec<Port>,
    node: String,
    bell: Bell,
    bounds: Bounds,
    counts: Counts,
    cameras: Cameras,
    /// The port that is served first next time.
    next_port: usize,
    looked_around: Instant,
    /// When pools were last tried whose place a predecessor had.
    tried: Instant,
    /// The pool whose wait for a predecessor was logged last.
    logged: u128,
    /// A producer of frames on a GPU that has died since [`Inputs::died_on_gpu`] was last asked for, as `node/output`.
    died_on_gpu: Option<String>,
}

/// What may wait for each camera, and how old it may become, in live flow.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Frames; `None`: what the camera's pool has room for.
    backlog: Option<u32>,
    /// Age of a frame since its arrival.
    max_age_ns: u64,
}

/// What a backlog needs to count losses and to read frames.
struct Counts {
    metrics: Metrics,
    exchange: Exchange,
}

struct Port {
    spec: &'static PortIn,
    connections: Vec<InputConnection>,
    backlogs: Vec<CameraBacklog>,
    /// The service of the camera that was served last. A camera that was idle starts here.
    now: f64,
}

/// How often a place is asked for that a predecessor has not left yet.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// How often the node looks whether its producers are alive: a death wakes nobody.
const LOOK_AROUND: Duration = Duration::from_millis(100);

impl Inputs {
    /// `bell` is the node's: producers ring it at each publication.
    pub(crate) fn new(ports: &Ports, graph: &Topology, metrics: Metrics, bell: Bell, common: &CommonSettings) -> Self {
        let port = |spec: &'static PortIn| {
            let inputs = graph.inputs.iter().filter(|input| port_of(input) == spec.name);
            let from = |input: &str| graph.sources.get(input).cloned().unwrap_or_default();
            let connection = |input: &String| {
                let mut connection = InputConnection::new(input.clone(), from(input));
                connection.computes = graph.computing.contains(connection.node());
                connection
            };
            let connections: Vec<InputConnection> = inputs.map(connection).collect();
            (!connections.is_empty()).then_some(Port { spec, connections, backlogs: Vec::new(), now: 0.0 })
        };
        let ports = ports.inputs.iter().filter_map(port).collect();
        let (node, cameras, now) = (graph.node.clone(), Cameras::default(), Instant::now());
        let counts = Counts { metrics, exchange: common.exchange };
        let bounds = Bounds::of(common);
        Self {
            ports,
            node,
            bell,
            bounds,
            counts,
            cameras,
            next_port: 0,
            looked_around: now,
            tried: now,
            logged: 0,
            died_on_gpu: None,
        }
    }

    /// From the next frame on, these settings count.
    pub(crate) fn change(&mut self, common: &CommonSettings) {
        self.bounds = Bounds::of(common);
    }

    /// The directory is not known yet, and the node reads frames on a GPU at this input.
    pub(crate) fn is_news_on_gpu(&self, input: &str, at: &SlotRef) -> bool {
        self.find(input).is_some_and(|(port, connection)| {
            let Port { spec, connections, .. } = &self.ports[port];
            let waits = |o: &Occupied| matches!(o, Occupied::Directory(other) if other.pool == at.pool);
            spec.on_gpu
                && !connections[connection].knows(at.pool)
                && !connections[connection].occupied.iter().any(waits)
        })
    }

    /// Opens the directory that a message announces, where it is new.
    pub(crate) fn announced(&mut self, input: &str, at: &SlotRef) {
        let Some((port, connection)) = self.find(input) else { return };
        let connection = &mut self.ports[port].connections[connection];
        if connection.occupied.iter().any(|o| matches!(o, Occupied::Directory(other) if other.pool == at.pool)) {
            return;
        }
        match connection.announced(at, &self.node, &self.bell) {
            Ok(()) => {}
            // the process that this one replaces (`dora node replace`) has not ended yet
            Err(PoolError::NameTaken { pid, .. }) => {
                if std::mem::replace(&mut self.logged, at.pool) != at.pool {
                    tracing::info!("input '{input}': waiting until process {pid} has detached from it");
                }
                connection.occupied.push(Occupied::Directory(*at));
            }
            // it has ended meanwhile, with nothing in it: a producer that published waits for its consumers
            Err(e) if has_ended(&e) => connection.done_with(at.pool),
            Err(e) => {
                connection.done_with(at.pool);
                self.counts.metrics.drop_port("pool_refused", self.ports[port].spec.name, "", 1);
                tracing::error!("input '{input}': {e}");
            }
        }
    }

    /// Reads the directories: opens new pools, leaves dead ones, and learns what cameras do.
    pub(crate) fn look(&mut self) {
        self.try_again();
        let look_around = self.looked_around.elapsed() >= LOOK_AROUND;
        if look_around {
            self.looked_around = Instant::now();
        }
        for port in 0..self.ports.len() {
            for connection in 0..self.ports[port].connections.len() {
                let news = self.ports[port].connections[connection].read(look_around);
                for (directory, listing) in news.listings {
                    self.listed(port, connection, directory, listing);
                }
                for directory in news.orphaned {
                    let Port { backlogs, connections, .. } = &mut self.ports[port];
                    for backlog in backlogs {
                        if backlog.orphan(directory) {
                            self.died_on_gpu = Some(connections[connection].from.clone());
                        }
                    }
                }
                if news.over {
                    let connection = &self.ports[port].connections[connection];
                    self.cameras.orphaned(&connection.cameras, connection.node(), connection.computes);
                }
            }
            // to close a pool may wait for what never ends, so somebody watches that first
            if self.died_on_gpu.is_some() {
                continue;
            }
            let Port { backlogs, connections, .. } = &mut self.ports[port];
            for backlog in backlogs.iter_mut() {
                backlog.sweep().into_iter().for_each(|pool| connections[backlog.connection].done_with(pool));
            }
            backlogs.retain(|backlog| !backlog.is_over());
        }
    }

    fn listed(&mut self, port: usize, connection: usize, directory: u128, listing: Listing) {
        for entry in listing.pools {
            let Port { connections, backlogs, .. } = &self.ports[port];
            let pool = entry.at.pool;
            let waits = connections[connection]
                .occupied
                .iter()
                .any(|o| matches!(o, Occupied::Pool { entry, .. } if entry.at.pool == pool));
            if !waits
                && !connections[connection].is_done_with(pool)
                && !backlogs.iter().any(|backlog| backlog.reads(pool))
            {
                self.open(port, connection, directory, entry);
            }
        }
        if !listing.waits.is_empty() {
            let connection = &self.ports[port].connections[connection];
            self.cameras.waiting(&connection.cameras, connection.node(), &listing.waits);
        }
        let Some(before) = self.ports[port].connections[connection].list(directory, listing.cameras) else { return };
        let removed: Vec<&String> = before
            .keys()
            .filter(|source| {
                !self.ports.iter().flat_map(|p| &p.connections).any(|f| f.cameras.contains_key(source.as_str()))
            })
            .collect();
        let from = &self.ports[port].connections[connection];
        self.cameras.listed(from.node(), from.cameras.values(), &removed);
        for backlog in &mut self.ports[port].backlogs {
            if let Some(status) = self.cameras.get(&backlog.source) {
                backlog.set_weight(status.weight);
            }
        }
    }

    fn open(&mut self, at_port: usize, at_connection: usize, directory: u128, entry: Entry) {
        let port = &mut self.ports[at_port];
        let other =
            port.backlogs.iter().find(|l| l.connection != at_connection && l.source == entry.source && !l.is_ending());
        if let Some(other) = other {
            if std::mem::replace(&mut self.logged, entry.at.pool) != entry.at.pool {
                let (first, second, camera) =
                    (&port.connections[other.connection].from, &port.connections[at_connection].from, &entry.source);
                self.counts.metrics.note(format!(
                    "camera '{camera}' comes from {first} and from {second}: an id is one camera's alone. What {second} has of it \
                     is not read until {first} has no such camera; give one of them another id"
                ));
            }
            port.connections[at_connection].occupied.push(Occupied::Pool { entry, directory });
            return;
        }
        let (name, connection) = (port.spec.name, &mut port.connections[at_connection]);
        let metrics = &self.counts.metrics;
        match Reader::open(&entry.at, &format!("{}/{}", self.node, connection.input)) {
            Ok(reader) => {
                tracing::debug!(input = connection.input, camera = entry.source, "reads a pool");
                if let Attached::Inherited { lost } = reader.attached() {
                    metrics.drop_port("crashed", name, &entry.source, lost);
                }
                let backlog =
                    port.backlogs.iter().position(|l| l.connection == at_connection && l.source == entry.source);
                let backlog = backlog.unwrap_or_else(|| {
                    let mut backlog = CameraBacklog::new(entry.source, at_connection);
                    if let Some(status) = self.cameras.get(&backlog.source) {
                        backlog.set_weight(status.weight);
                    }
                    port.backlogs.push(backlog);
                    port.backlogs.len() - 1
                });
                port.backlogs[backlog].push(reader, directory);
            }
            Err(PoolError::NameTaken { .. }) => connection.occupied.push(Occupied::Pool { entry, directory }),
            // what was published until the listing was written is lost
            Err(e) if has_ended(&e) => {
                connection.done_with(entry.at.pool);
                metrics.drop_port("pool_ended", name, &entry.source, entry.at.ticket.saturating_add(1));
            }
            Err(e) => {
                connection.done_with(entry.at.pool);
                metrics.drop_port("pool_refused", name, &entry.source, 1);
                tracing::error!("input '{}', camera '{}': {e}", connection.input, entry.source);
            }
        }
    }

    /// Opens what a predecessor had its place in, if it has left by now.
    fn try_again(&mut self) {
        if self.tried.elapsed() < TRY_AGAIN {
            return;
        }
        self.tried = Instant::now();
        for port in 0..self.ports.len() {
            for connection in 0..self.ports[port].connections.len() {
                let input = self.ports[port].connections[connection].input.clone();
                for occupied in std::mem::take(&mut self.ports[port].connections[connection].occupied) {
                    match occupied {
                        Occupied::Directory(at) => self.announced(&input, &at),
                        Occupied::Pool { entry, directory } => self.open(port, connection, directory, entry),
                    }
                }
            }
        }
    }

    fn find(&self, input: &str) -> Option<(usize, usize)> {
        let port = self.ports.iter().position(|port| port.spec.name == port_of(input))?;
        let connection = self.ports[port].connections.iter().position(|connection| connection.input == input)?;
        Some((port, connection))
    }

    /// A producer of frames on a GPU that has died since the last call, as `node/output`.
    pub(crate) fn died_on_gpu(&mut self) -> Option<String> {
        self.died_on_gpu.take()
    }

    /// What has changed of cameras since the last call.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        self.cameras.changes()
    }

    /// Every input has a directory to read from.
    pub(crate) fn all_opened(&self) -> bool {
        self.connections().all(InputConnection::is_open)
    }

    fn connections(&self) -> impl Iterator<Item = &InputConnection> {
        self.ports.iter().flat_map(|port| &port.connections)
    }

    pub(crate) fn close(&mut self, input: &str) {
        for connection in self.ports.iter_mut().flat_map(|p| &mut p.connections).filter(|f| f.input == input) {
            connection.closed = true;
        }
    }

    pub(crate) fn close_all(&mut self) {
        self.ports.iter_mut().flat_map(|p| &mut p.connections).for_each(|connection| connection.closed = true);
    }

    /// Every input is closed and read to its end.
    pub(crate) fn finished(&self) -> bool {
        !self.ports.is_empty()
            && self.connections().all(|f| f.closed && !f.is_open() && f.occupied.is_empty())
            && self.ports.iter().all(|port| port.backlogs.is_empty())
    }

    /// Nothing more will be published on any input: what waits is all that comes.
    pub(crate) fn ending(&self) -> bool {
        self.connections().all(|f| f.closed || !f.is_open())
            && self.ports.iter().all(|p| p.backlogs.iter().all(CameraBacklog::is_ending))
    }

    /// Publications that wait, of all cameras, counted up to `most`.
    pub(crate) fn waiting(&self, most: usize) -> usize {
        let mut waiting = 0;
        for backlog in self.ports.iter().flat_map(|port| &port.backlogs) {
            waiting += backlog.waiting().min(most as u64) as usize;
            if waiting >= most {
                return most;
            }
        }
        waiting
    }

    /// How many cameras have come in.
    pub(crate) fn cameras(&self) -> usize {
        self.ports.iter().map(|port| port.backlogs.len()).sum()
    }

    /// Leases up to `most` frames, no more than `per_camera` of one camera: ports by turns, and the cameras of a port by
    /// their shares.
    pub(crate) fn take(&mut self, most: usize, per_camera: usize) -> Vec<(&'static str, Input)> {
        let mut taken = Vec::new();
        let ports = self.ports.len();
        for port in (0..ports).map(|n| (self.next_port + n) % ports) {
            if taken.len() == most {
                break;
            }
            let port = &mut self.ports[port];
            port.take(most - taken.len(), per_camera, self.bounds, &self.counts, &mut taken);
        }
        if ports > 0 {
            self.next_port = (self.next_port + 1) % ports;
        }
        taken
    }
}

impl Port {
    fn take(
        &mut self,
        most: usize,
        per_camera: usize,
        bounds: Bounds,
        counts: &Counts,
        taken: &mut Vec<(&'static str, Input)>,
    ) {
        let now = self.now;
        let place = |(at, backlog): (usize, &mut CameraBacklog)| {
            backlog.place(backlog.waiting() > 0, now).map(|place| (place, at, 0))
        };
        let mut candidates: Vec<(f64, usize, usize)> = self.backlogs.iter_mut().enumerate().filter_map(place).collect();
        for _ in 0..most {
            // the camera that was served least; if several were, the first of them
            let Some(next) = (0..candidates.len()).min_by(|&a, &b| candidates[a].0.total_cmp(&candidates[b].0)) else {
                return;
            };
            let (_, at, frames) = &mut candidates[next];
            let backlog = &mut self.backlogs[*at];
            let Some(input) = backlog.take(self.spec, bounds, counts) else {
                candidates.swap_remove(next);
                continue;
            };
            self.now = self.now.max(backlog.serve());
            taken.push((self.spec.name, input));
            *frames += 1;
            if *frames == per_camera {
                candidates.swap_remove(next);
            } else if let Some(place) = backlog.place(true, now) {
                candidates[next].0 = place;
            }
        }
    }
}

impl Bounds {
    fn of(common: &CommonSettings) -> Self {
        Self { backlog: common.backlog, max_age_ns: common.max_age_ms.saturating_mul(1_000_000) }
    }

    /// Frames that may wait in a pool of so many slots. While one is written and one is read, the others can wait.
    fn waiting(self, slots: u32) -> u64 {
        u64::from(self.backlog.unwrap_or(slots.saturating_sub(2).max(2)))
    }

    /// How old an item may be. Results may be as old as their frame at the start of the work, and the work may have taken as
    /// long again. A decoder needs every packet, however old.
    fn max_age_ns(self, order: Order, kind: PayloadKind) -> Option<u64> {
        match (order, kind) {
            (_, PayloadKind::Packet) => None,
            (_, PayloadKind::Detections) => Some(self.max_age_ns.saturating_mul(2)),
            (Order::Newest, PayloadKind::Image | PayloadKind::Tensor) => Some(self.max_age_ns),
            (Order::Every, PayloadKind::Image | PayloadKind::Tensor) => None,
        }
    }
}

/// The port that an input feeds: `frame` for `frame` and for `frame.door`.
pub(crate) fn port_of(input: &str) -> &str {
    input.split_once('.').map_or(input, |(port, _)| port)
}

fn has_ended(error: &PoolError) -> bool {
    match error {
        PoolError::Ended { .. } => true,
        PoolError::Open { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
