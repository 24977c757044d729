//! The half that needs no GPU, with TensorRT-RTX where it is installed; the places of the functions, with TensorRT's own
//! headers where they are given.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it measured")]

use super::layout::{V8_5, V8_6, V10, V11, Version};
use super::*;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The library that `tests/run` installs; without it the test is skipped.
fn tensorrt() -> Option<Tensorrt> {
    let file = millrace_needs::tensorrt_rtx()?;
    Some(Tensorrt::open(Some(&file)).unwrap())
}

fn demo_model() -> (PathBuf, Vec<u8>) {
    let file = root().join("tests/data/demo/model/model.onnx");
    let bytes = std::fs::read(&file).unwrap();
    (file, bytes)
}

#[test]
fn versions_decide_the_layout() {
    let layout = |number, rtx| Version::of(number, rtx).layout().map(std::ptr::from_ref);
    for (number, rtx, expected) in [
        (8_503, false, &raw const V8_5),
        (8_600, false, &raw const V8_6),
        (8_601, false, &raw const V8_6),
        (100_000, false, &raw const V10),
        (101_601, false, &raw const V10),
        (110_000, false, &raw const V11),
        (110_100, false, &raw const V11),
        (10_701, true, &raw const V11),
    ] {
        assert_eq!(layout(number, rtx), Some(expected), "{}", Version::of(number, rtx));
    }
    // a minor version whose headers were not compared is not trusted
    for (number, rtx) in [
        (8_401, false),
        (8_700, false),
        (9_300, false),
        (101_700, false),
        (110_200, false),
        (120_000, false),
        (10_400, true),
        (10_800, true),
        (10_701, false),
        (0, false),
    ] {
        assert_eq!(layout(number, rtx), None, "{}", Version::of(number, rtx));
    }
    assert_eq!(Version::of(8_601, false).to_string(), "TensorRT 8.6.1");
    assert_eq!(Version::of(101_303, false).to_string(), "TensorRT 10.13.3");
    assert_eq!(Version::of(10_701, true).to_string(), "TensorRT-RTX 1.7.1");
}

#[test]
fn a_missing_library_is_named_with_what_brings_it_and_what_to_use() {
    let message = Tensorrt::open(Some(Path::new("/nowhere/libnvinfer.so.11"))).unwrap_err().to_string();
    for part in ["/nowhere/libnvinfer.so.11", "TensorRT 8.5 to 11 brings it", "use ort-infer"] {
        assert!(message.contains(part), "{message}");
    }
}

/// What the model's exporter wrote: `python3 -c "import onnx; print(onnx.load('model.onnx').graph.input)"`.
#[test]
fn a_model_is_parsed_and_an_engine_built_with_its_progress() {
    let Some(tensorrt) = tensorrt() else { return };
    let (file, bytes) = demo_model();
    let network = tensorrt.parse(&bytes, &file).unwrap();
    let tensor = |name: &str, dims: &[i64], is_input| Tensor {
        name: name.to_owned(),
        dtype: Dtype::F32,
        dims: dims.to_vec(),
        is_input,
    };
    let expected = [tensor("images", &[-1, 3, 192, 320], true), tensor("detections", &[-1, 7, 24, 40], false)];
    assert_eq!(network.tensors(), expected);

    let phases = Mutex::new((Vec::new(), Vec::new(), 0));
    let report = |progress: Progress<'_>| {
        let mut phases = phases.lock().unwrap();
        match progress {
            Progress::Begin { phase, steps, .. } => {
                assert!(!phase.is_empty() && steps > 0, "{progress:?}");
                phases.0.push(phase.to_owned());
            }
            Progress::Step { .. } => phases.2 += 1,
            Progress::End { phase } => phases.1.push(phase.to_owned()),
        }
    };
    let (least, most) = (&[1, 3, 192, 320][..], &[4, 3, 192, 320][..]);
    let open = [OpenInput { name: "images", least, most }];
    let plan = network.build(&BuildOptions { profiles: &open, ..BuildOptions::default() }, &report).unwrap();
    let (mut begun, mut ended, steps) = phases.into_inner().unwrap();
    begun.sort();
    ended.sort();
    assert!(!begun.is_empty() && begun == ended && steps > begun.len(), "{begun:?} {ended:?} {steps}");
    // the weights alone take most of the model's file, and the engine has them too
    assert!(plan.bytes().len() > bytes.len() / 2, "{} B from {} B", plan.bytes().len(), bytes.len());
    drop(plan);

    // an open axis without extents, and more extents than the input has axes
    let network = tensorrt.parse(&bytes, &file).unwrap();
    let message = network.build(&BuildOptions::default(), &|_| {}).unwrap_err().to_string();
    assert!(message.contains("optimization profile"), "{message}");
    for (name, extents) in [("images", &[1, 3, 192, 320, 1][..]), ("images", &[1; 9]), ("images", &[2, 3, 200, 320])] {
        let network = tensorrt.parse(&bytes, &file).unwrap();
        let open = [OpenInput { name, least: extents, most: extents }];
        assert!(
            network.build(&BuildOptions { profiles: &open, ..BuildOptions::default() }, &|_| {}).is_err(),
            "{extents:?}"
        );
    }
}

#[test]
fn what_a_release_does_not_have_is_refused_by_name() {
    let Some(tensorrt) = tensorrt() else { return };
    let (file, bytes) = demo_model();
    let message = |options| tensorrt.parse(&bytes, &file).unwrap().build(&options, &|_| {}).unwrap_err().to_string();
    let precision_message = message(BuildOptions { f16: true, ..BuildOptions::default() });
    assert!(precision_message.contains("TensorRT-RTX 1.7.1: it has no choice of precision"), "{precision_message}");
    let tactics_message = message(BuildOptions { tactics: Some(&["cublas"]), ..BuildOptions::default() });
    let expected = "no tactic source 'cublas'; it has edge_mask_convolutions, jit_convolutions";
    assert!(tactics_message.contains(expected), "{tactics_message}");
}

/// Timings that are none are ignored, as are those that an earlier build has left; the level and the sources are accepted.
#[test]
fn a_build_with_effort_tactics_and_timings() {
    let Some(tensorrt) = tensorrt() else { return };
    let (file, bytes) = demo_model();
    let (least, most) = (&[1, 3, 192, 320][..], &[1, 3, 192, 320][..]);
    let open = [OpenInput { name: "images", least, most }];
    let build = |timings: &[u8]| {
        let tactics = Some(&["edge_mask_convolutions"][..]);
        let options = BuildOptions { profiles: &open, level: Some(0), tactics, timings, f16: false, exact: true };
        tensorrt.parse(&bytes, &file).unwrap().build(&options, &|_| {}).unwrap()
    };
    let first = build(b"no timings");
    let second = build(first.timings());
    println!("{} B of timings, then {} B", first.timings().len(), second.timings().len());
    assert!(!first.bytes().is_empty() && !second.bytes().is_empty());
}

/// The older `Dims` are 9 words, the newer 72 bytes, as NvInferRuntimeBase.h has them.
#[test]
fn extents_of_both_widths() {
    use super::abi::{Dims32, Dims64};
    assert_eq!((size_of::<Dims32>(), size_of::<Dims64>()), (36, 72));
    let extents = [-1, 3, 192, 320];
    assert_eq!(Dims32::of(&extents).unwrap().extents().unwrap(), extents);
    assert_eq!(Dims64::of(&extents).unwrap().extents().unwrap(), extents);
    let long = [1 << 40];
    assert!(Dims32::of(&long).is_none() && Dims64::of(&long).is_some());
    assert!(Dims32::of(&[1; 9]).is_none() && Dims64::of(&[1; 9]).is_none());
}

#[test]
fn what_is_no_model_is_refused() {
    let Some(tensorrt) = tensorrt() else { return };
    let (file, bytes) = demo_model();
    for damaged in [b"not a model", &bytes[..bytes.len() / 2]] {
        match tensorrt.parse(damaged, &file) {
            Err(TensorrtError::Model { why }) => assert!(!why.is_empty()),
            other => panic!("{} B: {:?}", damaged.len(), other.map(|n| n.tensors())),
        }
    }
    // an operator that there is none of: `op_type` is field 4 of a node, and a name of four letters
    let at = bytes.windows(6).position(|w| w == b"\x22\x04Conv").unwrap();
    let mut other = bytes.clone();
    other[at + 2] = b'W';
    let message = tensorrt.parse(&other, &file).unwrap_err().to_string();
    assert!(message.contains("Wonv"), "{message}");
}

#[test]
fn a_process_has_one_tensorrt() {
    let Some(tensorrt) = tensorrt() else { return };
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let message = Tensorrt::open(Some(&other)).unwrap_err().to_string();
    assert!(message.contains(&tensorrt.file().display().to_string()) && message.contains("Cargo.toml"), "{message}");
}

/// `MILLRACE_TENSORRT_HEADERS=~/TensorRT-11/include cargo test --release -p millrace-cuda places`: the compiler's own
/// places. The folder of a release holds NvInfer.h and NvOnnxParser.h; cuda_runtime_api.h need only name two types.
#[test]
fn places_are_those_of_the_headers() {
    let Some(folder) = std::env::var_os("MILLRACE_TENSORRT_HEADERS").map(PathBuf::from) else {
        return millrace_needs::skip_without("tensorrt_headers", "MILLRACE_TENSORRT_HEADERS names no folder");
    };
    let scratch = std::env::temp_dir().join(format!("millrace-places-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    let cuda = "#pragma once\ntypedef struct CUevent_st *cudaEvent_t;\ntypedef struct CUstream_st *cudaStream_t;\n";
    std::fs::write(scratch.join("cuda_runtime_api.h"), cuda).unwrap();
    let program = scratch.join("places");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tensorrt/places.cpp");
    // nothing of TensorRT is called: what the classes' own code refers to may stay unresolved
    let flags = ["-std=c++20", "-w", "-fno-access-control", "-Wl,--unresolved-symbols=ignore-all"];
    let mut compile = Command::new("c++");
    compile.args(flags).arg("-I").arg(&folder).arg("-I").arg(&scratch).arg(&source).arg("-o").arg(&program);
    assert!(compile.status().unwrap().success());
    let printed = String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap();
    std::fs::remove_dir_all(&scratch).unwrap();
    let (number, places) = printed.split_once('\n').unwrap();
    let (number, rtx) = number.split_once(' ').unwrap();
    let version = Version::of(number.parse().unwrap(), rtx == "1");
    let layout = version.layout().unwrap_or_else(|| panic!("{version} has no layout"));
    assert_eq!(places.trim(), format!("{layout:?}"), "{version}");
}
