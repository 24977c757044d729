//! What goes over the WebSocket: the JSON messages and the header of binary ones. `docs/wire-schema.md` is its manual.

use axum::body::Bytes;
use axum::extract::ws::Utf8Bytes;
use millrace_frame::{CameraMessage, Detections, DetectionsMessage};
use serde::Serialize;

/// Version of every message; a field never changes its meaning within one version.
pub(crate) const SCHEMA: u32 = 1;

/// A JSON message other than `detections`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Message<'a> {
    /// The first message of a connection.
    Hello { schema: u32, server: &'a str, title: &'a str, cameras: Vec<CameraInfo<'a>> },
    /// How to decode the binary messages of a camera that follow.
    Video {
        schema: u32,
        source: &'a str,
        index: u8,
        codec: &'a str,
        width_px: u32,
        height_px: u32,
        /// What a viewer does to each decoded picture so that it is upright.
        orientation: &'a str,
        /// Of the packets that follow at once, how many are older than now; they lead up to the live picture.
        replay_packets: usize,
    },
    /// Messages that were dropped for this client since the last one it got, because it read too slowly.
    Gap { schema: u32, source: &'a str, detections: u64, packets: u64 },
    /// Once a second, and when a camera's state changes.
    Stats {
        schema: u32,
        uptime_s: u64,
        clients: usize,
        cameras: &'a [CameraStats<'a>],
        #[serde(skip_serializing_if = "Option::is_none")]
        client: Option<ClientStats>,
    },
    /// The graph has ended; nothing follows.
    End { schema: u32, reason: &'a str },
}

impl Message<'_> {
    /// The text of a message. Serializing these types cannot fail; should it ever, the client gets an empty object.
    pub(crate) fn text(&self) -> Utf8Bytes {
        text(self)
    }
}

/// The text of the message that carries the boxes of one frame; zenoh's is the same.
pub(crate) fn detections_text(found: &Detections) -> Utf8Bytes {
    text(&DetectionsMessage::from(found))
}

fn text(message: &impl Serialize) -> Utf8Bytes {
    serde_json::to_string(message).unwrap_or_else(|_| "{}".into()).into()
}

/// A camera as `hello` lists it.
#[derive(Debug, Serialize)]
pub(crate) struct CameraInfo<'a> {
    pub(crate) source: &'a str,
    /// The camera's number in the header of binary messages.
    pub(crate) index: u8,
    /// 0 until it is known from the first detections or packet.
    pub(crate) width_px: u32,
    pub(crate) height_px: u32,
}

/// A camera's figures.
#[derive(Debug, Serialize)]
pub(crate) struct CameraStats<'a> {
    #[serde(flatten)]
    pub(crate) camera: CameraMessage<'a>,
    /// Frames whose detections were published.
    pub(crate) frames: u64,
    /// Of the last two seconds.
    pub(crate) fps: f64,
    /// Sequence numbers that never arrived: frames lost or skipped upstream.
    pub(crate) missing: u64,
    /// How often the numbering began again.
    pub(crate) restarts: u64,
    /// From a frame's arrival at the first node to the publication of its detections, over the frames of the last 10 s;
    /// absent where there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age_p95_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age_p99_ms: Option<f64>,
    /// The same as `age_p50_ms` and `age_p99_ms`, by their first names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency_p99_ms: Option<f64>,
    /// Encoded pictures that came in.
    pub(crate) packets: u64,
    /// The model of its last detections, and what that is for; absent where it is not known.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) model: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) about: &'a str,
}

/// One client's losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ClientStats {
    pub(crate) dropped_detections: u64,
    pub(crate) dropped_packets: u64,
}

/// What a binary message carries behind its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One H.264 access unit, Annex-B.
    H264 = 1,
    /// One JPEG picture.
    Jpeg = 2,
}

/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 16;

/// A binary message: the header (byte 0: version 1; 1: kind; 2: flags, bit 0 = key; 3: camera index; 4 to 7: zero;
/// 8 to 15: `pts_ns`, little-endian, signed), then `payload`.
pub(crate) fn binary(kind: Kind, key: bool, camera: u8, pts_ns: i64, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    out.extend([SCHEMA as u8, kind as u8, u8::from(key), camera, 0, 0, 0, 0]);
    out.extend(pts_ns.to_le_bytes());
    out.extend(payload);
    out.into()
}
