//! Where the node's thread meets the clients: cameras, their figures, the pictures since their last key frame, and the
//! queue of each client. Nothing in here waits for a client.

use crate::h264;
use crate::health;
use crate::protocol::{CameraInfo, CameraStats, ClientStats, Kind, Message, SCHEMA, binary, detections_text};
use crate::queue::{ClientQueue, Limits, Video, VideoConfig, View};
use crate::stats::Counters;
use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use axum::http::StatusCode;
use millrace_frame::{CameraState, CameraStatus, Detections, Size, monotonic_ns, unix_ns};
use millrace_node::Cameras;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What the hub says it is.
const SERVER: &str = concat!("millrace ", env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
/// A camera's number has one byte in the header of binary messages.
const MAX_CAMERAS: usize = 256;
/// Pictures since the last key frame that are kept for clients to come, per camera.
const GOP_BYTES: usize = 8 << 20;
const GOP_PACKETS: usize = 600;

/// Why something was not published. The names are the causes under which the node counts it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("camera {0} would be the {max}th of this node, which has room for {MAX_CAMERAS} that have not ended; use another publisher", max = MAX_CAMERAS + 1)]
    TooManyCameras(String),
    #[error(
        "camera {source_id}, frame {seq}: {what} has a coordinate or score that is not a finite number; \
         the model or its model.yml is at fault"
    )]
    NotFinite { source_id: String, seq: u64, what: String },
}

impl Refused {
    /// The name of the drop.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::TooManyCameras(_) => "too_many_cameras",
            Self::NotFinite { .. } => "not_finite",
        }
    }
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// Clients it was queued for.
    pub(crate) clients: u64,
    /// Messages that slow clients lost by it.
    pub(crate) lost: u64,
}

#[derive(Debug)]
struct Camera {
    source: Arc<str>,
    size: Size,
    /// The model of its last detections, and what that is for.
    model: String,
    about: String,
    counters: Counters,
    /// Of the H.264 stream; `None` before its first key frame.
    h264: Option<VideoConfig>,
    jpeg: VideoConfig,
    gop: Vec<Bytes>,
    gop_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    cameras: Vec<Camera>,
    /// What the cameras are doing.
    states: Cameras,
    by_source: BTreeMap<Arc<str>, u8>,
    clients: BTreeMap<u64, Arc<ClientQueue>>,
    next_client: u64,
    ended: bool,
}

/// The meeting point.
#[derive(Debug)]
pub(crate) struct Hub {
    title: String,
    max_clients: usize,
    limits: Limits,
    started: Instant,
    /// How long ago the node's event loop last turned.
    loop_age: LoopAge,
    /// Signalled when a camera's state has changed.
    pub(crate) changed: Notify,
    state: Mutex<State>,
}

/// Gives the time since the node's event loop last turned; `None` before it first did.
pub(crate) struct LoopAge(pub(crate) Box<dyn Fn() -> Option<Duration> + Send + Sync>);

impl std::fmt::Debug for LoopAge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", (self.0)())
    }
}

/// A client that subscribes to the hub. Dropping this ends the subscription.
#[derive(Debug)]
pub(crate) struct Subscriber {
    hub: Arc<Hub>,
    id: u64,
    pub(crate) queue: Arc<ClientQueue>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.hub.lock().clients.remove(&self.id);
    }
}

impl Hub {
    pub(crate) fn new(title: String, max_clients: usize, limits: Limits, loop_age: LoopAge) -> Arc<Self> {
        let (started, changed, state) = (Instant::now(), Notify::new(), Mutex::default());
        Arc::new(Self { title, max_clients, limits, started, loop_age, changed, state })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps everybody out, as a thread does that hangs with the lock in its hands.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.lock()
    }

    /// A source has reported what one of its cameras is doing.
    pub(crate) fn camera(&self, status: &CameraStatus) -> Result<(), Refused> {
        let mut state = self.lock();
        // it is listed from now on, also when it never sends a frame
        state.camera(&status.source)?;
        if state.states.report(status, Instant::now()) {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// A picture of a camera has arrived that nobody may want. A camera is live by its detections.
    pub(crate) fn picture(&self, source: &str, capture_ns: i64) -> Result<(), Refused> {
        let mut state = self.lock();
        state.camera(source)?;
        state.states.pictured(source, capture_ns, Instant::now());
        Ok(())
    }

    /// Publishes the boxes of one frame.
    pub(crate) fn detections(&self, found: &Detections) -> Result<Delivered, Refused> {
        if let Some(what) = found.not_finite() {
            return Err(Refused::NotFinite { source_id: found.source.clone(), seq: found.seq, what });
        }
        let age_ns = monotonic_ns().saturating_sub(found.arrival_ns).max(0) as u64;
        let mut state = self.lock();
        let index = state.camera(&found.source)?;
        if state.states.arrived(&found.source, found.capture_ns, Instant::now()) {
            self.changed.notify_one();
        }
        let camera = &mut state.cameras[usize::from(index)];
        camera.size = Size::new(found.width_px, found.height_px);
        // without an allocation while they stay
        found.model.clone_into(&mut camera.model);
        found.about.clone_into(&mut camera.about);
        camera.counters.frame(found.seq, age_ns, Instant::now());
        let source = camera.source.clone();
        if state.clients.is_empty() {
            return Ok(Delivered::default());
        }
        // one text for all clients: a queue holds a reference to it
        let text = detections_text(found);
        let mut delivered = Delivered::default();
        for queue in state.clients.values() {
            delivered.clients += 1;
            delivered.lost += queue.push_detections(index, &source, text.clone());
        }
        Ok(delivered)
    }

    /// Publishes one H.264 access unit. What comes before a camera's first key picture is of no use to anyone and is
    /// passed over.
    pub(crate) fn packet(
        &self,
        source: &str,
        pts_ns: i64,
        capture_ns: i64,
        key: bool,
        view: impl Into<View>,
        data: &[u8],
    ) -> Result<Delivered, Refused> {
        let codec = if key { h264::codec_string(data) } else { None };
        let mut state = self.lock();
        let index = state.camera(source)?;
        state.states.pictured(source, capture_ns, Instant::now());
        let camera = &mut state.cameras[usize::from(index)];
        camera.counters.packets += 1;
        if let Some(codec) = codec {
            camera.configure(codec, view.into());
        }
        let Some(config) = camera.h264.clone() else { return Ok(Delivered::default()) };
        let bytes = binary(Kind::H264, key, index, pts_ns, data);
        camera.remember(key, &bytes);
        let source = camera.source.clone();
        let mut delivered = Delivered::default();
        for queue in state.clients.values().filter(|q| q.video == Video::Auto) {
            delivered.clients += 1;
            delivered.lost += queue.push_packet(index, &source, &config, key, &bytes);
        }
        Ok(delivered)
    }

    /// Whether somebody waits for pictures of this camera as JPEG.
    pub(crate) fn jpeg_wanted(&self, source: &str) -> bool {
        let state = self.lock();
        let has_h264 = state.by_source.get(source).is_some_and(|&i| state.cameras[usize::from(i)].h264.is_some());
        state.clients.values().any(|q| q.video.takes_jpeg(has_h264))
    }

    /// Publishes one JPEG picture to those who wait for it.
    pub(crate) fn jpeg(&self, source: &str, pts_ns: i64, size: Size, data: &[u8]) -> Result<Delivered, Refused> {
        let mut state = self.lock();
        let index = state.camera(source)?;
        let camera = &mut state.cameras[usize::from(index)];
        if camera.jpeg.view.size != size {
            camera.jpeg = VideoConfig {
                // odd versions are JPEG's and even ones H.264's, so that a change from one to the other is a change
                version: camera.jpeg.version + 2,
                view: size.into(),
                codec: "jpeg".into(),
            };
        }
        let (config, has_h264, source) = (camera.jpeg.clone(), camera.h264.is_some(), camera.source.clone());
        let bytes = binary(Kind::Jpeg, true, index, pts_ns, data);
        let mut delivered = Delivered::default();
        for queue in state.clients.values().filter(|q| q.video.takes_jpeg(has_h264)) {
            delivered.clients += 1;
            delivered.lost += queue.push_jpeg(index, &source, &config, &bytes);
        }
        Ok(delivered)
    }

    /// Takes a client in, or says how many there may be.
    pub(crate) fn join(self: &Arc<Self>, video: Video) -> Result<Subscriber, usize> {
        let mut state = self.lock();
        if state.clients.len() >= self.max_clients {
            return Err(self.max_clients);
        }
        let queue = Arc::new(ClientQueue::new(video, self.limits));
        let cameras = state
            .cameras
            .iter()
            .enumerate()
            .filter(|(_, c)| state.states.get(&c.source).is_some_and(is_shown))
            .map(|(index, c)| CameraInfo {
                source: &c.source,
                index: index as u8,
                width_px: c.size.width_px,
                height_px: c.size.height_px,
            })
            .collect();
        queue.push_hello(Message::Hello { schema: SCHEMA, server: SERVER, title: &self.title, cameras }.text());
        if video == Video::Auto {
            for (index, camera) in state.cameras.iter().enumerate() {
                if let Some(config) = &camera.h264 {
                    queue.push_replay(index as u8, &camera.source, config, &camera.gop);
                }
            }
        }
        if state.ended {
            queue.end(CLOSE_GOING_AWAY, ENDED);
        }
        let State { cameras, states, clients, .. } = &mut *state;
        // its cameras' states come at once, and not within a second
        queue.push_stats(self.stats(&reports(cameras, states), clients.len() + 1, Some(queue.lost())));
        let id = state.next_client;
        state.next_client += 1;
        state.clients.insert(id, queue.clone());
        Ok(Subscriber { hub: self.clone(), id, queue })
    }

    /// Clients now.
    pub(crate) fn clients(&self) -> usize {
        self.lock().clients.len()
    }

    /// Sends the figures of this moment to every client. The server's thread does not wait for the node's here: where that
    /// hangs with the lock in its hands, the server is to say so.
    pub(crate) fn tick(&self) {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return self.changed.notify_one(),
        };
        let State { cameras, states, clients, .. } = &mut *state;
        let reports = reports(cameras, states);
        for queue in clients.values() {
            queue.push_stats(self.stats(&reports, clients.len(), Some(queue.lost())));
        }
    }

    /// The figures as JSON.
    pub(crate) fn stats_text(&self) -> Utf8Bytes {
        let mut state = self.lock();
        let State { cameras, states, clients, .. } = &mut *state;
        self.stats(&reports(cameras, states), clients.len(), None)
    }

    fn stats(&self, cameras: &[CameraStats<'_>], clients: usize, client: Option<ClientStats>) -> Utf8Bytes {
        let uptime_s = self.started.elapsed().as_secs();
        Message::Stats { schema: SCHEMA, uptime_s, clients, cameras, client }.text()
    }

    /// Whether the node works. Takes no lock that the event loop could hold.
    pub(crate) fn alive(&self) -> (StatusCode, String) {
        health::alive((self.loop_age.0)())
    }

    /// Whether there is something to see.
    pub(crate) fn ready(&self) -> (StatusCode, String) {
        const NAMED: usize = 8;
        let loop_age = (self.loop_age.0)();
        if loop_age.is_some_and(|age| age >= health::HUNG) {
            // it may hang with the lock in its hands
            return health::ready(loop_age, &health::Cameras::default());
        }
        let now = Instant::now();
        let mut state = self.lock();
        let State { cameras, states, .. } = &mut *state;
        states.look(now);
        let mut known = health::Cameras::default();
        for camera in cameras.iter() {
            let Some(status) = states.get(&camera.source).filter(|status| is_shown(status)) else { continue };
            *known.by_state.entry(status.state.as_str()).or_default() += 1;
            if status.state == CameraState::Live {
                let age = camera.counters.last_at().map(|at| now.saturating_duration_since(at));
                known.newest_detections = known.newest_detections.into_iter().chain(age).min();
            } else if status.state != CameraState::Ended && known.not_live.len() < NAMED {
                let why = if status.last_error.is_empty() { String::new() } else { format!(": {}", status.last_error) };
                known.not_live.push(format!("{} is {}{why}", status.source, status.state.as_str()));
            }
        }
        health::ready(loop_age, &known)
    }

    /// Tells every client that the graph has ended, after what still waits for it.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        for queue in state.clients.values() {
            queue.end(CLOSE_GOING_AWAY, ENDED);
        }
    }
}

/// RFC 6455, 7.4.1: the endpoint is going away.
const CLOSE_GOING_AWAY: u16 = 1001;
const ENDED: &str = "the graph has ended";

impl Video {
    fn takes_jpeg(self, has_h264: bool) -> bool {
        match self {
            Self::None => false,
            Self::Auto => !has_h264,
            Self::Jpeg => true,
        }
    }
}

/// A camera that was removed leaves the page after a while. Its number may be another's then.
fn is_shown(status: &CameraStatus) -> bool {
    !status.is_removed() || unix_ns().saturating_sub(status.since_ns) < CameraStatus::REMOVED_SHOWN.as_nanos() as i64
}

fn reports<'a>(cameras: &'a mut [Camera], states: &'a mut Cameras) -> Vec<CameraStats<'a>> {
    let now = Instant::now();
    states.look(now);
    let states = &*states;
    let report = |c: &'a mut Camera| {
        let status = states.get(&c.source).filter(|status| is_shown(status))?;
        Some(CameraStats { model: &c.model, about: &c.about, ..c.counters.report(status, now) })
    };
    cameras.iter_mut().filter_map(report).collect()
}

impl State {
    fn camera(&mut self, source: &str) -> Result<u8, Refused> {
        if let Some(&index) = self.by_source.get(source) {
            return Ok(index);
        }
        let source: Arc<str> = source.into();
        let index = if self.cameras.len() < MAX_CAMERAS {
            self.cameras.push(Camera::new(source.clone()));
            self.cameras.len() - 1
        } else {
            let index = self.longest_ended().ok_or_else(|| Refused::TooManyCameras(source.to_string()))?;
            let ended = std::mem::replace(&mut self.cameras[index], Camera::new(source.clone()));
            self.by_source.remove(&ended.source);
            self.states.remove(&ended.source);
            index
        };
        self.by_source.insert(source, index as u8);
        Ok(index as u8)
    }

    /// The camera that ended first, of those that have: its number can be another's.
    fn longest_ended(&self) -> Option<usize> {
        let statuses = self.cameras.iter().enumerate().filter_map(|(i, c)| Some((i, self.states.get(&c.source)?)));
        let ended = statuses.filter(|(_, status)| status.state == CameraState::Ended);
        ended.min_by_key(|(_, status)| status.since_ns).map(|(index, _)| index)
    }
}

impl Camera {
    fn new(source: Arc<str>) -> Self {
        Self {
            source,
            size: Size::new(0, 0),
            model: String::new(),
            about: String::new(),
            counters: Counters::default(),
            h264: None,
            jpeg: VideoConfig { version: 1, codec: "jpeg".into(), view: Size::new(0, 0).into() },
            gop: Vec::new(),
            gop_bytes: 0,
        }
    }
}

impl Camera {
    fn configure(&mut self, codec: String, view: View) {
        let version = match &self.h264 {
            Some(c) if c.codec == codec && c.view == view => return,
            Some(c) => c.version + 2,
            None => 0,
        };
        self.h264 = Some(VideoConfig { version, codec, view });
    }

    /// Keeps the pictures since the last key frame. Where they outgrow their room none are kept until the next one:
    /// a client that comes meanwhile waits for it.
    fn remember(&mut self, key: bool, bytes: &Bytes) {
        if key {
            self.gop.clear();
            self.gop_bytes = 0;
        } else if self.gop.is_empty() {
            return;
        }
        if self.gop_bytes + bytes.len() > GOP_BYTES || self.gop.len() == GOP_PACKETS {
            self.gop = Vec::new();
            self.gop_bytes = 0;
            return;
        }
        self.gop_bytes += bytes.len();
        self.gop.push(bytes.clone());
    }
}
