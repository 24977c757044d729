//! What the program does beside being a node, as far as it goes without a GPU: the process that builds, and
//! `millrace model build`.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str]) -> Output {
    // with the end of the standard input open until the process is done, as the node has it
    let mut child = Command::new(env!("CARGO_BIN_EXE_trt-infer"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(input);
    output
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_process_that_builds_answers_with_its_error() {
    let library = r#"{"MODEL": "model.yml", "LIBRARY": "/nowhere/libnvinfer.so.8"}"#;
    for (arguments, expected) in [
        (&["--build-engine"][..], "is followed by the node's settings as JSON"),
        (&["--build-engine", "{}"], "missing field `MODEL`"),
        (&["--build-engine", library], "/nowhere/libnvinfer.so.8 cannot be opened"),
    ] {
        let output = run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let answer = said(&output.stdout);
        assert!(answer.contains(expected), "{arguments:?}: {answer}");
    }
}

#[test]
fn settings_of_a_build_are_those_of_the_node() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/demo/model/model.yml");
    let build = ["--model", "build", model];
    for (sets, expected) in [
        (&["--set", "BACH=8"][..], "BATCH"),
        (&["--set", "BATCH=65"], "BATCH"),
        (&["--set", "PRECISION=int8"], "PRECISION"),
        (&["--set", "TACTICS=cudnn,cublass"], "TACTICS"),
        (&["--set", "BATCH"], "write for example BATCH=8"),
        (&["--set", "LIBRARY=/nowhere/libnvinfer.so.8"], "/nowhere/libnvinfer.so.8 cannot be opened"),
    ] {
        let output = run(&[&build[..], sets].concat());
        assert!(!output.status.success(), "{sets:?}");
        let message = said(&output.stderr);
        assert!(message.contains(expected), "{sets:?}: {message}");
    }
    // said before a library is looked for
    let message = said(&run(&["--model", "build", "nowhere.yml", "--set", "LIBRARY=/nowhere/libnvinfer.so.8"]).stderr);
    assert!(message.contains("nowhere.yml: cannot read the model's description"), "{message}");
}
