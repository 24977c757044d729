//! The compact encoding: the schema number in four bytes, little-endian, then the fields in the order of their
//! declaration in postcard's format. A field that came later is behind them all, in a part that is there where it says
//! something, so that an older reader passes over it.

use super::{SCHEMA, WireError};
use crate::{ClassScore, DetBox, Detections, Item, Keypoint, Oriented};
use serde::{Deserialize, Serialize};

/// The most bytes that an item takes: what a control block reserves for each.
pub const ITEM_MAX_BYTES: usize = 512;

/// Encodes an item; see [`ITEM_MAX_BYTES`] for how long it may become.
pub fn item_to_bytes(item: &Item) -> Result<Vec<u8>, WireError> {
    let bytes = encode(item)?;
    if bytes.len() > ITEM_MAX_BYTES {
        return Err(too_long(bytes.len()));
    }
    Ok(bytes)
}

/// Decodes an item. More than [`ITEM_MAX_BYTES`] are refused: no control block has room for them.
pub fn item_from_bytes(bytes: &[u8]) -> Result<Item, WireError> {
    if bytes.len() > ITEM_MAX_BYTES {
        return Err(too_long(bytes.len()));
    }
    decode(bytes)
}

fn too_long(bytes: usize) -> WireError {
    WireError::Damaged(format!("an item of {bytes} bytes, of which at most {ITEM_MAX_BYTES} fit into a control block"))
}

// `Detections` leaves fields out of its JSON by serde's `skip`, so the wire has its own mirror of all of them.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    source: &'a str,
    seq: u64,
    pts_ns: i64,
    capture_ns: i64,
    arrival_ns: i64,
    sender_ns: Option<i64>,
    model: &'a str,
    width_px: u32,
    height_px: u32,
    boxes: Vec<WireBox<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireBox<'a> {
    edges: [f32; 4],
    score: f32,
    class_id: u32,
    label: &'a str,
    track_id: Option<u64>,
}

/// The later part.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct More<'a> {
    about: &'a str,
    classes: Vec<(u32, &'a str, f32)>,
    /// Of the boxes that have more than edges, with their numbers.
    shapes: Vec<(u32, Shape)>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Shape {
    oriented: Option<[f32; 5]>,
    keypoints: Vec<(f32, f32, Option<f32>)>,
    mask: Vec<Vec<f32>>,
}

impl<'a> More<'a> {
    fn of(found: &'a Detections) -> Self {
        let shape = |b: &DetBox| Shape {
            oriented: b.oriented.map(|o| [o.x, o.y, o.width, o.height, o.angle_rad]),
            keypoints: b.keypoints.iter().map(|p| (p.x, p.y, p.score)).collect(),
            mask: b.mask.clone(),
        };
        Self {
            about: &found.about,
            classes: found.classes.iter().map(|c| (c.class_id, c.label.as_str(), c.score)).collect(),
            shapes: (0..).zip(found.boxes.iter().map(shape)).filter(|(_, shape)| *shape != Shape::default()).collect(),
        }
    }

    fn give(self, found: &mut Detections) -> Result<(), WireError> {
        self.about.clone_into(&mut found.about);
        let class =
            |(class_id, label, score): (u32, &str, f32)| ClassScore { class_id, label: label.to_owned(), score };
        found.classes = self.classes.into_iter().map(class).collect();
        for (index, Shape { oriented, keypoints, mask }) in self.shapes {
            let of = found.boxes.get_mut(index as usize);
            let of = of.ok_or_else(|| WireError::Damaged(format!("the shape of box {index}, which is not there")))?;
            of.oriented = oriented.map(|[x, y, width, height, angle_rad]| Oriented { x, y, width, height, angle_rad });
            of.keypoints = keypoints.into_iter().map(|(x, y, score)| Keypoint { x, y, score }).collect();
            of.mask = mask;
        }
        Ok(())
    }
}

/// Encodes detections.
pub fn detections_to_bytes(found: &Detections) -> Result<Vec<u8>, WireError> {
    let bytes = encode(&Wire {
        source: &found.source,
        seq: found.seq,
        pts_ns: found.pts_ns,
        capture_ns: found.capture_ns,
        arrival_ns: found.arrival_ns,
        sender_ns: found.sender_ns,
        model: &found.model,
        width_px: found.width_px,
        height_px: found.height_px,
        boxes: found
            .boxes
            .iter()
            .map(|b| WireBox {
                edges: [b.x1, b.y1, b.x2, b.y2],
                score: b.score,
                class_id: b.class_id,
                label: &b.label,
                track_id: b.track_id,
            })
            .collect(),
    })?;
    let more = More::of(found);
    if more == More::default() { Ok(bytes) } else { extend(&more, bytes) }
}

/// Decodes detections.
pub fn detections_from_bytes(bytes: &[u8]) -> Result<Detections, WireError> {
    let (wire, more): (Wire<'_>, _) = split(bytes)?;
    let mut found = Detections {
        schema: Detections::SCHEMA,
        source: wire.source.to_owned(),
        seq: wire.seq,
        pts_ns: wire.pts_ns,
        boxes: wire
            .boxes
            .into_iter()
            .map(|b| {
                let [x1, y1, x2, y2] = b.edges;
                let (score, class_id, track_id) = (b.score, b.class_id, b.track_id);
                let label = b.label.to_owned();
                DetBox { x1, y1, x2, y2, score, class_id, label, track_id, ..DetBox::default() }
            })
            .collect(),
        classes: Vec::new(),
        capture_ns: wire.capture_ns,
        arrival_ns: wire.arrival_ns,
        sender_ns: wire.sender_ns,
        model: wire.model.to_owned(),
        about: String::new(),
        width_px: wire.width_px,
        height_px: wire.height_px,
    };
    if !more.is_empty() {
        postcard::from_bytes::<More<'_>>(more).map_err(damaged)?.give(&mut found)?;
    }
    Ok(found)
}

fn damaged(e: postcard::Error) -> WireError {
    WireError::Damaged(e.to_string())
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    extend(value, SCHEMA.to_le_bytes().to_vec())
}

fn extend<T: Serialize>(value: &T, bytes: Vec<u8>) -> Result<Vec<u8>, WireError> {
    postcard::to_extend(value, bytes).map_err(damaged)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, WireError> {
    split(bytes).map(|(value, _)| value)
}

/// A value, and the bytes behind it.
fn split<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), WireError> {
    let Some((head, body)) = bytes.split_first_chunk::<4>() else {
        return Err(WireError::Damaged(format!("{} bytes, which is too short for a schema number", bytes.len())));
    };
    match u32::from_le_bytes(*head) {
        SCHEMA => postcard::take_from_bytes(body).map_err(damaged),
        found => Err(WireError::Version { found }),
    }
}
