//! Each optimization is a toggle: one line of a graph changes what runs. Told from counters, never from names.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{millrace, succeed};
use serde_json::Value;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// Counters of the first run of each arm, by `node.counter`.
fn counters(a: &str, b: &str) -> [Value; 2] {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let graphs = [a, b].map(|name| format!("graphs/{name}.yml"));
    let few = ["--rounds", "1", "--frames", "20", "--warm-up", "5", "--loads", "saturated", "--no-quality"];
    let mut args = vec!["ab", &graphs[0], &graphs[1], "--no-build", "--quiet", "--out", out];
    args.extend(few);
    succeed(&mut millrace(&args), LIMIT);
    let report = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let runs = report["experiment"]["loads"][0]["runs"].as_array().expect("runs").clone();
    ["a", "b"].map(|side| runs.iter().find(|run| run["side"] == side).expect("each arm ran")["counters"].clone())
}

/// A counter over the frames that the decoder gave out.
fn a_frame(counters: &Value, name: &str) -> f64 {
    let count = |name: &str| counters.get(name).and_then(Value::as_u64).unwrap_or(0) as f64;
    assert!(count("decode.out") >= 25.0, "frames were decoded: {counters}");
    count(name) / count("decode.out")
}

#[test]
fn nv12_halves_what_the_decoder_writes() {
    let [a, b] = counters("baseline", "nv12");
    assert!(a_frame(&b, "decode.bytes_out") > 0.0);
    assert_eq!(a_frame(&a, "decode.bytes_out"), 2.0 * a_frame(&b, "decode.bytes_out"), "3 bytes a pixel, and 1.5");
}

#[test]
fn a_fused_conversion_has_no_pictures_in_between() {
    // zero-copy and full: copies would count as well
    let [a, b] = counters("zero-copy", "full");
    assert!(a_frame(&a, "to-rgb.bytes_inside") > 0.0, "{a}");
    assert_eq!(a_frame(&b, "to-rgb.bytes_inside"), 0.0, "{b}");
}

#[test]
fn event_driven_nodes_wait_for_no_consumer() {
    let [a, b] = counters("baseline", "streams");
    for node in ["decode", "to-rgb", "detect"] {
        let name = format!("{node}.handover_waits");
        assert!(a_frame(&a, &name) >= 0.9, "{name}: {a}");
        assert_eq!(a_frame(&b, &name), 0.0, "{name}: {b}");
    }
}

#[test]
fn frames_that_are_shared_are_not_copied() {
    let [a, b] = counters("baseline", "zero-copy");
    // the decoder copies each frame into its slot; the converter each frame out and each tensor in
    assert!(a_frame(&a, "decode.copies") >= 0.9 && a_frame(&a, "to-rgb.copies") >= 1.8, "{a}");
    assert_eq!((a_frame(&b, "decode.copies"), a_frame(&b, "to-rgb.copies")), (0.0, 0.0), "{b}");
}
