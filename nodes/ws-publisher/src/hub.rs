//! Where the node's thread meets the clients: cameras, their figures, the pictures since their last key frame, and the
//! queue of each client. Nothing in here waits for a client.

use crate::h264;
use crate::protocol::{CameraInfo, CameraStats, ClientStats, Kind, Message, SCHEMA, binary, detections_text};
use crate::queue::{ClientQueue, Limits, Video, VideoConfig};
use crate::stats::Counters;
use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use millrace_frame::{Detections, Size, monotonic_ns};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

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
    #[error("camera {0} would be the {max}th of this node, which tells {MAX_CAMERAS} apart; use another publisher", max = MAX_CAMERAS + 1)]
    TooManyCameras(String),
    #[error(
        "camera {source_id}, frame {seq}: box {index} has a coordinate or score that is not a finite number; \
         the model or its model.yml is at fault"
    )]
    NotFinite { source_id: String, seq: u64, index: usize },
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
    state: Mutex<State>,
}

/// A place at the hub; giving it up is dropping it.
#[derive(Debug)]
pub(crate) struct Seat {
    hub: Arc<Hub>,
    id: u64,
    pub(crate) queue: Arc<ClientQueue>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.lock().clients.remove(&self.id);
    }
}

impl Hub {
    pub(crate) fn new(title: String, max_clients: usize, limits: Limits) -> Arc<Self> {
        Arc::new(Self { title, max_clients, limits, started: Instant::now(), state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the boxes of one frame.
    pub(crate) fn detections(&self, found: &Detections) -> Result<Delivered, Refused> {
        if let Some(index) = found.not_finite() {
            return Err(Refused::NotFinite { source_id: found.source.clone(), seq: found.seq, index });
        }
        let latency_ns = monotonic_ns().saturating_sub(found.arrival_ns).max(0) as u64;
        let mut state = self.lock();
        let index = state.camera(&found.source)?;
        let camera = &mut state.cameras[usize::from(index)];
        camera.size = Size::new(found.width_px, found.height_px);
        camera.counters.frame(found.seq, latency_ns, Instant::now());
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
        key: bool,
        size: Size,
        data: &[u8],
    ) -> Result<Delivered, Refused> {
        let codec = if key { h264::codec_string(data) } else { None };
        let mut state = self.lock();
        let index = state.camera(source)?;
        let camera = &mut state.cameras[usize::from(index)];
        camera.counters.packets += 1;
        if let Some(codec) = codec {
            camera.configure(codec, size);
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
        if (camera.jpeg.width_px, camera.jpeg.height_px) != (size.width_px, size.height_px) {
            camera.jpeg = VideoConfig {
                // odd versions are JPEG's and even ones H.264's, so that a change from one to the other is a change
                version: camera.jpeg.version + 2,
                width_px: size.width_px,
                height_px: size.height_px,
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
    pub(crate) fn join(self: &Arc<Self>, video: Video) -> Result<Seat, usize> {
        let mut state = self.lock();
        if state.clients.len() >= self.max_clients {
            return Err(self.max_clients);
        }
        let queue = Arc::new(ClientQueue::new(video, self.limits));
        let cameras = state
            .cameras
            .iter()
            .enumerate()
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
        let id = state.next_client;
        state.next_client += 1;
        state.clients.insert(id, queue.clone());
        Ok(Seat { hub: self.clone(), id, queue })
    }

    /// Clients now.
    pub(crate) fn clients(&self) -> usize {
        self.lock().clients.len()
    }

    /// Sends this second's figures to every client.
    pub(crate) fn tick(&self) {
        let mut state = self.lock();
        let State { cameras, clients, .. } = &mut *state;
        let reports = reports(cameras);
        for queue in clients.values() {
            queue.push_stats(self.stats(&reports, clients.len(), Some(queue.lost())));
        }
    }

    /// The figures as JSON.
    pub(crate) fn stats_text(&self) -> Utf8Bytes {
        let mut state = self.lock();
        let clients = state.clients.len();
        self.stats(&reports(&mut state.cameras), clients, None)
    }

    fn stats(&self, cameras: &[CameraStats<'_>], clients: usize, client: Option<ClientStats>) -> Utf8Bytes {
        let uptime_s = self.started.elapsed().as_secs();
        Message::Stats { schema: SCHEMA, uptime_s, clients, cameras, client }.text()
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

fn reports(cameras: &mut [Camera]) -> Vec<CameraStats<'_>> {
    let now = Instant::now();
    cameras.iter_mut().map(|c| c.counters.report(&c.source, now)).collect()
}

impl State {
    fn camera(&mut self, source: &str) -> Result<u8, Refused> {
        if let Some(&index) = self.by_source.get(source) {
            return Ok(index);
        }
        if self.cameras.len() == MAX_CAMERAS {
            return Err(Refused::TooManyCameras(source.into()));
        }
        let index = self.cameras.len() as u8;
        let source: Arc<str> = source.into();
        let jpeg = VideoConfig { version: 1, codec: "jpeg".into(), width_px: 0, height_px: 0 };
        self.cameras.push(Camera {
            source: source.clone(),
            size: Size::new(0, 0),
            counters: Counters::default(),
            h264: None,
            jpeg,
            gop: Vec::new(),
            gop_bytes: 0,
        });
        self.by_source.insert(source, index);
        Ok(index)
    }
}

impl Camera {
    fn configure(&mut self, codec: String, Size { width_px, height_px }: Size) {
        let version = match &self.h264 {
            Some(c) if c.codec == codec && (c.width_px, c.height_px) == (width_px, height_px) => return,
            Some(c) => c.version + 2,
            None => 0,
        };
        self.h264 = Some(VideoConfig { version, codec, width_px, height_px });
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
