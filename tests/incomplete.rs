//! Exit code 0 of a lossless job means that every frame is there: a job that lost one says which, where and why.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{finish, millrace, printed, program, root};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

/// The first 151 of the demo clip's 750 samples, the last of them cut.
fn cut_clip(folder: &Path) -> PathBuf {
    let whole = std::fs::read(root().join("tests/data/demo/clip.mp4")).unwrap();
    let file = folder.join("cut.mp4");
    std::fs::write(&file, &whole[..700_000]).unwrap();
    file
}

/// decode -> checksum, with these lines in the decoder's entry and its `env:`.
fn graph(folder: &Path, policy: &str, env: &str) -> String {
    let file = folder.join("graph.yml");
    let (decode, checksum) = (program("sw-nv12"), program("frame-checksum"));
    let text = format!(
        "exit_when_nodes_finish: true\nenv: {{ FLOW: lossless }}\nnodes:\n  - id: decode\n    path: {}\n    \
         inputs: {{ tick: dora/timer/secs/5 }}\n    outputs: [frame]\n    restart_policy: {policy}\n    \
         env: {{ SOURCE: {}, PACE: asfast, {env} }}\n  - id: checksum\n    path: {}\n    inputs: {{ frame: decode/frame }}\n    \
         restart_policy: never\n    env: {{ PATH: {} }}\n",
        decode.display(),
        cut_clip(folder).display(),
        checksum.display(),
        folder.join("out.framemd5").display()
    );
    std::fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn frames(folder: &Path) -> usize {
    let text = std::fs::read_to_string(folder.join("out.framemd5")).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).count()
}

fn dora_run(graph: &str) -> Output {
    let mut dora = Command::new(root().join("target/tools/bin/dora"));
    finish(dora.args(["run", graph]), LIMIT)
}

#[test]
fn a_file_that_ends_early_gives_what_is_there_and_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(folder.path(), "never", "");
    let output = finish(&mut millrace(&["run", &graph]), LIMIT);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(frames(folder.path()), 150, "what is there is written, whatever is missing behind it: {text}");
    // where the count is shown, and once more as the reason of the exit code
    let why = "the file ends early at byte 700000, inside of or before the sample at byte 690544, near 5.92 s";
    assert!(text.contains(&format!("dropped at decode: 600 (truncated): {why}")), "{text}");
    let sentence = format!("decode: frames are missing: 600 of camera 'decode' (truncated): {why}. ALLOW_LOSS: true");
    assert!(text.contains(&sentence), "{text}");
    assert!(!text.contains("not ended as they should"), "{text}");
}

#[test]
fn losses_are_accepted_where_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(folder.path(), "never", "ALLOW_LOSS: true");
    let output = finish(&mut millrace(&["run", &graph]), LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    assert!(
        printed(&output).contains("dropped at decode: 600 (truncated): the file ends early at byte 700000"),
        "{}",
        printed(&output)
    );
}

#[test]
fn under_dora_alone_the_node_ends_with_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let output = dora_run(&graph(folder.path(), "never", ""));
    assert!(!output.status.success(), "{}", printed(&output));
    assert_eq!(frames(folder.path()), 150, "{}", printed(&output));
    let accepted = dora_run(&graph(folder.path(), "never", "ALLOW_LOSS: true"));
    assert!(accepted.status.success(), "{}", printed(&accepted));
}

/// dora starts a node again that ends with exit code 1, and it would publish all its frames a second time.
#[test]
fn a_node_that_dora_would_start_again_publishes_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let graph = graph(folder.path(), "on-failure", "");
    let output = finish(&mut millrace(&["run", &graph]), LIMIT);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(!printed(&output).contains("restart"), "{}", printed(&output));
    assert_eq!(frames(folder.path()), 150, "{}", printed(&output));
}

#[test]
fn a_frame_that_a_node_in_between_loses_is_named_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let data = root().join("tests/data/demo");
    let out = folder.path().join("out.jsonl");
    let text = format!(
        "exit_when_nodes_finish: true\nenv: {{ FLOW: lossless, MODEL: {0}/model/model.yml }}\nnodes:\n  - id: decode\n    \
         path: {1}\n    inputs: {{ tick: dora/timer/secs/5 }}\n    outputs: [frame]\n    restart_policy: never\n    \
         env: {{ SOURCE: {0}/clip.mp4, PACE: asfast, FRAMES: 40 }}\n  - id: to-rgb\n    path: {2}\n    \
         inputs: {{ frame: decode/frame }}\n    outputs: [tensor]\n    restart_policy: never\n  - id: lose\n    path: {3}\n    \
         inputs: {{ tensor: to-rgb/tensor }}\n    outputs: [tensor]\n    restart_policy: never\n    \
         env: {{ LOSE_ITEM_EVERY: 15 }}\n  - id: detect\n    path: {4}\n    inputs: {{ tensor: lose/tensor }}\n    \
         outputs: [detections]\n    restart_policy: never\n  - id: write\n    path: {5}\n    \
         inputs: {{ detections: detect/detections }}\n    restart_policy: never\n    env: {{ PATH: {6} }}\n",
        data.display(),
        program("sw-nv12").display(),
        program("nv12-to-rgb").display(),
        program("faulty-node").display(),
        program("cpu-infer").display(),
        program("jsonl-writer").display(),
        out.display()
    );
    let graph = folder.path().join("graph.yml");
    std::fs::write(&graph, text).unwrap();
    let output = finish(&mut millrace(&["run", &graph.display().to_string()]), LIMIT);
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    // the 15th and the 30th item, counted from 0
    let says = "lose: frames are missing: 2 of camera 'decode' (sabotaged, frames 14, 29): LOSE_ITEM_EVERY is set.";
    assert!(text.contains(says), "{text}");
    assert_eq!(std::fs::read_to_string(out).unwrap().lines().count(), 38, "{text}");
}
