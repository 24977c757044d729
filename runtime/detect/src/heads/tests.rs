//! Heads by hand: tensors small enough to compute on paper, and tensors that no model should give.
//! `tests/heads.rs` judges every head on larger ones.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use super::*;
use crate::{Model, Port};
use millrace_frame::Letterbox;
use proptest::prelude::*;

const HEADS: [&str; 24] = [
    "{kind: centre, output: a, stride_px: 8}",
    "{kind: yolox, output: a, strides_px: [8, 16]}",
    "{kind: yolox, output: a, strides_px: [8, 16], scores: logits}",
    "{kind: yolov5, output: a, strides_px: [8, 16]}",
    "{kind: yolov8, output: a, strides_px: [8, 16]}",
    "{kind: nanodet, output: a, strides_px: [8, 16], reg_max: 3}",
    "{kind: rtdetr, boxes: a, logits: b}",
    "{kind: rtdetr, boxes: a, logits: b, scores: probabilities, top_k: 2}",
    "{kind: end2end, output: a}",
    "{kind: end2end, output: a, extra: 2}",
    "{kind: dfine, labels: c, boxes: a, scores: b}",
    "{kind: yolonas, boxes: a, scores: b}",
    "{kind: yolov8, output: a, strides_px: [8, 16], scores: logits, extra: 2}",
    "{kind: yolov5, output: a, strides_px: [8, 16], scores: logits, extra: 2}",
    "{kind: rtdetr, output: a}",
    "{kind: nanodet, classes: [a, b], distances: [c, d], strides_px: [8, 16], reg_max: 3}",
    "{kind: yolov8, output: a, strides_px: [8, 16], masks: b, coefficients: 2}",
    "{kind: yolov8, output: a, strides_px: [8, 16], keypoints: 2}",
    "{kind: yolov8, output: a, strides_px: [8, 16], oriented: true}",
    "{kind: yolov5, output: a, strides_px: [8, 16], masks: b, coefficients: 2}",
    "{kind: end2end, output: a, keypoints: 1, keypoint_numbers: 2}",
    "{kind: end2end, output: a, oriented: true}",
    "{kind: classify, output: a}",
    "{kind: classify, output: a, scores: logits, top_k: 1}",
];

/// 16 x 8 pixels: two cells of 8, one of 16. Labels `one`, `two`.
fn model(head: &str, score: f32) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.yml");
    let text = format!(
        "schema: 1\nname: t\nfile: t.onnx\n\
         input: {{name: in, width_px: 16, height_px: 8, layout: nchw, dtype: f32, colour: rgb}}\n\
         letterbox: {{anchor: centre, pad: 0}}\nhead: {head}\n\
         thresholds: {{score: {score}, iou: 0.5, max_candidates: 50}}\nlabels: [one, two]\n"
    );
    std::fs::write(&path, text).unwrap();
    Model::load(&path).unwrap()
}

/// The shapes that fit each of [`HEADS`].
fn shapes(head: &str) -> Vec<(&'static str, Vec<usize>)> {
    match head {
        h if h.contains("classify") => vec![("a", vec![1, 2])],
        h if h.contains("masks") && h.contains("yolov8") => vec![("a", vec![1, 8, 3]), ("b", vec![1, 2, 2, 4])],
        h if h.contains("masks") => vec![("a", vec![1, 3, 9]), ("b", vec![1, 2, 2, 4])],
        h if h.contains("keypoints: 2") => vec![("a", vec![1, 12, 3])],
        h if h.contains("oriented") && h.contains("yolov8") => vec![("a", vec![1, 7, 3])],
        h if h.contains("keypoints: 1") => vec![("a", vec![1, 3, 8])],
        h if h.contains("oriented") => vec![("a", vec![1, 3, 7])],
        h if h.contains("centre") => vec![("a", vec![1, 6, 1, 2])],
        h if h.contains("yolox") => vec![("a", vec![1, 3, 7])],
        h if h.contains("yolov5") && h.contains("extra") => vec![("a", vec![1, 3, 9])],
        h if h.contains("yolov5") => vec![("a", vec![1, 3, 7])],
        h if h.contains("yolov8") && h.contains("extra") => vec![("a", vec![1, 8, 3])],
        h if h.contains("yolov8") => vec![("a", vec![1, 6, 3])],
        h if h.contains("classes") => {
            vec![("a", vec![1, 2, 2]), ("b", vec![1, 1, 2]), ("c", vec![1, 2, 16]), ("d", vec![1, 1, 16])]
        }
        h if h.contains("nanodet") => vec![("a", vec![1, 3, 18])],
        h if h.contains("end2end") && h.contains("extra") => vec![("a", vec![1, 3, 8])],
        h if h.contains("end2end") => vec![("a", vec![1, 3, 6])],
        h if h.contains("dfine") => vec![("c", vec![1, 3]), ("a", vec![1, 3, 4]), ("b", vec![1, 3])],
        h if h.contains("yolonas") => vec![("a", vec![1, 4, 4]), ("b", vec![1, 4, 2])],
        h if h.contains("output") => vec![("a", vec![1, 3, 6])],
        _ => vec![("a", vec![1, 3, 4]), ("b", vec![1, 3, 2])],
    }
}

#[test]
fn every_kind_is_among_the_heads_that_are_tried() {
    for kind in KINDS {
        assert!(HEADS.iter().any(|head| head.contains(kind.name)), "{}", kind.name);
    }
}

fn straight(width_px: u32, height_px: u32) -> Mapping {
    let source_from_model = Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 };
    Mapping { source_from_model, source_size: Size::new(width_px, height_px) }
}

fn run(head: &str, outputs: &[(&str, &[usize], &[f32])], to: &Mapping) -> Result<Boxes, HeadError> {
    let raw: Vec<RawTensor<'_>> =
        outputs.iter().map(|&(name, shape, data)| RawTensor::whole(name, shape, data)).collect();
    Decoder::new(&model(head, 0.25)).detect(&raw, to)
}

fn edges(found: &Boxes) -> Vec<([f32; 4], f32, &str)> {
    found.boxes.iter().map(|b| ([b.x1, b.y1, b.x2, b.y2], b.score, b.label.as_str())).collect()
}

#[test]
fn centre_measures_from_the_middle_of_a_cell() {
    // cell 1 is centred at (12, 4): 3 left, 2 up, 4 right, 1 down
    let data = [9., 3., 9., 2., 9., 4., 9., 1., 0.1, 0.2, 0.05, 0.75];
    let found = run(HEADS[0], &[("a", &[1, 6, 1, 2], &data)], &straight(16, 8)).unwrap();
    assert_eq!(edges(&found), [([9.0, 2.0, 16.0, 5.0], 0.75, "two")]);
}

#[test]
fn yolox_adds_the_cell_and_multiplies_the_scores() {
    // row 1: cell (1, 0) of stride 8: centre (0.5 + 1) 8 = 12, (0.25 + 0) 8 = 2; size e^0 8 = 8
    // row 2: cell (0, 0) of stride 16: centre (0.5, 0.25) 16 = (8, 4); size 2 x 16, 0.5 x 16
    let ln2 = std::f32::consts::LN_2;
    let data = [
        0.0, 0.0, 0.0, 0.0, 0.2, 1.0, 1.0, //
        0.5, 0.25, 0.0, 0.0, 0.5, 0.75, 0.125, //
        0.5, 0.25, ln2, -ln2, 1.0, 0.25, 0.5,
    ];
    let found = run(HEADS[1], &[("a", &[1, 3, 7], &data)], &straight(100, 100)).unwrap();
    let [(big, score, label), (small, less, other)] = edges(&found)[..] else { panic!("{found:?}") };
    assert_eq!((score, label, less, other), (0.5, "two", 0.375, "one"));
    assert_eq!(small, [8.0, 0.0, 16.0, 6.0]);
    for (got, want) in big.into_iter().zip([0.0, 0.0, 24.0, 8.0]) {
        assert!((got - want).abs() < 1e-4, "{big:?}");
    }
}

#[test]
fn logits_pass_a_sigmoid() {
    let mut data = [0.0; 21];
    data[4] = 3.0_f32.ln(); // sigmoid(ln 3) = 3/4
    data[5] = 1.0_f32.ln(); // 1/2
    data[6] = -9.0;
    data[11] = -9.0;
    data[18] = -9.0;
    let found = run(HEADS[2], &[("a", &[1, 3, 7], &data)], &straight(16, 8)).unwrap();
    let [(_, score, label)] = edges(&found)[..] else { panic!("{found:?}") };
    assert!((score - 0.375).abs() < 1e-6 && label == "one");
}

#[test]
fn nanodet_takes_the_mean_of_each_distribution() {
    // cell (1, 0) of stride 8 begins at (8, 0). Equal logits over 0..3 mean 1.5 cells = 12 px; one logit far above
    // the rest means its own bin; ln 3 against 0 at bins 2 and 3 means 2.25 cells = 18 px
    let mut data = [0.0; 54];
    let row = &mut data[18..36];
    row[1] = 0.5;
    row[6..10].copy_from_slice(&[60.0, 0.0, 0.0, 0.0]);
    row[10..14].copy_from_slice(&[-60.0, -60.0, 3.0_f32.ln(), 0.0]);
    row[14..18].copy_from_slice(&[0.0, 0.0, 0.0, 60.0]);
    let found = run(HEADS[5], &[("a", &[1, 3, 18], &data)], &straight(100, 100)).unwrap();
    let [(box_, score, label)] = edges(&found)[..] else { panic!("{found:?}") };
    assert_eq!((score, label), (0.5, "two"));
    // left 8 - 12 and top 0 - 0 are clipped or at the edge; right 8 + 18, bottom 0 + 24
    for (got, want) in box_.into_iter().zip([0.0, 0.0, 26.0, 24.0]) {
        assert!((got - want).abs() < 1e-3, "{box_:?}");
    }
}

#[test]
fn rtdetr_keeps_the_best_pairs_without_suppression() {
    // two queries on the same spot, of the same class: both stay; top_k is 2, so the third pair goes
    let boxes = [0.5, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5, 1.0, 0.25, 0.5, 0.5, 1.0];
    let scores = [0.9, 0.1, 0.8, 0.2, 0.1, 0.7];
    let outputs: [(&str, &[usize], &[f32]); 2] = [("b", &[1, 3, 2], &scores), ("a", &[1, 3, 4], &boxes)];
    let found = run(HEADS[7], &outputs, &straight(16, 8)).unwrap();
    assert_eq!(edges(&found), [([4.0, 0.0, 12.0, 8.0], 0.9, "one"), ([4.0, 0.0, 12.0, 8.0], 0.8, "one")]);
    assert_eq!(found.over_limit, 1);
}

#[test]
fn boxes_go_through_the_letterbox_and_are_clipped() {
    // one box per query, x, y, w, h: in the middle, half outside on the left, wholly in the padding below
    let data = [8., 4., 4., 4., 0.9, 0.9, 0.0, 1., 4., 6., 2., 0.8, 0.9, 0.0, 8., 7.5, 4., 1., 0.7, 0.9, 0.0];
    let source_from_model = Letterbox { scale_x: 10.0, scale_y: 10.0, offset_x: 0.0, offset_y: -5.0 };
    let to = Mapping { source_from_model, source_size: Size::new(160, 60) };
    let found = run(HEADS[3], &[("a", &[1, 3, 7], &data)], &to).unwrap();
    let boxes: Vec<_> = edges(&found).into_iter().map(|(b, ..)| b).collect();
    assert_eq!(boxes, [[60.0, 15.0, 100.0, 55.0], [0.0, 25.0, 40.0, 45.0]]);
}

#[test]
fn equal_scores_stay_in_the_order_of_the_output() {
    let mut data = Vec::new();
    for x in 0..12 {
        data.extend([20.0 * x as f32 + 10.0, 4.0, 4.0, 4.0, 0.5, 1.0, 0.0]);
    }
    let found = run(HEADS[3], &[("a", &[1, 12, 7], &data)], &straight(1000, 8)).unwrap();
    let lefts: Vec<f32> = found.boxes.iter().map(|b| b.x1).collect();
    assert_eq!(lefts, (0..12).map(|x| 20.0 * x as f32 + 8.0).collect::<Vec<_>>());
}

#[test]
fn a_wrong_shape_says_what_was_found_and_what_was_expected() {
    let error = |head: &str, outputs: &[(&str, &[usize], &[f32])]| {
        run(head, outputs, &straight(16, 8)).unwrap_err().to_string()
    };
    assert_eq!(
        error(HEADS[1], &[("a", &[1, 3, 8], &[0.0; 24])]),
        "output 'a' of the model has shape [1, 3, 8]; head 'yolox' with 2 labels at 16x8 expects [1, 3, 7] (cells of \
         [8, 16] px, then 5 + 2 labels). Correct 'head', 'labels' or 'input' of model.yml"
    );
    // transposed, another grid, a batch of two, another rank
    for (head, shape) in
        [(HEADS[4], &[1, 9, 6][..]), (HEADS[0], &[1, 6, 2, 1]), (HEADS[0], &[2, 6, 1, 2]), (HEADS[3], &[3, 7])]
    {
        let n = shape.iter().product();
        let text = error(head, &[("a", shape, &vec![0.0; n])]);
        assert!(text.contains(&format!("has shape {shape:?}")) && text.contains("expects"), "{text}");
    }
    assert_eq!(
        error(HEADS[3], &[("c", &[1, 3, 7], &[0.0; 21])]),
        "the head reads output 'a', which was not computed; there are: c"
    );
    assert!(error(HEADS[3], &[("a", &[1, 3, 7], &[0.0; 20])]).contains("has 20 elements, its shape [1, 3, 7] says 21"));
    let queries: [(&str, &[usize], &[f32]); 2] = [("a", &[1, 3, 4], &[0.0; 12]), ("b", &[1, 2, 2], &[0.0; 4])];
    assert!(error(HEADS[6], &queries).contains("'a' has shape [1, 3, 4]"));
}

#[test]
fn declared_shapes_are_checked_where_they_are_known() {
    let decoder = Decoder::new(&model(HEADS[0], 0.3));
    assert_eq!(decoder.check(&[vec![None, Some(6), None, None]]), Ok(()));
    assert_eq!(decoder.check(&[vec![Some(1), Some(6), Some(1), Some(2)]]), Ok(()));
    let text = decoder.check(&[vec![None, Some(84), None, None]]).unwrap_err().to_string();
    assert!(text.contains("[?, 84, ?, ?]") && text.contains("[1, 6, 1, 2]"), "{text}");
    assert!(decoder.check(&[vec![None, Some(6), None]]).is_err());
}

#[test]
fn logits_in_place_of_probabilities_are_an_error() {
    let data = [9., 3., 9., 2., 9., 4., 9., 1., 0.1, 7.5, 0.05, 0.75];
    let error = run(HEADS[0], &[("a", &[1, 6, 1, 2], &data)], &straight(16, 8)).unwrap_err();
    assert!(matches!(error, HeadError::NotProbability { ref value, .. } if value == "7.5"), "{error}");
}

#[test]
fn scores_below_zero_are_no_probabilities() {
    // logits of a YOLOv8: most are far below 0, and one between the threshold and 1 would pass for a box
    let data = [4., 4., 4., 4., 4., 4., 2., 2., 2., 2., 2., 2., -4., -5., 0.9, -6., -3., -7.];
    let error = run(HEADS[4], &[("a", &[1, 6, 3], &data)], &straight(16, 8)).unwrap_err();
    assert!(matches!(error, HeadError::NotProbability { .. }), "{error}");
    assert!(error.to_string().contains("write `scores: logits`"), "{error}");
}

#[test]
fn probabilities_in_place_of_logits_are_an_error() {
    let many: Vec<f32> = (0..100).flat_map(|_| [0.5, 0.5, 0.5, 0.5, 0.1, 0.9]).collect();
    let error = run("{kind: rtdetr, output: a, scores: logits}", &[("a", &[1, 100, 6], &many)], &straight(16, 8));
    assert_eq!(error.unwrap_err(), HeadError::NotLogits { kind: "rtdetr", scores: 200 });
}

#[test]
fn a_list_names_classes_that_there_are() {
    for (value, said) in [(2.0, "the class 2,"), (0.5, "the class 0.5,"), (-1.0, "the class -1,"), (f32::NAN, "NaN")] {
        let data = [1., 1., 9., 7., 0.9, value];
        let text = run(HEADS[8], &[("a", &[1, 1, 6], &data)], &straight(16, 8)).unwrap_err().to_string();
        assert!(text.contains(said) && text.contains("2 labels for classes 0 to 1"), "{text}");
    }
    // what scores too little may say anything
    let data = [1., 1., 9., 7., 0.1, 77.0];
    assert_eq!(run(HEADS[8], &[("a", &[1, 1, 6], &data)], &straight(16, 8)).unwrap().boxes, []);
}

#[test]
fn a_classifier_names_the_best_classes_and_no_boxes() {
    let classes = |head: &str, data: &[f32]| {
        let found = run(head, &[("a", &[1, 2], data)], &straight(16, 8))?;
        assert_eq!((found.boxes, found.over_limit), (Vec::new(), 0));
        Ok(found.classes.into_iter().map(|c| (c.label, c.class_id, c.score)).collect::<Vec<_>>())
    };
    assert_eq!(classes(HEADS[22], &[0.375, 0.625]), Ok(vec![("two".into(), 1, 0.625), ("one".into(), 0, 0.375)]));
    assert_eq!(classes(HEADS[22], &[0.125, 0.875]), Ok(vec![("two".into(), 1, 0.875)]), "one scores too little");
    // softmax of 0 and ln 3; the best alone is asked for
    let best = classes(HEADS[23], &[3.0_f32.ln(), 0.0]).unwrap();
    assert!(best.len() == 1 && best[0].0 == "one" && (best[0].2 - 0.75).abs() < 1e-6, "{best:?}");
    // logits that overflow an exponential
    assert_eq!(classes(HEADS[23], &[-2e38, 900.0]), Ok(vec![("two".into(), 1, 1.0)]));
    assert_eq!(classes(HEADS[23], &[0.25, 0.75]), Err(HeadError::NotLogits { kind: "classify", scores: 2 }));
    assert!(matches!(classes(HEADS[22], &[4.0, -3.0]), Err(HeadError::NotProbability { .. })));
}

#[test]
fn a_confidence_of_a_key_point_is_a_probability() {
    let mut data = vec![0.0; 36];
    // of place 0: centre 8, 4, size 8x4, score 0.9 of class one; points 6, 3 and 10, 5
    for (number, value) in [8.0, 4.0, 8.0, 4.0, 0.9, 0.0, 6.0, 3.0, 0.75, 10.0, 5.0, 0.25].into_iter().enumerate() {
        data[3 * number] = value;
    }
    let found = run(HEADS[17], &[("a", &[1, 12, 3], &data)], &straight(16, 8)).unwrap();
    let points: Vec<_> = found.boxes[0].keypoints.iter().map(|p| (p.x, p.y, p.score)).collect();
    assert_eq!(points, [(6.0, 3.0, Some(0.75)), (10.0, 5.0, Some(0.25))]);
    data[3 * 8] = 4.5;
    let text = run(HEADS[17], &[("a", &[1, 12, 3], &data)], &straight(16, 8)).unwrap_err().to_string();
    assert!(text.contains("the confidence 4.5") && text.contains("'keypoints'"), "{text}");
}

#[test]
fn a_turned_box_is_reported_with_its_upright_bounds() {
    // centre 8, 4, 6 by 2, turned by a right angle: 2 wide and 6 high
    let data = [8.0, 4.0, 6.0, 2.0, 0.9, 1.0, std::f32::consts::FRAC_PI_2];
    let source_from_model = Letterbox { scale_x: 2.0, scale_y: 2.0, offset_x: 1.0, offset_y: -1.0 };
    let to = Mapping { source_from_model, source_size: Size::new(40, 20) };
    let found = run(HEADS[21], &[("a", &[1, 1, 7], &data)], &to).unwrap();
    let turned = found.boxes[0].oriented.unwrap();
    assert_eq!((turned.x, turned.y, turned.width, turned.height), (17.0, 7.0, 12.0, 4.0));
    let ([x1, y1, x2, y2], ..) = edges(&found)[0];
    for (got, want) in [x1, y1, x2, y2].into_iter().zip([15.0, 1.0, 19.0, 13.0]) {
        assert!((got - want).abs() < 1e-4, "{found:?}");
    }
}

/// A model of 640x640 with one label, read by `head`: the doubt or the error that ten pictures raise.
#[test]
fn a_mask_ends_with_the_picture_and_not_with_what_is_said_of_the_padding() {
    // the picture is from 5 to 13 of 16 model pixels: cells of 2, whose centres are in it from the third to the seventh
    let source_from_model = Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: -5.0, offset_y: 0.0 };
    let to = Mapping { source_from_model, source_size: Size::new(8, 8) };
    let boxes = [0.0, 0.0, 16.0, 8.0, 0.9, 1.0, 1.0];
    let head = "{kind: end2end, output: a, masks: b, coefficients: 1}";
    let inside = |columns: std::ops::RangeInclusive<usize>, rows: std::ops::Range<usize>| -> Vec<f32> {
        (0..32).map(|n| if columns.contains(&(n % 8)) && rows.contains(&(n / 8)) { 1.0 } else { -1.0 }).collect()
    };
    let outline = |prototype: &[f32]| {
        let found = run(head, &[("a", &[1, 1, 7], &boxes), ("b", &[1, 1, 4, 8], prototype)], &to).unwrap();
        let mask = &found.boxes[0].mask;
        let mut points: Vec<[f32; 2]> = mask.concat().chunks(2).map(|p| [p[0], p[1]]).collect();
        points.retain(|[x, y]| [0.0, 8.0].contains(x) && [0.0, 4.0, 8.0].contains(y));
        points.sort_by(|a, b| a.partial_cmp(b).unwrap());
        points.dedup();
        (mask.len(), points, mask::area(&mask.concat().chunks(2).map(|p| [p[0], p[1]]).collect::<Vec<_>>()))
    };
    assert_eq!(outline(&inside(2..=6, 0..4)), (1, vec![[0.0, 0.0], [0.0, 8.0], [8.0, 0.0], [8.0, 8.0]], 64.0));
    // level with the middle between two rows, up to both edges
    assert_eq!(outline(&inside(2..=6, 0..2)), (1, vec![[0.0, 0.0], [0.0, 4.0], [8.0, 0.0], [8.0, 4.0]], 32.0));
    assert_eq!(outline(&inside(7..=7, 0..4)).0, 0, "in the padding alone");
}

#[test]
fn outputs_whose_extents_are_left_open_are_known_by_their_names() {
    // as the authors' script for D-FINE exports them
    let port = |name: &str, axes| Port { name: name.to_owned(), dtype: None, shape: Some(vec![None; axes]) };
    let outputs = [port("labels", 2), port("boxes", 3), port("scores", 2)];
    let heads: Vec<String> =
        guesses(&Seen::shapes(&outputs, Size::new(64, 64))).into_iter().map(|guess| guess.head).collect();
    assert_eq!(heads, ["{kind: dfine}"]);
}

fn doubt(head: &str, outputs: &[(&str, &[usize], &[f32])]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.yml");
    let text = format!(
        "schema: 1\nname: t\nfile: t.onnx\n\
         input: {{name: in, width_px: 640, height_px: 640, layout: nchw, dtype: f32, colour: rgb}}\n\
         letterbox: {{anchor: centre, pad: 0}}\nhead: {head}\nlabels: [one]\n"
    );
    std::fs::write(&path, text).unwrap();
    let mut decoder = Decoder::new(&Model::load(&path).unwrap());
    let raw: Vec<RawTensor<'_>> =
        outputs.iter().map(|&(name, shape, data)| RawTensor::whole(name, shape, data)).collect();
    let mut said = String::new();
    for _ in 0..10 {
        match decoder.detect(&raw, &straight(640, 640)) {
            Ok(found) => said.extend(found.doubt),
            Err(error) => return error.to_string(),
        }
    }
    said
}

#[test]
fn another_familys_outputs_of_the_same_shape_are_noticed() {
    let grid = 8400;
    let rows = |row: &dyn Fn(usize) -> Vec<f32>| -> Vec<f32> { (0..grid).flat_map(row).collect() };
    let seen = |i: usize| if i.is_multiple_of(1000) { 0.9 } else { 0.01 };
    let has = |text: String, part: &str| assert!(text.contains(part), "'{text}' lacks '{part}'");

    // YOLOX: offsets in cells and logarithms of sizes; YOLOv5 has pixels there
    let yolox = rows(&|i| vec![0.4, 0.6, 0.3, 0.5, seen(i), 1.0]);
    has(doubt("{kind: yolov5, output: a}", &[("a", &[1, grid, 6], &yolox)]), "fractions or cells");
    let yolov5 = rows(&|i| vec![320.0, 300.0, 60.0, 80.0, seen(i), 1.0]);
    has(doubt("{kind: yolox, output: a}", &[("a", &[1, grid, 6], &yolov5)]), "far outside");
    assert_eq!(doubt("{kind: yolov5, output: a}", &[("a", &[1, grid, 6], &yolov5)]), "");

    // YOLO-NAS: corners in pixels; RT-DETR has fractions there
    let (corners, scores) = (rows(&|_| vec![100.0, 50.0, 300.0, 250.0]), rows(&|i| vec![seen(i)]));
    let outputs: [(&str, &[usize], &[f32]); 2] = [("a", &[1, grid, 4], &corners), ("b", &[1, grid, 1], &scores)];
    let rtdetr = "{kind: rtdetr, boxes: a, logits: b, scores: probabilities}";
    has(doubt(rtdetr, &outputs), "up to 1000 queries");
    let few: [(&str, &[usize], &[f32]); 2] =
        [("a", &[1, 300, 4], &corners[..4 * 300]), ("b", &[1, 300, 1], &scores[..300])];
    has(doubt(rtdetr, &few), "far outside");
    assert_eq!(doubt("{kind: yolonas, boxes: a, scores: b}", &outputs), "");
    let fractions = rows(&|_| vec![0.5, 0.5, 0.2, 0.2]);
    let outputs: [(&str, &[usize], &[f32]); 2] = [("a", &[1, grid, 4], &fractions), ("b", &[1, grid, 1], &scores)];
    has(doubt("{kind: yolonas, boxes: a, scores: b}", &outputs), "end before they begin");

    // suppression inside: a list of 300 is no grid
    let list: Vec<f32> = (0..300).flat_map(|i| [i as f32, 60.0, i as f32 + 200.0, 260.0, 0.9, 0.0]).collect();
    has(
        doubt("{kind: yolov5, output: a}", &[("a", &[1, 300, 6], &list)]),
        "boxes: 8400 for cells of [8, 16, 32] px, times 1 to 9",
    );
    assert_eq!(doubt("{kind: end2end, output: a}", &[("a", &[1, 300, 6], &list)]), "");
    let same: Vec<f32> = (0..300).flat_map(|_| [100.0, 60.0, 300.0, 260.0, 0.9, 0.0]).collect();
    has(doubt("{kind: end2end, output: a}", &[("a", &[1, 300, 6], &same)]), "nearly all of the 300 boxes");

    // a segmentation's map of classes: something at every place
    let map: Vec<f32> = (0..5 * 80 * 80).map(|i| if i < 4 * 6400 { 9.0 } else { (i % 2) as f32 * 0.8 }).collect();
    has(doubt("{kind: centre, output: a, stride_px: 8}", &[("a", &[1, 5, 80, 80], &map)]), "3200 of the 6400 places");
}

#[test]
fn what_is_not_finite_is_counted_and_gives_no_box() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for head in HEADS {
            let filled: Vec<_> =
                shapes(head).into_iter().map(|(n, s)| (n, s.clone(), vec![bad; s.iter().product()])).collect();
            let outputs: Vec<_> = filled.iter().map(|(n, s, d)| (*n, s.as_slice(), d.as_slice())).collect();
            let found = run(head, &outputs, &straight(16, 8)).unwrap();
            assert!(found.boxes.is_empty() && found.not_finite > 0, "{head} of {bad}: {found:?}");
        }
    }
}

#[test]
fn more_candidates_than_the_limit_are_counted() {
    let mut data = Vec::new();
    for i in 0..80 {
        let left = 20.0 * i as f32;
        data.extend([left, 2.0, left + 4.0, 6.0, 0.5 + 0.005 * i as f32, 1.0]);
    }
    let found = run(HEADS[8], &[("a", &[1, 80, 6], &data)], &straight(2000, 8)).unwrap();
    assert_eq!((found.boxes.len(), found.over_limit), (50, 30));
    assert!((found.boxes[0].score - 0.895).abs() < 1e-6 && (found.boxes[49].score - 0.65).abs() < 1e-6);
}

/// Any bits as floats, with the special ones often.
fn floats(n: usize) -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![
        4 => -20.0f32..20.0,
        2 => 0.0f32..1.0,
        1 => any::<u32>().prop_map(f32::from_bits),
        1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, -0.0]),
    ];
    prop::collection::vec(one, n)
}

proptest! {
    #[test]
    fn no_output_panics_or_gives_a_box_outside_the_source(
        which in 0usize..HEADS.len(), bits in floats(80),
        scale in prop_oneof![0.1f64..10.0, Just(f64::NAN), Just(f64::INFINITY)], offset in -50.0f64..50.0,
    ) {
        let head = HEADS[which];
        let filled: Vec<_> = shapes(head).into_iter()
            .map(|(n, s)| (n, s.clone(), bits[..s.iter().product::<usize>()].to_vec())).collect();
        let outputs: Vec<_> = filled.iter().map(|(n, s, d)| (*n, s.as_slice(), d.as_slice())).collect();
        let source_from_model = Letterbox { scale_x: scale, scale_y: 1.0, offset_x: offset, offset_y: 0.0 };
        let to = Mapping { source_from_model, source_size: Size::new(33, 7) };
        if let Ok(found) = run(head, &outputs, &to) {
            for b in &found.boxes {
                prop_assert!(0.0 <= b.x1 && b.x1 < b.x2 && b.x2 <= 33.0, "{:?}", b);
                prop_assert!(0.0 <= b.y1 && b.y1 < b.y2 && b.y2 <= 7.0, "{:?}", b);
                prop_assert!((0.25..=1.0).contains(&b.score) && b.class_id < 2, "{:?}", b);
                prop_assert!(b.is_finite(), "{:?}", b);
                let within = |x: f32, y: f32| (0.0..=33.0).contains(&x) && (0.0..=7.0).contains(&y);
                prop_assert!(b.keypoints.iter().all(|p| within(p.x, p.y)), "{:?}", b);
                prop_assert!(b.mask.iter().all(|ring| ring.chunks(2).all(|p| within(p[0], p[1]))), "{:?}", b);
            }
            prop_assert!(found.classes.iter().all(|c| (0.25..=1.0).contains(&c.score) && c.class_id < 2));
            prop_assert!(found.boxes.windows(2).all(|w| w[0].score >= w[1].score));
        }
    }
}
