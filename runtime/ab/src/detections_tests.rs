//! Hand-worked cases, and figures that pycocotools gave (`tests/coco/golden.py`).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn bx(x1: f32, y1: f32, x2: f32, y2: f32, class_id: u32, score: f32) -> DetBox {
    DetBox { x1, y1, x2, y2, score, class_id, label: format!("class {class_id}"), ..DetBox::default() }
}

fn frame(seq: u64, boxes: Vec<DetBox>, ignored: Vec<DetBox>) -> FrameBoxes {
    FrameBoxes { source: "cam".into(), seq, pts_ns: 0, boxes, ignored }
}

#[test]
fn the_figures_are_those_of_pycocotools() {
    let cases: Vec<serde_json::Value> = serde_json::from_str(include_str!("../tests/coco/golden.json")).unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let read = |v: &serde_json::Value| {
            let n = |i: usize| v[1][i].as_f64().unwrap() as f32;
            bx(n(0), n(1), n(2), n(3), v[0].as_u64().unwrap() as u32, v[2].as_f64().unwrap_or(1.0) as f32)
        };
        let (mut found, mut truth) = (Vec::new(), Vec::new());
        for (seq, f) in (0..).zip(case["frames"].as_array().unwrap()) {
            found.push(frame(seq, f["found"].as_array().unwrap().iter().map(read).collect(), vec![]));
            let (skipped, counted): (Vec<_>, Vec<_>) =
                f["truth"].as_array().unwrap().iter().partition(|t| t[2].as_bool().unwrap());
            truth.push(frame(seq, counted.into_iter().map(read).collect(), skipped.into_iter().map(read).collect()));
        }
        let quality = Quality { detections_a: found.clone(), detections_b: found, truth, ..Quality::default() };
        let ours = analyse(&quality).unwrap().b_against_truth.unwrap();
        assert!((ours.map_50 - case["map_50"].as_f64().unwrap()).abs() < 1e-9, "{ours:?} {}", case["map_50"]);
        assert!((ours.map_50_95 - case["map_50_95"].as_f64().unwrap()).abs() < 1e-9, "{ours:?} {}", case["map_50_95"]);
    }
}

#[test]
fn precision_is_read_at_101_recalls() {
    // two truths; the boxes by score: right, wrong, right. Precision 1 up to recall 0.5 (51 points), 2/3 beyond (50)
    let truth = [bx(0., 0., 10., 10., 0, 1.0), bx(100., 0., 110., 10., 0, 1.0)];
    let found = [bx(0., 0., 10., 10., 0, 0.9), bx(50., 50., 60., 60., 0, 0.8), bx(100., 0., 110., 10., 0, 0.7)];
    let ap = average_precision(&[Sample { found: &found, truth: &truth, ignored: &[] }], 0, 0.5);
    assert!((ap - (51.0 + 50.0 * 2.0 / 3.0) / 101.0).abs() < 1e-12, "{ap}");
}

#[test]
fn a_lost_box_a_gained_one_and_another_class_are_counted_with_the_clear_ones() {
    let near = bx(0., 0., 10., 10., 0, 0.31);
    let sure = bx(100., 0., 110., 10., 0, 0.9);
    let quality = Quality {
        detections_a: vec![frame(0, vec![near.clone(), sure.clone()], vec![]), frame(1, vec![sure.clone()], vec![])],
        // the same place, another class: lost and gained
        detections_b: vec![
            frame(0, vec![sure.clone()], vec![]),
            frame(1, vec![DetBox { class_id: 1, ..sure }], vec![]),
            frame(2, vec![near], vec![]),
        ],
        score_threshold: 0.3,
        ..Quality::default()
    };
    let d = analyse(&quality).unwrap();
    assert_eq!((d.frames, d.frames_unpaired), (2, 1));
    assert_eq!((d.lost, d.lost_clear, d.gained, d.gained_clear), (2, 1, 1, 1));
    assert_eq!(d.changed.iter().map(|c| c.seq).collect::<Vec<_>>(), [1, 0], "the worst frame first");
}

#[test]
fn a_box_moved_by_less_than_half_is_neither_lost_nor_gained() {
    let a = vec![frame(0, vec![bx(0., 0., 100., 100., 0, 0.9)], vec![])];
    let moved = |by: f32| Quality {
        detections_a: a.clone(),
        detections_b: vec![frame(0, vec![bx(by, 0., 100. + by, 100., 0, 0.9)], vec![])],
        ..Quality::default()
    };
    // IoU (100 - d) / (100 + d): 0.5 at a third
    assert_eq!(analyse(&moved(33.0)).unwrap().lost, 0);
    assert_eq!(analyse(&moved(34.0)).unwrap().lost, 1);
}

#[test]
fn identical_arms_have_full_marks_and_none_without_boxes() {
    let boxes = vec![frame(0, vec![bx(0., 0., 100., 100., 3, 0.5)], vec![])];
    let quality = Quality { detections_a: boxes.clone(), detections_b: boxes, ..Quality::default() };
    let d = analyse(&quality).unwrap();
    assert_eq!(d.b_against_a, Some(Accuracy { map_50: 1.0, map_50_95: 1.0 }));
    assert_eq!(d.map_drop(), Some(0.0));
    let none = Quality { detections_a: vec![frame(0, vec![], vec![])], ..quality };
    assert_eq!(analyse(&none).unwrap().b_against_a, None);
}
