//! The compact encoding: the schema number in four bytes, little-endian, then the fields in the order of their
//! declaration in postcard's format.

use super::{SCHEMA, WireError};
use crate::{DetBox, Detections, Item};
use serde::{Deserialize, Serialize};

/// The most bytes that an item takes: what a control block reserves for each.
pub const ITEM_MAX_BYTES: usize = 512;

/// Encodes an item; see [`ITEM_MAX_BYTES`] for how long it may become.
pub fn item_to_bytes(item: &Item) -> Result<Vec<u8>, WireError> {
    let bytes = encode(item)?;
    if bytes.len() > ITEM_MAX_BYTES {
        return Err(WireError::Value { field: "source", value: format!("{} bytes long", item.source.len()) });
    }
    Ok(bytes)
}

/// Decodes an item.
pub fn item_from_bytes(bytes: &[u8]) -> Result<Item, WireError> {
    decode(bytes)
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

/// Encodes detections.
pub fn detections_to_bytes(found: &Detections) -> Result<Vec<u8>, WireError> {
    encode(&Wire {
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
    })
}

/// Decodes detections.
pub fn detections_from_bytes(bytes: &[u8]) -> Result<Detections, WireError> {
    let wire: Wire<'_> = decode(bytes)?;
    Ok(Detections {
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
                DetBox { x1, y1, x2, y2, score, class_id, label: b.label.to_owned(), track_id }
            })
            .collect(),
        capture_ns: wire.capture_ns,
        arrival_ns: wire.arrival_ns,
        sender_ns: wire.sender_ns,
        model: wire.model.to_owned(),
        width_px: wire.width_px,
        height_px: wire.height_px,
    })
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    postcard::to_extend(value, SCHEMA.to_le_bytes().to_vec()).map_err(|e| WireError::Damaged(e.to_string()))
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, WireError> {
    let Some((head, body)) = bytes.split_first_chunk::<4>() else {
        return Err(WireError::Damaged(format!("{} bytes, which is too short for a schema number", bytes.len())));
    };
    match u32::from_le_bytes(*head) {
        SCHEMA => postcard::from_bytes(body).map_err(|e| WireError::Damaged(e.to_string())),
        found => Err(WireError::Version { found }),
    }
}
