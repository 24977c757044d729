//! What an engine must do for models that find more than upright boxes.

use super::tool::ask;
use super::{data, describe, tiny};
use crate::{Detector, Engine};
use millrace_frame::{Detections, TensorDtype};
use std::path::PathBuf;

const CENTRE: &str = "{kind: centre, output: detections, stride_px: 8}";
/// The files of `make_tiny.py`, each with its head.
const TASKS: [(&str, &str); 4] = [
    ("tiny_seg.onnx", "{kind: yolov8, output: output0, masks: output1}"),
    ("tiny_pose.onnx", "{kind: yolov8, output: output0, keypoints: 2}"),
    ("tiny_obb.onnx", "{kind: yolov8, output: output0, oriented: true}"),
    ("tiny_classify.onnx", "{kind: classify, output: output, scores: probabilities}"),
];

/// Masks, key points, oriented boxes and classes of the whole picture come out as `make_tiny.py` put them in, in the source's
/// pixels, which are half as large.
pub fn finds_shapes_and_classes<E: Engine>(settings: impl Fn(PathBuf) -> E::Settings) {
    let [seg, pose, obb, classes] = TASKS.map(|(file, head)| -> Detections {
        let (_folder, model) = describe(file, &[(CENTRE, head)]);
        let mut detector = Detector::<E>::open(&settings(model), 1).unwrap();
        detector.detect(&tiny(TensorDtype::F32), &vec![0; 4 * 3 * 16 * 24]).unwrap().detections
    });
    for found in [&seg, &pose] {
        let [b] = &found.boxes[..] else { panic!("{found:?}") };
        assert_eq!(([b.x1, b.y1, b.x2, b.y2], b.label.as_str()), ([8.0, 4.0, 40.0, 28.0], "light"));
    }
    let [ring] = &seg.boxes[0].mask[..] else { panic!("{seg:?}") };
    let end = |axis: usize, of: fn(f32, f32) -> f32| ring.iter().skip(axis).step_by(2).copied().reduce(of).unwrap();
    let ends = [end(0, f32::min), end(1, f32::min), end(0, f32::max), end(1, f32::max)];
    assert_eq!(ends, [8.0, 4.0, 24.0, 28.0], "the left half of the box: {ring:?}");
    let points: Vec<_> = pose.boxes[0].keypoints.iter().map(|p| (p.x, p.y, p.score)).collect();
    assert_eq!(points, [(12.0, 8.0, Some(0.75)), (36.0, 24.0, Some(0.25))]);
    let turned = obb.boxes[0].oriented.unwrap();
    assert_eq!([turned.x, turned.y, turned.width, turned.height, turned.angle_rad], [24.0, 16.0, 32.0, 24.0, 0.5]);
    let classes: Vec<_> = classes.classes.iter().map(|c| (c.class_id, c.label.as_str(), c.score)).collect();
    assert_eq!(classes, [(1, "light", 0.75)], "the other scores less than 0.4");
}

/// `millrace model add` knows these models by what their files say.
pub fn adds_models_of_each_task<E: Engine>() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let said = ["an outline of", "2 key points", "turned by 29 degrees", "class 1 0.75"];
    for ((file, head), said) in TASKS.into_iter().zip(said) {
        std::fs::copy(data(file), at(file)).unwrap();
        let described = at(&format!("{file}.yml"));
        let out = ask::<E>(&["add", &at(file), "--output", &described]).unwrap();
        assert!(out.contains(&format!("is written: head {head}")), "{out}");
        let checked = ask::<E>(&["check", &described]).unwrap();
        assert!(out.contains(said) && checked.contains(said), "{out}{checked}");
        if head.contains("yolov8") {
            assert!(std::fs::read_to_string(&described).unwrap().contains("labels: [\"dark\", \"light\"]"));
        }
    }
    // read by the boxes alone, a segmentation model is refused before its first frame, with the head that it may be
    let text = std::fs::read_to_string(at("tiny_seg.onnx.yml")).unwrap().replace(", masks: output1", "");
    std::fs::write(at("boxes.yml"), text).unwrap();
    let refused = ask::<E>(&["check", &at("boxes.yml")]).unwrap_err();
    assert!(
        refused.contains("By its outputs it may be `head: {kind: yolov8, output: output0, masks: output1}`"),
        "{refused}"
    );
    // classes of the whole picture are listed, and nothing is drawn
    let grey = jpeg_encoder::Encoder::new_file(at("grey.jpg"), 95).unwrap();
    grey.encode(&[128; 3 * 48 * 32], 48, 32, jpeg_encoder::ColorType::Rgb).unwrap();
    let classes = ["check", &at("tiny_classify.onnx.yml"), "--picture", &at("grey.jpg")];
    let out = ask::<E>(&classes).unwrap();
    assert!(out.contains("48x32: 1 class of the whole picture") && !out.contains("drawn"), "{out}");
}
