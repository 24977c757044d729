//! `millrace capacity`: a graph whose detector is slow on purpose has an end, and the search finds it; what cannot run says
//! why; a search that is stopped leaves what it has.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::dataflow::{Talk, short_clip};
use millrace_tests::{finish, millrace, printed, program, root};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(300);

/// Cameras of 2 frames a second, before a node that is busy for 0.4 s with each frame, asleep or not: one camera leaves it
/// a fifth of its time, two need more than there is.
fn graph(folder: &Path, source: &str, of_slow: &str) -> String {
    short_clip(&folder.join("clip.264"));
    let text = format!(
        "env: {{ FLOW: lossless, MODEL: {0}/model/model.yml }}\nnodes:\n  - id: decode\n    path: {1}\n    \
         inputs: {{ tick: dora/timer/secs/5 }}\n    outputs: [frame]\n    env: {{ {source}, FRAME_RATE: 2, FRAMES: 5 }}\n  \
         - id: to-rgb\n    path: {2}\n    inputs: {{ frame: decode/frame }}\n    outputs: [tensor]\n  \
         - id: slow\n    path: {3}\n    inputs: {{ tensor: to-rgb/tensor }}\n    outputs: [tensor]\n    \
         env: {{ {of_slow} }}\n  - id: detect\n    path: {4}\n    inputs: {{ tensor: slow/tensor }}\n    \
         outputs: [detections]\n  - id: write\n    path: {5}\n    inputs: {{ detections: detect/detections }}\n    \
         env: {{ PATH: {6} }}\n",
        root().join("tests/data/demo").display(),
        program("sw-nv12").display(),
        program("nv12-to-rgb").display(),
        program("faulty-node").display(),
        program("cpu-infer").display(),
        program("jsonl-writer").display(),
        folder.join("out.jsonl").display(),
    );
    let graph = folder.join("graph.yml");
    std::fs::write(&graph, text).unwrap();
    graph.display().to_string()
}

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("report/capacity.json")).unwrap()).unwrap()
}

fn steps(report: &Value) -> Vec<(u64, bool)> {
    let step = |step: &Value| (step["cameras"].as_u64().unwrap(), step["faults"].as_array().unwrap().is_empty());
    report["steps"].as_array().unwrap().iter().map(step).collect()
}

#[test]
fn a_search_that_would_begin_above_its_end_is_refused() {
    let output = finish(&mut millrace(&["capacity", "graphs/cameras.yml", "--from", "5", "--most", "2"]), LIMIT);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(printed(&output).contains("--from 5 is more than --most 2"), "{}", printed(&output));
}

#[test]
fn the_end_of_a_graph_with_a_slow_node_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(folder.path(), "SOURCE: clip.264, CAMERA: door", "DELAY_US: 400000");
    let out = folder.path().join("report");
    let args = [
        "capacity",
        &graph,
        "--most",
        "4",
        "--seconds",
        "5",
        "--p95",
        "2s",
        "--no-build",
        "--out",
        out.to_str().unwrap(),
    ];
    let output = finish(&mut millrace(&args), LIMIT);
    let text = printed(&output);
    let report = report(folder.path());
    let page = std::fs::read_to_string(out.join("capacity.html")).unwrap();
    // two never hold, however fast the machine is; one may not where others leave it no processor time
    match steps(&report).as_slice() {
        [(1, true), (2, false)] => {
            assert_eq!(output.status.code(), Some(0), "{text}");
            assert!(
                text.contains("1 camera held; 2 did not: ") && page.contains("<strong>1 camera</strong>"),
                "{text}"
            );
        }
        [(1, false)] => {
            assert_eq!(output.status.code(), Some(1), "{text}");
            assert!(text.contains("no step held; 1 did not: "), "{text}");
        }
        other => panic!("{other:?}: {text}"),
    }
    let measured: Vec<&Value> =
        report["steps"].as_array().unwrap().iter().filter(|s| s["figures"].is_object()).collect();
    for step in measured {
        let (cameras, figure) = (step["cameras"].as_f64().unwrap(), |name: &str| step["figures"][name].as_f64());
        assert_eq!(figure("fps_of_cameras"), Some(2.0 * cameras), "the clip's own rate: {step:#}");
        // a node that needs 0.4 s for a frame gives 2.5 a second at most
        assert!(figure("fps").unwrap() < 3.0 && figure("p95_ms").is_none_or(|ms| ms >= 400.0), "{step:#}");
        assert!(step["figures"]["gpu_percent"].is_null(), "no GPU was looked at");
    }
}

#[test]
fn what_cannot_run_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |graph: &str, more: &[&str], says: &str| {
        let out = folder.path().join("none");
        let mut args = vec!["capacity", graph, "--no-build", "--out", out.to_str().unwrap()];
        args.extend(more);
        let output = finish(&mut millrace(&args), LIMIT);
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(says) && !text.contains("held"), "{says}: {text}");
        assert!(!out.exists(), "a report of nothing");
    };
    let live = graph(folder.path(), "SOURCE: 'rtsp://127.0.0.1:1/x'", "");
    refused(&live, &[], "plays no file that copies could be made of; name one by --clip");
    refused(&live, &["--clip", "/none.mp4"], "there is no file /none.mp4 for the cameras to play");
    let broken = graph(folder.path(), "SOURCE: clip.264", "REFUSE: true");
    refused(&broken, &[], "does not run with 1 of these cameras: slow: REFUSE is set: this node does not open");
    let misspelt = graph(folder.path(), "SOURCE: clip.264", "DELAYUS: 1");
    refused(&misspelt, &[], "DELAY_US");
}

#[test]
fn a_search_that_is_stopped_leaves_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(folder.path(), "SOURCES: 'a=clip.264'", "");
    let out = folder.path().join("report");
    let args = ["capacity", &graph, "--seconds", "5", "--p95", "10s", "--no-build", "--out", out.to_str().unwrap()];
    let mut search = Talk::begin(&mut millrace(&args));
    search.until("        1 ");
    search.signal(rustix::process::Signal::INT);
    let (code, text) = search.end();
    assert_eq!(code, 130, "{text}");
    let report = report(folder.path());
    assert_eq!(steps(&report).len(), 1, "{text}");
    assert!(report["unfinished"].is_string() && text.contains("stopped before the search came to its end"), "{text}");
    assert!(out.join("capacity.html").exists());
}
