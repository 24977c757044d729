//! What a detector found in one frame.

use serde::{Deserialize, Serialize};

/// One box. Coordinates are edges, not pixel centres, in display pixels of the source: a box that covers the whole of a
/// 640x480 frame is `0, 0, 640, 480`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetBox {
    /// Left edge.
    pub x1: f32,
    /// Top edge.
    pub y1: f32,
    /// Right edge.
    pub x2: f32,
    /// Bottom edge.
    pub y2: f32,
    /// Confidence, 0 to 1.
    pub score: f32,
    /// Index of the class in the model's labels.
    pub class_id: u32,
    /// The class's name.
    pub label: String,
    /// The track that the box belongs to, where a tracker ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track_id: Option<u64>,
}

/// All boxes of one frame; a frame with none is also reported.
///
/// As JSON (field order as here) this is one line of `jsonl-writer` and the `detections` of every publisher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Detections {
    /// Version of this layout: [`Detections::SCHEMA`].
    pub schema: u32,
    /// Camera id.
    pub source: String,
    /// Number of the frame within its source, from 0 in presentation order.
    pub seq: u64,
    /// Presentation time, nanoseconds.
    pub pts_ns: i64,
    /// The boxes, by falling score.
    pub boxes: Vec<DetBox>,
    /// When the frame came in, nanoseconds of the Unix clock. Not part of the JSON.
    #[serde(skip)]
    pub capture_ns: i64,
    /// The same moment in nanoseconds of `CLOCK_MONOTONIC`. Not part of the JSON.
    #[serde(skip)]
    pub arrival_ns: i64,
    /// The camera's own wall clock for the picture; see [`Timing::sender_ns`](crate::Timing). Part of a publisher's message
    /// where the camera sends it, and not of a line of `jsonl-writer`.
    #[serde(skip)]
    pub sender_ns: Option<i64>,
    /// The model's name. Not part of the JSON.
    #[serde(skip)]
    pub model: String,
    /// Width of the source in display pixels. Not part of the JSON.
    #[serde(skip)]
    pub width_px: u32,
    /// Height of the source in display pixels. Not part of the JSON.
    #[serde(skip)]
    pub height_px: u32,
}

impl Detections {
    /// The version of the layout that this build writes.
    pub const SCHEMA: u32 = 1;

    /// The first box with a coordinate or score that is not a finite number: JSON cannot say those.
    pub fn not_finite(&self) -> Option<usize> {
        self.boxes.iter().position(|b| ![b.x1, b.y1, b.x2, b.y2, b.score].iter().all(|v| v.is_finite()))
    }
}

/// The `detections` message of `docs/wire-schema.md`: what the publishers send as JSON, with the fields that a line of
/// `jsonl-writer` leaves out.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DetectionsMessage<'a> {
    r#type: &'static str,
    schema: u32,
    source: &'a str,
    seq: u64,
    pts_ns: i64,
    capture_ns: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_ns: Option<i64>,
    width_px: u32,
    height_px: u32,
    model: &'a str,
    boxes: &'a [DetBox],
}

impl<'a> From<&'a Detections> for DetectionsMessage<'a> {
    fn from(found: &'a Detections) -> Self {
        Self {
            r#type: "detections",
            schema: found.schema,
            source: &found.source,
            seq: found.seq,
            pts_ns: found.pts_ns,
            capture_ns: found.capture_ns,
            sender_ns: found.sender_ns,
            width_px: found.width_px,
            height_px: found.height_px,
            model: &found.model,
            boxes: &found.boxes,
        }
    }
}
