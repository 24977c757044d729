//! The batch graph: a file in, JSON lines out, every frame exactly once.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured and seen")]

use millrace_tests::{finish, millrace, onnxruntime, printed, root, shared_data, succeed, yolox_nano};
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// `graphs/detect.yml` with settings; its lines.
fn detect(out: &Path, sets: &[String]) -> Vec<Value> {
    let mut args = vec!["run".to_owned(), "graphs/detect.yml".into(), "--no-build".into()];
    for set in sets.iter().chain([&format!("write.PATH={}", out.display())]) {
        args.extend(["--set".to_owned(), set.clone()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    succeed(&mut millrace(&args), LIMIT);
    let text = std::fs::read_to_string(out).unwrap();
    assert!(text.ends_with('\n'), "the last line is whole");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_every_frame_once(lines: &[Value], frames: usize) {
    assert_eq!(lines.len(), frames);
    for (n, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], n, "one line a frame, in presentation order");
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["schema", "source", "seq", "pts_ns", "boxes"]);
        assert_eq!(line["schema"], 1);
    }
    assert!(lines.is_sorted_by_key(|l| l["pts_ns"].as_i64().unwrap()));
}

#[test]
fn the_demo_clip_is_detected_as_well_as_its_truth_asks() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo.jsonl");
    let lines = detect(&out, &[]);
    assert_every_frame_once(&lines, 750);
    assert_eq!(lines[1]["pts_ns"], 40_000_000, "25 frames a second");
    let demo = root().join("tests/data/demo");
    // the model card's figure is 0.95, by a reference that shares no code with the nodes
    let verdict = succeed(
        Command::new("python3")
            .arg(demo.join("evaluate.py"))
            .args([demo.join("truth.jsonl"), out])
            .args(["--min-map", "0.9"]),
        LIMIT,
    );
    println!("{verdict}");
}

#[test]
fn the_real_clip_gives_the_references_boxes_with_the_pure_rust_engine() {
    real_clip("cpu-infer", &[]);
}

#[test]
fn the_real_clip_gives_the_references_boxes_with_onnx_runtime() {
    if let Some(library) = onnxruntime() {
        real_clip("ort-infer", &[format!("detect.LIBRARY={}", library.display())]);
    }
}

/// YOLOX-nano on a real clip against OpenCV + onnxruntime: the same boxes, frame by frame.
fn real_clip(engine: &str, sets: &[String]) {
    let Some(data) = shared_data() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.yml");
    std::fs::write(&model, yolox_nano(&data)).unwrap();
    // the graph with the other engine: what a user does by hand in the YAML
    let graph = std::fs::read_to_string(root().join("graphs/detect.yml")).unwrap();
    let graph = graph.replace("cpu-infer", engine).replace("../", &format!("{}/", root().display()));
    let file = folder.path().join("detect.yml");
    std::fs::write(&file, graph).unwrap();
    let out = folder.path().join("out.jsonl");
    let mut args = vec!["run".to_owned(), file.display().to_string(), "--no-build".into()];
    let own = [
        format!("decode.SOURCE={}", data.join("clips/one-by-one-person-detection.mp4").display()),
        format!("detect.MODEL={}", model.display()),
        format!("to-rgb.MODEL={}", model.display()),
        format!("write.PATH={}", out.display()),
    ];
    for set in own.iter().chain(sets) {
        args.extend(["--set".to_owned(), set.clone()]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    succeed(&mut millrace(&args), LIMIT);
    let text = std::fs::read_to_string(&out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_every_frame_once(&lines, 1394);

    let refs = std::fs::read(data.join("refs/one-by-one-person-detection.yolox_nano.json")).unwrap();
    let refs: Value = serde_json::from_slice(&refs).unwrap();
    let agreement = Agreement::of(refs["detections"].as_array().unwrap(), &lines);
    println!("{engine}: {agreement:?}");
    assert!(agreement.matched as f64 >= 0.99 * agreement.reference as f64, "{agreement:?}");
    assert!(agreement.mean_iou >= 0.97, "{agreement:?}");
    assert!(agreement.surplus as f64 <= 0.01 * agreement.reference as f64, "{agreement:?}");
}

#[derive(Debug, Default)]
struct Agreement {
    /// Boxes of the reference over 0.5.
    reference: usize,
    /// Of these, how many have a box of ours in the same class at IoU 0.8 or more.
    matched: usize,
    mean_iou: f64,
    /// Boxes of ours over 0.55 with no box of the reference, whatever its score.
    surplus: usize,
}

impl Agreement {
    fn of(reference: &[Value], ours: &[Value]) -> Self {
        let mut this = Self::default();
        let mut iou_sum = 0.0;
        for (theirs, line) in reference.iter().zip(ours) {
            // class_id, score, x1, y1, x2, y2
            let theirs: Vec<[f64; 6]> =
                theirs.as_array().unwrap().iter().map(|b| std::array::from_fn(|i| b[i].as_f64().unwrap())).collect();
            let ours: Vec<[f64; 6]> = line["boxes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|b| ["class_id", "score", "x1", "y1", "x2", "y2"].map(|key| b[key].as_f64().unwrap()))
                .collect();
            let best = |of: &[f64; 6], among: &[[f64; 6]]| {
                among.iter().filter(|b| b[0] == of[0]).map(|b| iou(of, b)).fold(0.0, f64::max)
            };
            for box_ in theirs.iter().filter(|b| b[1] > 0.5) {
                this.reference += 1;
                let iou = best(box_, &ours);
                if iou >= 0.8 {
                    this.matched += 1;
                    iou_sum += iou;
                }
            }
            this.surplus += ours.iter().filter(|b| b[1] > 0.55 && best(b, &theirs) < 0.8).count();
        }
        assert!(this.reference > 500, "the reference has boxes to compare with");
        this.mean_iou = iou_sum / this.matched.max(1) as f64;
        this
    }
}

fn iou(a: &[f64; 6], b: &[f64; 6]) -> f64 {
    let overlap = |low: usize, high: usize| (a[high].min(b[high]) - a[low].max(b[low])).max(0.0);
    let inter = overlap(2, 4) * overlap(3, 5);
    let area = |r: &[f64; 6]| (r[4] - r[2]) * (r[5] - r[3]);
    inter / (area(a) + area(b) - inter)
}

#[test]
fn a_full_disk_ends_the_job_with_an_error_that_names_it() {
    let args = ["run", "graphs/detect.yml", "--no-build", "--set", "write.PATH=/dev/full"];
    let output = finish(&mut millrace(&args), LIMIT);
    let text = printed(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("/dev/full"), "{text}");
}
