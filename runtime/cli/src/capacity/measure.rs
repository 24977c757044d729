//! One step: waits until all cameras are there, lets them settle, measures, and judges.

use crate::efficiency::{Figures, Mark};
use crate::totals::Totals;
use crate::trial::gpu;
use crate::trial::launch::NodeWatch;
use crate::trial::plan::{Plan, Source};
use millrace_ab::capacity::{Asked, Step, StepFigures};
use millrace_frame::{counted, monotonic_ns};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long cameras may take to be at every node.
const COME: Duration = Duration::from_secs(60);
/// Nodes report so often.
const REPORTS: Duration = Duration::from_millis(500);
/// Counted among the losses, although no frame is missing.
const NO_FRAMES: [&str; 2] = ["doorbell", "bad_doorbell"];

/// A step while it runs.
pub(super) struct Measure {
    cameras: Vec<String>,
    asked: Asked,
    graph: Shape,
    phase: Phase,
    looked: Option<Instant>,
}

/// What of a graph a step is judged by.
struct Shape {
    /// The decoders, and the nodes that their frames come to.
    reach: BTreeMap<String, BTreeSet<String>>,
    /// The nodes that give results.
    detectors: BTreeSet<String>,
}

enum Phase {
    Coming(Instant),
    Settling(Instant),
    Measuring(Instant, Moment),
    Done(Moment, Moment, Ends),
    /// Cameras did not come.
    Missing(String),
}

/// All nodes' reports at one moment.
struct Moment {
    at_ns: i64,
    mark: Mark,
    /// By node: what it lost, by cause.
    lost: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What the last reports of a step say of its last seconds.
#[derive(Default)]
struct Ends {
    p95_ms: Option<f64>,
    /// Between two frames of a camera, by its own times.
    period_ns: BTreeMap<String, i64>,
}

impl Moment {
    fn now(nodes: &[NodeWatch]) -> Self {
        let lost = |node: &Totals| {
            let mut lost: BTreeMap<String, u64> = BTreeMap::new();
            for ((cause, _), count) in node.losses() {
                *lost.entry(cause).or_default() += count;
            }
            lost
        };
        Self {
            at_ns: monotonic_ns(),
            mark: Mark::of(nodes.iter().map(|node| &node.totals)),
            lost: nodes.iter().map(|node| (node.totals.id.clone(), lost(&node.totals))).collect(),
        }
    }
}

impl Ends {
    fn now(nodes: &[NodeWatch]) -> Self {
        let last = || nodes.iter().filter_map(|node| node.totals.last.as_ref());
        let worst = |name: &str| {
            let ages = last().flat_map(|last| &last.latency).filter(|times| times.name == name);
            ages.filter_map(|age| age.recent_p95_ns).max().map(|ns| ns as f64 / 1e6)
        };
        let periods = last().flat_map(|last| &last.gauges).filter(|gauge| gauge.name == "frame_period_ns");
        Self {
            // of results, where there are any
            p95_ms: worst("result_age").or_else(|| worst("age")),
            period_ns: periods.map(|gauge| (gauge.source.clone(), gauge.value)).collect(),
        }
    }
}

impl Shape {
    fn of(plan: &Plan) -> Self {
        let feeds = |id: &str| -> Vec<String> {
            let fed_by = |input: &crate::trial::plan::PlanInput| match &input.source {
                Source::Port(port) => port.node == id,
                Source::Dora(_) => false,
            };
            plan.nodes.iter().filter(|node| node.inputs.iter().any(fed_by)).map(|node| node.id.clone()).collect()
        };
        let described = |id: &String| plan.node(id).is_some_and(|node| node.description.is_some());
        let reach = |decoder: &String| {
            let mut all = vec![decoder.clone()];
            let mut at = 0;
            while let Some(id) = all.get(at) {
                let new: Vec<String> = feeds(id).into_iter().filter(|id| !all.contains(id)).collect();
                all.extend(new);
                at += 1;
            }
            all.into_iter().filter(described).collect::<BTreeSet<String>>()
        };
        let decoders = plan.nodes.iter().filter(|node| node.has("CAMERAS")).map(|node| node.id.clone());
        let detects = plan.nodes.iter().filter(|node| node.ports_of("detections").next().is_some());
        Self {
            reach: decoders.map(|id| (id.clone(), reach(&id))).collect(),
            detectors: detects.map(|node| node.id.clone()).collect(),
        }
    }

    /// The cameras that each node is to have, by what the decoders have given.
    fn expected<'a>(&'a self, mark: &'a Mark) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let mut expected: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for decoder in mark.0.iter().filter(|node| self.reach.contains_key(&node.id)) {
            let given = || decoder.by_camera.iter().filter(|(_, frames)| **frames > 0).map(|(id, _)| id.as_str());
            for node in &self.reach[&decoder.id] {
                expected.entry(node).or_default().extend(given());
            }
        }
        expected
    }

    /// The first cameras that are not at every node that is to have them.
    fn missing(&self, cameras: &[String], mark: &Mark) -> BTreeSet<String> {
        let expected = self.expected(mark);
        let given: BTreeSet<&str> = expected.values().flatten().copied().collect();
        let mut missing: BTreeSet<String> = cameras.iter().filter(|id| !given.contains(id.as_str())).cloned().collect();
        for (node, cameras) in expected {
            let has = |camera: &str| {
                let node = mark.0.iter().find(|mark| mark.id == node);
                node.is_some_and(|node| node.by_camera.get(camera).is_some_and(|frames| *frames > 0))
            };
            missing.extend(cameras.into_iter().filter(|camera| !has(camera)).map(str::to_owned));
        }
        missing
    }
}

impl Measure {
    pub(super) fn new(plan: &Plan, cameras: Vec<String>, asked: Asked) -> Self {
        Self { cameras, asked, graph: Shape::of(plan), phase: Phase::Coming(Instant::now()), looked: None }
    }

    /// Looks at the nodes' reports; true when all is known.
    pub(super) fn turn(&mut self, nodes: &[NodeWatch], now: Instant) -> bool {
        if self.looked.is_some_and(|looked| now - looked < REPORTS / 2) {
            return false;
        }
        self.looked = Some(now);
        let next = match &self.phase {
            Phase::Coming(began) => {
                let missing = self.graph.missing(&self.cameras, &Mark::of(nodes.iter().map(|node| &node.totals)));
                match missing.first() {
                    None => Phase::Settling(now),
                    Some(first) if now - *began >= COME => Phase::Missing(format!(
                        "{} of {} cameras were not at every node after {} s, '{first}' for one",
                        missing.len(),
                        self.cameras.len(),
                        COME.as_secs()
                    )),
                    Some(_) => return false,
                }
            }
            Phase::Settling(since) if (now - *since).as_secs_f64() < self.asked.left_out_s => return false,
            Phase::Settling(_) => Phase::Measuring(now, Moment::now(nodes)),
            Phase::Measuring(since, _) if (now - *since).as_secs_f64() < self.asked.seconds => return false,
            Phase::Measuring(..) => Phase::Done(Moment::now(nodes), Moment::now(nodes), Ends::now(nodes)),
            Phase::Done(..) | Phase::Missing(_) => return true,
        };
        let before = std::mem::replace(&mut self.phase, next);
        if let (Phase::Measuring(_, first), Phase::Done(begin, ..)) = (before, &mut self.phase) {
            *begin = first;
        }
        matches!(self.phase, Phase::Done(..) | Phase::Missing(_))
    }

    /// The step, judged. `failure` is why the run ended before it was measured, and `looks` are those at the GPUs.
    pub(super) fn judge(self, failure: Option<&str>, looks: &[(i64, gpu::Sample)]) -> Step {
        let cameras = self.cameras.len() as u32;
        let (first, last, ends) = match self.phase {
            Phase::Done(first, last, ends) => (first, last, ends),
            Phase::Missing(why) => return Step { cameras, faults: vec![why], figures: None },
            _ => {
                let why = failure.unwrap_or("the graph ended before it was measured");
                return Step { cameras, faults: vec![why.to_owned()], figures: None };
            }
        };
        let lost = lost(&first, &last);
        let mut faults: Vec<String> = lost
            .iter()
            .map(|((node, cause), count)| format!("{node} lost {} ({cause})", counted(*count, "frame", "frames")))
            .collect();
        faults.extend(slow(&self.graph, &first.mark, &last.mark, &ends.period_ns, self.asked.rate_percent));
        match ends.p95_ms {
            Some(p95_ms) if p95_ms > self.asked.p95_ms => faults.push(format!("p95 is {p95_ms:.0} ms")),
            Some(_) => {}
            None => faults.push("nothing came at the end of the step".to_owned()),
        }
        let inside =
            || looks.iter().filter(|(at, _)| (first.at_ns..=last.at_ns).contains(at)).map(|(_, sample)| sample);
        let mean = |of: fn(&gpu::Sample) -> Option<f64>| {
            let values: Vec<f64> = inside().filter_map(of).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let of_nodes = Figures::between(&first.mark, &last.mark).unwrap_or_default();
        let period = |camera: &String| ends.period_ns.get(camera).filter(|ns| **ns > 0).map(|ns| 1e9 / *ns as f64);
        let engine: Vec<f64> = of_nodes.detectors.iter().map(|detector| detector.engine_fps).collect();
        let batches: Vec<f64> = of_nodes.detectors.iter().map(|detector| detector.batch).collect();
        let figures = StepFigures {
            fps: fps(&self.graph, &first.mark, &last.mark),
            fps_of_cameras: self.cameras.iter().filter_map(period).sum(),
            p95_ms: ends.p95_ms,
            gpu_percent: mean(|sample| sample.gpu_percent),
            nvdec_percent: mean(|sample| sample.nvdec_percent),
            cpu_cores: of_nodes.cpu_cores,
            lost: lost.values().sum(),
            batch: (!batches.is_empty()).then(|| batches.iter().sum::<f64>() / batches.len() as f64),
            engine_fps: (!engine.is_empty()).then(|| engine.iter().sum()),
        };
        Step { cameras, faults, figures: Some(figures) }
    }
}

/// What was lost between two moments, by node and cause.
fn lost(first: &Moment, last: &Moment) -> BTreeMap<(String, String), u64> {
    let mut all = BTreeMap::new();
    for (node, causes) in &last.lost {
        for (cause, count) in causes.iter().filter(|(cause, _)| !NO_FRAMES.contains(&cause.as_str())) {
            let before = first.lost.get(node).and_then(|causes| causes.get(cause)).copied().unwrap_or(0);
            if *count > before {
                all.insert((node.clone(), cause.clone()), count - before);
            }
        }
    }
    all
}

/// Each node's two marks, with the seconds between its own reports.
fn pairs<'a>(
    first: &'a Mark,
    last: &'a Mark,
) -> impl Iterator<Item = (&'a crate::efficiency::NodeMark, &'a crate::efficiency::NodeMark, f64)> {
    last.0.iter().filter_map(|now| {
        let before = first.0.iter().find(|before| before.id == now.id)?;
        Some((before, now, now.uptime_ns.saturating_sub(before.uptime_ns) as f64 / 1e9))
    })
}

/// Frames a second with results; of a graph without a detector, those of the busiest node.
fn fps(graph: &Shape, first: &Mark, last: &Mark) -> f64 {
    let rates = |which: &dyn Fn(&str) -> bool| {
        let of = pairs(first, last).filter(|(_, now, _)| which(&now.id));
        of.map(|(before, now, seconds)| now.frames.saturating_sub(before.frames) as f64 / seconds.max(1e-9)).collect()
    };
    if graph.detectors.is_empty() {
        let all: Vec<f64> = rates(&|_| true);
        return all.into_iter().fold(0.0, f64::max);
    }
    let all: Vec<f64> = rates(&|id| graph.detectors.contains(id));
    all.into_iter().sum()
}

/// The cameras that have less than so much of their rate at some node: the first by name, and how many more. A window
/// begins and ends amid a frame, so one more is no fault.
fn slow(graph: &Shape, first: &Mark, last: &Mark, period_ns: &BTreeMap<String, i64>, percent: f64) -> Option<String> {
    let expected = graph.expected(last);
    let mut slow: BTreeMap<&str, String> = BTreeMap::new();
    for (before, now, seconds) in pairs(first, last) {
        for camera in expected.get(now.id.as_str()).into_iter().flatten().copied() {
            let Some(period) = period_ns.get(camera).filter(|ns| **ns > 0) else {
                slow.insert(camera, format!("the rate of camera {camera} is not known"));
                continue;
            };
            let frames = |mark: &crate::efficiency::NodeMark| mark.by_camera.get(camera).copied().unwrap_or(0);
            let came = frames(now).saturating_sub(frames(before));
            let due = seconds * 1e9 / *period as f64;
            if ((came + 1) as f64) < due * percent / 100.0 {
                let (has, of) = (came as f64 / seconds, due / seconds);
                let text = format!("camera {camera} has {has:.1} of its {of:.1} frames a second at {}", now.id);
                slow.entry(camera).or_insert(text);
            }
        }
    }
    let more = slow.len().saturating_sub(1);
    let text = slow.into_values().next()?;
    Some(if more == 0 { text } else { format!("{text}, and {more} more cameras have too few") })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::{Counter, DropCount, Gauge, Latency, NodeReport};

    /// What differs from a graph that holds.
    #[derive(Clone, Copy)]
    struct Trouble {
        /// Of ten frames of camera 'b', so many come to the detector.
        of_ten: u64,
        /// Frames that the detector lost before it was measured, and while it was.
        lost: [u64; 2],
        p95_ms: u64,
    }

    const FINE: Trouble = Trouble { of_ten: 10, lost: [3, 0], p95_ms: 40 };

    /// A report after so many half seconds, of cameras that have 20 frames a second: a quarter of a core.
    fn report(node: &str, halves: u64, of_b: u64, trouble: Trouble) -> NodeReport {
        let counter =
            |source: &str, value| Counter { name: "in".into(), source: source.into(), value, ..Counter::default() };
        let gauge = |source: &str| Gauge { name: "frame_period_ns".into(), source: source.into(), value: 50_000_000 };
        let age = |name: &str, ms: u64| Latency {
            name: name.into(),
            recent_p95_ns: Some(ms * 1_000_000),
            ..Latency::default()
        };
        let lost = trouble.lost[0] + if halves > 16 { trouble.lost[1] } else { 0 };
        let detects = node == "detect";
        NodeReport {
            node: node.into(),
            pid: 7,
            uptime_ns: halves * 500_000_000,
            cpu_ns: halves * 125_000_000,
            counters: vec![counter("a", 10 * halves), counter("b", of_b * halves)],
            gauges: if detects { Vec::new() } else { vec![gauge("a"), gauge("b")] },
            // those of frames are not looked at where there are some of results
            latency: if detects { vec![age("age", 900), age("result_age", trouble.p95_ms)] } else { Vec::new() },
            drops: vec![DropCount {
                cause: "overtaken".into(),
                value: if detects { lost } else { 0 },
                ..DropCount::default()
            }],
            ..NodeReport::default()
        }
    }

    /// The step of a graph of a decoder and a detector, looked at twice a second.
    fn step(trouble: Trouble) -> Step {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<String>>();
        let reach = BTreeMap::from([("decode".to_owned(), ids(&["decode", "detect"]))]);
        let asked = Asked { p95_ms: 100.0, rate_percent: 98.0, from: 1, most: 8, seconds: 10.0, left_out_s: 5.0 };
        let start = Instant::now();
        let mut measure = Measure {
            cameras: vec!["a".to_owned(), "b".to_owned()],
            asked,
            graph: Shape { reach, detectors: ids(&["detect"]) },
            phase: Phase::Coming(start),
            looked: None,
        };
        let mut nodes = ["decode", "detect"].map(|id| NodeWatch { totals: Totals::new(id), cpu: Vec::new() });
        for halves in 1..=200 {
            let now = start + Duration::from_millis(500 * halves);
            for (node, of_b) in nodes.iter_mut().zip([10, trouble.of_ten]) {
                let report = report(&node.totals.id, halves, of_b, trouble);
                node.totals.take(report, now);
            }
            if measure.turn(&nodes, now) {
                break;
            }
        }
        measure.judge(None, &[])
    }

    #[test]
    fn a_step_holds_whose_cameras_have_their_rate_and_whose_losses_came_before() {
        let held = step(FINE);
        assert!(held.cameras == 2 && held.held(), "{:?}", held.faults);
        let figures = held.figures.unwrap();
        assert_eq!((figures.fps, figures.fps_of_cameras, figures.p95_ms), (40.0, 40.0, Some(40.0)));
        assert_eq!((figures.cpu_cores, figures.lost, figures.gpu_percent), (0.5, 0, None));
    }

    #[test]
    fn what_breaks_a_bound_is_named() {
        for (trouble, says) in [
            (Trouble { lost: [3, 7], ..FINE }, "detect lost 7 frames (overtaken)"),
            (Trouble { of_ten: 9, ..FINE }, "camera b has 18.0 of its 20.0 frames a second at detect"),
            (Trouble { p95_ms: 101, ..FINE }, "p95 is 101 ms"),
        ] {
            let step = step(trouble);
            assert_eq!((step.faults.as_slice(), step.held()), (&[says.to_owned()][..], false));
            assert!(step.figures.is_some(), "it was measured all the same");
        }
        let missing = step(Trouble { of_ten: 0, ..FINE });
        assert_eq!(missing.faults, ["1 of 2 cameras were not at every node after 60 s, 'b' for one"]);
        assert!(missing.figures.is_none() && !missing.held());
    }
}
