//! Live cameras: every picture's fate, proven by numbers in the pictures, against a real RTSP server that is not ours, while
//! cameras and nodes are broken on purpose. `tests/live/run.py` does it and judges; docs/reliability.md has the long run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured and seen")]

use millrace_tests::{finish, printed, python, root, succeed};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(240);
/// The exit code of `run.py` if the RTSP server's packages are missing, which it has recorded.
const SKIPPED: i32 = 77;

fn live(args: &[&str]) {
    let Some(mut python) = python() else { return };
    let output = finish(python.arg(root().join("tests/live/run.py")).args(args), LIMIT);
    println!("{}", printed(&output));
    match output.status.code() {
        Some(0 | SKIPPED) => {}
        _ => panic!("{}", printed(&output)),
    }
}

#[test]
fn the_judges_find_each_fault_that_is_planted() {
    for test in ["test_verdict.py", "test_running.py"] {
        let Some(mut python) = python() else { return };
        succeed(python.arg(root().join("tests/live").join(test)), LIMIT);
    }
}

#[test]
fn the_camera_of_the_tests_follows_its_commands() {
    let Some(mut python) = python() else { return };
    let output = finish(python.arg(root().join("tests/live/test_camera.py")), LIMIT);
    assert!(output.status.success(), "{}", printed(&output));
}

#[test]
fn each_picture_that_packets_are_lost_of_has_a_name() {
    live(&["--cameras=2", "--seconds=10", "--transports=udp,tcp", "--loss=0.03,0", "--max-lost=-1"]);
}

#[test]
fn four_cameras_lose_nothing_without_a_name_while_three_of_them_and_a_node_are_broken() {
    // cameras with and without B-frames, one by UDP, one of H.265
    live(&[
        "--cameras=4",
        "--seconds=10",
        "--codecs=h264,h264,h264,h265",
        "--b-frames=0,2,0,0",
        "--transports=tcp,tcp,udp,tcp",
        "--faults=short",
        "--zenoh",
        "--pictures",
        // other tests share the machine
        "--gap-ms=500",
    ]);
}
