//! Settings that change while a node runs, and batches that wait.

use super::{Adder, SOON, image, value};
use crate::testing::{Bench, Seen};
use crate::{Context, Input, Node, NodeError, Outputs, Ports};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::time::{Duration, Instant};

fn send(bench: &mut Bench, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        bench.send("frame", &image(seq), &[100, 0, 0]).unwrap();
    }
}

/// Receives until `last` has come.
fn receive(bench: &mut Bench, last: u64) -> Vec<(u64, u8)> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(seq, _)| *seq < last) {
        let (_, input) = bench.receive(SOON).unwrap_or_else(|| panic!("{last} has not come after {seen:?}"));
        seen.push(value(&Seen::of(input)));
    }
    seen
}

/// Waits until a counter of the node has this value.
fn counted(bench: &Bench, name: &str, source: &str, n: u64) {
    let until = Instant::now() + SOON;
    while bench.metrics().counted(name, source) < n {
        assert!(Instant::now() < until, "{name} is {} and not {n}", bench.metrics().counted(name, source));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_live_setting_counts_from_the_next_item_on_and_what_is_refused_changes_nothing() {
    // the node publishes an item when the next one comes
    let mut bench = Bench::start::<Adder>(&[("ADD", "1")]);
    send(&mut bench, 0..2);
    assert_eq!(receive(&mut bench, 0), [(0, 101)]);
    assert!(bench.set("ADD", "5"));
    send(&mut bench, 2..3);
    assert_eq!(receive(&mut bench, 1), [(1, 105)]);

    let wrong = [
        ("ADD", "256"),
        ("ADD", "\"many\""),
        ("ADD", "{}"),
        ("ADD", "null"),
        ("ADD", "13"), // by the node itself
        ("add", "1"),
        ("BROKEN", "true"),
        ("SLOTS", "9"),
    ];
    for (key, json) in wrong {
        assert!(!bench.set(key, json), "{key} = {json} was taken");
    }
    send(&mut bench, 3..4);
    assert_eq!(receive(&mut bench, 2), [(2, 105)]);
    let status = serde_json::to_value(bench.metrics().snapshot()).unwrap();
    assert_eq!(status["params"], json!({ "ADD": "5" }));
    // the last answer about each setting, for the one who asked; numbers count all answers
    let answers = &status["param_answers"];
    assert_eq!(answers["ADD"]["n"], 6);
    assert!(answers["ADD"]["refused"].as_str().unwrap().starts_with("ADD cannot change now: "), "{answers}");
    assert!(answers["SLOTS"]["refused"].as_str().unwrap().contains("SLOTS needs a restart"), "{answers}");
    assert_eq!(answers["SLOTS"]["n"], 1 + wrong.len());

    assert!(bench.unset("ADD"));
    let status = serde_json::to_value(bench.metrics().snapshot()).unwrap();
    assert_eq!(status["param_answers"]["ADD"], json!({ "n": 2 + wrong.len(), "was": "5", "now": "1" }));
    let (rest, metrics) = bench.finish();
    assert_eq!(rest.iter().map(|(_, seen)| value(seen)).collect::<Vec<_>>(), [(3, 101)]);
    let metrics = metrics.unwrap();
    assert_eq!(metrics.counted("params_applied", ""), 2);
    assert_eq!(metrics.counted("params_refused", ""), wrong.len() as u64);
}

#[test]
fn the_hand_over_changes_between_two_publications() {
    let mut bench = Bench::start::<Adder>(&[("ADD", "0")]);
    send(&mut bench, 0..3);
    receive(&mut bench, 1);
    assert_eq!(bench.metrics().counted("handover_waits", "cam"), 0);
    assert!(bench.set("HANDOVER", "\"blocking\""));
    send(&mut bench, 3..5);
    receive(&mut bench, 3);
    counted(&bench, "handover_waits", "cam", 2);
    assert!(bench.set("HANDOVER", "\"event\""));
    send(&mut bench, 5..7);
    receive(&mut bench, 5);
    assert_eq!(bench.metrics().counted("handover_waits", "cam"), 2);
    bench.finish().1.unwrap();
}

#[test]
fn the_flow_changes_and_lossless_frames_all_arrive() {
    let mut bench = Bench::start::<Adder>(&[("ADD", "0"), ("SLOTS", "2")]);
    // 0 and 1 are published, and are in the pool that is given up
    send(&mut bench, 0..3);
    counted(&bench, "out", "cam", 2);
    assert!(bench.set("FLOW", "\"live\""));
    // nobody receives: in lossless flow two slots would stop the node
    send(&mut bench, 3..20);
    counted(&bench, "in", "cam", 20);
    assert!(!bench.set("FLOW", "\"lossless\""), "the first pool has not been read yet");
    counted(&bench, "out", "cam", 19);
    let seen = receive(&mut bench, 18);
    assert_eq!(seen[..2], [(0, 100), (1, 100)], "what was published lossless is not lost");
    assert!(seen.len() < 19, "in live flow what nobody reads is overwritten");

    assert!(bench.set("FLOW", "\"lossless\""));
    let mut again = Vec::new();
    for seq in (20..50).step_by(3) {
        // more than there are slots: the third waits
        send(&mut bench, seq..seq + 3);
        again.extend(receive(&mut bench, seq + 1).iter().map(|(seq, _)| *seq));
    }
    let (rest, metrics) = bench.finish();
    metrics.unwrap();
    again.extend(rest.iter().map(|(_, seen)| value(seen).0));
    assert_eq!(again, (19..50).collect::<Vec<_>>());
}

/// Publishes nothing and notes how many came together.
struct Batcher(Duration);

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
struct BatcherSettings {
    /// How long a batch waits.
    #[schemars(extend("x-millrace-live" = true))]
    wait_ms: u64,
    /// Declared live and not taken.
    #[serde(default)]
    #[schemars(extend("x-millrace-live" = true))]
    other: bool,
}

impl Node for Batcher {
    const NAME: &'static str = "batcher";
    const SUMMARY: &'static str = "gathers";
    const PORTS: Ports = Ports { inputs: Adder::PORTS.inputs, outputs: &[] };
    type Settings = BatcherSettings;

    fn open(settings: BatcherSettings, _: &Context) -> Result<Self, NodeError> {
        Ok(Self(Duration::from_millis(settings.wait_ms)))
    }
    fn change(&mut self, settings: BatcherSettings) -> Result<(), String> {
        if settings.other {
            return Err("no".to_owned());
        }
        self.0 = Duration::from_millis(settings.wait_ms);
        Ok(())
    }
    fn on_input(&mut self, _: &str, _: Input, _: &mut Outputs) -> Result<(), NodeError> {
        Ok(())
    }
    fn batch(&self) -> usize {
        4
    }
    fn batch_wait(&self) -> Option<Duration> {
        Some(self.0)
    }
}

const LONG_MS: &str = "60000";

/// Batches and items that the node is through with.
fn done(bench: &Bench) -> (u64, u64) {
    (bench.metrics().counted("batches", ""), bench.metrics().counted("in", "cam"))
}

#[test]
fn a_batch_waits_for_what_fills_it_and_not_for_more() {
    let mut bench = Bench::start::<Batcher>(&[("WAIT_MS", LONG_MS)]);
    send(&mut bench, 0..3);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(done(&bench), (0, 0), "three of four wait, in their pool");
    send(&mut bench, 3..4);
    counted(&bench, "batches", "", 1);
    assert_eq!(done(&bench), (1, 4));
    // the wait may end while a batch waits
    send(&mut bench, 4..5);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(done(&bench), (1, 4));
    assert!(bench.set("WAIT_MS", "0"));
    counted(&bench, "batches", "", 2);
    assert!(!bench.set("OTHER", "true"));
    bench.finish().1.unwrap();
}

#[test]
fn a_batch_waits_no_longer_than_it_may() {
    let mut bench = Bench::start::<Batcher>(&[("WAIT_MS", "200")]);
    let began = Instant::now();
    send(&mut bench, 0..1);
    counted(&bench, "batches", "", 1);
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    bench.finish().1.unwrap();
}

#[test]
fn a_batch_that_waits_holds_up_neither_a_stop_nor_an_end() {
    for stop in [true, false] {
        let mut bench = Bench::start::<Batcher>(&[("WAIT_MS", LONG_MS)]);
        send(&mut bench, 0..2);
        std::thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        let batches = if stop {
            bench.stop();
            bench.join().unwrap().counted("batches", "")
        } else {
            bench.finish().1.unwrap().counted("batches", "")
        };
        assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        assert_eq!(batches, u64::from(!stop), "what waits at the end of the inputs is computed");
    }
}
