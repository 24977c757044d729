//! `dora param set` on a running graph: from dora's command to the boxes, with no process started anew.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::{finish, millrace, printed, program, root, succeed};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

/// The demo's clip, over and over, to a file of detections. The graph's own SCORE is 0.5.
fn graph(folder: &Path) -> String {
    let path = |name: &str| program(name).display().to_string();
    let data = |name: &str| root().join("tests/data/demo").join(name).display().to_string();
    let (clip, model, out) = (data("clip.mp4"), data("model/model.yml"), folder.join("out.jsonl"));
    format!(
        "nodes:\n\
         \x20 - {{id: decode, path: {}, inputs: {{tick: dora/timer/secs/5}}, outputs: [frame], restart_policy: on-failure,\n\
         \x20    env: {{SOURCE: {clip}, PACE: realtime, LOOP: true}}}}\n\
         \x20 - {{id: to-rgb, path: {}, inputs: {{frame: decode/frame}}, outputs: [tensor], restart_policy: on-failure,\n\
         \x20    env: {{MODEL: {model}}}}}\n\
         \x20 - {{id: detect, path: {}, inputs: {{tensor: to-rgb/tensor}}, outputs: [detections], restart_policy: on-failure,\n\
         \x20    env: {{MODEL: {model}, SCORE: 0.5}}}}\n\
         \x20 - {{id: write, path: {}, inputs: {{detections: detect/detections}}, restart_policy: on-failure,\n\
         \x20    env: {{PATH: {}}}}}\n",
        path("sw-nv12"),
        path("nv12-to-rgb"),
        path("cpu-infer"),
        path("jsonl-writer"),
        out.display()
    )
}

/// A graph that runs under a coordinator of its own.
struct Graph {
    folder: tempfile::TempDir,
    port: String,
    status: UnixDatagram,
    /// The last report of each node.
    nodes: BTreeMap<String, Value>,
}

impl Graph {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let status = UnixDatagram::bind(folder.path().join("status")).unwrap();
        status.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let file = folder.path().join("graph.yml");
        std::fs::write(&file, graph(folder.path())).unwrap();
        let this = Self { folder, port, status, nodes: BTreeMap::new() };
        for args in [&["up"][..], &["start", file.to_str().unwrap(), "--name", "live", "--detach"]] {
            let output = this.dora(args);
            assert!(output.status.success(), "{args:?}\n{}", printed(&output));
        }
        this
    }

    fn dora(&self, args: &[&str]) -> Output {
        let mut command = Command::new(root().join("target/tools/bin/dora"));
        // a coordinator locks its store in the home folder: one on another port needs another home
        command.args(args).current_dir(self.folder.path()).env("HOME", self.folder.path());
        command.env("DORA_COORDINATOR_PORT", &self.port).env("MILLRACE_STATUS", self.folder.path().join("status"));
        finish(&mut command, Duration::from_secs(60))
    }

    fn millrace(&self, args: &[&str]) -> Output {
        let mut command = millrace(args);
        command.env("HOME", self.folder.path()).env("DORA_COORDINATOR_PORT", &self.port);
        finish(&mut command, Duration::from_secs(60))
    }

    /// `dora param set NODE KEY VALUE`; dora says that it was handed over, whatever the node makes of it.
    fn set(&self, node: &str, key: &str, json: &str) {
        let output = self.dora(&["param", "set", node, key, json, "--dataflow", "live"]);
        assert!(output.status.success(), "{}", printed(&output));
    }

    /// Reads reports until `is` is true of them, which has to be soon.
    fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + SOON;
        let mut buffer = vec![0; 256 << 10];
        while !is(self) {
            assert!(Instant::now() < limit, "not seen: {what}\n{:#?}", self.nodes);
            let Ok(len) = self.status.recv(&mut buffer) else { continue };
            let report: Value = serde_json::from_slice(&buffer[..len]).unwrap();
            self.nodes.insert(report["node"].as_str().unwrap().to_owned(), report);
        }
    }

    fn count(&self, node: &str, counter: &str) -> u64 {
        let counters = self.nodes.get(node).and_then(|report| report["counters"].as_array());
        let named = counters.into_iter().flatten().filter(|c| c["name"] == counter);
        named.map(|c| c["value"].as_u64().unwrap()).sum()
    }

    fn param(&self, node: &str, key: &str) -> Option<String> {
        Some(self.nodes.get(node)?["params"][key].as_str()?.to_owned())
    }

    fn pids(&self) -> BTreeMap<String, u64> {
        self.nodes.iter().map(|(node, report)| (node.clone(), report["pid"].as_u64().unwrap())).collect()
    }

    /// A node's log has this text.
    fn logged(&self, text: &str) -> bool {
        let mut folders = vec![self.folder.path().join("out")];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if std::fs::read(path).is_ok_and(|log| String::from_utf8_lossy(&log).contains(text)) {
                    return true;
                }
            }
        }
        false
    }

    /// Boxes in each line of the file.
    fn boxes(&self) -> Vec<usize> {
        let text = std::fs::read_to_string(self.folder.path().join("out.jsonl")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line["boxes"].as_array().unwrap().len()).collect()
    }

    /// Waits for `n` further lines and gives their boxes, without the first few: frames that were on their way.
    fn next(&mut self, n: usize) -> Vec<usize> {
        const ON_THEIR_WAY: usize = 33;
        let have = self.boxes().len();
        self.until("further frames", |graph| graph.boxes().len() >= have + ON_THEIR_WAY + n);
        self.boxes()[have + ON_THEIR_WAY..][..n].to_vec()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.dora(&["stop", "--name", "live"]);
        let _ = self.dora(&["down"]);
    }
}

#[test]
fn settings_change_while_the_graph_runs_and_no_process_is_started_anew() {
    let dora = root().join("target/tools/bin/dora");
    assert!(dora.exists(), "`millrace setup` installs dora once; tests/run has called it");
    let mut graph = Graph::start();
    graph.until("all four nodes at work", |graph| graph.nodes.len() == 4 && graph.count("write", "lines") > 20);
    let pids = graph.pids();
    assert!(graph.next(60).iter().any(|&n| n > 0), "the clip shows things to find");

    graph.set("detect", "SCORE", "1");
    graph.until("SCORE at 1", |graph| graph.param("detect", "SCORE").as_deref() == Some("1"));
    assert_eq!(graph.next(60), [0; 60], "no box is certain");
    // what is wrong changes nothing, is counted, and ends nothing
    for (key, json) in
        [("SCORE", "1.5"), ("SCORE", "\"high\""), ("SCOR", "0.5"), ("MODEL", "\"x.yml\""), ("SCORE", "{}")]
    {
        graph.set("detect", key, json);
    }
    graph.until("five refusals", |graph| graph.count("detect", "params_refused") == 5);
    assert_eq!(graph.next(30), [0; 30]);
    graph.set("detect", "SCORE", "0.25");
    graph.until("SCORE at 0.25", |graph| graph.param("detect", "SCORE").as_deref() == Some("0.25"));
    assert!(graph.next(60).iter().any(|&n| n > 0), "boxes are back");

    // 'millrace set' waits for what the node makes of a value, and says it
    for (args, code, said) in [
        (&["detect", "SCORE", "0.4"][..], 0, "detect: SCORE was 0.25 and is 0.4\n"),
        (&["detect", "SCORE", "0.4"], 0, "detect: SCORE is 0.4 already\n"),
        (&["detect", "SCORE", "1.5"], 1, "refuses it, and nothing changes: SCORE is '1.5', which is not a number"),
        (&["detect", "MODEL", "x.yml"], 1, "nothing changes: MODEL needs a restart"),
        (&["detcet", "SCORE", "0.4"], 2, "has no node 'detcet'; did you mean 'detect'?"),
        (&["to-rgb", "HANDOVER", "event"], 0, "to-rgb: HANDOVER is event already\n"),
        (&["detect", "SCORE", "--reset"], 0, "detect: SCORE was 0.4 and is 0.5\n"),
    ] {
        let output = graph.millrace(&[&["set"][..], args].concat());
        let printed = printed(&output);
        assert!(output.status.code() == Some(code) && printed.contains(said), "{args:?}: {printed}");
    }

    // a node hands over by waiting, and by events again
    assert_eq!(graph.count("to-rgb", "handover_waits"), 0);
    graph.set("to-rgb", "HANDOVER", "\"blocking\"");
    graph.until("waits of the hand-over", |graph| graph.count("to-rgb", "handover_waits") >= 20);
    graph.set("to-rgb", "HANDOVER", "\"event\"");
    graph.until("HANDOVER at event", |graph| graph.param("to-rgb", "HANDOVER").as_deref() == Some("event"));
    let waits = graph.count("to-rgb", "handover_waits");

    // other pools, while the frames go on; their consumer says so where it is asked to
    graph.set("detect", "LOG", "\"debug\"");
    graph.until("LOG at debug", |graph| graph.param("detect", "LOG").is_some());
    assert!(!graph.logged("DEBUG millrace_node::inputs"));
    for flow in ["\"lossless\"", "\"live\""] {
        graph.set("to-rgb", "FLOW", flow);
        graph.set("decode", "FLOW", flow);
        let name = Some(flow.trim_matches('"'));
        graph.until(flow, |graph| ["to-rgb", "decode"].iter().all(|node| graph.param(node, "FLOW").as_deref() == name));
        graph.next(30);
    }
    graph.until("the log of a pool that was opened", |graph| graph.logged("DEBUG millrace_node::inputs"));
    assert_eq!(graph.count("to-rgb", "handover_waits"), waits, "it waits no longer");
    assert_eq!(graph.pids(), pids, "no process was started anew");

    graph.set("detect", "SCORE", "0.75");
    let output = graph.dora(&["param", "delete", "detect", "SCORE", "--dataflow", "live"]);
    assert!(output.status.success(), "{}", printed(&output));
    graph.until("the graph's SCORE", |graph| graph.param("detect", "SCORE").as_deref() == Some("0.5"));

    // what 'dora start' runs is in our list, too, and ends by our command
    let list = printed(&graph.millrace(&["list"]));
    assert!(list.lines().any(|line| line.starts_with("live ")), "{list}");
    let stopped = graph.millrace(&["stop", "live"]);
    assert!(stopped.status.success(), "{}", printed(&stopped));
    let list = printed(&graph.millrace(&["list"]));
    assert!(!list.contains("live "), "{list}");
}

#[test]
fn a_node_that_is_started_again_has_the_settings_of_its_graph() {
    let mut graph = Graph::start();
    graph.until("all four nodes at work", |graph| graph.nodes.len() == 4 && graph.count("write", "lines") > 20);
    graph.set("detect", "SCORE", "1");
    graph.until("SCORE at 1", |graph| graph.param("detect", "SCORE").is_some());
    assert_eq!(graph.next(30), [0; 30]);
    let before = graph.pids()["detect"];
    kill_process(Pid::from_raw(before as i32).unwrap(), Signal::KILL).unwrap();
    graph.until("another process", |graph| graph.pids()["detect"] != before && graph.count("detect", "boxes") > 0);
    assert_eq!(graph.param("detect", "SCORE"), None);
}

#[test]
fn pages_and_explanations_tell_which_settings_are_live() {
    for node in std::fs::read_dir(root().join("nodes")).unwrap().map(|entry| entry.unwrap().file_name()) {
        let node = node.into_string().unwrap();
        let description: Value =
            serde_json::from_str(&succeed(Command::new(program(&node)).arg("--describe"), SOON)).unwrap();
        let page = std::fs::read_to_string(root().join(format!("docs/nodes/{node}.md"))).unwrap();
        let graphs = std::fs::read_to_string(root().join("docs/graphs.md")).unwrap();
        for (part, text) in [("settings", &page), ("common_settings", &graphs)] {
            for (key, schema) in description[part]["properties"].as_object().into_iter().flatten() {
                let first = |line: &str| {
                    line.trim_start().strip_prefix('|').and_then(|row| row.split('|').next().map(str::to_owned))
                };
                let row = text.lines().find(|line| first(line).is_some_and(|cell| cell.contains(&format!("`{key}`"))));
                let row = row.unwrap_or_else(|| panic!("{node}: {key} has no row in its table"));
                let live = schema["x-millrace-live"] == true;
                assert_eq!(row.contains("**Live.**"), live, "{node}: {key} is live: {live}, but its page says\n{row}");
            }
        }
    }
    let text = succeed(&mut millrace(&["check", "graphs/demo.yml", "--explain"]), SOON);
    let score = text.lines().find(|line| line.trim_start().starts_with("SCORE ")).expect("SCORE is explained");
    let model = text.lines().find(|line| line.trim_start().starts_with("MODEL ")).expect("MODEL is explained");
    assert!(score.ends_with("; live") && !model.contains("live"), "{score}\n{model}");
    assert!(text.contains("dora param set"), "{text}");
}
