//! What waits for one client. The node's thread pushes and never waits; the client's task pops. A client that cannot
//! keep up loses the oldest detections, and of its pictures everything up to the next key frame; both are counted, and
//! the client gets a `gap` message.

use crate::protocol::{ClientStats, Message, SCHEMA};
use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use millrace_frame::{Orientation, Size};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How much may wait for a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Detections messages.
    pub(crate) detections: usize,
    /// Bytes of all detections messages.
    pub(crate) detections_bytes: usize,
    /// Bytes of all pictures.
    pub(crate) video_bytes: usize,
    /// Age of the oldest picture.
    pub(crate) video_age: Duration,
    /// A client that gives no sign of life for so long is given up; it is asked for one four times as often.
    pub(crate) dead_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            detections: 256,
            detections_bytes: 4 << 20,
            video_bytes: 32 << 20,
            video_age: Duration::from_secs(3),
            dead_after: Duration::from_secs(20),
        }
    }
}

/// Which pictures a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Video {
    /// None.
    None,
    /// H.264 where the camera has it, else JPEG.
    Auto,
    /// JPEG in any case.
    Jpeg,
}

/// What the client's task does next.
#[derive(Debug, PartialEq)]
pub(crate) enum SendStep {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// Say goodbye with this code and reason; nothing follows.
    Close(u16, String),
    /// The peer is gone; say nothing.
    Hangup,
}

/// How a picture stream has to be decoded; `version` rises with each change.
#[derive(Clone, Debug)]
pub(crate) struct VideoConfig {
    pub(crate) version: u32,
    pub(crate) codec: String,
    pub(crate) view: View,
}

/// How decoded pictures are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Upright.
    pub(crate) size: Size,
    /// What has to be done to them before.
    pub(crate) orientation: Orientation,
}

impl From<Size> for View {
    fn from(size: Size) -> Self {
        Self { size, orientation: Orientation::Upright }
    }
}

impl VideoConfig {
    fn message(&self, source: &str, index: u8, replay_packets: usize) -> Utf8Bytes {
        let Self { codec, view: View { size, orientation }, .. } = self;
        Message::Video {
            schema: SCHEMA,
            source,
            index,
            codec,
            width_px: size.width_px,
            height_px: size.height_px,
            orientation: orientation.as_str(),
            replay_packets,
        }
        .text()
    }
}

#[derive(Debug, Default)]
struct Camera {
    source: Arc<str>,
    /// Pictures are of no use before a key frame.
    wait_key: bool,
    /// The version of the configuration that was queued last.
    config: Option<u32>,
    /// Pictures have been queued before, so that those which now wait for a key frame are a loss.
    begun: bool,
    lost_detections: u64,
    lost_packets: u64,
}

#[derive(Debug)]
enum Picture {
    Config(u8, Utf8Bytes),
    Data { camera: u8, bytes: Bytes, since: Instant, droppable: bool },
}

#[derive(Debug, Default)]
struct State {
    hello: Option<Utf8Bytes>,
    stats: Option<Utf8Bytes>,
    detections: VecDeque<(u8, Utf8Bytes)>,
    detections_bytes: usize,
    pictures: VecDeque<Picture>,
    pictures_bytes: usize,
    cameras: BTreeMap<u8, Camera>,
    lost: ClientStats,
    /// What comes when everything else has been sent.
    ending: VecDeque<SendStep>,
    /// Close now.
    abort: Option<SendStep>,
}

/// The queue of one client.
#[derive(Debug)]
pub(crate) struct ClientQueue {
    pub(crate) video: Video,
    pub(crate) limits: Limits,
    state: Mutex<State>,
    ready: Notify,
}

impl ClientQueue {
    pub(crate) fn new(video: Video, limits: Limits) -> Self {
        Self { video, limits, state: Mutex::default(), ready: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // nothing in here leaves the state half changed, so a panic elsewhere does not spoil it
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, edit: impl FnOnce(&mut State)) {
        edit(&mut self.lock());
        self.ready.notify_one();
    }

    /// The first message.
    pub(crate) fn push_hello(&self, text: Utf8Bytes) {
        self.change(|s| s.hello = Some(text));
    }

    /// The figures of this second, in place of older ones that were not sent.
    pub(crate) fn push_stats(&self, text: Utf8Bytes) {
        self.change(|s| s.stats = Some(text));
    }

    /// Detections of a camera. Returns how many older ones had to go.
    pub(crate) fn push_detections(&self, camera: u8, source: &Arc<str>, text: Utf8Bytes) -> u64 {
        let mut gone = 0;
        self.change(|s| {
            s.camera(camera, source);
            s.detections_bytes += text.len();
            s.detections.push_back((camera, text));
            while s.detections.len() > self.limits.detections
                || (s.detections_bytes > self.limits.detections_bytes && s.detections.len() > 1)
            {
                let Some((lost, text)) = s.detections.pop_front() else { break };
                s.detections_bytes -= text.len();
                if let Some(camera) = s.cameras.get_mut(&lost) {
                    camera.lost_detections += 1;
                }
                gone += 1;
            }
            s.lost.dropped_detections += gone;
        });
        gone
    }

    /// The pictures since the last key frame, for a client that has just come.
    pub(crate) fn push_replay(&self, camera: u8, source: &Arc<str>, config: &VideoConfig, packets: &[Bytes]) {
        self.change(|s| {
            let bytes: usize = packets.iter().map(Bytes::len).sum();
            let fits = s.pictures_bytes + bytes <= self.limits.video_bytes;
            let state = s.camera(camera, source);
            state.wait_key = packets.is_empty() || !fits;
            if state.wait_key {
                return;
            }
            (state.config, state.begun) = (Some(config.version), true);
            s.pictures.push_back(Picture::Config(camera, config.message(source, camera, packets.len())));
            s.pictures_bytes += bytes;
            let since = Instant::now();
            s.pictures.extend(packets.iter().map(|bytes| Picture::Data {
                camera,
                bytes: bytes.clone(),
                since,
                droppable: true,
            }));
        });
    }

    /// One encoded picture. Returns how many pictures were lost to this client by it.
    pub(crate) fn push_packet(
        &self,
        camera: u8,
        source: &Arc<str>,
        config: &VideoConfig,
        key: bool,
        bytes: &Bytes,
    ) -> u64 {
        let mut gone = 0;
        self.change(|s| {
            let oldest = s.pictures.iter().find_map(Picture::since);
            let late = oldest.is_some_and(|t| t.elapsed() > self.limits.video_age);
            if late || s.pictures_bytes + bytes.len() > self.limits.video_bytes {
                gone += s.skip_to_key();
            }
            let state = s.camera(camera, source);
            if state.wait_key && !key {
                if state.begun {
                    state.lost_packets += 1;
                    gone += 1;
                }
            } else {
                (state.wait_key, state.begun) = (false, true);
                if state.config.replace(config.version) != Some(config.version) {
                    s.pictures.push_back(Picture::Config(camera, config.message(source, camera, 0)));
                }
                s.pictures_bytes += bytes.len();
                s.pictures.push_back(Picture::Data {
                    camera,
                    bytes: bytes.clone(),
                    since: Instant::now(),
                    droppable: true,
                });
            }
            s.lost.dropped_packets += gone;
        });
        gone
    }

    /// One JPEG picture, in place of the camera's older one where that was not sent. Returns how many were replaced.
    pub(crate) fn push_jpeg(&self, camera: u8, source: &Arc<str>, config: &VideoConfig, bytes: &Bytes) -> u64 {
        let mut gone = 0;
        self.change(|s| {
            let before = s.pictures.len();
            let mut freed = 0;
            s.pictures.retain(|p| match p {
                Picture::Data { camera: c, bytes, droppable: false, .. } if *c == camera => {
                    freed += bytes.len();
                    false
                }
                _ => true,
            });
            gone = (before - s.pictures.len()) as u64;
            s.pictures_bytes -= freed;
            s.lost.dropped_packets += gone;
            let state = s.camera(camera, source);
            state.lost_packets += gone;
            if state.config.replace(config.version) != Some(config.version) {
                s.pictures.push_back(Picture::Config(camera, config.message(source, camera, 0)));
            }
            s.pictures_bytes += bytes.len();
            let (bytes, since) = (bytes.clone(), Instant::now());
            s.pictures.push_back(Picture::Data { camera, bytes, since, droppable: false });
        });
        gone
    }

    /// Says why and closes, once everything that waits has been sent.
    pub(crate) fn end(&self, code: u16, reason: &str) {
        let text = Message::End { schema: SCHEMA, reason }.text();
        self.change(|s| s.ending = [SendStep::Text(text), SendStep::Close(code, reason.into())].into());
    }

    /// Closes before anything that waits.
    pub(crate) fn abort(&self, code: u16, reason: &str) {
        self.change(|s| {
            s.abort.get_or_insert(SendStep::Close(code, reason.into()));
        });
    }

    /// The peer has closed.
    pub(crate) fn hangup(&self) {
        self.change(|s| {
            s.abort.get_or_insert(SendStep::Hangup);
        });
    }

    /// What this client has lost so far.
    pub(crate) fn lost(&self) -> ClientStats {
        self.lock().lost
    }

    /// Waits for something to send.
    pub(crate) async fn next(&self) -> SendStep {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            // a permit is kept when a push comes between the two lines
            self.ready.notified().await;
        }
    }

    /// Something to send, if there is any: small and urgent things first.
    pub(crate) fn try_next(&self) -> Option<SendStep> {
        let mut guard = self.lock();
        let s = &mut *guard;
        if let Some(next) = s.abort.take() {
            // a further call returns the same
            s.abort = Some(SendStep::Hangup);
            return Some(next);
        }
        if let Some(text) = s.hello.take().or_else(|| s.stats.take()) {
            return Some(SendStep::Text(text));
        }
        if let Some(&(camera, _)) = s.detections.front() {
            if let Some(gap) = s.cameras.get_mut(&camera).and_then(|c| c.gap(c.lost_detections)) {
                return Some(SendStep::Text(gap));
            }
            let (_, text) = s.detections.pop_front()?;
            s.detections_bytes -= text.len();
            return Some(SendStep::Text(text));
        }
        match s.pictures.front() {
            Some(Picture::Data { camera, .. }) => {
                if let Some(gap) = s.cameras.get_mut(camera).and_then(|c| c.gap(c.lost_packets)) {
                    return Some(SendStep::Text(gap));
                }
                let Some(Picture::Data { bytes, .. }) = s.pictures.pop_front() else { return None };
                s.pictures_bytes -= bytes.len();
                Some(SendStep::Binary(bytes))
            }
            Some(Picture::Config(_, text)) => {
                let text = text.clone();
                s.pictures.pop_front();
                Some(SendStep::Text(text))
            }
            None => s.ending.pop_front(),
        }
    }
}

impl Picture {
    fn since(&self) -> Option<Instant> {
        match self {
            Self::Data { since, .. } => Some(*since),
            Self::Config(..) => None,
        }
    }
}

impl Camera {
    /// The message about what was lost, where `count` of it is not zero.
    fn gap(&mut self, count: u64) -> Option<Utf8Bytes> {
        (count > 0).then(|| {
            let (detections, packets) =
                (std::mem::take(&mut self.lost_detections), std::mem::take(&mut self.lost_packets));
            Message::Gap { schema: SCHEMA, source: &self.source, detections, packets }.text()
        })
    }
}

impl State {
    fn camera(&mut self, index: u8, source: &Arc<str>) -> &mut Camera {
        let camera = self.cameras.entry(index).or_default();
        if camera.source != *source {
            // the number of a camera that has ended has gone to another one
            *camera = Camera { source: source.clone(), ..Camera::default() };
        }
        camera
    }

    /// Drops every picture that waits; each camera goes on at its next key frame. Returns how many were dropped.
    fn skip_to_key(&mut self) -> u64 {
        let mut gone = 0;
        for picture in std::mem::take(&mut self.pictures) {
            match picture {
                Picture::Config(index, _) => {
                    if let Some(camera) = self.cameras.get_mut(&index) {
                        camera.config = None;
                    }
                }
                Picture::Data { camera: index, droppable, .. } => {
                    if let Some(camera) = self.cameras.get_mut(&index) {
                        // a JPEG needs no key frame before it
                        camera.wait_key |= droppable;
                        camera.lost_packets += 1;
                    }
                    gone += 1;
                }
            }
        }
        self.pictures_bytes = 0;
        gone
    }
}
