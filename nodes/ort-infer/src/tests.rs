//! ONNX Runtime under the checks of every engine, and libraries that are none.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails where it stands and says what it skipped")]

use crate::config::Settings;
use crate::engine::Ort;
use crate::library;
use millrace_infer::{Common, Engine, testing};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const CHILD: &str = "MILLRACE_TEST_LIBRARY";

fn settings(model: PathBuf) -> Settings {
    Settings { common: Common { model, ..Common::default() }, library: None, spin: false }
}

/// Whether the library can be opened; says so if not.
fn have_library() -> bool {
    library::environment(None).map_err(|e| println!("skipped: {e}")).is_ok()
}

#[test]
fn it_gives_the_reference() {
    if have_library() {
        testing::gives_the_reference::<Ort>(settings);
    }
}

#[test]
fn it_refuses_what_is_no_fitting_model() {
    if have_library() {
        testing::refuses::<Ort>(settings);
    }
}

#[test]
fn it_opens_the_demo_model() {
    if have_library() {
        testing::opens_the_demo_model::<Ort>(settings);
    }
}

#[test]
fn it_answers_as_a_node() {
    if have_library() {
        testing::answers_as_a_node::<Ort>(&[("THREADS", "1")]);
    }
}

#[test]
fn settings_are_read() {
    let read = |text: &str| serde_json::from_str::<Settings>(text);
    let settings = read(r#"{"MODEL": "m/model.yml", "LIBRARY": "lib.so", "SPIN": true}"#).unwrap();
    assert_eq!((settings.library.as_deref(), settings.spin), (Some(Path::new("lib.so")), true));
    assert_eq!(settings.common.model, Path::new("m/model.yml"));
}

#[test]
fn the_library_is_looked_for_beside_the_binary_then_in_the_tools() {
    let places = library::places(Some(Path::new("/t/release/ort-infer")), Path::new("/r/graphs"));
    let tools = "tools/onnxruntime/onnxruntime/capi";
    assert_eq!(places[0], Path::new("/t/release"));
    assert_eq!(places[1], Path::new("/t").join(tools));
    assert!(places.contains(&Path::new("/r/target").join(tools)));
}

/// Opens the library that the variable names; alone in its process, because a process opens one.
#[test]
#[ignore = "run by the tests below"]
fn child_opens_a_library() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let settings = Settings { library: Some(PathBuf::from(path)), ..settings("model.yml".into()) };
    // the same error again: a failure must not leave something locked
    for _ in 0..2 {
        match Ort::open(Path::new("model.onnx"), 1, &settings) {
            Ok(_) => println!("opened"),
            Err(e) => println!("refused: {e}"),
        }
    }
}

/// What a process says that opens `library`, within ten seconds.
fn opened_by_a_child(library: &Path) -> String {
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::child_opens_a_library", "--ignored", "--nocapture"])
        .env(CHILD, library)
        .stdout(out.reopen().unwrap())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                panic!("opening '{}' hangs", library.display());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let said = std::fs::read_to_string(out.path()).unwrap();
    assert!(status.success(), "{status}: {said}");
    said
}

fn refused_with(library: &Path, part: &str) {
    let said = opened_by_a_child(library);
    let refusals: Vec<&str> = said.lines().filter(|l| l.contains("refused: ")).collect();
    assert_eq!(refusals.len(), 2, "{said}");
    for text in refusals {
        assert!(text.contains(part) && text.contains("pip install --target target/tools/onnxruntime"), "{text}");
    }
}

#[test]
fn what_is_no_library_is_refused_with_the_way_to_get_one() {
    let folder = tempfile::tempdir().unwrap();
    refused_with(&folder.path().join("none.so"), "which cannot be opened: No such file");
    let text = folder.path().join("text.so");
    std::fs::write(&text, "not a library").unwrap();
    refused_with(&text, "text.so': it cannot be loaded");
}

#[test]
fn a_library_of_another_api_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let compile = |name: &str, source: &str| {
        let (c, so) = (folder.path().join(format!("{name}.c")), folder.path().join(format!("{name}.so")));
        std::fs::write(&c, source).unwrap();
        let done = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&so).arg(&c).status();
        done.is_ok_and(|status| status.success()).then_some(so)
    };
    let base = |version: &str| {
        format!(
            "static const void *api(unsigned v) {{ return 0; }}\n\
             static const char *version(void) {{ return \"{version}\"; }}\n\
             static const struct {{ const void *(*a)(unsigned); const char *(*v)(void); }} base = {{ api, version }};\n\
             const void *OrtGetApiBase(void) {{ return &base; }}\n"
        )
    };
    let Some(other) = compile("other", "int other(void) { return 1; }\n") else {
        println!("skipped: no C compiler");
        return;
    };
    refused_with(&other, "does not export `OrtGetApiBase`");
    refused_with(&compile("old", &base("1.10.0")).unwrap(), "expected version >= '1.24.x', but got '1.10.0'");
    refused_with(&compile("lying", &base("1.99.0")).unwrap(), "Failed to initialize ORT API");
    let null = "const void *OrtGetApiBase(void) { return 0; }\n";
    refused_with(&compile("null", null).unwrap(), "panicked");
}

/// `cargo test --release -p ort-infer -- --ignored --nocapture milliseconds`
#[test]
#[ignore = "a measurement"]
fn milliseconds_per_inference() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models/yolox_nano.onnx");
    if !file.exists() || !have_library() {
        println!("skipped: ../shared/data or the library is absent");
        return;
    }
    for (threads, spin) in [(1, false), (2, false), (2, true)] {
        let settings = Settings { spin, ..settings(file.clone()) };
        testing::measure::<Ort>(&file, threads, &settings, &format!("ONNX Runtime, {threads} threads, spin {spin}"));
    }
}
