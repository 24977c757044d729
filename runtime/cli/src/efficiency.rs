//! What a graph made of its machine: frames a second beside what the detector's engine could compute, the size of its
//! batches, the use of the GPUs, and processor time for each camera. A figure that was not measured is left out.

use crate::totals::Totals;
use crate::trial::gpu::Probe;
use millrace_cuda::nvml::Use;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What is not measured, from when the first frame has come to the last node on: engines and caches are cold.
const START_UP: Duration = Duration::from_secs(1);
/// Reports come twice a second: over less time than this they show little.
const LEAST_SECONDS: f64 = 2.0;

/// A node at one moment, by its last report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeMark {
    pub(crate) id: String,
    pid: u32,
    pub(crate) uptime_ns: u64,
    cpu_ns: u64,
    pub(crate) frames: u64,
    pub(crate) by_camera: BTreeMap<String, u64>,
    engine: Engine,
}

/// What a detector reports of its engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Engine {
    batches: u64,
    frames: u64,
    ns: u64,
    workers: u64,
    batch_most: u64,
}

/// All nodes that report, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mark(pub(crate) Vec<NodeMark>);

impl Mark {
    /// By the nodes' last reports.
    pub(crate) fn of<'a>(nodes: impl Iterator<Item = &'a Totals>) -> Self {
        let mark = |node: &Totals| {
            let last = node.last.as_ref()?;
            let gauge = |name: &str| node.gauge(name).and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
            Some(NodeMark {
                id: node.id.clone(),
                pid: last.pid,
                uptime_ns: last.uptime_ns,
                cpu_ns: last.cpu_ns,
                frames: node.frames(),
                by_camera: node.frames_by_camera(),
                engine: Engine {
                    batches: node.counter("engine_batches"),
                    frames: node.counter("engine_frames"),
                    ns: node.counter("engine_ns"),
                    workers: gauge("engine_workers").max(1),
                    batch_most: gauge("engine_batch_most").max(1),
                },
            })
        };
        Self(nodes.filter_map(mark).collect())
    }

    fn frames(&self) -> u64 {
        self.0.iter().map(|node| node.frames).sum()
    }
}

/// A detector between two marks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Detector {
    node: String,
    /// Frames a second in the graph.
    pub(crate) fps: f64,
    /// Frames a second of its engine while it has a batch in work.
    pub(crate) engine_fps: f64,
    /// Frames of a batch, the mean.
    pub(crate) batch: f64,
    batch_most: u64,
}

/// The use of one GPU, means over the looks at it, in percent.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Gpu {
    number: u32,
    busy: Option<f64>,
    nvdec: Option<f64>,
}

/// All figures between two marks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) seconds: f64,
    pub(crate) detectors: Vec<Detector>,
    gpus: Vec<Gpu>,
    pub(crate) cameras: usize,
    /// Processor time of all nodes, in cores.
    pub(crate) cpu_cores: f64,
    nodes: usize,
}

impl Figures {
    /// Between two marks; a node that was started again in between is left out. None where too little time is in between.
    pub(crate) fn between(first: &Mark, last: &Mark) -> Option<Self> {
        let mut figures = Self::default();
        let mut cameras: BTreeSet<&str> = BTreeSet::new();
        for now in &last.0 {
            let same = |before: &&NodeMark| before.id == now.id && before.pid == now.pid;
            let Some(before) = first.0.iter().find(same) else { continue };
            let seconds = now.uptime_ns.saturating_sub(before.uptime_ns) as f64 / 1e9;
            if seconds < LEAST_SECONDS {
                continue;
            }
            figures.seconds = figures.seconds.max(seconds);
            figures.nodes += 1;
            figures.cpu_cores += now.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9 / seconds;
            let moved =
                |(camera, frames): &(&String, &u64)| **frames > before.by_camera.get(*camera).copied().unwrap_or(0);
            cameras.extend(now.by_camera.iter().filter(moved).map(|(camera, _)| camera.as_str()));
            figures.detectors.extend(detector(before, now, seconds));
        }
        figures.cameras = cameras.len();
        (figures.nodes > 0).then_some(figures)
    }

    /// Lines for the user.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("efficiency, over {:.1} s after the start-up:", self.seconds)];
        for Detector { node, fps, engine_fps, batch, batch_most } in &self.detectors {
            let share = 100.0 * fps / engine_fps;
            lines.push(format!(
                "  {node}: {fps:.1} frames a second; its engine alone gives {engine_fps:.1} in batches of this size ({share:.0} % used)"
            ));
            lines.push(format!("  {node}: {batch:.1} frames a batch, of at most {batch_most}"));
        }
        for Gpu { number, busy, nvdec } in &self.gpus {
            let share = |what: &str, percent: Option<f64>| percent.map(|percent| format!("{what} {percent:.0} %"));
            let shares: Vec<String> = [share("busy", *busy), share("NVDEC", *nvdec)].into_iter().flatten().collect();
            if !shares.is_empty() {
                lines.push(format!("  GPU {number}: {}", shares.join(", ")));
            }
        }
        let (cores, nodes) = (self.cpu_cores, self.nodes);
        if self.cameras > 0 {
            let of_each = 100.0 * cores / self.cameras as f64;
            let some = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
            let (cameras, nodes) = (some(self.cameras, "camera"), some(nodes, "node"));
            lines.push(format!(
                "  CPU: {of_each:.1} % of a core a camera ({cameras}, {nodes}, {cores:.2} cores in all)"
            ));
        }
        lines
    }
}

fn detector(before: &NodeMark, now: &NodeMark, seconds: f64) -> Option<Detector> {
    let batches = now.engine.batches.checked_sub(before.engine.batches).filter(|batches| *batches > 0)?;
    let frames = now.engine.frames.saturating_sub(before.engine.frames) as f64;
    let engine_seconds = now.engine.ns.saturating_sub(before.engine.ns) as f64 / 1e9 / now.engine.workers as f64;
    (engine_seconds > 0.0).then(|| Detector {
        node: now.id.clone(),
        fps: frames / seconds,
        engine_fps: frames / engine_seconds,
        batch: frames / batches as f64,
        batch_most: now.engine.batch_most,
    })
}

/// Measures while a graph runs.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    probe: Probe,
    /// How many nodes have had frames, and since when so many.
    reached: (usize, Option<Instant>),
    marks: Option<(Mark, Mark)>,
    /// By device: sum and number of its looks, of its kernels' share and its decoders'.
    gpus: BTreeMap<u32, [(f64, u32); 2]>,
}

impl Meter {
    /// For a graph on these devices.
    pub(crate) fn new(probe: Probe) -> Self {
        Self { probe, ..Self::default() }
    }

    /// Looks at all nodes; twice a second is often enough.
    pub(crate) fn look(&mut self, nodes: &[Totals], now: Instant) {
        let reached = nodes.iter().filter(|node| node.frames() > 0).count();
        if reached > self.reached.0 {
            self.reached = (reached, Some(now));
        }
        if self.marks.is_none() && self.reached.1.is_none_or(|since| now - since < START_UP) {
            return;
        }
        let mark = Mark::of(nodes.iter());
        match &mut self.marks {
            None => self.marks = Some((mark.clone(), mark)),
            // a graph through which nothing goes any more is not measured
            Some((_, last)) if mark.frames() > last.frames() => {
                *last = mark;
                for (number, Use { gpu_percent, nvdec_percent, .. }) in self.probe.looks() {
                    let sums = self.gpus.entry(number).or_default();
                    for (sum, percent) in sums.iter_mut().zip([gpu_percent, nvdec_percent]) {
                        *sum = percent.map_or(*sum, |percent| (sum.0 + f64::from(percent), sum.1 + 1));
                    }
                }
            }
            Some(_) => {}
        }
    }

    /// What was measured, as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let figures = self.marks.as_ref().and_then(|(first, last)| Figures::between(first, last));
        let Some(mut figures) = figures else {
            return vec![format!(
                "efficiency: not measured, as frames came for less than {} s",
                START_UP.as_secs_f64() + LEAST_SECONDS
            )];
        };
        let mean = |(sum, looks): (f64, u32)| (looks > 0).then(|| sum / f64::from(looks));
        let gpu = |(number, [busy, nvdec]): (&u32, &[(f64, u32); 2])| Gpu {
            number: *number,
            busy: mean(*busy),
            nvdec: mean(*nvdec),
        };
        figures.gpus = self.gpus.iter().map(gpu).collect();
        figures.lines()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::{Counter, Gauge, NodeReport};

    /// A report of a detector after so many seconds: 20 frames a second of each of two cameras, in batches of 4, each of
    /// which its engine computes in 40 ms; a quarter of a core.
    fn report(id: &str, half_seconds: u64) -> NodeReport {
        let counter = |name: &str, source: &str, value| Counter {
            name: name.into(),
            source: source.into(),
            value,
            ..Counter::default()
        };
        let batches = 5 * half_seconds;
        let gauge = |name: &str, value| Gauge { name: name.into(), value, ..Gauge::default() };
        NodeReport {
            node: id.into(),
            pid: 7,
            uptime_ns: half_seconds * 500_000_000,
            cpu_ns: half_seconds * 125_000_000,
            counters: vec![
                counter("in", "a", 10 * half_seconds),
                counter("in", "b", 10 * half_seconds),
                counter("engine_batches", "", batches),
                counter("engine_frames", "", 4 * batches),
                counter("engine_ns", "", batches * 40_000_000),
            ],
            gauges: vec![gauge("engine_workers", 1), gauge("engine_batch_most", 16)],
            ..NodeReport::default()
        }
    }

    fn run(half_seconds: u64, restart_at: Option<u64>) -> Vec<String> {
        let (mut nodes, start) = ([Totals::new("detect"), Totals::new("foreign")], Instant::now());
        let mut meter = Meter::default();
        for n in 1..=half_seconds {
            let now = start + Duration::from_millis(500 * n);
            let pid = if restart_at.is_some_and(|at| n >= at) { 8 } else { 7 };
            nodes[0].take(NodeReport { pid, ..report("detect", n) }, now);
            meter.look(&nodes, now);
        }
        // nothing comes any more, and that is no part of it
        for n in half_seconds..half_seconds + 40 {
            meter.look(&nodes, start + Duration::from_millis(500 * n));
        }
        meter.lines()
    }

    #[test]
    fn the_graph_is_shown_beside_its_engine() {
        // 1 s after the first report, to the last report
        assert_eq!(
            run(23, None),
            [
                "efficiency, over 10.0 s after the start-up:",
                "  detect: 40.0 frames a second; its engine alone gives 100.0 in batches of this size (40 % used)",
                "  detect: 4.0 frames a batch, of at most 16",
                "  CPU: 12.5 % of a core a camera (2 cameras, 1 node, 0.25 cores in all)",
            ]
        );
    }

    #[test]
    fn what_was_not_measured_is_not_shown() {
        let not = ["efficiency: not measured, as frames came for less than 3 s"];
        assert_eq!(run(6, None), not);
        assert_eq!(run(23, Some(21)), not, "the node that was started again has no figures");
        assert_eq!(Meter::default().lines(), not);
    }
}
