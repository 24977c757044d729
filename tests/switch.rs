//! `millrace switch` on a camera that runs: a good B stays, a bad one goes, and a `kill -9` in the middle can be finished.
//!
//! What a faulty node does wrong is so wrong that no load of the machine hides it or looks like it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use millrace_tests::dataflow::{Dataflow, LIMIT, NAME, Talk, short_clip};
use millrace_tests::{finish, printed};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a machine with other things to do keeps all the same.
const GUARD: &str = "fps >= 0.3x, boxes >= 0.9x";

/// A running camera.
struct Street {
    flow: Dataflow,
    pids: BTreeMap<String, u32>,
}

impl Street {
    fn new() -> Self {
        let flow = Dataflow::new();
        short_clip(&flow.folder().join("clip.264"));
        flow.start("tests/graphs/switch.yml", |text| text);
        let this = Self { pids: BTreeMap::new(), flow };
        this.frames_arrive();
        Self { pids: this.flow.pids(), ..this }
    }

    fn frames_arrive(&self) {
        self.flow.grows("frames at the end of the graph", 10, || self.flow.lines("found.jsonl"));
    }

    /// `millrace switch` to the same graph with these settings.
    fn switch(&self, guard: &str, sets: &[&str]) -> Talk {
        let graph = self.flow.graph();
        let mut args = vec!["switch", &graph, "--watch", "5s", "--guard", guard];
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        Talk::begin(&mut self.flow.millrace(&args))
    }

    /// A switch that ends with A as it was: what it said.
    fn put_back(&self, guard: &str, set: &str) -> String {
        let (code, text) = self.switch(guard, &[set]).end();
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("putting 'boxes' back"), "{text}");
        let last = text.lines().last().unwrap().to_owned();
        assert!(last.starts_with("put back: dataflow 'cameras' runs what it ran before, because "), "{text}");
        self.frames_arrive();
        self.only_replaced(&["boxes"]);
        let (key, _) = set.strip_prefix("boxes.").unwrap().split_once('=').unwrap();
        assert_eq!(self.flow.setting("boxes", key), None, "{text}");
        last
    }

    /// All other nodes are the processes that they were.
    fn only_replaced(&self, nodes: &[&str]) {
        let now = self.flow.pids();
        assert_eq!(now.keys().collect::<Vec<_>>(), self.pids.keys().collect::<Vec<_>>());
        let changed: BTreeSet<&str> =
            now.iter().filter(|(node, pid)| self.pids[*node] != **pid).map(|(node, _)| node.as_str()).collect();
        assert_eq!(changed, nodes.iter().copied().collect());
    }

    /// The numbers of the frames that arrived.
    fn numbers(&self) -> Vec<u64> {
        let text = std::fs::read_to_string(self.flow.folder().join("found.jsonl")).unwrap();
        let line = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
        text.split_inclusive('\n').filter(|l| l.ends_with('\n')).map(line).collect()
    }

    /// A switch of two nodes, killed while the second one is replaced. What it leaves runs.
    fn killed_in_the_middle(&self) {
        let mut switch = self.switch(GUARD, &["boxes.DELAY_US=1", "detect.SCORE=0.36"]);
        switch.until("replacing 'detect'");
        switch.kill();
        self.frames_arrive();
        let (code, text) = self.switch(GUARD, &["to-rgb.FUSED=false"]).end();
        assert_eq!(code, 2, "{text}");
        for part in ["was cut short, with 2 of 2 nodes replaced", "millrace switch --resume", "millrace switch --back"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_good_graph_is_kept_and_no_other_node_is_restarted() {
    let _one = alone();
    let street = Street::new();
    let mut switch = street.switch(GUARD, &["to-rgb.FUSED=false"]);
    let arrived = || street.flow.lines("found.jsonl");
    switch.until("measuring what runs");
    let measuring = arrived();
    switch.until("replacing 'to-rgb'");
    let replacing = arrived();
    switch.until("all nodes are replaced");
    let watching = arrived();
    let (code, text) = switch.end();
    let kept = arrived();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("kept: dataflow 'cameras' runs"), "{text}");
    assert!(measuring < replacing && replacing < watching && watching < kept, "{text}");
    street.frames_arrive();
    street.only_replaced(&["to-rgb"]);
    assert_eq!(street.flow.setting("to-rgb", "FUSED").as_deref(), Some("false"));
    // the camera went on meanwhile, and every one of its frames came once at most
    assert!(street.numbers().is_sorted_by(|a, b| a < b), "{:?}", street.numbers());
    // what runs now is what the next switch finds
    let (code, text) = street.switch(GUARD, &["to-rgb.FUSED=false"]).end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("already: nothing to do"), "{text}");
    street.only_replaced(&["to-rgb"]);
}

#[test]
fn a_graph_whose_node_crashes_goes_back() {
    let _one = alone();
    let street = Street::new();
    let why = street.put_back(GUARD, "boxes.CRASH_AT=20");
    assert!(why.contains("node 'boxes' failed: panicked: CRASH_AT: item 20"), "{why}");
}

#[test]
fn a_graph_whose_node_does_not_open_goes_back() {
    let _one = alone();
    let street = Street::new();
    let why = street.put_back(GUARD, "boxes.REFUSE=true");
    assert!(why.contains("node 'boxes' failed: REFUSE is set: this node does not open"), "{why}");
}

#[test]
fn a_model_that_is_not_there_stops_no_node() {
    let _one = alone();
    let street = Street::new();
    let (code, text) = street.switch(GUARD, &["detect.MODEL=nowhere/model.yml"]).end();
    assert_eq!(code, 2, "{text}");
    for part in ["MODEL names 'nowhere/model.yml', which does not exist", "has faults, so nothing was changed"] {
        assert!(text.contains(part), "{text}");
    }
    // one that goes away while what runs is measured
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/demo/model");
    let model = street.flow.folder().join("again").join("model.yml");
    std::fs::create_dir(model.parent().unwrap()).unwrap();
    for name in ["model.yml", "model.onnx"] {
        std::fs::copy(demo.join(name), model.with_file_name(name)).unwrap();
    }
    let mut switch = street.switch(GUARD, &[&format!("detect.MODEL={}", model.display())]);
    switch.until("measuring what runs");
    std::fs::remove_file(&model).unwrap();
    let (code, text) = switch.end();
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("which does not exist") && text.contains("so nothing was changed"), "{text}");
    assert!(!text.contains("replacing"), "{text}");
    street.frames_arrive();
    street.only_replaced(&[]);
}

#[test]
fn a_graph_that_is_slow_goes_back() {
    let _one = alone();
    let street = Street::new();
    let why = street.put_back(GUARD, "boxes.DELAY_US=1000000");
    assert!(why.contains("fps >= 0.3x does not hold: fps of street at write/detections: A "), "{why}");
}

#[test]
fn a_graph_that_drops_boxes_goes_back() {
    let _one = alone();
    let street = Street::new();
    let why = street.put_back("boxes >= 0.97x", "boxes.DROP_BOX_EVERY=1");
    assert!(why.contains("boxes >= 0.97x does not hold: boxes of street at boxes: A "), "{why}");
}

#[test]
fn a_switch_that_was_killed_can_be_taken_back() {
    let _one = alone();
    let street = Street::new();
    street.killed_in_the_middle();
    let (code, text) = Talk::begin(&mut street.flow.millrace(&["switch", "--back", "--dataflow", NAME])).end();
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("asked for by --back"), "{text}");
    street.frames_arrive();
    street.only_replaced(&["boxes", "detect"]);
    assert_eq!(street.flow.setting("boxes", "DELAY_US"), None);
    assert_eq!(street.flow.setting("detect", "SCORE"), None);
    // nothing is open any more
    let output = finish(&mut street.flow.millrace(&["switch", "--back"]), LIMIT);
    assert_eq!(output.status.code(), Some(2));
    assert!(printed(&output).contains("there is nothing to finish"), "{}", printed(&output));
}

#[test]
fn a_switch_that_was_killed_can_be_finished() {
    let _one = alone();
    let street = Street::new();
    street.killed_in_the_middle();
    let (code, text) = Talk::begin(&mut street.flow.millrace(&["switch", "--resume"])).end();
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("kept: dataflow 'cameras' runs"), "{text}");
    street.frames_arrive();
    street.only_replaced(&["boxes", "detect"]);
    assert_eq!(street.flow.setting("boxes", "DELAY_US").as_deref(), Some("1"));
    assert_eq!(street.flow.setting("detect", "SCORE").as_deref(), Some("0.36"));
}
