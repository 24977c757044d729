//! Each head against boxes that `data/make_heads.py` computed with numpy.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use millrace_detect::heads::KINDS;
use millrace_detect::{Decoder, Mapping, Model, RawTensor};
use millrace_frame::{Letterbox, Size};
use serde_json::Value;

fn number(v: &Value) -> f64 {
    v.as_f64().unwrap()
}

fn uint(v: &Value) -> u32 {
    u32::try_from(v.as_u64().unwrap()).unwrap()
}

#[test]
fn every_head_gives_the_boxes_that_numpy_gives() {
    let whole: Value = serde_json::from_str(include_str!("data/heads.json")).unwrap();
    let (input, map) = (&whole["input"], &whole["mapping"]);
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
    let mut judged = Vec::new();
    for case in whole["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let text = format!(
            "schema: 1\nname: t\nfile: t.onnx\n\
             input: {{name: in, width_px: {}, height_px: {}, layout: nchw, dtype: f32, colour: rgb}}\n\
             letterbox: {{anchor: top_left, pad: 114}}\nhead: {}\n\
             thresholds: {{score: {}, iou: {}}}\nlabels: {}\n",
            input["width_px"],
            input["height_px"],
            case["head"].as_str().unwrap(),
            whole["score"],
            whole["iou"],
            whole["labels"],
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
            outputs.iter().map(|(name, shape, data)| RawTensor { name, shape, data }).collect();
        // twice: nothing of one frame may stay for the next
        let first = decoder.detect(&raw, &to).unwrap();
        let found = decoder.detect(&raw, &to).unwrap();
        assert_eq!(first.boxes, found.boxes, "{name}");
        assert_eq!(found.not_finite, 0, "{name}");
        let want = case["boxes"].as_array().unwrap();
        assert_eq!(found.boxes.len(), want.len(), "{name}: {:?}", found.boxes);
        for (box_, want) in found.boxes.iter().zip(want) {
            let sides = [("x1", box_.x1), ("y1", box_.y1), ("x2", box_.x2), ("y2", box_.y2)];
            for (side, value) in sides {
                assert!((f64::from(value) - number(&want[side])).abs() < 2e-3, "{name}: {side} of {box_:?}: {want}");
            }
            assert!((f64::from(box_.score) - number(&want["score"])).abs() < 1e-5, "{name}: {box_:?}: {want}");
            assert_eq!(box_.class_id, uint(&want["class_id"]), "{name}");
            assert_eq!(box_.label, whole["labels"][box_.class_id as usize].as_str().unwrap(), "{name}");
        }
        judged.push(name.to_owned());
    }
    assert_eq!(judged.len(), 17, "{judged:?}");
    let without: Vec<&str> =
        KINDS.iter().map(|kind| kind.name).filter(|name| !judged.iter().any(|case| case.starts_with(name))).collect();
    assert!(without.is_empty(), "heads without a case of numpy: {without:?}");
}
