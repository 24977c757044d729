//! What every engine must do: the same checks for each, called from the tests of its node.
//!
//! The models and what they give come from `tests/data/make_tiny.py`.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod tasks;
mod tool;
mod writes;

pub use tasks::{adds_models_of_each_task, finds_shapes_and_classes};
pub use tool::adds_and_checks_models;
pub use writes::{adds_models_by_their_numbers, writes_over_nothing_of_others};

use crate::{Detector, Elements, Engine, InferNode};
use millrace_frame::{Item, Letterbox, Payload, Size, TensorDesc, TensorDtype, TensorLayout, Timebase, Timing};
use millrace_node::Input;
use millrace_node::testing::{Bench, Seen};
use std::path::{Path, PathBuf};
use std::time::Duration;

const COLUMNS: usize = 24;
const ROWS: usize = 16;

/// The repository, or `MILLRACE_ROOT` where the tests run on another machine than the one that compiled them.
fn root() -> PathBuf {
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("MILLRACE_ROOT").map_or_else(here, PathBuf::from)
}

fn data(name: &str) -> PathBuf {
    root().join("runtime/infer/tests/data").join(name)
}

/// A folder with a description of the model file `file`, which lies in the tests' data or is a path of its own;
/// `replace` is done to the text of the description.
pub fn describe(file: &str, replace: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.yml");
    let file = data(file);
    let mut text = format!(
        "schema: 1\nname: tiny\nfile: {}\n\
         input: {{name: images, width_px: {COLUMNS}, height_px: {ROWS}, layout: nchw, dtype: f32, colour: rgb}}\n\
         letterbox: {{anchor: centre, pad: 0}}\nhead: {{kind: centre, output: detections, stride_px: 8}}\n\
         thresholds: {{score: 0.4, iou: 0.9}}\nlabels: [dark, light]\n",
        file.display()
    );
    for (from, to) in replace {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

/// The samples that `tiny.txt` is the answer to, channel by channel.
fn samples() -> Vec<u8> {
    let at = |i: usize| {
        let (c, y, x) = (i / (ROWS * COLUMNS), i / COLUMNS % ROWS, i % COLUMNS);
        ((10 * x + 7 * y + 50 * c) % 256) as u8
    };
    (0..3 * ROWS * COLUMNS).map(at).collect()
}

/// The same, pixel by pixel.
fn interleaved() -> Vec<u8> {
    let planes = samples();
    (0..ROWS * COLUMNS).flat_map(|i| [0, 1, 2].map(|c| planes[c * ROWS * COLUMNS + i])).collect()
}

/// Each of the models that fit gives what numpy gives, twice, and through a head the boxes that follow.
pub fn gives_the_reference<E: Engine>(settings: impl Fn(PathBuf) -> E::Settings) {
    let want: Vec<f64> =
        std::fs::read_to_string(data("tiny.txt")).unwrap().lines().map(|l| l.parse().unwrap()).collect();
    let floats: Vec<f32> = samples().iter().map(|&v| f32::from(v)).collect();
    let bytes = interleaved();
    let nchw = ([1, 3, ROWS, COLUMNS], Elements::F32(&floats), "dtype: f32");
    let nhwc = ([1, ROWS, COLUMNS, 3], Elements::U8(&bytes), "dtype: u8");
    for (file, (shape, elements, dtype)) in [("tiny.onnx", nchw), ("tiny_open.onnx", nchw), ("tiny_u8_nhwc.onnx", nhwc)]
    {
        let layout = if shape[1] == 3 { "layout: nchw" } else { "layout: nhwc" };
        let (_folder, model) = describe(file, &[("dtype: f32", dtype), ("layout: nchw", layout)]);
        let (mut engine, _) = E::open(&data(file), 1, &settings(model.clone())).unwrap();
        engine.select("images", &["detections"]).unwrap();
        for _ in 0..2 {
            let mut got = None;
            engine
                .run(shape, elements, &mut |outputs| {
                    assert_eq!(outputs.len(), 1);
                    assert_eq!((outputs[0].name, outputs[0].shape), ("detections", &[1, 6, 2, 3][..]));
                    got = Some(outputs[0].data.to_vec());
                })
                .unwrap();
            let got = got.unwrap();
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(&want) {
                assert!((f64::from(*got) - want).abs() < 2e-5, "{file}: {got} is not {want}");
            }
        }
        let mut detector = Detector::<E>::open(&settings(model), 1).unwrap();
        let (dtype, layout) = match elements {
            Elements::F32(_) | Elements::F16(_) => (TensorDtype::F32, TensorLayout::Nchw),
            Elements::U8(_) => (TensorDtype::U8, TensorLayout::Nhwc),
        };
        let tensor = TensorDesc {
            shape: shape.map(|d| d as u32),
            dtype,
            layout,
            source_from_model: Letterbox { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 0.0 },
            source_size: Size::new(48, 32),
        };
        let timing = Timing { pts_ns: 0, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
        let item = Item::on_host("c", 0, timing, Payload::Tensor(tensor));
        let slot = match elements {
            Elements::F32(data) => bytemuck::cast_slice(data),
            Elements::F16(data) => bytemuck::cast_slice(data),
            Elements::U8(data) => data,
        };
        let found = detector.detect(&item, slot).unwrap();
        boxes_follow(&want, &found.detections);
    }
}

/// The boxes of `found` are those of the cells in `want` whose second class scores 0.4 or more, at twice the size.
fn boxes_follow(want: &[f64], found: &millrace_frame::Detections) {
    let mut cells: Vec<usize> = (0..6).filter(|&i| want[30 + i] >= 0.4).collect();
    cells.sort_by(|&a, &b| want[30 + b].total_cmp(&want[30 + a]));
    assert_eq!(cells.len(), 3, "the fixture has three such cells");
    assert_eq!(found.boxes.len(), 3, "{found:?}");
    for (box_, i) in found.boxes.iter().zip(cells) {
        let (x, y) = ((i % 3) as f64 * 8.0 + 4.0, (i / 3) as f64 * 8.0 + 4.0);
        let edges = [x - want[i], y - want[6 + i], x + want[12 + i], y + want[18 + i]].map(|v| v * 2.0);
        let clipped = [edges[0].max(0.0), edges[1].max(0.0), edges[2].min(48.0), edges[3].min(32.0)];
        for (got, want) in [box_.x1, box_.y1, box_.x2, box_.y2].into_iter().zip(clipped) {
            assert!((f64::from(got) - want).abs() < 1e-3, "{box_:?}, cell {i}");
        }
        assert_eq!(box_.label, "light");
        assert!((f64::from(box_.score) - want[30 + i]).abs() < 1e-4);
    }
}

/// A tensor of the tiny models' input for a picture of twice its size.
fn tiny(dtype: TensorDtype) -> Item {
    let tensor = TensorDesc {
        shape: [1, 3, ROWS as u32, COLUMNS as u32],
        dtype,
        layout: TensorLayout::Nchw,
        source_from_model: Letterbox { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 0.0 },
        source_size: Size::new(48, 32),
    };
    let timing = Timing { pts_ns: 0, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
    Item::on_host("c", 0, timing, Payload::Tensor(tensor))
}

/// A model whose input, weights and output are 16-bit floats finds what the one of 32 bits finds.
pub fn computes_16_bit_floats<E: Engine>(settings: impl Fn(PathBuf) -> E::Settings) {
    let (_folder, model) = describe("tiny_f16.onnx", &[("dtype: f32", "dtype: f16")]);
    let mut detector = Detector::<E>::open(&settings(model), 1).unwrap();
    // whole numbers up to 255, whose bits in binary16 follow from their leading one
    let bits = |&n: &u8| match n.checked_ilog2() {
        Some(e) => ((e as u16 + 15) << 10) | ((u16::from(n) - (1 << e)) << (10 - e)),
        None => 0,
    };
    let halves: Vec<u16> = samples().iter().map(bits).collect();
    let found = detector.detect(&tiny(TensorDtype::F16), bytemuck::cast_slice(&halves)).unwrap().detections;
    let (_folder, model) = describe("tiny.onnx", &[]);
    let floats: Vec<f32> = samples().iter().map(|&v| f32::from(v)).collect();
    let mut detector = Detector::<E>::open(&settings(model), 1).unwrap();
    let want = detector.detect(&tiny(TensorDtype::F32), bytemuck::cast_slice(&floats)).unwrap().detections;
    assert_eq!(found.boxes.len(), 3, "{found:?}");
    for (found, want) in found.boxes.iter().zip(&want.boxes) {
        let pairs = [(found.x1, want.x1), (found.y1, want.y1), (found.x2, want.x2), (found.y2, want.y2)];
        assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 0.1), "{found:?}, {want:?}");
        assert!((found.score - want.score).abs() < 0.005 && found.label == want.label, "{found:?}, {want:?}");
    }
    // said to be of another type than it is
    let (_folder, model) = describe("tiny_f16.onnx", &[]);
    let text = Detector::<E>::open(&settings(model), 1).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("its input 'images' is f16, 'input' of the description says f32"), "{text}");
}

/// A model with post-processing of its own gets its second input, and its whole numbers are read.
pub fn feeds_the_second_input<E: Engine>(settings: impl Fn(PathBuf) -> E::Settings) {
    let centre = "kind: centre, output: detections, stride_px: 8";
    let (_folder, model) = describe("tiny_dfine.onnx", &[(centre, "kind: dfine")]);
    let mut detector = Detector::<E>::open(&settings(model), 1).unwrap();
    let found = detector.detect(&tiny(TensorDtype::F32), &vec![0; 4 * 3 * ROWS * COLUMNS]).unwrap().detections;
    let boxes: Vec<_> = found.boxes.iter().map(|b| ([b.x1, b.y1, b.x2, b.y2], b.label.as_str())).collect();
    assert_eq!(boxes, [([12.0, 8.0, 36.0, 24.0], "light"), ([0.0, 0.0, 48.0, 32.0], "dark")]);

    let refuse = |file: &str, head: &str| {
        let (_folder, model) = describe(file, &[(centre, head)]);
        Detector::<E>::open(&settings(model), 1).map(|_| ()).unwrap_err().to_string()
    };
    let text = refuse("tiny_dfine.onnx", "kind: dfine, sizes: size");
    assert!(text.contains("it takes 'images', 'orig_target_sizes'; head 'dfine' feeds 'images' and 'size'"), "{text}");
    let text = refuse("tiny.onnx", "kind: dfine");
    assert!(text.contains("it takes 'images'; head 'dfine' feeds 'images' and 'orig_target_sizes'"), "{text}");
    let text = refuse("tiny_dfine.onnx", "kind: rtdetr, boxes: boxes, logits: scores");
    assert!(text.contains("a detector takes one tensor") && text.contains("head 'dfine' feeds"), "{text}");
}

/// Files that are no model, and models that do not fit, are errors that say why.
pub fn refuses<E: Engine>(settings: impl Fn(PathBuf) -> E::Settings) {
    let refuse = |file: &str, replace: &[(&str, &str)]| {
        let (_folder, model) = describe(file, replace);
        match Detector::<E>::open(&settings(model), 1) {
            Ok(_) => panic!("{file} with {replace:?} was accepted"),
            Err(e) => e.to_string(),
        }
    };
    let has = |text: String, part: &str| assert!(text.contains(part), "{text}\nlacks: {part}");

    has(refuse("none.onnx", &[]), "model.yml:3:7: the model file");
    has(
        refuse("tiny.onnx", &[("height_px: 16", "height_px: 32")]),
        "has shape [1, 3, 16, 24], 'input' of the description says [1, 3, 32, 24]",
    );
    has(refuse("tiny.onnx", &[("layout: nchw", "layout: nhwc")]), "says [1, 16, 24, 3]");
    has(refuse("tiny.onnx", &[("name: images", "name: pixels")]), "it has no input 'pixels'; it has 'images'");
    has(refuse("tiny.onnx", &[("dtype: f32", "dtype: u8")]), "its input 'images' is f32");
    has(
        refuse("tiny.onnx", &[("output: detections", "output: boxes")]),
        "no output 'boxes', which 'head' reads; it has 'detections'",
    );
    has(
        refuse("tiny.onnx", &[("[dark, light]", "[dark]")]),
        "has shape [1, 6, 2, 3]; head 'centre' with 1 label at 24x16 expects [1, 5, 2, 3]",
    );
    has(refuse("tiny_two.onnx", &[]), "it takes 'images', 'gain'; a detector takes one tensor");
    // nothing declared: the run on zeros finds it
    has(refuse("tiny_open.onnx", &[("stride_px: 8", "stride_px: 4")]), "expects [1, 6, 4, 6]");

    let whole = std::fs::read(data("tiny.onnx")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.onnx");
    let name = path.to_str().unwrap();
    std::fs::write(&path, "this is a text\n").unwrap();
    has(refuse(name, &[]), "bad.onnx' cannot be loaded as an ONNX model");
    // cut anywhere and damaged anywhere: an error or a model, never a panic that gets out
    for cut in 1..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let (_folder, model) = describe(name, &[]);
        assert!(Detector::<E>::open(&settings(model), 1).is_err(), "{cut} of {} bytes were accepted", whole.len());
    }
    for at in (0..whole.len()).step_by(3) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x5a;
        std::fs::write(&path, &damaged).unwrap();
        let (_folder, model) = describe(name, &[]);
        let _ = Detector::<E>::open(&settings(model), 1);
    }
}

/// The shipped demo model fits its description, and finds nothing in a grey picture.
pub fn opens_the_demo_model<E: Engine>(settings: impl Fn(PathBuf) -> E::Settings) {
    let model = root().join("tests/data/demo/model/model.yml");
    let mut detector = Detector::<E>::open(&settings(model), 1).unwrap();
    let spec = detector.model().input.clone();
    let tensor = TensorDesc {
        shape: spec.shape(),
        dtype: spec.dtype,
        layout: spec.layout,
        source_from_model: Letterbox { scale_x: 1.0, scale_y: 1.0, offset_x: 0.0, offset_y: 0.0 },
        source_size: Size::new(spec.width_px, spec.height_px),
    };
    let grey = vec![0.447f32; tensor.bytes() as usize / 4];
    let timing = Timing { pts_ns: 0, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
    let item = Item::on_host("c", 0, timing, Payload::Tensor(tensor));
    let found = detector.detect(&item, bytemuck::cast_slice(&grey)).unwrap();
    assert_eq!((found.detections.boxes.len(), found.not_finite, found.over_limit), (0, 0, 0), "{found:?}");
}

/// The node in its harness, over real pools: each tensor is answered once, in order, with its identity; a tensor that
/// is not the model's ends the node with a text that says so.
pub fn answers_as_a_node<E: Engine>(settings: &[(&str, &str)]) {
    let (_folder, model) = describe("tiny.onnx", &[]);
    let mut all = vec![("MODEL", model.to_str().unwrap())];
    all.extend_from_slice(settings);
    let floats: Vec<f32> = samples().iter().map(|&v| f32::from(v)).collect();
    let tensor = TensorDesc {
        shape: [1, 3, ROWS as u32, COLUMNS as u32],
        dtype: TensorDtype::F32,
        layout: TensorLayout::Nchw,
        source_from_model: Letterbox { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 0.0 },
        source_size: Size::new(48, 32),
    };
    let item = |seq: u64, tensor: &TensorDesc| {
        let timing =
            Timing { pts_ns: 40 * seq as i64, timebase: Timebase::NANOSECONDS, capture_ns: 7, ..Timing::default() };
        Item::on_host("gate", seq, timing, Payload::Tensor(tensor.clone()))
    };
    let mut bench = Bench::start::<InferNode<E>>(&all);
    for seq in 0..6 {
        bench.send("tensor", &item(seq, &tensor), bytemuck::cast_slice(&floats)).unwrap();
        let (port, input) = bench.receive(Duration::from_secs(20)).unwrap();
        let Input::Detections(found) = input else { panic!("no detections") };
        assert_eq!(
            (port, found.source.as_str(), found.seq, found.pts_ns),
            ("detections", "gate", seq, 40 * seq as i64)
        );
        assert_eq!((found.boxes.len(), found.width_px, found.height_px), (3, 48, 32));
    }
    let (rest, end) = bench.finish();
    assert!(rest.is_empty());
    end.unwrap();

    // several at the same time: the order stays
    let mut bench = Bench::start::<InferNode<E>>(&[&all[..], &[("WORKERS", "3")]].concat());
    bench.send("tensor", &item(0, &tensor), bytemuck::cast_slice(&floats)).unwrap();
    bench.receive(Duration::from_secs(20)).unwrap(); // from here on the node need not wait for us
    for seq in 1..20 {
        bench.send("tensor", &item(seq, &tensor), bytemuck::cast_slice(&floats)).unwrap();
    }
    let (rest, end) = bench.finish();
    end.unwrap();
    let seqs = rest.iter().map(|(_, seen)| match seen {
        Seen::Detections(found) => (found.seq, found.boxes.len()),
        Seen::Frame(..) => panic!("no detections"),
    });
    assert!(seqs.eq((1..20).map(|seq| (seq, 3))), "{rest:?}");

    let mut bench = Bench::start::<InferNode<E>>(&all);
    let other = TensorDesc { shape: [1, 3, COLUMNS as u32, ROWS as u32], ..tensor };
    bench.send("tensor", &item(0, &other), bytemuck::cast_slice(&floats)).unwrap();
    let text = bench.finish().1.map(|_| ()).unwrap_err();
    assert!(text.contains("came as f32 nchw [1, 3, 24, 16]: give the converter the same MODEL"), "{text}");
}

/// The thresholds and the wait of a batch change while the node runs, for every worker, and come back.
pub fn changes_while_it_runs<E: Engine>(settings: &[(&str, &str)]) {
    let (_folder, model) = describe("tiny.onnx", &[]);
    let mut all = vec![("MODEL", model.to_str().unwrap()), ("WORKERS", "2")];
    all.extend_from_slice(settings);
    let floats: Vec<f32> = samples().iter().map(|&v| f32::from(v)).collect();
    let tensor = TensorDesc {
        shape: [1, 3, ROWS as u32, COLUMNS as u32],
        dtype: TensorDtype::F32,
        layout: TensorLayout::Nchw,
        source_from_model: Letterbox { scale_x: 2.0, scale_y: 2.0, offset_x: 0.0, offset_y: 0.0 },
        source_size: Size::new(48, 32),
    };
    let mut bench = Bench::start::<InferNode<E>>(&all);
    let mut seq = 0;
    // a frame for each worker
    let mut boxes = |bench: &mut Bench| {
        for _ in 0..2 {
            let timing = Timing { pts_ns: seq, timebase: Timebase::NANOSECONDS, capture_ns: 7, ..Timing::default() };
            let item = Item::on_host("gate", seq as u64, timing, Payload::Tensor(tensor.clone()));
            bench.send("tensor", &item, bytemuck::cast_slice(&floats)).unwrap();
            seq += 1;
        }
        [(); 2].map(|()| match bench.receive(Duration::from_secs(20)) {
            Some((_, Input::Detections(found))) => found.boxes.len(),
            other => panic!("no detections but {other:?}"),
        })
    };
    // three cells score 0.4 or more, which is the model's own threshold
    assert_eq!(boxes(&mut bench), [3, 3]);
    assert!(bench.set("SCORE", "1"));
    assert_eq!(boxes(&mut bench), [0, 0]);
    assert!(!bench.set("SCORE", "1.5"));
    assert_eq!(boxes(&mut bench), [0, 0]);
    assert!(bench.set("SCORE", "null"), "unset is the model's");
    assert_eq!(boxes(&mut bench), [3, 3]);
    // boxes of one class that do not overlap at all are all that is left
    assert!(bench.set("IOU", "0"));
    let apart = boxes(&mut bench);
    assert!(apart[0] < 3 && apart[0] == apart[1], "{apart:?}");
    assert!(bench.unset("IOU") && bench.set("BATCH_WAIT_MS", "0"));
    assert_eq!(boxes(&mut bench), [3, 3]);
    assert_eq!(bench.metrics().counted("params_refused", ""), 1);
    bench.finish().1.unwrap();
}

/// Prints the shortest and the median time of an inference of the real YOLOX-nano `file`.
#[allow(clippy::print_stdout, reason = "the measurement is what it is called for")]
pub fn measure<E: Engine>(file: &Path, threads: usize, settings: &E::Settings, what: &str) {
    let (mut engine, _) = E::open(file, threads, settings).unwrap();
    engine.select("images", &["output"]).unwrap();
    let input = vec![114.0f32; 3 * 416 * 416];
    let mut once = || {
        let begun = std::time::Instant::now();
        engine.run([1, 3, 416, 416], Elements::F32(&input), &mut |_| ()).unwrap();
        begun.elapsed().as_secs_f64() * 1e3
    };
    for _ in 0..10 {
        once();
    }
    let mut times: Vec<f64> = (0..100).map(|_| once()).collect();
    times.sort_by(f64::total_cmp);
    println!("{what}: min {:.1} ms, median {:.1} ms of 100 inferences", times[0], times[50]);
}
