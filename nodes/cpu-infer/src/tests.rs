//! rten under the checks of every engine, and against ONNX Runtime on a real model.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it measured")]

use crate::engine::Rten;
use millrace_infer::{DetectorSettings, Elements, Engine, testing};
use std::path::{Path, PathBuf};

fn settings(model: PathBuf) -> DetectorSettings {
    DetectorSettings { model: model.into(), ..DetectorSettings::default() }
}

#[test]
fn it_gives_the_reference() {
    testing::gives_the_reference::<Rten>(settings);
}

#[test]
fn it_refuses_what_is_no_fitting_model() {
    testing::refuses::<Rten>(settings);
}

#[test]
fn it_opens_the_demo_model() {
    testing::opens_the_demo_model::<Rten>(settings);
}

#[test]
fn it_computes_16_bit_floats() {
    testing::computes_16_bit_floats::<Rten>(settings);
}

#[test]
fn it_feeds_the_second_input() {
    testing::feeds_the_second_input::<Rten>(settings);
}

/// `ConvInteger` of rten 0.27 pads with 0, whatever the zero point is, and ONNX with the zero point.
#[test]
fn it_refuses_integers_that_it_would_pad_wrongly() {
    let file = root().join("runtime/infer/tests/data/tiny_int8.onnx");
    let error = Rten::open(&file, 1, &settings(file.clone())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("1 of its nodes are convolutions of 8-bit integers with padding (ConvInteger)"), "{error}");
}

#[test]
fn it_adds_and_checks_models() {
    testing::adds_and_checks_models::<Rten>();
    testing::adds_models_of_each_task::<Rten>();
    testing::writes_over_nothing_of_others::<Rten>();
    testing::adds_models_by_their_numbers::<Rten>();
}

#[test]
fn it_finds_shapes_and_classes() {
    testing::finds_shapes_and_classes::<Rten>(settings);
}

#[test]
fn it_answers_as_a_node() {
    testing::answers_as_a_node::<Rten>(&[("THREADS", "1")]);
}

#[test]
fn it_changes_while_it_runs() {
    testing::changes_while_it_runs::<Rten>(&[("THREADS", "1")]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn yolox() -> Option<PathBuf> {
    Some(millrace_needs::data()?.join("models/yolox_nano.onnx"))
}

/// A tensor with edges, slopes and noise, 0 to 255.
fn picture() -> Vec<f32> {
    let mut noise = 1u32;
    (0..3 * 416 * 416)
        .map(|i| {
            let (c, y, x) = (i / (416 * 416), i / 416 % 416, i % 416);
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let block = if (x / 60 + y / 45 + c) % 2 == 0 { 150.0 } else { 40.0 };
            block + (x as f32) * 0.15 + (noise >> 27) as f32
        })
        .collect()
}

/// The raw output of ONNX Runtime. Without its library the test is skipped.
fn onnxruntime(model: &Path, input: &[f32]) -> Option<Vec<f32>> {
    let library = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).or_else(millrace_needs::onnxruntime)?;
    let environment = ort::init_from(library).unwrap().with_telemetry(false).build().unwrap();
    let mut session = ort::session::Session::builder(&environment).unwrap().commit_from_file(model).unwrap();
    let input = ort::value::TensorRef::from_array_view(([1usize, 3, 416, 416], input)).unwrap();
    let outputs = session.run(ort::inputs![input]).unwrap();
    Some(outputs[0].try_extract_tensor::<f32>().unwrap().1.to_vec())
}

#[test]
fn yolox_nano_agrees_with_onnxruntime() {
    let Some(file) = yolox() else { return };
    let input = picture();
    let Some(want) = onnxruntime(&file, &input) else { return };
    for threads in [1, 2] {
        let (mut engine, _) = Rten::open(&file, threads, &settings(file.clone())).unwrap();
        engine.select("images", &["output"]).unwrap();
        let mut got = Vec::new();
        engine
            .run([1, 3, 416, 416], Elements::F32(&input), &mut |outputs| {
                assert_eq!(outputs[0].shape, [1, 3549, 85]);
                got = outputs[0].data.to_vec();
            })
            .unwrap();
        assert_eq!(got.len(), want.len());
        let largest = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let spread = want.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        println!("{threads} threads: largest difference {largest:.1e}; largest value {spread:.2}");
        assert!(largest < 1e-3, "{threads} threads: {largest}");
    }
}

/// `cargo test --release -p cpu-infer -- --ignored --nocapture milliseconds`
#[test]
#[ignore = "a measurement"]
fn milliseconds_per_inference() {
    let Some(file) = yolox() else { return };
    for threads in [1, 2] {
        testing::measure::<Rten>(&file, threads, &settings(file.clone()), &format!("rten, {threads} threads"));
    }
}

#[test]
fn a_file_that_it_does_not_compute_is_known_before_the_start() {
    let refused = |file: &str, more: &[(&str, &str)]| {
        let (_folder, model) = testing::describe(file, &[]);
        let model = model.display().to_string();
        millrace_node::testing::remarks::<millrace_infer::InferNode<Rten>>(&[&[("MODEL", &*model)][..], more].concat())
            .refused
    };
    let found = refused("tiny_int8.onnx", &[]);
    assert!(found.len() == 1 && found[0].setting == "MODEL" && found[0].why.contains("ConvInteger"), "{found:?}");
    assert_eq!(refused("tiny.onnx", &[("WORKERS", "2")]), []);
}
