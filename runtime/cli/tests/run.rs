//! `millrace run` from outside, with a stand-in for dora, so that neither network nor nodes are needed.

#![allow(clippy::unwrap_used)]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    /// A folder with a graph of nodes, each with its `env:` lines.
    fn new(nodes: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut graph = String::from("nodes:\n");
        for (id, env) in nodes {
            let node = fake().join("node");
            let log = folder.path().join("log");
            graph.push_str(&format!(
                "  - id: {id}\n    path: {}\n    env: {{ LOG_FILE: {}, {env} }}\n",
                node.display(),
                log.display()
            ));
        }
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        std::fs::write(folder.path().join("g.yml"), graph).unwrap();
        Self { folder }
    }

    /// dora starts nodes again that fail: those with an input.
    fn with_restarts(&self) {
        let graph = self.folder.path().join("g.yml");
        let text = std::fs::read_to_string(&graph).unwrap();
        let more = "    inputs: { tick: dora/timer/secs/5 }\n    restart_policy: on-failure\n    env:";
        std::fs::write(graph, format!("exit_when_nodes_finish: true\n{}", text.replace("    env:", more))).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.verb("run");
        command.arg(self.folder.path().join("g.yml")).args(args);
        command
    }

    /// `millrace VERB`, which sees this bench's graphs.
    fn verb(&self, verb: &str) -> Command {
        let path = std::env::join_paths(
            std::iter::once(fake()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command
            .arg(verb)
            .env("PATH", path.unwrap())
            .env("TMPDIR", self.folder.path().join("tmp"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Starts it and waits until this many nodes run.
    fn start(&self, nodes: usize) -> Child {
        self.start_with(nodes, &[])
    }

    fn start_with(&self, nodes: usize, args: &[&str]) -> Child {
        let child = self.command(args).spawn().unwrap();
        let start = Instant::now();
        while self.started().len() < nodes {
            assert!(start.elapsed() < Duration::from_secs(60), "the nodes did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        // Time for the processes to be seen by those who watch over them.
        std::thread::sleep(Duration::from_millis(700));
        child
    }

    fn started(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// No node runs, the temporary folder holds nothing but logs (a program outside cargo's target folder keeps them
    /// there), and the stand-in's shared memory is gone.
    fn assert_clean(&self, dora: Option<u32>) {
        for node in self.started() {
            let pid = node["pid"].as_i64().unwrap();
            assert!(!runs(pid), "process {pid} of node {} runs on", node["node"]);
        }
        let mut left: Vec<_> = std::fs::read_dir(self.folder.path().join("tmp")).unwrap().flatten().collect();
        left.retain(|entry| entry.file_name() != "millrace-logs");
        assert!(left.is_empty(), "{left:?}");
        if let Some(dora) = dora {
            assert!(!Path::new(&format!("/dev/shm/{dora}.zenoh")).exists(), "shared memory is left");
        }
    }
}

fn fake() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake")
}

fn runs(pid: i64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// The one child of a process.
fn child_of(pid: u32) -> u32 {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace().next().unwrap().parse().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_graph_that_ends_well_gives_0_and_a_summary() {
    let bench = Bench::new(&[("a", "SECONDS: 1.5"), ("b", "SECONDS: 0.5")]);
    let output = bench.run(&[]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    assert!(out.contains("a: page: http://127.0.0.1:1/"), "{out}");
    let row: Vec<&str> =
        out.lines().find(|line| line.starts_with("a ") && line.ends_with("done")).unwrap().split_whitespace().collect();
    assert_eq!((row[1], row[2], row[4]), ("-", "42", "3"), "{out}");
    assert!(out.contains("dropped at a/frame: 3 (stale)"), "{out}");
    assert!(out.contains("\n42 frames in "), "{out}");
    bench.assert_clean(None);
}

#[test]
fn nodes_run_in_the_graphs_folder_with_settings_word_for_word() {
    let bench = Bench::new(&[("a", "TEXT: \"1.10\""), ("b", "SECONDS: 0.1")]);
    let output = bench.run(&["--set", "b.TEXT=1.10 $HOME 'x'", "--quiet"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // the address and the end are said all the same
    let out = text(&output.stdout);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.contains(&"a: page: http://127.0.0.1:1/"), "{out}");
    assert!(lines.last().unwrap().starts_with("42 frames in ") && lines.len() == 3, "{out}");
    let started = bench.started();
    let of = |id: &str| started.iter().find(|node| node["node"] == id).unwrap().clone();
    assert_eq!(of("b")["text"], "1.10 $HOME 'x'");
    let folder = bench.folder.path().canonicalize().unwrap();
    assert!(started.iter().all(|node| node["cwd"] == folder.to_str().unwrap()), "{started:?}");
}

#[test]
fn a_node_that_fails_stops_the_graph() {
    let bench = Bench::new(&[("a", "SECONDS: 600"), ("b", "MODE: fail")]);
    let start = Instant::now();
    let output = bench.run(&[]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("b: clip.mp4: no such file; set SOURCE"), "{err}");
    assert!(err.contains("not ended as they should: b\n"), "{err}");
    assert!(text(&output.stdout).lines().any(|line| line.starts_with("a ") && line.ends_with("stopped")));
    assert!(start.elapsed() < Duration::from_secs(60));
    bench.assert_clean(None);
}

#[test]
fn a_node_that_dies_without_a_word_fails_the_graph() {
    let bench = Bench::new(&[("a", "SECONDS: 1"), ("b", "MODE: die")]);
    let output = bench.run(&[]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("not ended as they should: b"), "{err}");
    assert!(out.lines().any(|line| line.starts_with("b ") && line.ends_with("without a word")), "{out}");
    bench.assert_clean(None);
}

#[test]
fn a_node_that_is_not_started_again_is_said_to_be_gone_at_once_and_at_the_end() {
    let bench = Bench::new(&[("a", "SECONDS: 4"), ("b", "MODE: die")]);
    let output = bench.run(&[]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("node b IS GONE: its process "), "{err}");
    let last = out.lines().rfind(|line| line.starts_with("0:0")).unwrap();
    assert!(last.contains("b 42 0.0/s 3 dropped GONE for "), "{last}");
    assert!(out.lines().any(|line| line.starts_with("b ") && line.ends_with("GONE, without a word")), "{out}");
    assert!(out.contains("node b was GONE at the end: its last sign of life was "), "{out}");
    bench.assert_clean(None);
}

#[test]
fn a_node_that_hangs_is_seen_to_and_has_no_rate() {
    let bench = Bench::new(&[("a", "SECONDS: 600"), ("b", "MODE: freeze")]);
    let child = bench.start(2);
    std::thread::sleep(Duration::from_millis(5_500));
    signal(child.id(), Signal::INT);
    let output = child.wait_with_output().unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(err.contains("node b: no sign of life since ") && err.contains("is stopped (SIGSTOP)"), "{err}");
    let last = out.lines().rfind(|line| line.starts_with("0:0")).unwrap();
    assert!(last.contains("b 42 0.0/s 3 dropped HUNG for "), "{last}");
    bench.assert_clean(None);
}

#[test]
fn a_node_that_was_killed_and_started_again_is_a_line() {
    let bench = Bench::new(&[("a", "SECONDS: 4"), ("b", "SECONDS: 1, MODE: die")]);
    bench.with_restarts();
    let output = bench.run(&[]);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    let pids: Vec<i64> =
        bench.started().iter().filter(|node| node["node"] == "b").map(|node| node["pid"].as_i64().unwrap()).collect();
    let line = format!("node b: its process {} was ended by SIGKILL; started again as process {}, ", pids[0], pids[1]);
    assert_eq!(err.matches(&line).count(), 1, "{err}");
    assert!(!err.contains("node a: ") && !err.contains("it is back"), "{err}");
    assert!(out.lines().any(|line| line.starts_with("b ") && line.ends_with("done, 1 restart")), "{out}");
}

#[test]
fn a_node_that_cannot_even_open_ends_the_run_and_is_not_tried_again() {
    let bench = Bench::new(&[("a", "SECONDS: 600"), ("page", "MODE: refuse, AGAIN: refuse")]);
    bench.with_restarts();
    let output = bench.run(&[]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("page: port 8080 is in use; set PORT"), "{err}");
    // the stand-in starts it again half a second later, unless it is asked to stop
    assert_eq!(bench.started().iter().filter(|node| node["node"] == "page").count(), 1, "{err}");
    bench.assert_clean(None);
}

#[test]
fn each_change_of_a_cameras_state_is_a_line() {
    let bench = Bench::new(&[("a", "MODE: camera, SECONDS: 4")]);
    let output = bench.run(&[]);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{out}");
    let lines: Vec<&str> =
        out.lines().filter_map(|line| line.split_once(" camera door: ")).map(|(_, state)| state).collect();
    assert_eq!(lines, ["refused (attempt 2): 401 Unauthorized", "live"], "{out}");
    assert!(out.contains(" · cameras: 1 refused\n"), "{out}");
    let quiet = text(&bench.run(&["--quiet"]).stdout);
    assert!(!quiet.contains("camera"), "{quiet}");
}

#[test]
fn interrupt_ends_everything_within_3_s() {
    for (mode, interrupts) in [("done", 1), ("deaf", 1), ("deaf", 2)] {
        let bench = Bench::new(&[("a", "SECONDS: 600"), ("b", &format!("SECONDS: 600, MODE: {mode}"))]);
        let child = bench.start(2);
        let dora = child_of(child.id());
        let start = Instant::now();
        for _ in 0..interrupts {
            signal(child.id(), Signal::INT);
            std::thread::sleep(Duration::from_millis(200));
        }
        let output = child.wait_with_output().unwrap();
        let took = start.elapsed();
        assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
        assert!(took < Duration::from_secs(3), "{mode}, {interrupts} interrupts: {took:?}");
        bench.assert_clean(Some(dora));
    }
}

#[test]
fn sigterm_is_an_orderly_end() {
    for (mode, code) in [("done", 0), ("deaf", 1)] {
        let bench = Bench::new(&[("a", "SECONDS: 600"), ("b", &format!("SECONDS: 600, MODE: {mode}"))]);
        let child = bench.start(2);
        signal(child.id(), Signal::TERM);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{mode}: {}", text(&output.stderr));
        bench.assert_clean(None);
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_run_and_nothing_panics() {
    for form in [&[][..], &["--json"], &["--quiet"]] {
        let bench = Bench::new(&[("a", "SECONDS: 600")]);
        let mut child = bench.start_with(1, form);
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(141), String::new()), "{form:?}");
        bench.assert_clean(None);
    }
    // without a reader of its faults a run goes on, and fails as it would have
    let bench = Bench::new(&[("a", "SECONDS: 2, MODE: fail")]);
    let mut child = bench.start(1);
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("42 frames in "), "{}", text(&output.stdout));
}

#[test]
fn a_log_gets_a_line_where_something_changes_and_not_each_second() {
    let bench = Bench::new(&[("a", "SECONDS: 7")]);
    let output = bench.run(&[]);
    let out = text(&output.stdout);
    let lines = out.lines().filter(|line| line.starts_with("0:0")).count();
    assert!((1..=4).contains(&lines), "{out}");
    bench.assert_clean(None);
}

#[test]
fn what_a_node_warns_of_is_printed_once_and_what_dora_warns_of_is_not() {
    let bench = Bench::new(&[("a", "SECONDS: 0.5"), ("b", "MODE: warn, SECONDS: 1.5")]);
    let output = bench.run(&[]);
    let err = text(&output.stderr);
    assert_eq!(err.lines().filter(|line| *line == "warning: b: the model runs on the CPU").count(), 1, "{err}");
    assert!(!err.contains("diagnostic"), "{err}");
}

/// Every line of standard output as JSON.
fn events(output: &Output) -> Vec<Value> {
    let out = text(&output.stdout);
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}\n{out}"))).collect()
}

#[test]
fn json_says_all_of_it_whatever_happens() {
    let bench = Bench::new(&[("a", "SECONDS: 1.5"), ("b", "MODE: warn")]);
    let output = bench.run(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let all = events(&output);
    let of = |name: &str| all.iter().find(|event| event["event"] == name).unwrap_or_else(|| panic!("{name}: {all:#?}"));
    let notes: Vec<_> = all.iter().filter(|event| event["event"] == "note").collect();
    assert!(notes.len() == 2 && notes.iter().all(|note| note["text"] == "page: http://127.0.0.1:1/"), "{notes:?}");
    assert_eq!(of("warning")["text"], "the model runs on the CPU");
    assert_eq!(of("nodes")["nodes"].as_array().unwrap().len(), 2);
    let end = all.last().unwrap();
    assert_eq!((&end["event"], &end["code"], &end["frames"]), (&"end".into(), &0.into(), &42.into()));
    assert_eq!((&end["nodes"][0]["id"], &end["nodes"][0]["end"]), (&"a".into(), &"done".into()));
    assert_eq!((&end["dropped"][0]["cause"], &end["dropped"][0]["count"]), (&"stale".into(), &3.into()));

    let bench = Bench::new(&[("a", "MODE: fail")]);
    let all = events(&bench.run(&["--json"]));
    assert!(all.iter().any(|event| event["event"] == "failed" && event["node"] == "a"), "{all:#?}");
    assert_eq!(all.last().unwrap()["code"], 1);

    let broken = Bench::new(&[("a", "SECONDS: 1"), ("a", "SECONDS: 1")]);
    let all = events(&broken.run(&["--json"]));
    assert_eq!((all.len(), &all[0]["event"], &all[0]["ok"]), (2, &"faults".into(), &false.into()));
    assert_eq!((&all[1]["event"], &all[1]["code"]), (&"end".into(), &1.into()));

    std::fs::remove_file(broken.folder.path().join("g.yml")).unwrap();
    let all = events(&broken.run(&["--json"]));
    assert!(all.len() == 1 && all[0]["error"].as_str().unwrap().contains("g.yml cannot be read"), "{all:#?}");
}

#[test]
fn a_graph_that_runs_is_listed_has_a_log_and_can_be_stopped() {
    let bench = Bench::new(&[("a", "MODE: warn, SECONDS: 600")]);
    let child = bench.start(1);
    let listed: Value = serde_json::from_slice(&bench.verb("list").arg("--json").output().unwrap().stdout).unwrap();
    let ours = listed.as_array().unwrap().iter().find(|graph| graph["pid"] == child.id()).unwrap();
    assert_eq!((&ours["name"], &ours["by"]), (&"g".into(), &"run".into()));
    assert!(ours["graph"].as_str().unwrap().ends_with("/g.yml"));
    let pid = child.id().to_string();
    let shown = text(&bench.verb("list").output().unwrap().stdout);
    assert!(shown.lines().any(|line| line.starts_with("g ") && line.contains(&pid)), "{shown}");

    let log = text(&bench.verb("logs").args([&pid, "--node", "a"]).output().unwrap().stdout);
    assert!(log.contains("the model runs on the CPU"), "{log}");
    let none = text(&bench.verb("logs").args([&pid, "--node", "b"]).output().unwrap().stdout);
    assert_eq!(none, "");

    let stopped = bench.verb("stop").arg(&pid).output().unwrap();
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
    bench.assert_clean(None);
    let again = bench.verb("stop").arg(&pid).output().unwrap();
    assert!(text(&again.stderr).contains(&format!("no graph called '{pid}' runs")), "{}", text(&again.stderr));
}

#[test]
fn nothing_outlives_a_killed_dora() {
    let bench = Bench::new(&[("a", "SECONDS: 600"), ("b", "SECONDS: 600, MODE: deaf")]);
    let child = bench.start(2);
    let dora = child_of(child.id());
    signal(dora, Signal::KILL);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    bench.assert_clean(Some(dora));
}

#[test]
fn stop_after_is_no_failure() {
    let bench = Bench::new(&[("a", "SECONDS: 600")]);
    let output = bench.run(&["--stop-after", "1s"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    bench.assert_clean(None);
}

#[test]
fn a_broken_graph_starts_nothing() {
    let bench = Bench::new(&[("a", "TEXT: $NOT_SET_ANYWHERE"), ("a", "SECONDS: 1")]);
    let output = bench.run(&[]);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(err.contains("two nodes are called 'a'") && err.contains("names the variable $NOT_SET_ANYWHERE"), "{err}");
    assert!(bench.started().is_empty());
}

#[test]
fn a_failed_build_starts_nothing() {
    let bench = Bench::new(&[("a", "SECONDS: 1")]);
    let file = bench.folder.path().join("g.yml");
    let graph = std::fs::read_to_string(&file).unwrap().replace("    env", "    build: sh -c false\n    env");
    std::fs::write(&file, graph).unwrap();
    let output = bench.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("the build failed (exit status: 1): sh -c false"),
        "{}",
        text(&output.stderr)
    );
    assert!(bench.started().is_empty());
    assert_eq!(bench.run(&["--no-build"]).status.code(), Some(0));
}
