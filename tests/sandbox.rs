//! A decoder that a picture has taken over can do no harm: what its sandbox leaves to it, in a whole graph.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::dataflow::Talk;
use millrace_tests::{finish, millrace, printed, program, root, skip_without};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// What a decoder needs, and keeps.
const KEPT: [&str; 2] = ["read its own source", "start a thread"];

/// Whether this kernel has all that the sandbox uses; without it the test is skipped.
fn has_sandbox() -> bool {
    let report = finish(&mut millrace(&["doctor", "--json"]), LIMIT);
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "sandbox").unwrap();
    let whole = check["status"] == "ok";
    if !whole {
        skip_without("sandbox", check);
    }
    whole
}

/// A copy of a clip of 25 frames, with a file beside it that is no business of a decoder.
fn clip(folder: &Path) -> PathBuf {
    let clip = folder.join("clip.mp4");
    std::fs::copy(root().join("runtime/ingest/tests/data/crop_b.mp4"), &clip).unwrap();
    std::fs::write(folder.join("secret"), "of nobody's concern").unwrap();
    clip
}

/// A graph of a decoder and a node that writes a line for each of its frames.
fn graph(decoder: &str, env: &str, folder: &Path) -> PathBuf {
    let text = format!(
        "exit_when_nodes_finish: true\nenv: {{ FLOW: lossless }}\nnodes:\n  - id: decode\n    path: {}\n    inputs: {{ tick: \
         dora/timer/secs/5 }}\n    outputs: [frame]\n    env: {{ {env} }}\n  - id: sum\n    path: {}\n    inputs: {{ frame: \
         decode/frame }}\n    env: {{ PATH: {} }}\n",
        program(decoder).display(),
        program("frame-checksum").display(),
        folder.join("out.framemd5").display(),
    );
    let graph = folder.join("graph.yml");
    std::fs::write(&graph, text).unwrap();
    graph
}

/// Runs it: success, what was printed, and the number of frames.
fn run(decoder: &str, env: &str, folder: &Path) -> (bool, String, usize) {
    let graph = graph(decoder, env, folder);
    let output = finish(&mut millrace(&["run", graph.to_str().unwrap(), "--no-build"]), LIMIT);
    let lines = std::fs::read_to_string(folder.join("out.framemd5")).unwrap_or_default();
    (output.status.success(), printed(&output), lines.lines().filter(|line| !line.starts_with('#')).count())
}

/// What became of each attempt.
fn attempts(text: &str) -> BTreeMap<&str, &str> {
    let parts = text.lines().filter_map(|line| line.split_once("attempt to ")?.1.split_once(": "));
    parts.map(|(what, outcome)| (what, outcome.trim_end().trim_end_matches(';'))).collect()
}

#[test]
fn a_decoder_that_is_taken_over_reaches_nothing() {
    if !has_sandbox() {
        return;
    }
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let name = SocketAddr::from_abstract_name(format!("millrace-intruder-{port}")).unwrap();
    let _other = UnixDatagram::bind_addr(&name).unwrap();
    let run = |setting: &str| {
        let folder = tempfile::tempdir().unwrap();
        let clip = clip(folder.path());
        // as long as it takes for its notes to be seen
        let length = "PACE: realtime, LOOP: true, FRAMES: 75";
        let env = format!("SOURCE: {}, PORT: {port}, SANDBOX: {setting}, {length}", clip.display());
        let (ok, text, frames) = run("intruder", &env, folder.path());
        assert!(ok && frames == 75, "its frames come all the same: {frames}\n{text}");
        // a consumer whose bell it has needs no message for each frame
        assert!(text.contains("woke its consumers by itself"), "{text}");
        attempts(&text)
            .into_iter()
            .map(|(what, outcome)| (what.to_owned(), outcome.to_owned()))
            .collect::<BTreeMap<_, _>>()
    };
    let confined = run("required");
    assert!(confined.len() >= 25, "{confined:#?}");
    for (what, outcome) in &confined {
        match outcome.as_str() {
            "done" => assert!(KEPT.contains(&what.as_str()), "{what} succeeds: {confined:#?}"),
            "none" => assert_eq!(what, "find a thread that is not sealed"),
            refused => assert_eq!(refused, "PermissionDenied", "{what}: {confined:#?}"),
        }
    }
    // without the sandbox the attempts are possible, but for what no ordinary user may do
    let free = run("off");
    let possible = free.iter().filter(|(_, outcome)| outcome.starts_with("done")).count();
    assert!(possible >= 20, "{free:#?}");
}

/// What the kernel says of each thread of the only process of a program that runs in a folder, once it has several.
fn threads(program: &str, folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let runs = |process: &Path| {
        std::fs::read_link(process.join("exe")).is_ok_and(|exe| exe.ends_with(program))
            && std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder)
    };
    let process = processes.into_iter().find(|process| runs(process));
    let tasks = process.and_then(|process| std::fs::read_dir(process.join("task")).ok());
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .collect()
}

#[test]
fn every_thread_of_the_software_decoder_is_sealed() {
    if !has_sandbox() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().canonicalize().unwrap();
    let clip = clip(&folder);
    let graph = graph("sw-nv12", &format!("SOURCE: {}, LOOP: true, PACE: realtime", clip.display()), &folder);
    let mut run = Talk::begin(&mut millrace(&["run", graph.to_str().unwrap(), "--no-build"]));
    run.until("camera decode: live");
    let threads = threads("sw-nv12", &folder);
    assert!(threads.len() > 5, "dora's threads and the camera's: {threads:?}");
    for status in &threads {
        let value = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.map(str::trim).unwrap_or_default().to_owned()
        };
        assert_eq!((value("Seccomp"), value("NoNewPrivs")), ("2".to_owned(), "1".to_owned()), "{status}");
        // CAP_DAC_READ_SEARCH is number 2
        let capabilities = u64::from_str_radix(&value("CapPrm"), 16).unwrap();
        assert_eq!(capabilities & !(1 << 2), 0, "{status}");
    }
    run.signal(rustix::process::Signal::INT);
    let (_, text) = run.end();
    assert!(!text.contains("sandbox is not whole"), "{text}");
}

#[test]
fn a_sandbox_that_a_node_cannot_have_is_refused_where_it_is_required() {
    let folder = tempfile::tempdir().unwrap();
    let clip = clip(folder.path());
    let source = format!("SOURCE: {}", clip.display());
    let graph = graph("sw-nv12", &source, folder.path());
    let run = |set: &str| {
        let output = finish(&mut millrace(&["run", graph.to_str().unwrap(), "--no-build", "--set", set]), LIMIT);
        (output.status.success(), printed(&output))
    };
    let (ok, text) = run("sum.SANDBOX=required");
    assert!(
        !ok && text.contains("frame-checksum opens the memory of its producers, which no sandbox allows"),
        "{text}"
    );
    let (ok, text) = run("decode.SANDBOX_PORTS=554,none");
    assert!(!ok && text.contains("SANDBOX_PORTS has 'none', and ports from 1 to 65535"), "{text}");
    let (ok, text) = run("decode.SANDBOX_READ=/nowhere");
    assert!(!ok && text.contains("SANDBOX_READ names '/nowhere', which is not there"), "{text}");
    let (ok, text) = run("decode.SANDBOX=of");
    assert!(!ok && text.contains("SANDBOX"), "{text}");
}

#[test]
fn a_camera_beyond_the_sandbox_is_refused_in_words_and_the_others_go_on() {
    if !has_sandbox() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (near, far) = (clip(folder.path()), clip(elsewhere.path()));
    let file = folder.path().join("cameras.yml");
    let write = |cameras: &str| {
        // as an editor does: another file in its place
        let new = folder.path().join("cameras.new");
        std::fs::write(&new, format!("cameras:\n{cameras}")).unwrap();
        std::fs::rename(&new, &file).unwrap();
    };
    let first = format!("  - {{ id: near, file: {}, loop: true }}\n", near.display());
    write(&first);
    let graph = graph("sw-nv12", "CAMERAS: cameras.yml, FLOW: live, PACE: realtime", folder.path());
    let mut run = Talk::begin(&mut millrace(&["run", graph.to_str().unwrap(), "--no-build"]));
    run.until("camera near: live");
    let added =
        format!("  - {{ id: far, file: {} }}\n  - {{ id: odd, url: \"rtsp://127.0.0.1:9/x\" }}\n", far.display());
    write(&format!("{first}{added}  - {{ id: usual, url: \"rtsp://127.0.0.1:8554/x\" }}\n"));
    // the last of them, in the order of their names
    run.until("camera usual: ");
    run.signal(rustix::process::Signal::INT);
    let (_, text) = run.end();
    assert!(text.contains("camera far: refused") && text.contains("to SANDBOX_READ"), "{text}");
    assert!(text.contains("this camera has port 9; add it to SANDBOX_PORTS"), "{text}");
    let usual = text.lines().filter(|line| line.contains("camera usual")).collect::<String>();
    assert!(!usual.contains("sandbox"), "{text}");
}
