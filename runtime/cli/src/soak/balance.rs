//! Whether every frame has a name: what a node gave against what its readers received or counted as lost, camera by camera.
//!
//! Two nodes report at different moments, and frames are on their way, so two counters of a graph that runs are never equal.
//! Their difference stays where it is, though; a frame that is lost without a name moves it for good.

use crate::status::NodeReport;
use crate::totals::Totals;
use crate::vitals::Vital;
use millrace_ab::soak::Balance;
use millrace_graph::Upstream;
use millrace_graph::model::Graph;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After a node was started again, or a fault, what is on its way has to settle.
const SETTLES: Duration = Duration::from_secs(5);
/// Frames that may be on their way in pools and queues between two nodes.
const ON_THEIR_WAY: u64 = 16;
/// Two reports are at most so far apart.
const APART_S: f64 = 1.5;
/// Counted among the losses, although no frame is missing.
const NO_FRAMES: [&str; 2] = ["doorbell", "bad_doorbell"];

/// A counter: node, name, port.
type Counter = (String, &'static str, String);

/// A part of the graph whose outputs and losses add up to its inputs.
struct BalancePoint {
    name: String,
    given: Vec<Counter>,
    taken: Counter,
    /// Where losses between the two are counted: node and port.
    lost: Vec<(String, String)>,
}

/// A camera at a balance point, since a node there was started.
struct Span {
    pids: Vec<u32>,
    since: Instant,
    /// Frames given and the difference when it had settled.
    base: Option<(u64, i64, Instant)>,
    /// How many of the frames since then are in the sum.
    counted: u64,
}

/// All balance points.
pub(super) struct Balances {
    points: Vec<BalancePoint>,
    spans: BTreeMap<(usize, String), Span>,
    found: BTreeMap<String, Balance>,
    /// Since when all nodes have been well and nothing was done to them.
    quiet: Option<Instant>,
}

impl Balances {
    /// Of a graph, with what is known from before an interruption.
    pub(super) fn new(graph: &Graph, found: BTreeMap<String, Balance>) -> Self {
        let mut points = Vec::new();
        for node in &graph.nodes {
            let id = &node.id.value;
            let mut ports: BTreeMap<&str, Vec<Counter>> = BTreeMap::new();
            for input in &node.inputs {
                if let Some(Upstream::Output { node, output }) = &input.upstream {
                    let port = input.name.value.split('.').next().unwrap_or(&input.name.value);
                    ports.entry(port).or_default().push((node.clone(), "out", output.clone()));
                }
            }
            if let ([(port, _)], [output]) = (&ports.iter().collect::<Vec<_>>()[..], &node.outputs[..]) {
                points.push(BalancePoint {
                    name: format!("through {id}"),
                    given: vec![(id.clone(), "in", (**port).to_owned())],
                    taken: (id.clone(), "out", output.value.clone()),
                    lost: vec![(id.clone(), String::new()), (id.clone(), output.value.clone())],
                });
            }
            for (port, given) in ports {
                let from: Vec<String> = given.iter().map(|(node, _, output)| format!("{node}/{output}")).collect();
                points.push(BalancePoint {
                    name: format!("{} to {id}", from.join(" and ")),
                    given,
                    taken: (id.clone(), "in", port.to_owned()),
                    lost: vec![(id.clone(), port.to_owned())],
                });
            }
        }
        Self { points, spans: BTreeMap::new(), found, quiet: None }
    }

    /// Compares by the nodes' last reports. While something is done to the graph, nothing can be compared.
    pub(super) fn look(&mut self, nodes: &[Totals], disturbed: bool, now: Instant) {
        if disturbed || nodes.iter().any(|node| node.vital != Vital::Well || node.process_gone.is_some()) {
            self.quiet = None;
            return;
        }
        if now.saturating_duration_since(*self.quiet.get_or_insert(now)) < SETTLES {
            return;
        }
        let counts = Counts::of(nodes);
        for (number, point) in self.points.iter().enumerate() {
            let pids: Vec<u32> =
                point.given.iter().chain([&point.taken]).map(|counter| counts.pid(&counter.0)).collect();
            for camera in counts.cameras(point) {
                let (given, left) = counts.compare(point, &camera);
                let new = || Span { pids: pids.clone(), since: now, base: None, counted: 0 };
                let span = self.spans.entry((number, camera.clone())).or_insert_with(new);
                if span.pids != pids {
                    *span = new();
                }
                if now.saturating_duration_since(span.since) < SETTLES {
                    continue;
                }
                let (base_given, base, at) = *span.base.get_or_insert((given, left, now));
                let passed = given.saturating_sub(base_given);
                let seconds = now.saturating_duration_since(at).as_secs_f64();
                if seconds < 1.0 {
                    continue;
                }
                let allowed = ON_THEIR_WAY + (APART_S * passed as f64 / seconds).ceil() as u64;
                let found = self.found.entry(format!("{}, {camera}", point.name)).or_default();
                found.allowed = found.allowed.max(allowed);
                let moved = left - base;
                if moved.unsigned_abs() > found.worst.unsigned_abs() {
                    found.worst = moved;
                }
                found.passed += passed.saturating_sub(span.counted);
                span.counted = span.counted.max(passed);
            }
        }
    }

    /// What was found.
    pub(super) fn found(&self) -> BTreeMap<String, Balance> {
        self.found.clone()
    }
}

/// All counters at one moment, by node, name and port, and then by camera.
struct Counts<'a> {
    values: BTreeMap<(&'a str, &'static str, String), BTreeMap<String, u64>>,
    lost: BTreeMap<(&'a str, String), BTreeMap<String, u64>>,
    pids: BTreeMap<&'a str, u32>,
}

impl<'a> Counts<'a> {
    fn of(nodes: &'a [Totals]) -> Self {
        let (mut values, mut lost, mut pids) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for node in nodes {
            let id = node.id.as_str();
            pids.insert(id, node.last.as_ref().map_or(0, NodeReport::works_in));
            for name in ["in", "out"] {
                for ((port, camera), value) in node.counts(name) {
                    let by_camera: &mut BTreeMap<String, u64> = values.entry((id, name, port)).or_default();
                    *by_camera.entry(camera).or_default() += value;
                }
            }
            for ((cause, port, camera), value) in node.losses_of_cameras() {
                if !NO_FRAMES.contains(&cause.as_str()) {
                    let by_camera: &mut BTreeMap<String, u64> = lost.entry((id, port.clone())).or_default();
                    *by_camera.entry(camera.clone()).or_default() += value;
                }
            }
        }
        Self { values, lost, pids }
    }

    fn pid(&self, node: &str) -> u32 {
        self.pids.get(node).copied().unwrap_or(0)
    }

    fn value(&self, (node, name, port): &Counter, camera: &str) -> u64 {
        let by_camera = self.values.get(&(node.as_str(), *name, port.clone()));
        by_camera.and_then(|by_camera| by_camera.get(camera)).copied().unwrap_or(0)
    }

    /// The cameras of which something came to the end of a place: others, such as those that no client asked for, are none
    /// of its business.
    fn cameras(&self, point: &BalancePoint) -> Vec<String> {
        let (node, name, port) = &point.taken;
        let by_camera = self.values.get(&(node.as_str(), *name, port.clone()));
        by_camera.into_iter().flat_map(|by_camera| by_camera.keys().cloned()).collect()
    }

    /// What was given, and what of it was neither taken nor lost.
    fn compare(&self, point: &BalancePoint, camera: &str) -> (u64, i64) {
        let given: u64 = point.given.iter().map(|counter| self.value(counter, camera)).sum();
        let lost: u64 = point
            .lost
            .iter()
            .filter_map(|(node, port)| self.lost.get(&(node.as_str(), port.clone()))?.get(camera))
            .sum();
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        (given, signed(given) - signed(self.value(&point.taken, camera)) - signed(lost))
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
