#![allow(clippy::unwrap_used)]

use crate::lines::{JsonLines, LinesError};
use millrace_frame::{ClassScore, DetBox, Detections, Keypoint, Oriented};
use std::fs;

fn frame(seq: u64, boxes: Vec<DetBox>) -> Detections {
    Detections {
        schema: Detections::SCHEMA,
        source: "gate".into(),
        seq,
        pts_ns: 40_000_000 * seq as i64,
        boxes,
        classes: Vec::new(),
        about: String::new(),
        capture_ns: 1,
        arrival_ns: 0,
        sender_ns: None,
        model: "m".into(),
        width_px: 640,
        height_px: 480,
    }
}

fn car() -> DetBox {
    DetBox {
        x1: 1.5,
        y1: 2.1,
        x2: 30.0,
        y2: 40.25,
        score: 0.9,
        class_id: 2,
        label: "car \"x\"".into(),
        ..DetBox::default()
    }
}

#[test]
fn a_frame_is_one_line_of_exactly_the_documented_fields() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    let mut lines = JsonLines::open(&path, false).unwrap();
    lines.write(&frame(0, vec![car()])).unwrap();
    // the frame can be read at once, before anything is closed
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "{\"schema\":1,\"source\":\"gate\",\"seq\":0,\"pts_ns\":0,\"boxes\":[{\"x1\":1.5,\"y1\":2.1,\"x2\":30.0,\
         \"y2\":40.25,\"score\":0.9,\"class_id\":2,\"label\":\"car \\\"x\\\"\"}]}\n"
    );
    lines.write(&frame(1, vec![])).unwrap();
    lines.finish().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(
        text.lines().nth(1),
        Some("{\"schema\":1,\"source\":\"gate\",\"seq\":1,\"pts_ns\":40000000,\"boxes\":[]}")
    );
    assert_eq!(lines.lines(), 2);
}

#[test]
fn an_old_file_is_replaced_or_continued() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    fs::write(&path, "old\n").unwrap();
    JsonLines::open(&path, true).unwrap().write(&frame(7, vec![])).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("old\n{\"schema\":1") && text.ends_with("\"boxes\":[]}\n"), "{text}");
    JsonLines::open(&path, false).unwrap().write(&frame(8, vec![])).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);

    fs::write(&path, "{\"schema\":1,").unwrap();
    let error = JsonLines::open(&path, true).unwrap_err();
    assert!(matches!(error, LinesError::HalfLine { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"schema\":1,", "a refused file is left as it was");
}

#[test]
fn a_full_disk_names_the_file_the_frame_and_the_bytes() {
    let mut lines = JsonLines::open("/dev/full".as_ref(), false).unwrap();
    let text = lines.write(&frame(3, vec![car()])).unwrap_err().to_string();
    assert_eq!(
        text,
        "cannot write 152 bytes (camera gate, frame 3) to /dev/full after 0 lines, 0 bytes: \
         No space left on device (os error 28)"
    );
}

#[test]
fn a_missing_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("no/such/out.jsonl");
    let text = JsonLines::open(&path, false).unwrap_err().to_string();
    assert!(text.contains("no/such does not exist; make it first"), "{text}");
    let text = JsonLines::open(dir.path(), false).unwrap_err().to_string();
    assert!(text.contains("Is a directory"), "{text}");
}

#[test]
fn a_box_that_json_cannot_say_is_refused_and_leaves_no_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    let mut lines = JsonLines::open(&path, false).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = lines.write(&frame(0, vec![car(), DetBox { y2: bad, ..car() }])).unwrap_err();
        assert!(matches!(&error, LinesError::NotFinite { what, .. } if what.starts_with("box 1 ")), "{error}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
}

#[test]
fn classes_and_shapes_are_in_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    let mut wanted = frame(7, vec![car()]);
    wanted.boxes[0].keypoints = vec![Keypoint { x: 3.5, y: 4.0, score: Some(0.25) }];
    wanted.boxes[0].mask = vec![vec![1.5, 2.1, 30.0, 2.1, 30.0, 40.25]];
    wanted.boxes[0].oriented = Some(Oriented { x: 15.0, y: 20.0, width: 8.0, height: 4.0, angle_rad: 0.5 });
    wanted.classes = vec![ClassScore { class_id: 4, label: "street".into(), score: 0.75 }];
    JsonLines::open(&path, false).unwrap().write(&wanted).unwrap();
    let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(line["classes"], serde_json::json!([{"class_id": 4, "label": "street", "score": 0.75}]));
    assert_eq!(line["boxes"][0]["keypoints"], serde_json::json!([{"x": 3.5, "y": 4.0, "score": 0.25}]));
    assert_eq!(line["boxes"][0]["mask"][0].as_array().map(Vec::len), Some(6));
    assert_eq!(line["boxes"][0]["oriented"]["angle_rad"], 0.5);
    let read: Detections = serde_json::from_value(line).unwrap();
    assert_eq!((&read.boxes, &read.classes), (&wanted.boxes, &wanted.classes));
}

#[test]
fn every_float_comes_back_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.jsonl");
    let mut lines = JsonLines::open(&path, false).unwrap();
    let values = [0.1f32, 1.0 / 3.0, 16_777_215.0, f32::MIN_POSITIVE, -0.0, 1234.5678, f32::MAX];
    for &v in &values {
        lines.write(&frame(0, vec![DetBox { x1: v, ..car() }])).unwrap();
    }
    for (line, v) in fs::read_to_string(&path).unwrap().lines().zip(values) {
        let read: Detections = serde_json::from_str(line).unwrap();
        assert_eq!(read.boxes[0].x1.to_bits(), v.to_bits(), "{line}");
    }
}
