//! Two decoders with a part of a cameras file each, into one converter: every camera comes once, whole, from one of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{finish, millrace, printed, program, root};
use std::collections::BTreeMap;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const FRAMES: usize = 5;

#[test]
fn every_camera_of_a_file_in_two_parts_comes_once() {
    let folder = tempfile::tempdir().unwrap();
    let ids = ["gate", "yard", "cam-5", "cam-6", "hall"];
    let data = root().join("tests/data/demo");
    let cameras = ids.map(|id| format!("  - {{ id: {id}, file: {}/clip.mp4 }}\n", data.display()));
    std::fs::write(folder.path().join("cameras.yml"), format!("cameras:\n{}", cameras.concat())).unwrap();
    let out = folder.path().join("out.jsonl");
    let decoder = |part: u32| {
        format!(
            "  - id: decode-{part}\n    path: {}\n    inputs: {{ tick: dora/timer/secs/5 }}\n    outputs: [frame]\n    \
             env: {{ CAMERAS: cameras.yml, PART: {part}/2, FRAMES: {FRAMES} }}\n",
            program("sw-nv12").display()
        )
    };
    let text = format!(
        "exit_when_nodes_finish: true\nenv: {{ FLOW: lossless, MODEL: {}/model/model.yml }}\nnodes:\n{}{}  - id: to-rgb\n    \
         path: {}\n    inputs: {{ frame: decode-1/frame, frame.2: decode-2/frame }}\n    outputs: [tensor]\n  - id: detect\n    \
         path: {}\n    inputs: {{ tensor: to-rgb/tensor }}\n    outputs: [detections]\n  - id: write\n    path: {}\n    \
         inputs: {{ detections: detect/detections }}\n    env: {{ PATH: {} }}\n",
        data.display(),
        decoder(1),
        decoder(2),
        program("nv12-to-rgb").display(),
        program("cpu-infer").display(),
        program("jsonl-writer").display(),
        out.display(),
    );
    let graph = folder.path().join("graph.yml");
    std::fs::write(&graph, text).unwrap();
    let output = finish(&mut millrace(&["run", graph.to_str().unwrap(), "--no-build"]), LIMIT);
    assert!(output.status.success(), "{}", printed(&output));
    let mut came: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in std::fs::read_to_string(&out).unwrap().lines() {
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        came.entry(found["source"].as_str().unwrap().to_owned()).or_default().push(found["seq"].as_u64().unwrap());
    }
    let whole: Vec<u64> = (0..FRAMES as u64).collect();
    assert_eq!(came.keys().map(String::as_str).collect::<Vec<_>>(), ["cam-5", "cam-6", "gate", "hall", "yard"]);
    assert!(came.values().all(|frames| *frames == whole), "{came:?}");
    // what was measured is said at the end, or that it was too short
    assert!(printed(&output).contains("\nefficiency"), "{}", printed(&output));
}

#[test]
fn the_graph_for_two_gpus_is_sound_and_a_crossing_is_refused() {
    let check = |set: &[&str]| {
        let output = finish(&mut millrace(&[&["check", "graphs/gpu-two.yml"], set].concat()), LIMIT);
        (output.status.success(), printed(&output))
    };
    let (sound, text) = check(&[]);
    assert!(sound && !text.contains("warning"), "{text}");
    let (sound, text) = check(&["--set", "detect-1.DEVICE=0"]);
    assert!(
        !sound && text.contains("node 'detect-1' works on GPU 0, and its input 'tensor' brings frames of 'decode-1'"),
        "{text}"
    );
    let (sound, text) = check(&["--set", "decode-0.PROCESS=gpu", "--set", "decode-1.PROCESS=gpu"]);
    let says = "node 'decode-1' works on GPU 1 and 'decode-0' on GPU 0, and they share the process 'gpu'";
    assert!(!sound && text.contains(says) && text.contains("such as gpu-0 and gpu-1"), "{text}");
    let (sound, text) = check(&["--set", "decode-0.PROCESS=gpu-0", "--set", "to-rgb-0.PROCESS=gpu-0"]);
    assert!(sound, "{text}");
    let (sound, text) = check(&["--set", "decode-1.PART=1/2"]);
    assert!(!sound && text.contains("nodes 'decode-0' and 'decode-1' both have PART 1/2"), "{text}");
}
