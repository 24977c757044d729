//! What a detector found in one frame.

use crate::{Timebase, Timing};
use serde::{Deserialize, Serialize};

/// One box. Coordinates are edges, not pixel centres, in display pixels of the source: a box that covers the whole of a
/// 640x480 frame is `0, 0, 640, 480`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// The rectangle itself where the model finds oriented ones; the edges above are then those of its upright bounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oriented: Option<Oriented>,
    /// The key points in the model's order; empty where it has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keypoints: Vec<Keypoint>,
    /// The object's outline: rings of `x, y, x, y, ...`, filled by the even-odd rule, so that a ring within another is a hole.
    /// Empty where the model has no masks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mask: Vec<Vec<f32>>,
}

/// A rotated rectangle in display pixels of the source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Oriented {
    /// Centre.
    pub x: f32,
    /// Centre.
    pub y: f32,
    /// Extent along its own first axis.
    pub width: f32,
    /// Extent along its own second axis.
    pub height: f32,
    /// From the x axis of the picture to the rectangle's first axis, clockwise on the screen (y grows downwards).
    pub angle_rad: f32,
}

impl Oriented {
    /// The four corners as `[x, y]`, in order around the rectangle.
    pub fn corners(&self) -> [[f32; 2]; 4] {
        let (sin, cos) = self.angle_rad.sin_cos();
        let (w, h) = (self.width / 2.0, self.height / 2.0);
        [[-w, -h], [w, -h], [w, h], [-w, h]].map(|[u, v]| [self.x + u * cos - v * sin, self.y + u * sin + v * cos])
    }
}

/// A point of an object, as a joint of a person, in display pixels of the source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Keypoint {
    /// From the left edge.
    pub x: f32,
    /// From the top edge.
    pub y: f32,
    /// Confidence that it is visible, 0 to 1, where the model says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub score: Option<f32>,
}

/// A class of the whole picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Index of the class in the model's labels.
    pub class_id: u32,
    /// The class's name.
    pub label: String,
    /// Confidence, 0 to 1.
    pub score: f32,
}

impl DetBox {
    /// Whether all its numbers are finite.
    pub fn is_finite(&self) -> bool {
        let rectangle =
            self.oriented.is_none_or(|o| [o.x, o.y, o.width, o.height, o.angle_rad].iter().all(|v| v.is_finite()));
        let point = |p: &Keypoint| p.x.is_finite() && p.y.is_finite() && p.score.is_none_or(f32::is_finite);
        [self.x1, self.y1, self.x2, self.y2, self.score].iter().all(|v| v.is_finite())
            && rectangle
            && self.keypoints.iter().all(point)
            && self.mask.iter().flatten().all(|v| v.is_finite())
    }
}

/// What a model found in one frame; a frame with nothing is also reported.
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
    /// What a classifier says of the whole frame, by falling score; of any other model empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassScore>,
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
    /// What the model is for, as its description says; empty where it says nothing. Not part of the JSON.
    #[serde(skip)]
    pub about: String,
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

    /// The times of the frame, for a node that passes its detections on.
    pub fn timing(&self) -> Timing {
        Timing {
            pts_ns: self.pts_ns,
            timebase: Timebase::NANOSECONDS,
            capture_ns: self.capture_ns,
            arrival_ns: self.arrival_ns,
            ready_ns: 0,
            sender_ns: self.sender_ns,
        }
    }

    /// Names the first box or class with a number that is not finite: JSON cannot say those.
    pub fn not_finite(&self) -> Option<String> {
        let of_box = self.boxes.iter().position(|b| !b.is_finite());
        let of_class = || self.classes.iter().find(|class| !class.score.is_finite());
        of_box
            .map(|index| format!("box {index} ({})", self.boxes[index].label))
            .or_else(|| of_class().map(|class| format!("class {} ({})", class.class_id, class.label)))
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
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    classes: &'a [ClassScore],
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
            classes: &found.classes,
        }
    }
}
