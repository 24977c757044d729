//! `millrace ab` on the demo clip: it runs to a report, and what is planted in an arm is found.
//!
//! Nothing here judges a speed: a machine that tests run on has other things to do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{finish, millrace, printed, root};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(400);
const PLANTED: &str = "tests/graphs/planted.yml";

/// `millrace ab ARGS` with its report in `out`: the exit code and all that it printed.
fn ab(out: &Path, args: &[&str]) -> (i32, String) {
    let out = out.display().to_string();
    let all = [&["ab", "--no-build", "--out", &out], args].concat();
    let output = finish(&mut millrace(&all), LIMIT);
    (output.status.code().expect("it ended by itself"), printed(&output))
}

fn report(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("report.json")).expect("there is a report")).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is a number"))
}

#[test]
fn a_change_of_one_setting_runs_to_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let (out, page) = (folder.path().join("out"), folder.path().join("page.md"));
    let page_text = page.display().to_string();
    let (code, text) = ab(
        &out,
        &[
            "graphs/detect.yml",
            "--set",
            "to-rgb.FUSED=false",
            "--rounds=1",
            "--frames=40",
            "--warm-up=10",
            "--quality-frames=60",
            "--until=to-rgb",
            // at a camera's rate a machine that is busy with other tests loses most of so few frames
            "--loads=saturated",
            "--page",
            &page_text,
        ],
    );
    assert_eq!(code, 0, "{text}");
    let report = report(&out);
    let experiment = &report["experiment"];
    let differences = experiment["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(differences[0], serde_json::json!({"what": "to-rgb.FUSED", "a": "true", "b": "false"}));
    let loads = experiment["loads"].as_array().unwrap();
    let kinds: Vec<(&str, &Value)> = loads.iter().map(|l| (l["pace"].as_str().unwrap(), &l["until"])).collect();
    assert_eq!(kinds, [("saturated", &Value::Null), ("saturated", &"to-rgb".into())]);
    for load in loads {
        let runs = load["runs"].as_array().unwrap();
        let sides: Vec<&str> = runs.iter().map(|run| run["side"].as_str().unwrap()).collect();
        assert_eq!(sides, ["a", "b", "b", "a"]);
        assert_eq!((&load["cameras"], &load["warm_up_frames"]), (&1.into(), &10.into()));
        for run in runs {
            check_run(run, load["pace"] == "saturated", load["until"].is_null());
        }
    }
    let quality = &experiment["quality"];
    let tensors = quality["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 60);
    // in separate passes over 8 bits it is rounded otherwise, by less than a level of 255 each
    assert!(tensors.iter().all(|pair| pair["seq"].is_u64() && number(&pair["largest"]) < 1.0 / 255.0));
    assert!(tensors.iter().any(|pair| number(&pair["differing"]) > 0.0), "the setting changes what runs");
    for arm in ["detections_a", "detections_b", "truth"] {
        let frames = quality[arm].as_array().unwrap();
        assert_eq!(frames.len(), 60, "{arm}");
        assert!(frames.iter().any(|frame| !frame["boxes"].as_array().unwrap().is_empty()), "{arm}");
    }
    // by tests/data/demo/model/model.yml
    assert!((number(&quality["score_threshold"]) - 0.35).abs() < 1e-6);
    assert_ne!(report["analysis"]["verdict"]["word"], "quality_changed", "{}", report["analysis"]["verdict"]);
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("to-rgb.FUSED") && html.contains("<svg"), "the page has its plots");
    let markdown = std::fs::read_to_string(&page).unwrap();
    assert!(markdown.contains("to-rgb.FUSED") && markdown.contains("page.svg"), "{markdown}");
    assert!(std::fs::read_to_string(page.with_extension("svg")).unwrap().contains("<svg"));
    assert!(text.contains("to-rgb.FUSED: true"), "{text}");
}

fn check_run(run: &Value, lossless: bool, whole: bool) {
    assert!(run["failure"].is_null(), "{run}");
    if lossless {
        assert_eq!(run["frames"], 40);
    }
    let figures = &run["figures"];
    let fps = number(&run["frames"]) / (number(&run["took_ns"]) / 1e9);
    assert!((number(&figures["fps"]) / fps - 1.0).abs() < 1e-9);
    assert!(lossless || fps < 26.0, "cameras give 25 frames a second, and not {fps}");
    let [p50, p95, p99] = ["latency_p50_ms", "latency_p95_ms", "latency_p99_ms"].map(|key| number(&figures[key]));
    assert!(0.0 < p50 && p50 <= p95 && p95 <= p99, "{figures}");
    // nodes tell of their processor time twice a second, and memory is looked at a second after the start: a run as short as
    // these may have neither
    let figure = |key: &str| figures.get(key).map(number);
    assert!(figure("cpu_ms_per_frame").is_none_or(|cpu| cpu > 0.0), "{figures}");
    assert!(figure("memory_mib").is_none_or(|memory| memory > 1.0), "{figures}");
    let nodes: Vec<&str> = run["stages"].as_array().unwrap().iter().map(|s| s["node"].as_str().unwrap()).collect();
    let expected: &[&str] = if whole { &["decode", "to-rgb", "detect", "write"] } else { &["decode", "to-rgb"] };
    assert_eq!(nodes, expected);
    assert!(run["stages"].as_array().unwrap().iter().all(|stage| number(&stage["work_p50_ns"]) > 0.0), "{run}");
    if lossless {
        // a source that cannot be told how long to play gives more until it is stopped
        assert!(number(&run["counters"]["to-rgb.in"]) >= 50.0, "{run}");
        assert_eq!(run["drops"], serde_json::json!({}));
    }
}

/// An arm against itself: identical tensors, not a box gained or lost, and no requirement of quality is missed.
#[test]
fn an_arm_is_the_same_as_itself() {
    let folder = tempfile::tempdir().unwrap();
    let args = [PLANTED, PLANTED, "--quality-only", "--quality-frames=60", "--require", "map_drop <= 0.1, psnr >= 42"];
    let (code, text) = ab(folder.path(), &args);
    assert_eq!(code, 0, "{text}");
    let report = report(folder.path());
    let tensors = report["experiment"]["quality"]["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 60);
    assert!(tensors.iter().all(|pair| pair["differing"] == 0 && pair["elements"] == 3 * 320 * 192), "{tensors:?}");
    let found = &report["analysis"]["detections"];
    assert_eq!((&found["gained"], &found["lost"], &found["frames"]), (&0.into(), &0.into(), &60.into()));
    assert!(report["experiment"]["quality"]["pictures"].as_array().unwrap().is_empty(), "nothing differs");
}

/// Runs the planted graph against itself with one thing wrong; it has to be called so, with pictures.
fn planted(fault: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = ab(folder.path(), &[PLANTED, "--set", fault, "--quality-only", "--quality-frames=120"]);
    assert_eq!(code, 0, "{text}");
    let report = report(folder.path());
    assert_eq!(report["analysis"]["verdict"]["word"], "quality_changed", "{fault}: {text}");
    assert!(text.contains("quality changed"), "{text}");
    let pictures = report["experiment"]["quality"]["pictures"].as_array().unwrap();
    assert!(!pictures.is_empty(), "{fault}: no pictures");
    for picture in pictures {
        assert_eq!((&picture["width_px"], &picture["height_px"]), (&960.into(), &540.into()));
        // the first bytes of a JPEG, in base64
        assert!(picture["jpeg_base64"].as_str().unwrap().starts_with("/9j/"));
    }
    report
}

#[test]
fn a_shift_by_one_pixel_is_found() {
    let report = planted("tensors.SHIFT_PX=1");
    assert!(number(&report["analysis"]["tensors"]["worst_db"]) < 42.0);
}

/// The clip is of the other matrix, so that decoding differs and runs once for each arm.
#[test]
fn a_wrong_matrix_is_found() {
    let report = planted("decode.MATRIX=bt601");
    assert_eq!(report["experiment"]["quality"]["tensors"].as_array().unwrap().len(), 120);
    assert!(number(&report["analysis"]["tensors"]["worst_db"]) < 42.0);
}

#[test]
fn lost_boxes_are_found() {
    let report = planted("boxes.DROP_BOX_EVERY=5");
    let found = &report["analysis"]["detections"];
    // the best box of every fifth frame with boxes, and nothing else
    let quality = &report["experiment"]["quality"]["detections_a"];
    let with_boxes = quality.as_array().unwrap().iter().filter(|f| !f["boxes"].as_array().unwrap().is_empty()).count();
    assert_eq!(found["lost"], with_boxes / 5);
    assert_eq!(found["gained"], 0);
    assert!(report["analysis"]["tensors"]["worst_db"].is_null(), "the tensors are the same");
}

#[test]
fn a_requirement_that_is_not_met_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let args =
        [PLANTED, "--set", "tensors.SHIFT_PX=1", "--quality-only", "--quality-frames=30", "--require", "psnr >= 42"];
    let (code, text) = ab(folder.path(), &args);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("not met"), "{text}");
    // a speed that was not measured supports nothing
    let args = [PLANTED, PLANTED, "--quality-only", "--quality-frames=30", "--require", "fps >= 0.5x"];
    let (code, text) = ab(folder.path(), &args);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("not measured"), "{text}");
}

/// Refused before anything runs, with all of these texts.
fn refused(args: &[&str], texts: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = ab(folder.path(), args);
    assert_eq!(code, 2, "{text}");
    assert!(texts.iter().all(|wanted| text.contains(wanted)), "{text}");
    assert!(!folder.path().join("report.json").exists());
}

#[test]
fn what_cannot_be_compared_is_refused_with_the_reason() {
    refused(&[PLANTED, "--set", "write.APPEND=true"], &["write.APPEND is false in A and true in B"]);
    refused(&[PLANTED, "graphs/checksum.yml"], &["A ends in 'write'", "B ends in 'checksum'"]);
    refused(&[PLANTED, "--set-a", "nobody.X=1", "--set-b", "noone.X=1"], &["'nobody'", "'noone'"]);
    refused(&[PLANTED, "--set", "tensors.SHIFT_XP=1"], &["SHIFT_XP", "SHIFT_PX"]);
    refused(&[PLANTED], &["nothing to compare"]);
    // before anything runs; the graphs differ in the setting CUDA_GRAPH alone, which is none of the sink's
    refused(
        &["graphs/gpu-full.yml", "graphs/gpu-cuda-graph.yml", "--until", "nowhere"],
        &["--until nowhere: there is no such node"],
    );
    refused(&[PLANTED, PLANTED, "--require", "fsp >= 1"], &["fsp", "fps"]);
    let folder = tempfile::tempdir().unwrap();
    let graph = std::fs::read_to_string(root().join(PLANTED)).unwrap();
    let graph = graph.replace("../../target", &root().join("target").display().to_string());
    let file = folder.path().join("absent.yml");
    std::fs::write(&file, graph.replace("release/faulty-node", "release/fualty-node")).unwrap();
    refused(&[PLANTED, &file.display().to_string()], &["there is no program", "fualty-node"]);
}

#[test]
fn a_node_that_crashes_or_does_not_open_ends_the_experiment() {
    let timed = ["--rounds=1", "--frames=40", "--warm-up=10", "--loads=saturated", "--no-quality"];
    refused(
        &[&[PLANTED, "--set", "tensors.CRASH_AT=20"], &timed[..]].concat(),
        &["arm B", "tensors", "CRASH_AT: item 20"],
    );
    refused(&[PLANTED, "--set", "tensors.CRASH_AT=20", "--quality-only"], &["b.tensors", "CRASH_AT: item 20"]);
    refused(&[PLANTED, "--set", "boxes.REFUSE=true", "--quality-only"], &["b.boxes", "REFUSE is set"]);
}

/// Frames that are lost where none may be: the run is worth nothing, and says how many arrived.
#[test]
fn a_run_that_loses_frames_is_not_used() {
    let timed = ["--rounds=1", "--frames=40", "--warm-up=10", "--loads=saturated", "--no-quality"];
    let args = [&[PLANTED, "--set", "tensors.DROP_ITEM_EVERY=5"], &timed[..]].concat();
    refused(&args, &["arm B", "frames arrived, and none may be lost"]);
}

#[test]
fn both_arms_run_at_the_same_time_behind_one_decode() {
    let folder = tempfile::tempdir().unwrap();
    let args = [PLANTED, "--set", "tensors.SHIFT_PX=1", "--together", "--loads=cameras", "--rounds=1", "--frames=40"];
    let (code, text) = ab(folder.path(), &[&args[..], &["--warm-up=10", "--no-quality"]].concat());
    assert_eq!(code, 0, "{text}");
    let load = &report(folder.path())["experiment"]["loads"][0];
    assert_eq!(load["together"], true);
    let runs = load["runs"].as_array().unwrap();
    let sides: Vec<&str> = runs.iter().map(|run| run["side"].as_str().unwrap()).collect();
    assert_eq!(sides, ["a", "b", "b", "a"]);
    for run in runs {
        // what is the same in both runs once, and is nobody's
        let nodes: Vec<&str> = run["stages"].as_array().unwrap().iter().map(|s| s["node"].as_str().unwrap()).collect();
        assert_eq!(nodes, ["tensors", "detect", "boxes"], "{run}");
    }
}

#[test]
fn the_self_test_tells_how_many_said_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let args = [PLANTED, "--self-test=1", "--rounds=1", "--frames=20", "--warm-up=5", "--loads=none", "--until=to-rgb"];
    let (_, text) = ab(folder.path(), &args);
    assert!(text.contains("1 of 1 said 'no difference shown'"), "{text}");
}

/// Takes minutes and a machine that does nothing else: `cargo test --release -p millrace-tests --test ab -- --ignored`.
#[test]
#[ignore = "judges a speed, which needs a quiet machine"]
fn a_slowdown_of_5_percent_is_found() {
    let folder = tempfile::tempdir().unwrap();
    // the faulty node is the slowest node by far: 10 ms a frame, and 5 % more in arm B
    let args = [PLANTED, "--set-a", "tensors.DELAY_US=10000", "--set-b", "tensors.DELAY_US=10500", "--no-quality"];
    let (code, text) = ab(folder.path(), &[&args[..], &["--loads=none", "--until=tensors"]].concat());
    assert_eq!(code, 0, "{text}");
    let report = report(folder.path());
    assert_eq!(report["analysis"]["verdict"]["word"], "slower", "{text}");
}
