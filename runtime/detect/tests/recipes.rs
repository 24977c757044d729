//! How `millrace model add` has pictures prepared, against what the authors' own code does with a picture of 1280x720 before
//! it gives it to their model.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use millrace_detect::heads::{Guess, Seen, Task, guesses};
use millrace_detect::{Model, Port};
use millrace_frame::Size;
use millrace_kernels::{Anchor, ChannelOrder, Fit};

/// What an author's code does.
struct Authors {
    /// Whose code it is, and where.
    of: &'static str,
    outputs: &'static [(&'static str, &'static [usize])],
    task: Option<Task>,
    side: u32,
    head: &'static str,
    order: ChannelOrder,
    /// A sample of a channel, red, green or blue, as the model gets it.
    value: fn(usize, f64) -> f64,
    /// Left, top, width and height of the picture in the input, and the sample around it.
    place: ([f64; 4], Option<u8>),
}

const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f64; 3] = [0.229, 0.224, 0.225];

fn unit(_: usize, sample: f64) -> f64 {
    sample / 255.0
}

fn imagenet(channel: usize, sample: f64) -> f64 {
    (sample / 255.0 - MEAN[channel]) / DEVIATION[channel]
}

const WHOLE: ([f64; 4], Option<u8>) = ([0.0, 0.0, 640.0, 640.0], None);

fn authors() -> Vec<Authors> {
    use ChannelOrder::{Bgr, Rgb};
    let nas: &[(&str, &[usize])] = &[("boxes", &[1, 8400, 4]), ("scores", &[1, 8400, 80])];
    let letterbox = ([0.0, 140.0, 640.0, 360.0], Some(114));
    let one = |of, outputs, head, order, value: fn(usize, f64) -> f64, place| Authors {
        of,
        outputs,
        task: None,
        side: 640,
        head,
        order,
        value,
        place,
    };
    vec![
        one("ultralytics LetterBox and pre_transform", &[("output0", &[1, 84, 8400])], "yolov8", Rgb, unit, letterbox),
        one("ultralytics, suppression inside", &[("output0", &[1, 300, 6])], "end2end", Rgb, unit, letterbox),
        one("yolov5 utils/augmentations.py letterbox", &[("output0", &[1, 25200, 85])], "yolov5", Rgb, unit, letterbox),
        // DetectionLongestMaxSizeRescale to 636, DetectionCenterPadding to 640, StandardizeImage(255); pictures are RGB
        one(
            "super-gradients default_yolo_nas_coco_processing_params",
            nas,
            "yolonas",
            Rgb,
            unit,
            ([2.0, 141.0, 636.0, 358.0], Some(114)),
        ),
        // Ultralytics' own wrapper for the same models
        one("ultralytics models/nas, with LetterBox", nas, "yolonas", Rgb, unit, letterbox),
        // cv2.imread is BGR, and nothing is scaled
        one(
            "YOLOX yolox/data/data_augment.py preproc",
            &[("output", &[1, 8400, 85])],
            "yolox",
            Bgr,
            |_, sample| sample,
            ([0.0, 0.0, 640.0, 360.0], Some(114)),
        ),
        Authors {
            side: 320,
            // normalize: [[103.53, 116.28, 123.675], [57.375, 57.12, 58.395]] of BGR, keep_ratio: False
            ..one(
                "nanodet config/nanodet-plus-m_320.yml",
                &[("output", &[1, 2125, 112])],
                "nanodet",
                Bgr,
                |channel, sample| (sample - [123.675, 116.28, 103.53][channel]) / [58.395, 57.12, 57.375][channel],
                ([0.0, 0.0, 320.0, 320.0], None),
            )
        },
        // Resize [640, 640], ConvertPILImage float32 scaled
        one(
            "D-FINE configs/dfine/include/dataloader.yml",
            &[("labels", &[1, 300]), ("boxes", &[1, 300, 4]), ("scores", &[1, 300])],
            "dfine",
            Rgb,
            unit,
            WHOLE,
        ),
        one(
            "RT-DETR rtdetrv2_pytorch/configs/rtdetr/include/dataloader.yml",
            &[("pred_boxes", &[1, 300, 4]), ("logits", &[1, 300, 80])],
            "rtdetr",
            Rgb,
            unit,
            WHOLE,
        ),
        one("ultralytics RTDETRPredictor.pre_transform", &[("output0", &[1, 300, 84])], "rtdetr", Rgb, unit, WHOLE),
        // to_tensor, normalize, resize to a square
        one(
            "rf-detr rfdetr/detr.py predict",
            &[("dets", &[1, 300, 4]), ("labels", &[1, 300, 91])],
            "rtdetr",
            Rgb,
            imagenet,
            WHOLE,
        ),
    ]
}

/// The description that `millrace model add` writes, but for names.
fn described(authors: &Authors) -> Model {
    let port = |(name, shape): &(&str, &[usize])| Port {
        name: (*name).to_owned(),
        dtype: Some("f32".to_owned()),
        shape: Some(shape.iter().map(|&n| Some(n)).collect()),
    };
    let outputs: Vec<Port> = authors.outputs.iter().map(port).collect();
    let side = authors.side;
    let seen = Seen { task: authors.task, ..Seen::shapes(&outputs, Size::new(side, side)) };
    let guesses = guesses(&seen);
    let of_kind = |head: &str| {
        head.starts_with(&format!("{{kind: {},", authors.head)) || head == format!("{{kind: {}}}", authors.head)
    };
    let guess = guesses.iter().find(|guess| of_kind(&guess.head));
    let guess = guess.unwrap_or_else(|| panic!("{}: {guesses:?}", authors.of));
    let recipe = &guess.recipe;
    let scaling = if recipe.scaling.is_empty() { String::new() } else { format!(", {}", recipe.scaling) };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.yml");
    let text = format!(
        "schema: 1\nname: t\nfile: t.onnx\n\
         input: {{name: in, width_px: {side}, height_px: {side}, layout: nchw, dtype: f32, colour: {}{scaling}}}\n\
         {}\nhead: {}\nlabels: [one]\n",
        recipe.colour, recipe.fit, guess.head
    );
    std::fs::write(&path, text).unwrap();
    Model::load(&path).unwrap_or_else(|e| panic!("{}: {e}", authors.of))
}

#[test]
fn pictures_are_prepared_as_the_authors_prepare_them() {
    for authors in authors() {
        let (of, target) = (authors.of, described(&authors).target());
        assert_eq!(target.order, authors.order, "{of}");
        for channel in 0..3 {
            let at = if target.order == ChannelOrder::Rgb { channel } else { 2 - channel };
            for sample in [0.0, 1.0, 114.0, 255.0] {
                let ours = (sample - f64::from(target.mean[at])) * f64::from(target.scale[at]);
                let theirs = (authors.value)(channel, sample);
                assert!((ours - theirs).abs() < 1e-4, "{of}: channel {channel}, {sample}: {ours} and not {theirs}");
            }
        }
        let side = f64::from(authors.side);
        let ([left, top, width, height], pad) = authors.place;
        // where the picture's corners and its middle are, by our letterbox of 1280x720
        let ours = match target.fit {
            Fit::Stretch => [0.0, 0.0, side, side],
            Fit::Letterbox { anchor: Anchor::Centre, .. } => {
                [0.0, (side - side * 9.0 / 16.0) / 2.0, side, side * 9.0 / 16.0]
            }
            Fit::Letterbox { anchor: Anchor::TopLeft, .. } => [0.0, 0.0, side, side * 9.0 / 16.0],
            Fit::Crop { .. } => panic!("{of}: cropped"),
        };
        let middle = |[left, top, width, height]: [f64; 4]| [left + width / 2.0, top + height / 2.0];
        let (our_middle, their_middle) = (middle(ours), middle([left, top, width, height]));
        assert!(our_middle.iter().zip(their_middle).all(|(a, b)| (a - b).abs() <= 1.0), "{of}: {ours:?}");
        // YOLO-NAS leaves 2 pixels at each side, 0.6 % of the picture
        assert!((ours[2] / width - 1.0).abs() < 0.01 && (ours[3] / height - 1.0).abs() < 0.01, "{of}: {ours:?}");
        assert!(pad.is_none_or(|pad| pad == target.pad), "{of}: {}", target.pad);
    }
}

#[test]
fn other_models_with_the_same_outputs_are_named_with_their_keys() {
    let said = |outputs: &[(&str, &[usize])], size: u32| {
        let port = |(name, shape): &(&str, &[usize])| Port {
            name: (*name).to_owned(),
            dtype: None,
            shape: Some(shape.iter().map(|&n| Some(n)).collect()),
        };
        let ports: Vec<Port> = outputs.iter().map(port).collect();
        let all = guesses(&Seen::shapes(&ports, Size::new(size, size)));
        all.iter().map(|guess| guess.recipe.others).collect::<Vec<_>>().join("\n")
    };
    // super-gradients default_ppyoloe_coco_processing_params
    let nas = said(&[("boxes", &[1, 8400, 4]), ("scores", &[1, 8400, 80])], 640);
    assert!(
        nas.contains("PP-YOLOE") && nas.contains("fit: stretch") && nas.contains("mean: [123.675, 116.28, 103.53]")
    );
    // nanodet config/legacy_v0.x_configs: keep_ratio: True, whose bars are black
    let nanodet = said(&[("output", &[1, 2125, 112])], 320);
    assert!(nanodet.contains("letterbox: {anchor: centre, pad: 0}") && nanodet.contains("mean: [127, 127, 127]"));
    // YOLOX docs/updates_note.md: weights of before are used with --legacy
    assert!(said(&[("output", &[1, 8400, 85])], 640).contains("YOLOX 0.1.0 and before"));
}

#[test]
fn a_head_is_guessed_with_what_its_shapes_leave_open() {
    let heads = |name: &str, shape: [usize; 3], size: u32| -> Vec<String> {
        let port = Port { name: name.to_owned(), dtype: None, shape: Some(shape.iter().map(|&n| Some(n)).collect()) };
        guesses(&Seen::shapes(&[port], Size::new(size, size))).into_iter().map(|guess| guess.head).collect()
    };
    // planes of YOLOv8 are no queries with 2100 classes
    assert_eq!(heads("output0", [1, 6, 2100], 320), ["{kind: yolov8, output: output0}"]);
    assert_eq!(heads("output0", [1, 300, 84], 640), ["{kind: rtdetr, output: output0}"]);
    // YOLOX, its boxes to be computed or computed; 13600 = 8400 + 5200 is no sum of known levels, 34000 is that of 4 to 32
    assert_eq!(
        heads("output", [1, 3549, 85], 416)[..2],
        ["{kind: yolox, output: output}", "{kind: yolov5, output: output}"]
    );
    assert_eq!(heads("output", [1, 34000, 85], 640)[0], "{kind: yolox, output: output, strides_px: [4, 8, 16, 32]}");
    assert!(heads("output", [1, 13600, 85], 640).is_empty());
    // four levels up to 64 and room for distances: NanoDet-Plus
    assert!(heads("output", [1, 2125, 112], 320)[0].starts_with("{kind: nanodet"));
}

#[test]
fn scores_of_the_other_kind_are_written_where_a_head_has_both() {
    let guess = |head: &str| Guess { head: head.to_owned(), ..any() };
    let with = |head: &str, scores: &str| guess(head).with_scores(scores).map(|guess| guess.head);
    assert_eq!(
        with("{kind: yolov8, output: a, oriented: true}", "logits").as_deref(),
        Some("{kind: yolov8, output: a, oriented: true, scores: logits}")
    );
    assert_eq!(
        with("{kind: rtdetr, boxes: b, logits: l}", "probabilities").as_deref(),
        Some("{kind: rtdetr, boxes: b, logits: l, scores: probabilities}")
    );
    // said already; the name of an output; no such key
    for head in ["{kind: classify, output: o, scores: logits}", "{kind: yolonas, boxes: b, scores: s}", "{kind: dfine}"]
    {
        assert_eq!(with(head, "logits"), None, "{head}");
    }
    assert_eq!(with("{kind: end2end, output: o}", "logits"), None);
}

fn any() -> Guess {
    let port = Port { name: "output0".to_owned(), dtype: None, shape: Some([1, 6, 2100].map(Some).to_vec()) };
    guesses(&Seen::shapes(&[port], Size::new(320, 320))).remove(0)
}
