//! What each optimization may cost in quality, held by `millrace ab --require` on the demo clip and on the real data.
//!
//! That a requirement which is not met fails, and what is found when something is planted, is in `ab.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{finish, millrace, printed, shared_data, yolox_nano};
use serde_json::Value;
use std::time::Duration;

/// Hand-over and exchange move the same bytes in another way: every bit is the same, and every box.
const SAME: &str = "largest_difference <= 0, map_drop <= 0, all_boxes_gained <= 0, all_boxes_lost <= 0";
/// One pass or several: each pass over 8 bits rounds by half a level of 255 at most, and there are two that can. An error of
/// one level everywhere is 48 dB. What a detector is sure of stays.
const ROUNDED: &str = "psnr >= 48, boxes_gained <= 0, boxes_lost <= 0";
/// NV12 or BGR24: luma is the same, and a chroma sample is interpolated or goes to its four pixels, so edges of saturated
/// colours differ: the demo's drawn street has hardly anything else. On top of that, a wrong matrix would be 35 dB.
const CHROMA: &str = "psnr >= 38";
/// The same by what follows from it. Boxes near the threshold come and go; precision by the truth stays within what the
/// verdict calls no change. Over 250 frames it falls by 0.32 points, over the whole clip by none.
const CHROMA_BY_TRUTH: &str = "psnr >= 38, map_drop <= 0.5";
const CHROMA_BY_BOXES: &str = "psnr >= 38, boxes_gained <= 0, boxes_lost <= 0";

/// Compares two graphs over the first frames of a clip: the report, and all that was printed.
fn compare(a: &str, b: &str, frames: usize, required: &str, sets: &[String]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let [graph_a, graph_b] = [a, b].map(|name| format!("graphs/{name}.yml"));
    let (out, count) = (folder.path().display().to_string(), format!("--quality-frames={frames}"));
    let mut args = vec!["ab", &graph_a, &graph_b, "--no-build", "--quiet", "--quality-only", &count, "--out", &out];
    args.extend(["--require", required]);
    args.extend(sets.iter().map(String::as_str));
    let output = finish(&mut millrace(&args), Duration::from_secs(400));
    let text = format!("{a} against {b}: {}", printed(&output));
    let report = std::fs::read(folder.path().join("report.json")).unwrap_or_else(|_| panic!("{text}"));
    let report: Value = serde_json::from_slice(&report).unwrap();
    // a verdict of 'quality changed' is an exit code of its own: what NV12 may cost is more than the verdict lets pass
    let changed = report["analysis"]["verdict"]["word"] == "quality_changed";
    assert_eq!(output.status.success(), !changed && unmet(&report).is_empty(), "{text}");
    (report, text)
}

fn unmet(report: &Value) -> Vec<&Value> {
    let judged = report["requirements"].as_array().unwrap();
    assert!(!judged.is_empty());
    judged.iter().filter(|judgement| judgement["outcome"] != "met").collect()
}

/// Requires of a pair of graphs that B costs no more than it may.
fn hold(a: &str, b: &str, frames: usize, required: &str, sets: &[String]) {
    let (report, text) = compare(a, b, frames, required, sets);
    assert!(unmet(&report).is_empty(), "{text}");
    assert!(required != SAME || report["analysis"]["verdict"]["word"] != "quality_changed", "{text}");
    let quality = &report["experiment"]["quality"];
    assert_eq!(quality["tensors"].as_array().unwrap().len(), frames, "{text}");
    // there have to be boxes to lose
    let found = quality["detections_a"].as_array().unwrap().iter();
    let boxes: usize = found.map(|frame| frame["boxes"].as_array().unwrap().len()).sum();
    assert!(boxes > frames / 2, "{boxes} boxes in {frames} frames; {text}");
}

/// Each optimization alone over the baseline, each alone taken from the full graph, and all at once.
#[test]
fn no_optimization_costs_more_than_it_may_on_the_demo_clip() {
    // precision wants many boxes
    hold("baseline", "nv12", 250, CHROMA_BY_TRUTH, &[]);
    for (a, b, required) in [
        ("baseline", "fused", format!("{ROUNDED}, map_drop <= 0.1").as_str()),
        ("baseline", "streams", SAME),
        ("baseline", "zero-copy", SAME),
        ("bgr24", "full", CHROMA),
        ("blocking", "full", SAME),
        ("baseline", "full", CHROMA),
    ] {
        hold(a, b, 50, required, &[]);
    }
}

/// YOLOX-nano on people. There is no truth to it, so what the detector is sure of counts.
#[test]
fn no_optimization_costs_more_than_it_may_on_the_real_clip() {
    let Some(data) = shared_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.yml");
    std::fs::write(&model, yolox_nano(&data)).unwrap();
    let clip = data.join("clips/one-by-one-person-detection.mp4");
    let sets = [format!("--set=decode.SOURCE={}", clip.display()), format!("--set=detect.MODEL={}", model.display())];
    for (b, required) in [("nv12", CHROMA_BY_BOXES), ("fused", ROUNDED), ("zero-copy", SAME), ("full", CHROMA_BY_BOXES)]
    {
        hold("baseline", b, 120, required, &sets);
    }
}

/// The widest bound is not too wide for what it is there to find.
#[test]
fn a_wrong_matrix_costs_more_than_nv12_may() {
    let (report, text) = compare("baseline", "nv12", 30, CHROMA, &["--set-b=decode.MATRIX=bt601".to_owned()]);
    assert_eq!(unmet(&report).len(), 1, "{text}");
}
