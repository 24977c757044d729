//! Stages in one process: the setting PROCESS.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::dataflow::{Dataflow, LIMIT, NAME, short_clip};
use millrace_tests::{Traces, finish, millrace, printed, root};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::time::Duration;

const STAGES: [&str; 3] = ["decode", "to-rgb", "detect"];
const HOST: &str = "millrace-stages";

/// Runs the batch graph on `clip.264` of the folder, by default a short clip, with some nodes in one process: whether it succeeded, and all that it printed.
fn run(folder: &Path, out: &Path, together: &[&str], sets: &[String]) -> (bool, String) {
    let clip = folder.join("clip.264");
    if !clip.exists() {
        short_clip(&clip);
    }
    let mut args = vec!["run".to_owned(), "graphs/detect.yml".into(), "--no-build".into()];
    let mut set = |text: String| args.extend(["--set".to_owned(), text]);
    set(format!("decode.SOURCE={}", clip.display()));
    set("decode.FRAME_RATE=10".to_owned());
    set(format!("write.PATH={}", out.display()));
    together.iter().for_each(|node| set(format!("{node}.PROCESS=one")));
    sets.iter().cloned().for_each(set);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mark = format!("MILLRACE_TEST_MARK=placement-{}", folder.display());
    let before = Traces::now(&mark);
    let (key, value) = mark.split_once('=').unwrap();
    let output = finish(millrace(&args).env(key, value), LIMIT);
    Traces::left_since(&before, &mark, Duration::from_secs(10)).unwrap();
    (output.status.success(), printed(&output))
}

#[test]
fn one_process_finds_what_three_find() {
    let folder = tempfile::tempdir().unwrap();
    let found = |name: &str, together: &[&str]| {
        let out = folder.path().join(name);
        let (ok, text) = run(folder.path(), &out, together, &[]);
        assert!(ok, "{text}");
        std::fs::read_to_string(out).unwrap()
    };
    let apart = found("apart.jsonl", &[]);
    assert_eq!(apart.lines().count(), 10);
    assert!(apart.contains("\"score\""), "there is something to find: {apart}");
    assert_eq!(found("together.jsonl", &STAGES), apart);
    assert_eq!(found("two.jsonl", &["to-rgb", "detect"]), apart);
}

#[test]
fn the_fault_of_a_stage_ends_the_group_and_its_reason_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    // no check of a graph reads the pictures of its sources
    let unreadable = root().join("runtime/ingest/tests/data/chroma422.264");
    std::fs::copy(unreadable, folder.path().join("clip.264")).unwrap();
    let (ok, text) = run(folder.path(), &folder.path().join("out.jsonl"), &STAGES, &[]);
    assert!(!ok, "{text}");
    assert!(text.contains("4:2:2 chroma"), "the reason: {text}");
    let log = text.lines().find_map(|line| line.strip_prefix("dora's log: ")).expect("its place is said");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("node 'decode' has failed, and PROCESS 'one' ends with all its nodes"), "{log}");
}

#[test]
fn what_cannot_share_a_process_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let (ok, text) = run(folder.path(), &folder.path().join("out.jsonl"), &["detect", "write"], &[]);
    assert!(!ok, "{text}");
    assert!(text.contains("node 'write' cannot share the process 'one'"), "{text}");
    let args =
        ["check", "--explain", "graphs/detect.yml", "--set", "to-rgb.PROCESS=one", "--set", "detect.PROCESS=one"];
    let output = finish(&mut millrace(&args), LIMIT);
    assert!(printed(&output).contains("process one · millrace-stages · to-rgb, detect"), "{}", printed(&output));
    // one node's setting whose name begins like a variable's, in a graph that gives all nodes another value
    let args = ["check", "--explain", "graphs/gpu-one-process.yml", "--set", "detect.CUDA_GRAPH=true"];
    let output = finish(&mut millrace(&args), LIMIT);
    assert!(output.status.success(), "{}", printed(&output));
    let group = "process gpu · millrace-stages · pipeline.decode, pipeline.to-rgb, pipeline.detect";
    assert!(printed(&output).contains(group), "{}", printed(&output));
}

/// In the graph's `env:` the setting is for the nodes that can share a process, and for no sink: neither the graph's own nor
/// that of `millrace ab`.
#[test]
fn one_process_is_compared_with_three() {
    let folder = tempfile::tempdir().unwrap();
    let apart = std::fs::read_to_string(root().join("graphs/detect.yml"))
        .unwrap()
        .replace("../", &format!("{}/", root().display()));
    let one = apart.replace("FLOW: lossless", "PROCESS: one\n  FLOW: lossless");
    assert_ne!(one, apart);
    let files = [("apart.yml", &apart), ("one.yml", &one)].map(|(name, text)| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    });
    let out = folder.path().join("report").display().to_string();
    let required = "largest_difference <= 0, all_boxes_gained <= 0, all_boxes_lost <= 0";
    let mut args = vec!["ab", &files[0], &files[1], "--no-build", "--quiet", "--quality-only", "--quality-frames=20"];
    args.extend(["--require", required, "--out", &out]);
    let output = finish(&mut millrace(&args), Duration::from_secs(120));
    assert!(output.status.success(), "{}", printed(&output));
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

/// A graph that runs, with three nodes in one process.
struct Together(Dataflow);

impl Together {
    fn start(change: impl FnOnce(String) -> String) -> Self {
        let flow = Dataflow::new();
        short_clip(&flow.folder().join("clip.264"));
        flow.start("tests/graphs/placement.yml", change);
        Self(flow)
    }

    /// The process of the group, once there is one and no other.
    fn host(&self) -> u32 {
        self.0.eventually("one process of the group", || self.0.programs(HOST).len() == 1);
        self.0.programs(HOST)[0]
    }

    fn goes_on(&self) {
        self.0.grows("detections", 15, || self.0.lines("found.jsonl"));
    }

    fn dora(&self, args: &[&str]) {
        let output = finish(&mut self.0.dora(args), LIMIT);
        assert!(output.status.success(), "{args:?}: {}\n{}", printed(&output), self.0.logs());
    }

    /// What a node has logged.
    fn log(&self, node: &str) -> String {
        let logs = self.0.logs();
        let own = |part: &&str| part.lines().next().is_some_and(|file| file.contains(&format!("log_{node}.")));
        logs.split("\n\n").filter(own).collect()
    }
}

#[test]
fn a_group_is_killed_in_part_and_as_a_whole_and_comes_back() {
    let graph = Together::start(|text| text);
    graph.goes_on();
    let (host, before) = (graph.host(), graph.0.pids());
    assert_eq!(before.len(), 4, "dora has a process for each node: {before:?}");
    let threads = std::fs::read_dir(format!("/proc/{host}/task")).unwrap().flatten();
    let names: Vec<String> =
        threads.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect();
    for stage in STAGES {
        assert!(names.iter().any(|name| name.trim() == stage), "no thread '{stage}': {names:?}");
    }

    // one of dora's processes: its stage ends, and comes again in the same process
    kill(before["detect"]);
    graph.0.eventually("another process for 'detect'", || {
        graph.0.processes().get("detect").is_some_and(|pids| !pids.contains(&before["detect"]))
    });
    graph.goes_on();
    let after = graph.0.pids();
    assert_eq!(graph.host(), host);
    assert!(["decode", "to-rgb", "write"].iter().all(|node| after[*node] == before[*node]), "{before:?} {after:?}");

    // the process of the group: all of its nodes end, and come again
    kill(host);
    graph.0.eventually("another process of the group", || graph.0.programs(HOST).iter().any(|pid| *pid != host));
    graph.goes_on();
    let last = graph.0.pids();
    assert!(STAGES.iter().all(|node| last[*node] != after[*node]), "{after:?} {last:?}");
    assert_eq!(last["write"], after["write"]);
    assert!(graph.log("decode").contains("the process of PROCESS 'stages' is gone"), "{}", graph.0.logs());

    graph.dora(&["stop", "--name", NAME]);
    graph.0.eventually("nothing is left", || graph.0.programs(HOST).is_empty() && graph.0.processes().is_empty());
}

#[test]
fn one_stage_of_a_group_is_set_and_replaced_while_it_runs() {
    let graph = Together::start(|text| text);
    graph.goes_on();
    let (host, before) = (graph.host(), graph.0.pids());
    graph.dora(&["param", "set", "detect", "LOG", "\"debug\"", "--dataflow", NAME]);
    graph.0.eventually("the stage's own log", || graph.log("detect").contains("LOG"));
    let entry = std::fs::read_to_string(graph.0.graph()).unwrap();
    let (_, entry) = entry.split_once("  - id: detect\n").unwrap();
    let (entry, _) = entry.split_once("  - id: write\n").unwrap();
    let lines: Vec<&str> = entry.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    let file = graph.0.folder().join("detect.yml");
    std::fs::write(&file, format!("id: detect\n{}\n  SCORE: 0.9\n", lines.join("\n").trim_end())).unwrap();
    graph.dora(&["node", "replace", "--dataflow", NAME, "--from-yaml", file.to_str().unwrap(), "detect"]);
    graph.0.eventually("another process for 'detect'", || {
        graph.0.processes().get("detect").is_some_and(|pids| pids.len() == 1 && !pids.contains(&before["detect"]))
    });
    graph.goes_on();
    assert_eq!(graph.host(), host);
    assert_eq!(graph.0.setting("detect", "SCORE").as_deref(), Some("0.9"));
    assert_eq!(graph.0.pids()["decode"], before["decode"]);
}

#[test]
fn a_stage_is_switched_into_a_process_of_its_own() {
    let graph = Together::start(|text| text);
    graph.goes_on();
    let (host, before) = (graph.host(), graph.0.pids());
    // the model is the same, so the boxes are too; how fast a machine with other things to do computes them is not judged
    let file = graph.0.graph();
    let args = ["switch", &file, "--watch", "5s", "--guard", "boxes >= 0.5x", "--set", "detect.PROCESS="];
    let output = finish(&mut graph.0.millrace(&args), LIMIT);
    assert!(output.status.success(), "{}\n{}", printed(&output), graph.0.logs());
    graph.goes_on();
    let after = graph.0.pids();
    assert_ne!(after["detect"], before["detect"]);
    assert!(["decode", "to-rgb", "write"].iter().all(|node| after[*node] == before[*node]), "{before:?} {after:?}");
    assert_eq!(graph.host(), host);
    let computes_in = |pid: u32| {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let mut names = threads.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        names.any(|name| name.starts_with("engine"))
    };
    assert!(computes_in(after["detect"]));
    graph.0.eventually("the detector's threads are in its own process alone", || !computes_in(host));
}

#[test]
fn what_dora_starts_unchecked_says_why_it_cannot_share_the_process() {
    let graph = Together::start(|text| {
        let of_write = "    env:\n      PATH: found.jsonl";
        assert!(text.contains(of_write));
        let text = text.replace(of_write, "    env:\n      PROCESS: stages\n      PATH: found.jsonl");
        text.replacen(
            "      PROCESS: stages\n      MODEL",
            "      PROCESS: stages\n      RUST_LOG: trace\n      MODEL",
            1,
        )
    });
    graph.0.eventually("the refusals", || {
        let logs = graph.0.logs();
        logs.contains("'jsonl-writer' cannot share a process; these can: sw-nv12")
            && logs.contains("all nodes of a group share it")
    });
}
