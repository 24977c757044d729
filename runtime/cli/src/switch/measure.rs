//! What a dataflow does in a span of time, from its nodes' reports.

use super::guard::{Figure, Pair};
use crate::status::NodeReport;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The figures of a span. Keys say of what: a camera at a node's input, or at a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measures {
    /// Frames a second.
    pub(crate) fps: BTreeMap<String, f64>,
    /// Losses for each frame that a source published.
    pub(crate) drops: f64,
    /// Boxes a frame.
    pub(crate) boxes: BTreeMap<String, f64>,
    /// The 95th percentile of the age, in nanoseconds.
    pub(crate) latency_p95_ns: BTreeMap<String, f64>,
}

/// What a node did in a span, whatever processes it was meanwhile.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// By counter, port and camera.
    counters: BTreeMap<(String, String, String), u64>,
    drops: u64,
    /// By camera: recent 95th percentiles of the age, as they came.
    ages_ns: BTreeMap<String, Vec<u64>>,
}

impl Done {
    /// Adds what a process did between two of its reports; `before` is none where it began in the span.
    pub(crate) fn add(&mut self, before: Option<&NodeReport>, after: &NodeReport) {
        let key = |c: &crate::status::Counter| (c.name.clone(), c.port.clone(), c.source.clone());
        let was: BTreeMap<_, u64> =
            before.iter().flat_map(|status| &status.counters).map(|c| (key(c), c.value)).collect();
        for counter in &after.counters {
            let since = counter.value.saturating_sub(was.get(&key(counter)).copied().unwrap_or(0));
            *self.counters.entry(key(counter)).or_default() += since;
        }
        let lost = |status: &NodeReport| status.drops.iter().map(|loss| loss.value).sum::<u64>();
        self.drops += lost(after).saturating_sub(before.map_or(0, lost));
    }

    /// Adds an age that was reported.
    pub(crate) fn age(&mut self, source: &str, p95_ns: u64) {
        self.ages_ns.entry(source.to_owned()).or_default().push(p95_ns);
    }

    fn of(&self, counter: &str) -> impl Iterator<Item = (&str, &str, u64)> {
        let counter = counter.to_owned();
        self.counters
            .iter()
            .filter(move |((name, _, _), _)| *name == counter)
            .map(|((_, port, source), value)| (port.as_str(), source.as_str(), *value))
    }

    /// Items that it took in.
    pub(crate) fn taken(&self) -> u64 {
        self.of("in").map(|(_, _, n)| n).sum()
    }
}

impl Measures {
    /// Of all nodes over a span; `is_last` tells the nodes whose outputs nobody reads.
    pub(crate) fn of(done: &BTreeMap<String, Done>, is_last: &dyn Fn(&str) -> bool, span: Duration) -> Self {
        let mut this = Self::default();
        let (mut lost, mut made) = (0, 0);
        for (node, done) in done {
            lost += done.drops;
            if done.taken() == 0 {
                // a picture that leaves as frame and as packet is one
                let mut by_port: BTreeMap<&str, u64> = BTreeMap::new();
                done.of("out").for_each(|(port, _, n)| *by_port.entry(port).or_default() += n);
                made += by_port.into_values().max().unwrap_or(0);
            }
            let mut published: BTreeMap<&str, u64> = BTreeMap::new();
            done.of("out").filter(|(port, _, _)| *port == "detections").for_each(|(_, camera, n)| {
                *published.entry(camera).or_default() += n;
            });
            for (_, camera, boxes) in done.of("boxes") {
                if let Some(frames) = published.get(camera).filter(|frames| **frames > 0) {
                    this.boxes.insert(format!("{camera} at {node}"), boxes as f64 / *frames as f64);
                }
            }
            if !is_last(node) {
                continue;
            }
            for (port, camera, n) in done.of("in") {
                this.fps.insert(format!("{camera} at {node}/{port}"), n as f64 / span.as_secs_f64());
            }
            for (camera, ages) in &done.ages_ns {
                this.latency_p95_ns.insert(format!("{camera} at {node}"), median(ages));
            }
        }
        this.drops = lost as f64 / f64::from(u32::try_from(made.max(1)).unwrap_or(u32::MAX));
        this
    }

    /// A's figures beside B's. What A had and B has not is 0 under B.
    pub(crate) fn beside(&self, b: &Self) -> Vec<Pair> {
        let mut pairs = vec![Pair { figure: Figure::Drops, of: "all nodes".to_owned(), a: self.drops, b: b.drops }];
        let both = [
            (Figure::Fps, &self.fps, &b.fps, true),
            (Figure::Boxes, &self.boxes, &b.boxes, true),
            (Figure::LatencyP95, &self.latency_p95_ns, &b.latency_p95_ns, false),
        ];
        for (figure, ours, theirs, missing_is_zero) in both {
            for (of, &a) in ours {
                match theirs.get(of) {
                    Some(&b) => pairs.push(Pair { figure, of: of.clone(), a, b }),
                    None if missing_is_zero => pairs.push(Pair { figure, of: of.clone(), a, b: 0.0 }),
                    None => {}
                }
            }
        }
        pairs
    }

    /// The cameras that reach the end, as keys of [`fps`](Self::fps).
    pub(crate) fn streams(&self) -> Vec<&str> {
        self.fps.iter().filter(|(_, fps)| **fps > 0.0).map(|(of, _)| of.as_str()).collect()
    }
}

fn median(values: &[u64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0) as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::{Counter, DropCount};

    fn report(counters: &[(&str, &str, u64)], lost: u64) -> NodeReport {
        let counter = |&(name, port, value): &(&str, &str, u64)| Counter {
            name: name.into(),
            port: port.into(),
            source: "cam".into(),
            value,
        };
        NodeReport {
            counters: counters.iter().map(counter).collect(),
            drops: vec![DropCount {
                cause: "stale".into(),
                port: String::new(),
                source: "cam".into(),
                value: lost,
                ..DropCount::default()
            }],
            ..NodeReport::default()
        }
    }

    #[test]
    fn a_span_counts_what_was_done_in_it_by_all_processes_of_a_node() {
        let mut done: BTreeMap<String, Done> = BTreeMap::new();
        let decode = done.entry("decode".into()).or_default();
        decode.add(None, &report(&[("out", "frame", 200), ("out", "packet", 200)], 0));
        let detect = done.entry("detect".into()).or_default();
        let of = |taken, boxes| [("in", "tensor", taken), ("out", "detections", taken), ("boxes", "", boxes)];
        detect.add(Some(&report(&of(1_000, 9_000), 5)), &report(&of(1_060, 9_300), 9));
        detect.add(None, &report(&of(40, 100), 6)); // its successor
        let write = done.entry("write".into()).or_default();
        write.add(Some(&report(&[("in", "detections", 10)], 0)), &report(&[("in", "detections", 110)], 0));
        [30, 10, 20].into_iter().for_each(|ns| write.age("cam", ns));
        let measures = Measures::of(&done, &|node| node == "write", Duration::from_secs(4));
        assert_eq!(measures.fps, BTreeMap::from([("cam at write/detections".to_owned(), 25.0)]));
        assert_eq!(measures.boxes, BTreeMap::from([("cam at detect".to_owned(), 4.0)]));
        assert_eq!(measures.latency_p95_ns, BTreeMap::from([("cam at write".to_owned(), 20.0)]));
        assert!((measures.drops - 10.0 / 200.0).abs() < 1e-9, "{}", measures.drops);
        assert_eq!(measures.streams(), ["cam at write/detections"]);
        // a camera that came no more
        let pairs = measures.beside(&Measures::default());
        assert!(pairs.iter().any(|p| p.figure == Figure::Fps && p.b == 0.0));
        assert!(!pairs.iter().any(|p| p.figure == Figure::LatencyP95));
    }
}
