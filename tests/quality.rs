//! What each optimization may cost in quality, held by `millrace ab --require` on the demo clip and on the real data.
//!
//! That a requirement which is not met fails, and that planted faults miss these bounds, is in `ab.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{finish, millrace, printed, shared_data, yolox_nano};
use serde_json::Value;
use std::time::Duration;

/// Hand-over and exchange move the same bytes in another way: every bit and every box is the same.
const SAME: &str = "largest_difference <= 0, map_drop <= 0, all_boxes_gained <= 0, all_boxes_lost <= 0";
/// Colour, size and layout in one pass or several, from NV12 or BGR24: each pass over 8 bits rounds by half a level. 42 dB is
/// twice that, about 2 levels of 255 in the mean square; what a detector is sure of stays, and its precision to a tenth
/// of a point.
const ROUNDED: &str = "psnr >= 42, map_drop <= 0.1, boxes_gained <= 0, boxes_lost <= 0";

/// Each optimization alone over the baseline, each alone taken from the full graph, and all at once.
const PAIRS: [(&str, &str, &str); 7] = [
    ("baseline", "nv12", ROUNDED),
    ("baseline", "fused", ROUNDED),
    ("baseline", "streams", SAME),
    ("baseline", "zero-copy", SAME),
    ("bgr24", "full", ROUNDED),
    ("blocking", "full", SAME),
    ("baseline", "full", ROUNDED),
];

/// Compares all pairs over the first frames of a clip.
fn hold(frames: usize, sets: &[String]) {
    for (a, b, required) in PAIRS {
        let folder = tempfile::tempdir().unwrap();
        let [graph_a, graph_b] = [a, b].map(|name| format!("graphs/{name}.yml"));
        let (out, count) = (folder.path().display().to_string(), format!("--quality-frames={frames}"));
        let mut args = vec!["ab", &graph_a, &graph_b, "--no-build", "--quiet", "--quality-only", &count, "--out", &out];
        args.extend(["--require", required]);
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        let output = finish(&mut millrace(&args), Duration::from_secs(300));
        assert!(output.status.success(), "{a} against {b}: {}", printed(&output));
        let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
        let quality = &report["experiment"]["quality"];
        assert_eq!(quality["tensors"].as_array().unwrap().len(), frames, "{a} against {b}: all were compared");
        // boxes to lose there have to be
        let boxes = quality["detections_a"].as_array().unwrap().iter();
        let boxes: usize = boxes.map(|frame| frame["boxes"].as_array().unwrap().len()).sum();
        assert!(boxes > frames / 2, "{a} against {b}: {boxes} boxes in {frames} frames");
    }
}

#[test]
fn no_optimization_costs_quality_on_the_demo_clip() {
    hold(75, &[]);
}

/// YOLOX-nano on people.
#[test]
fn no_optimization_costs_quality_on_the_real_clip() {
    let Some(data) = shared_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.yml");
    std::fs::write(&model, yolox_nano(&data)).unwrap();
    let clip = data.join("clips/one-by-one-person-detection.mp4");
    let sets = [format!("decode.SOURCE={}", clip.display()), format!("detect.MODEL={}", model.display())];
    hold(60, &sets);
}
