//! The cache, and the way from a model file to an engine with TensorRT-RTX, on any machine; with a GPU and TensorRT the
//! checks of every engine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stand_in;

use crate::builder::{Unbuilt, answer_of};
use crate::cache;
use crate::config::{Precision, Settings, Tactic};
use crate::engine::Trt;
use crate::plan::{self, Wanted};
use millrace_cuda::tensorrt::Tensorrt;
use millrace_infer::{Engine, EngineError, testing};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A `libnvinfer.so.8`, `.10` or `.11` to run on this machine's GPU; what is asked for by it may not be missing.
const ASKED: &str = "MILLRACE_TENSORRT";

fn settings(model: PathBuf) -> Settings {
    let mut settings: Settings = serde_json::from_value(serde_json::json!({ "MODEL": model })).unwrap();
    settings.library = std::env::var_os(ASKED).map(|library| PathBuf::from(library).into());
    // builds of tests need not compute fast; the level is TensorRT's where a release has none
    settings.tf32 = false; // what numpy computes has all bits
    settings.build_level = std::env::var("MILLRACE_TENSORRT_LEVEL").ok().map(|level| level.parse().unwrap());
    settings
}

/// Engines beside the description, which is in a folder of its test.
fn beside(model: PathBuf) -> Settings {
    let engine_cache = model.parent().map(|folder| folder.join("engines").into());
    Settings { engine_cache, ..settings(model) }
}

fn asked() -> bool {
    let asked = std::env::var_os(ASKED).is_some();
    if !asked {
        millrace_needs::skip_without("tensorrt", format!("{ASKED} names no library"));
    }
    asked
}

#[test]
fn it_gives_the_reference() {
    if asked() {
        testing::gives_the_reference::<Trt>(beside);
    }
}

#[test]
fn it_refuses_what_is_no_fitting_model() {
    if asked() {
        testing::refuses::<Trt>(beside);
    }
}

#[test]
fn it_opens_the_demo_model() {
    if asked() {
        testing::opens_the_demo_model::<Trt>(settings);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn a_model_becomes_an_engine_by_its_description() {
    let Some(library) = millrace_needs::tensorrt_rtx() else { return };
    let library = Tensorrt::open(Some(&library)).unwrap();
    let file = root().join("tests/data/demo/model/model.onnx");
    let model = std::fs::read(&file).unwrap();
    let wanted = Wanted {
        name: "images".to_owned(),
        shape: [1, 3, 192, 320],
        batch: 4,
        precision: Precision::Model,
        tf32: true,
        level: Some(0),
        tactics: vec![Tactic::JitConvolutions],
    };
    // alone for all numbers of frames, and with one for a frame alone
    let all = plan::build(&library, &model, &file, (&wanted, &[[1, 4]]), b"").unwrap();
    let batches = [[2, 4], [1, 1]];
    let two = plan::build(&library, &model, &file, (&wanted, &batches), b"").unwrap();
    assert!(!all.bytes().is_empty() && two.bytes().len() > all.bytes().len());

    // refused before minutes are spent on it
    let message = |wanted| plan::build(&library, &model, &file, (&wanted, &batches), b"").unwrap_err().to_string();
    let other = message(Wanted { name: "image".to_owned(), ..wanted.clone() });
    assert!(other.contains("it has no input 'image'; it has 'images'"), "{other}");
    let other = message(Wanted { shape: [1, 3, 640, 640], ..wanted.clone() });
    assert!(other.contains("has shape [-1, 3, 192, 320]") && other.contains("[1, 3, 640, 640]"), "{other}");
    let other = message(Wanted { precision: Precision::F16, ..wanted.clone() });
    assert!(other.contains("it has no choice of precision; export the model in 16 bits"), "{other}");
    let other = message(Wanted { tactics: vec![Tactic::Cudnn], ..wanted });
    assert!(other.contains("it has no tactic source 'cudnn'; it has"), "{other}");
}

/// Asks for the engine of `key`, which is `made` where it has to be built, and says whether it was.
fn ask(folder: &Path, key: &str, made: &[u8]) -> (Result<Vec<u8>, EngineError>, bool) {
    let built = Cell::new(false);
    let load = |bytes: &[u8]| match bytes {
        b"of another GPU" => Err(EngineError::setup("not for this GPU")),
        bytes => Ok(bytes.to_vec()),
    };
    let build = || {
        built.set(true);
        Ok(made.to_vec())
    };
    let engine = plan::cached(folder, key, load, build);
    (engine, built.get())
}

#[test]
fn an_engine_is_built_once_for_each_key() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("a/b");
    assert_eq!(ask(&folder, "one", b"engine one"), (Ok(b"engine one".to_vec()), true));
    assert_eq!(ask(&folder, "one", b"another"), (Ok(b"engine one".to_vec()), false));
    assert_eq!(ask(&folder, "two", b"engine two"), (Ok(b"engine two".to_vec()), true));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&folder).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "others may not write what is run");
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(files, 2, "nothing half-written is left");
}

#[test]
fn what_is_damaged_or_of_something_else_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (key, engine) = ("key", b"an engine".as_slice());
    let kept = cache::write(folder, key, engine).unwrap();
    let whole = std::fs::read(&kept).unwrap();
    assert_eq!(cache::read(folder, key), Ok(Some(engine.to_vec())));
    // every byte counts, and so does every length
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x20;
        std::fs::write(&kept, &changed).unwrap();
        assert!(cache::read(folder, key).is_err(), "byte {at}");
        std::fs::write(&kept, &whole[..at]).unwrap();
        assert!(cache::read(folder, key).is_err(), "{at} bytes");
    }
    std::fs::write(&kept, [&whole[..], b"more"].concat()).unwrap();
    assert!(cache::read(folder, key).is_err());
    assert_eq!(ask(folder, key, b"built anew"), (Ok(b"built anew".to_vec()), true));
    assert_eq!(ask(folder, key, engine), (Ok(b"built anew".to_vec()), false));

    // the file of one key under the name of another
    std::fs::copy(&kept, cache::file_of(folder, "other")).unwrap();
    assert!(cache::read(folder, "other").is_err());
    // a whole file that TensorRT refuses
    cache::write(folder, key, b"of another GPU").unwrap();
    assert_eq!(ask(folder, key, engine), (Ok(engine.to_vec()), true));
    // one that is refused when just built is an error, and not kept
    assert!(ask(folder, "new", b"of another GPU").0.is_err());
    assert_eq!(cache::read(folder, "new"), Ok(None));
}

#[test]
fn a_folder_that_cannot_be_written_costs_the_next_start_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(ask(&file.join("engines"), "key", b"engine"), (Ok(b"engine".to_vec()), true));
}

#[test]
fn without_tensorrt_the_node_says_what_brings_it_and_what_to_use() {
    let settings =
        Settings { library: Some(PathBuf::from("/nowhere/libnvinfer.so.11").into()), ..settings("model.yml".into()) };
    let message = Trt::open(Path::new("model.onnx"), 1, &settings).unwrap_err().to_string();
    for part in ["/nowhere/libnvinfer.so.11", "NVIDIA's TensorRT 8.5 to 11", "use ort-infer"] {
        assert!(message.contains(part), "{message}");
    }
}

/// The answer of a shell that runs `script` in place of the process that builds.
fn answer(script: &str, limit: Duration) -> Result<Vec<u8>, Unbuilt> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", script]);
    answer_of(shell, limit).unwrap()
}

#[test]
fn a_process_that_builds_answers_or_its_end_is_named() {
    let patient = Duration::from_secs(60);
    let died = |how: &str| Err(Unbuilt::Died(how.to_owned()));
    // more than a pipe holds
    assert_eq!(answer("head -c 300000 /dev/zero", patient).map(|engine| engine.len()), Ok(300_000));
    assert_eq!(answer("echo it has no input; exit 1", patient), Err(Unbuilt::Said("it has no input".to_owned())));
    assert_eq!(answer("printf half; kill -SEGV $$", patient), died("signal 11"));
    assert_eq!(answer("exit 0", patient), died("it gave nothing"));
    assert_eq!(answer("exit 3", patient), died("exit status: 3"));
    assert_eq!(answer("printf half; exec sleep 60", Duration::from_millis(200)), Err(Unbuilt::Late));
    let absent = answer_of(Command::new("/nowhere/trt-infer"), patient).unwrap_err().to_string();
    assert!(absent.contains("'/nowhere/trt-infer', which builds engines, cannot be run"), "{absent}");
}

/// What the process that builds reads is what the node was given.
#[test]
fn settings_pass_to_the_process_that_builds() {
    let text = r#"{"MODEL": "m/model.yml", "BATCH": 8, "PRECISION": "f16", "BUILD_LEVEL": 0, "TACTICS": ["cublas"]}"#;
    let given: Settings = serde_json::from_str(text).unwrap();
    let read: Settings = serde_json::from_str(&serde_json::to_string(&given).unwrap()).unwrap();
    assert_eq!(format!("{read:?}"), format!("{given:?}"));
    let seen = (read.precision, read.build_level, &read.tactics[..], read.batch, read.build_limit_s);
    assert_eq!(seen, (Precision::F16, Some(0), &[Tactic::Cublas][..], 8, 1_800));
}

#[test]
fn settings_are_read() {
    let read = |text: &str| serde_json::from_str::<Settings>(text);
    let settings = read(r#"{"MODEL": "m/model.yml", "DEVICE": 1, "BATCH": 8, "ENGINE_CACHE": "/e"}"#).unwrap();
    assert_eq!((settings.device, settings.batch, settings.engine_cache()), (1, 8, Ok(PathBuf::from("/e"))));
    let settings = read(r#"{"MODEL": "m/model.yml"}"#).unwrap();
    assert_eq!((settings.device, settings.batch, settings.library.is_none()), (0, 1, true));
    assert_eq!((settings.share(), settings.cuda_graph), ((1, 1), false));
}
