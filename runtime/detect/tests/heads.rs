//! Each head against what `data/make_heads.py` computed with numpy, and against what the libraries of real architectures find in
//! their models' outputs (`data/make_real.py`).
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use millrace_detect::heads::KINDS;
use millrace_detect::{Decoder, Mapping, Model, RawTensor};
use millrace_frame::{DetBox, Letterbox, Size};
use serde_json::Value;

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap()
}

fn uint(v: &Value) -> u32 {
    u32::try_from(v.as_u64().unwrap()).unwrap()
}

/// Whether a point is in a mask, by the even-odd rule: how often a ray to the right crosses its rings.
fn is_in(mask: &[Vec<f32>], x: f64, y: f64) -> bool {
    let crossings = |ring: &Vec<f32>| {
        let points: Vec<[f64; 2]> = ring.chunks(2).map(|p| [f64::from(p[0]), f64::from(p[1])]).collect();
        let next = points.iter().cycle().skip(1);
        let crosses = |(a, b): (&[f64; 2], &[f64; 2])| {
            (a[1] > y) != (b[1] > y) && x < a[0] + (y - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
        };
        points.iter().zip(next).filter(|pair| crosses(*pair)).count()
    };
    mask.iter().map(crossings).sum::<usize>() % 2 == 1
}

/// What a box has beside its edges.
fn judge_shape(name: &str, found: &DetBox, want: &Value, look: f64) {
    let near = |got: f32, want: &Value| (f64::from(got) - number(want)).abs() < 2e-3;
    match (want.get("oriented").and_then(Value::as_array), found.oriented) {
        (None, None) => {}
        (Some(want), Some(o)) => {
            let got = [o.x, o.y, o.width, o.height, o.angle_rad];
            assert!(got.into_iter().zip(want).all(|(got, want)| near(got, want)), "{name}: {o:?} and not {want:?}");
        }
        other => panic!("{name}: {other:?}"),
    }
    let points = want.get("keypoints").and_then(Value::as_array).cloned().unwrap_or_default();
    assert_eq!(found.keypoints.len(), points.len(), "{name}");
    for (got, want) in found.keypoints.iter().zip(&points) {
        let score = want.get(2);
        assert!(near(got.x, &want[0]) && near(got.y, &want[1]), "{name}: {got:?} and not {want}");
        assert_eq!(got.score.is_some(), score.is_some(), "{name}");
        assert!(got.score.is_none_or(|got| score.is_some_and(|want| near(got, want))), "{name}: {got:?}");
    }
    let rows = want.get("mask").and_then(Value::as_array).cloned().unwrap_or_default();
    assert!(!rows.is_empty() || found.mask.is_empty(), "{name}");
    for (r, row) in rows.iter().enumerate() {
        for (c, want) in row.as_str().unwrap().chars().enumerate().filter(|(_, c)| *c != '?') {
            let [x, y] = [c, r].map(|n| (n as f64 + 0.5) * look);
            assert_eq!(is_in(&found.mask, x, y), want == '1', "{name}: at {x}, {y} of {found:?}");
        }
    }
}

/// Judges the cases of an oracle, and gives their names.
fn judge(oracle: &str) -> Vec<String> {
    let whole: Value = serde_json::from_str(oracle).unwrap();
    let cases = whole["cases"].as_array().unwrap();
    cases.iter().for_each(|case| judge_case(&whole, case));
    cases.iter().map(|case| case["name"].as_str().unwrap().to_owned()).collect()
}

fn judge_case(whole: &Value, case: &Value) {
    // what all cases have in common is said once
    let of = |key: &str| case.get(key).unwrap_or(&whole[key]);
    let (name, input, map, labels) = (case["name"].as_str().unwrap(), of("input"), of("mapping"), of("labels"));
    let to = Mapping {
        source_from_model: Letterbox {
            scale_x: number(&map["scale"][0]),
            scale_y: number(&map["scale"][1]),
            offset_x: number(&map["offset"][0]),
            offset_y: number(&map["offset"][1]),
        },
        source_size: Size::new(uint(&map["source"][0]), uint(&map["source"][1])),
    };
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "schema: 1\nname: t\nfile: t.onnx\n\
         input: {{name: in, width_px: {}, height_px: {}, layout: nchw, dtype: f32, colour: rgb}}\n\
         letterbox: {{anchor: top_left, pad: 114}}\nhead: {}\n\
         thresholds: {{score: {}, iou: {}}}\nlabels: {labels}\n",
        input["width_px"],
        input["height_px"],
        case["head"].as_str().unwrap(),
        of("score"),
        of("iou"),
    );
    let path = folder.path().join("model.yml");
    std::fs::write(&path, text).unwrap();
    let mut decoder = Decoder::new(&Model::load(&path).unwrap());
    let outputs: Vec<(String, Vec<usize>, Vec<f32>)> = case["outputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| {
            let shape = o["shape"].as_array().unwrap().iter().map(|d| uint(d) as usize).collect();
            let data = o["data"].as_array().unwrap().iter().map(|v| number(v) as f32).collect();
            (o["name"].as_str().unwrap().to_owned(), shape, data)
        })
        .collect();
    let raw: Vec<RawTensor<'_>> =
        outputs.iter().map(|(name, shape, data)| RawTensor::whole(name, shape, data)).collect();
    // twice: nothing of one frame may stay for the next
    let first = decoder.detect(&raw, &to).unwrap();
    let found = decoder.detect(&raw, &to).unwrap();
    assert_eq!((&first.boxes, &first.classes), (&found.boxes, &found.classes), "{name}");
    assert_eq!(found.not_finite, 0, "{name}");
    let want = case["boxes"].as_array().unwrap();
    let classifies = want[0].get("x1").is_none();
    let (boxes, classes) = if classifies { (0, want.len()) } else { (want.len(), 0) };
    assert_eq!((found.boxes.len(), found.classes.len()), (boxes, classes), "{name}: {found:?}");
    let is = |score: f32, class_id: u32, label: &str, want: &Value| {
        assert!((f64::from(score) - number(&want["score"])).abs() < 1e-5, "{name}: {score}: {want}");
        assert_eq!(class_id, uint(&want["class_id"]), "{name}");
        assert_eq!(label, labels[class_id as usize].as_str().unwrap(), "{name}");
    };
    for (class, want) in found.classes.iter().zip(want) {
        is(class.score, class.class_id, &class.label, want);
    }
    for (box_, want) in found.boxes.iter().zip(want) {
        let sides = [("x1", box_.x1), ("y1", box_.y1), ("x2", box_.x2), ("y2", box_.y2)];
        for (side, value) in sides {
            assert!((f64::from(value) - number(&want[side])).abs() < 2e-3, "{name}: {side} of {box_:?}: {want}");
        }
        is(box_.score, box_.class_id, &box_.label, want);
        judge_shape(name, box_, want, number(of("look")));
    }
}

#[test]
fn every_head_gives_what_numpy_gives() {
    let judged = judge(include_str!("data/heads.json"));
    assert_eq!(judged.len(), 26, "{judged:?}");
    let without: Vec<&str> =
        KINDS.iter().map(|kind| kind.name).filter(|name| !judged.iter().any(|case| case.starts_with(name))).collect();
    assert!(without.is_empty(), "heads without a case of numpy: {without:?}");
}

#[test]
fn real_architectures_give_what_their_own_libraries_find() {
    let judged = judge(include_str!("data/real.json"));
    assert_eq!(judged.len(), 16, "{judged:?}");
}
