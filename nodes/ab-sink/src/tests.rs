#![allow(clippy::unwrap_used)]

use crate::node::AbSink;
use millrace_frame::{DetBox, Detections, Timebase, Timing, monotonic_ns};
use millrace_node::testing::Bench;
use serde_json::Value;

fn found(seq: u64, arrival_ns: i64) -> Detections {
    let car = DetBox {
        x1: 1.5,
        y1: 2.0,
        x2: 30.0,
        y2: 40.0,
        score: 0.5,
        class_id: 1,
        label: "car".into(),
        ..DetBox::default()
    };
    Detections {
        schema: Detections::SCHEMA,
        source: "gate".into(),
        seq,
        pts_ns: 40_000_000 * seq as i64,
        boxes: vec![car],
        classes: Vec::new(),
        about: String::new(),
        capture_ns: 0,
        arrival_ns,
        sender_ns: None,
        model: "m".into(),
        width_px: 640,
        height_px: 480,
    }
}

fn timing(seq: u64, arrival_ns: i64) -> Timing {
    Timing { pts_ns: 40_000_000 * seq as i64, timebase: Timebase::NANOSECONDS, arrival_ns, ..Timing::default() }
}

fn run(boxes: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    // a bench makes detections' pools by a port's first kind, which is theirs
    let mut bench = Bench::start::<AbSink>(&[("PATH", &path.display().to_string()), ("BOXES", boxes)]);
    for seq in 0..3 {
        let captured = monotonic_ns();
        bench.send_detections("in0", &found(seq, captured), timing(seq, captured)).unwrap();
    }
    // the node may not have opened its file yet
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), "", "nothing is written while it runs");
    let (_, metrics) = bench.finish();
    metrics.unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_arrival_is_a_record_with_its_times() {
    let before = monotonic_ns();
    let records = run("true");
    let after = monotonic_ns();
    assert_eq!(records.len(), 3);
    for (seq, record) in records.iter().enumerate() {
        assert_eq!(record["source"], "gate");
        assert_eq!(record["seq"], seq);
        assert_eq!(record["pts_ns"], 40_000_000 * seq);
        let (captured, arrived) = (record["capture_ns"].as_i64().unwrap(), record["arrival_ns"].as_i64().unwrap());
        assert!(before <= captured && captured <= arrived && arrived <= after, "{record}");
        assert_eq!(record["boxes"][0]["x1"], 1.5);
        assert_eq!(record["boxes"][0]["label"], "car");
    }
    assert!(records.is_sorted_by_key(|r| r["arrival_ns"].as_i64()));
}

#[test]
fn boxes_are_left_out_where_nobody_asked() {
    assert!(run("false").iter().all(|record| record.get("boxes").is_none()));
}

#[test]
fn a_place_that_cannot_be_written_is_refused_before_the_first_frame() {
    let error = Bench::start::<AbSink>(&[("PATH", "/nowhere/records.jsonl")]).join().unwrap_err();
    assert!(error.contains("/nowhere/records.jsonl"), "{error}");
}
