#![allow(clippy::unwrap_used)]

mod link;
mod message;
mod outbox;

use crate::message::JSON;
use crate::outbox::Put;
use millrace_frame::{DetBox, Detections};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn found(source: &str, seq: u64) -> Detections {
    let car = DetBox {
        x1: 1.5,
        y1: 2.0,
        x2: 30.0,
        y2: 40.25,
        score: 0.9,
        class_id: 2,
        label: "car".into(),
        ..DetBox::default()
    };
    Detections {
        schema: Detections::SCHEMA,
        source: source.into(),
        seq,
        pts_ns: 40_000_000 * seq as i64,
        boxes: vec![car],
        classes: Vec::new(),
        about: String::new(),
        capture_ns: 5,
        arrival_ns: 0,
        sender_ns: None,
        model: "m".into(),
        width_px: 640,
        height_px: 480,
    }
}

fn put(n: u8) -> Put {
    Put { source: format!("cam{n}").into(), payloads: vec![(JSON, vec![n])] }
}
