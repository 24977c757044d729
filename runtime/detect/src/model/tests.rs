//! Descriptions right and wrong.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use super::*;
use proptest::prelude::*;

const WHOLE: &str = "\
schema: 1
name: millrace-demo
file: model.onnx
input: {name: images, width_px: 320, height_px: 192, layout: nchw, dtype: f32, colour: bgr, scale: [0.5, 1, 2.5e-1], mean: [1, 2.5, 3]}
letterbox: {anchor: centre, pad: 114}
head: {kind: centre, stride_px: 8, output: detections}
thresholds: {score: 0.35, iou: 0.5}
labels: [person, car, bicycle]
";

/// The description `text` in a folder of its own, with a file of two labels, as a result or its error text without
/// the folder.
fn load(text: &str) -> Result<Model, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("classes.txt"), "cat\r\nsea lion\n\n").unwrap();
    std::fs::write(folder.path().join("gap.txt"), "cat\n\ndog\n").unwrap();
    let path = folder.path().join("model.yml");
    std::fs::write(&path, text).unwrap();
    Model::load(&path).map_err(|e| e.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

/// As [`load`] of the whole description with `from` replaced by `to`; the error text.
fn fault(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from}");
    load(&WHOLE.replace(from, to)).unwrap_err()
}

#[test]
fn a_whole_description() {
    let model = load(WHOLE).unwrap();
    assert_eq!(model.name, "millrace-demo");
    assert_eq!(
        model.input,
        InputSpec {
            name: "images".into(),
            width_px: 320,
            height_px: 192,
            layout: TensorLayout::Nchw,
            dtype: TensorDtype::F32,
            order: ChannelOrder::Bgr,
            scale: [0.5, 1.0, 0.25],
            mean: [1.0, 2.5, 3.0],
        }
    );
    assert_eq!(model.input.shape(), [1, 3, 192, 320]);
    assert_eq!(model.fit, FitSpec::Letterbox { anchor: Anchor::Centre, pad: 114 });
    assert_eq!((model.head.kind(), model.head.outputs()), ("centre", vec!["detections"]));
    assert_eq!(model.about, None);
    assert_eq!(model.thresholds, Thresholds { score: 0.35, iou: 0.5, max_candidates: 3000 });
    assert_eq!(model.labels, ["person", "car", "bicycle"].map(Arc::from));
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let text = WHOLE
        .replace(", scale: [0.5, 1, 2.5e-1], mean: [1, 2.5, 3]", "")
        .replace("thresholds: {score: 0.35, iou: 0.5}\n", "");
    let model = load(&text).unwrap();
    assert_eq!((model.input.scale, model.input.mean), ([1.0; 3], [0.0; 3]));
    assert_eq!(model.thresholds, Thresholds { score: 0.3, iou: 0.45, max_candidates: 3000 });
    let head = |text: &str| {
        let model = load(&WHOLE.replace("{kind: centre, stride_px: 8, output: detections}", text)).unwrap();
        format!("{:?}", model.head.deref())
    };
    assert_eq!(
        head("{kind: yolox, output: o}"),
        r#"Yolox { output: "o", strides_px: [8, 16, 32], scores: Probabilities }"#
    );
    for (text, strides, offset) in [
        ("{kind: nanodet, output: o}", "[8, 16, 32, 64]", "0.0"),
        ("{kind: nanodet, output: o, strides_px: [8, 16, 32]}", "[8, 16, 32]", "0.5"),
    ] {
        let expected = format!(
            r#"Nanodet {{ outputs: Joined("o"), strides_px: {strides}, bins: 8, cell_offset: {offset}, scores: Probabilities }}"#
        );
        assert_eq!(head(text), expected);
    }
    assert_eq!(
        head("{kind: rtdetr, boxes: b, logits: l}"),
        r#"Rtdetr { outputs: Apart { boxes: "b", logits: "l" }, top_k: 300, scores: Logits }"#
    );
    assert_eq!(
        head("{kind: dfine}"),
        r#"Dfine { labels: "labels", boxes: "boxes", scores: "scores", sizes: "orig_target_sizes" }"#
    );
}

#[test]
fn a_picture_is_letterboxed_or_stretched() {
    let letterbox = "letterbox: {anchor: centre, pad: 114}";
    assert_eq!(load(&WHOLE.replace(letterbox, "fit: stretch")).unwrap().fit, FitSpec::Stretch);
    assert_eq!(
        load(&WHOLE.replace(letterbox, &format!("fit: letterbox\n{letterbox}"))).unwrap().fit,
        load(WHOLE).unwrap().fit
    );
    let both = fault(letterbox, &format!("fit: stretch\n{letterbox}"));
    assert!(both.starts_with("model.yml:6:12: 'letterbox' says how a picture is padded"), "{both}");
    assert!(fault(letterbox, "fit: squeeze").contains("'fit' is the text 'squeeze'"));
    assert!(fault(letterbox, "fit: letterbox").contains("lacks 'letterbox'"));
}

#[test]
fn a_classifier_may_be_shown_the_middle_of_a_picture() {
    let crop = |text: &str| {
        WHOLE
            .replace("{kind: centre, stride_px: 8, output: detections}", "{kind: classify, output: o}")
            .replace("letterbox: {anchor: centre, pad: 114}", text)
    };
    let side = {
        let input = load(WHOLE).unwrap().input;
        input.width_px.min(input.height_px)
    };
    assert_eq!(load(&crop("fit: crop")).unwrap().fit, FitSpec::Crop { resize_px: side });
    let of = |n: u32| format!("fit: crop\ncrop: {{resize_px: {n}}}");
    assert_eq!(load(&crop(&of(side + 32))).unwrap().fit, FitSpec::Crop { resize_px: side + 32 });
    let refused = |text: &str| load(&crop(text)).unwrap_err().to_string();
    let small = refused(&of(side - 1));
    assert!(small.contains(&format!("expected an integer from {side} to")), "{small}");
    assert!(refused("fit: crop\ncrop: {}").contains("lacks 'resize_px'"));
    assert!(refused("fit: stretch\ncrop: {resize_px: 900}").contains("'fit' is 'stretch' here"));
    assert!(refused("fit: crop\nletterbox: {anchor: centre, pad: 114}").contains("'fit' is 'crop' here"));
    let boxes = fault("letterbox: {anchor: centre, pad: 114}", "fit: crop");
    assert!(boxes.contains("boxes at its edges would be missing"), "{boxes}");
}

#[test]
fn a_model_may_say_what_it_is_for() {
    let text = WHOLE.replace("file:", "about: finds drawn people\nfile:");
    assert_eq!(load(&text).unwrap().about.as_deref(), Some("finds drawn people"));
    assert!(load(&text.replace("finds drawn people", "[]")).unwrap_err().contains("'about' is"));
}

#[test]
fn outputs_for_each_stride_are_as_many_as_strides() {
    let head = |text: &str| fault("{kind: centre, stride_px: 8, output: detections}", text);
    let text = head("{kind: nanodet, classes: [a, b], distances: [c, d, e]}");
    assert!(text.contains("names 2 outputs with classes and 3 with distances for 3 strides"), "{text}");
    assert!(head("{kind: nanodet, classes: [a]}").contains("lacks 'distances'"));
    assert!(head("{kind: nanodet, classes: a, distances: [a]}").contains("is a list of outputs' names"));
    assert!(head("{kind: nanodet, output: o, classes: [a], distances: [b]}").contains("remove one or the other"));
    assert!(head("{kind: rtdetr, output: o, boxes: b}").contains("remove one or the other"));
    assert!(head("{kind: rtdetr}").contains("lacks 'boxes'"));
    let text = head("{kind: yolov8, output: o, masks: p, keypoints: 17}");
    assert!(text.contains("'head' has 'masks' and 'keypoints', and a box has one of them"), "{text}");
    let text = head("{kind: end2end, output: o, keypoint_numbers: 2}");
    assert!(text.contains("'keypoint_numbers' without 'keypoints'"), "{text}");
    assert!(head("{kind: yolov8, output: o, oriented: yes}").contains("expected true or false"));
    assert!(head("{kind: yolov8, output: o, keypoints: 0}").contains("'keypoints' is the integer 0"));
}

#[test]
fn oriented_boxes_are_not_stretched() {
    let text = WHOLE
        .replace("{kind: centre, stride_px: 8, output: detections}", "{kind: yolov8, output: o, oriented: true}")
        .replace("letterbox: {anchor: centre, pad: 114}", "fit: stretch");
    let text = load(&text).unwrap_err();
    assert!(text.starts_with("model.yml:5:6: a turned rectangle that is stretched is none any more"), "{text}");
}

#[test]
fn labels_come_from_a_file() {
    let model = load(&WHOLE.replace("[person, car, bicycle]", "{file: classes.txt}")).unwrap();
    assert_eq!(model.labels, ["cat", "sea lion"].map(Arc::from));
    let text = fault("[person, car, bicycle]", "{file: gap.txt}");
    assert_eq!(text, "model.yml:8:16: line 2 of 'gap.txt' is blank, so the labels after it would shift; remove it");
    let text = fault("[person, car, bicycle]", "{file: none.txt}");
    assert!(text.starts_with("model.yml:8:16: cannot read the labels 'none.txt': No such file"), "{text}");
}

#[test]
fn all_faults_come_at_once_in_order_with_place_cause_and_cure() {
    let text = "\
schema: 2
nam: x
file: model.onnx
input: {name: images, width_px: 0, height_px: tall, layout: nchw, dtype: f64, color: rgb, scale: [1, 2]}
letterbox: {anchor: center, pad: 300}
head: {kind: yolo, output: o}
thresholds: {score: 1.5}
labels: []
";
    let expected = "\
model.yml:1:1: a model's description lacks 'name'; write for example `name: my-detector`
model.yml:1:9: this build reads schema 1 of a model's description; write `schema: 1` or use a newer build
model.yml:2:1: a model's description has no key 'nam'; did you mean 'name'? (known: schema, name, about, file, input, letterbox, fit, crop, head, thresholds, labels)
model.yml:4:8: 'input' lacks 'colour'; write for example `colour: rgb`
model.yml:4:33: 'width_px' is the integer 0; expected an integer from 1 to 8192
model.yml:4:47: 'height_px' is the text 'tall'; expected an integer from 1 to 8192
model.yml:4:74: 'dtype' is the text 'f64'; did you mean 'f32'? (allowed: f32, f16, u8)
model.yml:4:79: 'input' has no key 'color'; did you mean 'colour'? (known: name, width_px, height_px, layout, dtype, colour, scale, mean)
model.yml:4:98: 'scale' is a list of 2; expected one number per channel: `scale: [1, 1, 1]`
model.yml:5:21: 'anchor' is the text 'center'; did you mean 'centre'? (allowed: centre, top_left)
model.yml:5:34: 'pad' is the integer 300; expected an integer from 0 to 255
model.yml:6:14: 'kind' is the text 'yolo'; did you mean 'yolox'? (allowed: centre, yolox, yolov5, yolov8, end2end, yolonas, nanodet, rtdetr, dfine, classify)
model.yml:7:21: 'score' is the number 1.5; expected a number from 0 to 1
model.yml:8:9: 0 labels; expected 1 to 65536, one per class of the model";
    let found = load(text).unwrap_err();
    assert_eq!(found, expected, "\n{found}\n");
}

#[test]
fn a_key_of_another_head_is_a_fault() {
    let text = fault("stride_px: 8", "stride_px: 8, strides_px: [8]");
    assert!(text.starts_with("model.yml:6:36: 'head' has no key 'strides_px'; did you mean 'stride_px'?"), "{text}");
    let text = fault("kind: centre, ", "");
    assert!(text.starts_with("model.yml:6:7: 'head' lacks 'kind'"), "{text}");
    assert!(fault("stride_px: 8, ", "").contains("'head' lacks 'stride_px'"));
    assert!(fault("{kind: centre, stride_px: 8, output: detections}", "centre").contains("'head' lacks 'kind'"));
}

#[test]
fn strides_are_in_the_order_of_an_outputs_cells() {
    let centre = "{kind: centre, stride_px: 8, output: detections}";
    let with = |head: &str| load(&WHOLE.replace(centre, head));
    for kind in ["yolox", "nanodet"] {
        for (given, cure) in [("[32, 16, 8]", "[8, 16, 32]"), ("[8, 32, 16]", "[8, 16, 32]"), ("[8, 8, 16]", "[8, 16]")]
        {
            let text = with(&format!("{{kind: {kind}, output: a, strides_px: {given}}}")).unwrap_err();
            assert!(text.starts_with("model.yml:6:"), "{text}");
            assert!(
                text.contains(&format!("'strides_px' is {given}; ")) && text.contains(&format!("write {cure}")),
                "{text}"
            );
        }
        assert!(with(&format!("{{kind: {kind}, output: a, strides_px: [4, 8, 64]}}")).is_ok());
    }
    // each output has its own; and a number of boxes has no order
    assert!(with("{kind: nanodet, classes: [a, b], distances: [c, d], strides_px: [16, 8]}").is_ok());
    assert!(with("{kind: yolov8, output: a, strides_px: [32, 16, 8]}").is_ok());
}

#[test]
fn values_that_cannot_be_meant() {
    assert!(fault("scale: [0.5,", "scale: [0,").contains("'scale' has a 0"));
    assert!(fault("file: model.onnx", "file: 'file:///m.onnx'").contains("3:7: 'file' is the URL 'file:///m.onnx'"));
    assert!(fault("[person, car, bicycle]", "{file: 'https://h/c.txt'}").contains("the path of a file is expected"));
    let unit = "dtype: u8, colour: bgr, scale: [0.00392157, 0.00392157, 0.00392157]";
    assert!(fault("dtype: f32, colour: bgr, scale: [0.5, 1, 2.5e-1]", unit).contains("no numbers but 0 and 1"));
    assert!(fault("mean: [1, 2.5, 3]", "mean: [1, .nan, 3]").contains("'mean' is the number NaN"));
    assert!(fault("mean: [1, 2.5, 3]", "mean: [1, .inf, 3]").contains("'mean' is the number inf"));
    assert!(fault("[person, car, bicycle]", "[person, 7]").contains("8:18: 'labels' is the integer 7"));
    assert!(fault("[person, car, bicycle]", "person").contains("neither a list"));
    assert!(fault("name: millrace-demo", "name: ").contains("2:"));
    assert!(fault("width_px: 320", "width_px: -1").contains("'width_px' is the integer -1"));
}

#[test]
fn a_file_that_is_no_description() {
    assert!(load("").unwrap_err().starts_with("model.yml:1:1: the file is empty"));
    assert!(load("# nothing\n").unwrap_err().starts_with("model.yml:1:1: "));
    assert!(load("just words").unwrap_err().contains("1:1: a model's description is the text 'just words'"));
    assert!(load("a: [1\nb: 2\n").unwrap_err().contains("not YAML"));
    assert!(fault("letterbox:", "name: again\nletterbox:").contains("5:1: a model's description has 'name' twice"));
    assert!(load(&format!("{WHOLE}---\n{WHOLE}")).unwrap_err().contains("10:1: a second document"));
    assert!(load(&format!("\u{feff}{WHOLE}")).is_ok());
    assert!(load(&" ".repeat(2 << 20)).unwrap_err().contains("longer than 1048576 bytes"));
}

#[test]
fn what_is_not_a_file_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let gone = Model::load(folder.path().join("model.yml")).unwrap_err().to_string();
    assert!(gone.contains("cannot read the model's description: No such file") && gone.contains("MODEL is"), "{gone}");
    let folder = Model::load(folder.path()).unwrap_err().to_string();
    assert!(folder.contains("it is a folder"), "{folder}");
}

#[test]
fn the_model_file_is_looked_for_beside_the_description() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.yml");
    std::fs::write(&path, WHOLE).unwrap();
    let model = Model::load(&path).unwrap();
    let error = model.file().unwrap_err().to_string();
    assert!(error.contains("model.yml:3:7: the model file") && error.contains("No such file"), "{error}");
    std::fs::write(folder.path().join("model.onnx"), "").unwrap();
    assert!(model.file().unwrap_err().to_string().contains("is empty"));
    std::fs::write(folder.path().join("model.onnx"), "x").unwrap();
    assert_eq!(model.file().unwrap(), folder.path().join("model.onnx"));
}

#[test]
fn depth_does_not_exhaust_the_stack() {
    for opening in ["[", "{a: ", "- ", "? "] {
        let deep = opening.repeat((1 << 20) / opening.len() - 1);
        assert!(load(&deep).is_err());
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = load(&text);
    }

    #[test]
    fn no_damage_panics(at in 0usize..WHOLE.len(), cut in 0usize..40, put in "[ -~\n]{0,6}") {
        let end = (at + cut).min(WHOLE.len());
        let _ = load(&format!("{}{put}{}", &WHOLE[..at], &WHOLE[end..]));
    }
}
