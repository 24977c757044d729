//! From what a run left behind to its figures.

use crate::trial::gpu::Sample;
use crate::trial::launch::{NodeWatch, Watched};
use anyhow::Context;
use millrace_ab::model::{FrameBoxes, Metric, Stage};
use millrace_frame::DetBox;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A line of `ab-sink`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Record {
    pub(super) source: String,
    pub(super) seq: u64,
    pub(super) pts_ns: i64,
    pub(super) capture_ns: i64,
    pub(super) arrival_ns: i64,
    #[serde(default)]
    pub(super) boxes: Vec<DetBox>,
}

impl From<Record> for FrameBoxes {
    fn from(record: Record) -> Self {
        let Record { source, seq, pts_ns, boxes, .. } = record;
        Self { source, seq, pts_ns, boxes, ignored: Vec::new() }
    }
}

/// Reads a file of JSON lines.
pub(super) fn lines<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let read = |(at, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), at + 1))
    };
    text.lines().enumerate().map(read).collect()
}

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Frames of each camera that come first and are not counted.
    pub(super) warm_up: u64,
    /// Frames of each camera in all; later ones are not looked at.
    pub(super) all: u64,
    /// None may be lost.
    pub(super) lossless: bool,
}

/// The counted part of a run.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) cameras: u32,
    pub(super) frames: u64,
    pub(super) took_ns: u64,
    begin_ns: i64,
    end_ns: i64,
    /// From capture to arrival, sorted.
    latency_ns: Vec<u64>,
    dropped_percent: f64,
}

/// Finds the counted part. Where cameras keep their own time, that is what arrived after the last of them had its warm-up.
/// Where every frame comes and cameras may run ahead of each other, it is what arrived after as many frames as the warm-ups
/// of all have: so every run counts as many.
pub(super) fn window(records: &[Record], asked: Asked) -> Result<Window, String> {
    let records: Vec<&Record> = records.iter().filter(|record| record.seq < asked.all).collect();
    let sources: BTreeSet<&str> = records.iter().map(|record| record.source.as_str()).collect();
    let cameras = sources.len() as u64;
    let wanted = asked.all * cameras.max(1);
    if asked.lossless && (records.len() as u64) < wanted {
        return Err(format!("{} of {wanted} frames arrived, and none may be lost", records.len()));
    }
    let mut by_arrival = records.clone();
    by_arrival.sort_by_key(|record| record.arrival_ns);
    let first = by_arrival.first().ok_or("nothing arrived")?.arrival_ns;
    let warm_ups = match asked.lossless {
        true => (asked.warm_up * cameras) as usize,
        false => by_arrival.iter().rposition(|record| record.seq < asked.warm_up).map_or(0, |last| last + 1),
    };
    let begin_ns = warm_ups.checked_sub(1).and_then(|last| by_arrival.get(last)).map_or(first, |r| r.arrival_ns);
    let late = |record: &&&Record| asked.lossless || record.seq >= asked.warm_up;
    let counted: Vec<&&Record> = by_arrival.iter().skip(warm_ups).filter(late).collect();
    let end_ns = counted.iter().map(|record| record.arrival_ns).max().ok_or("nothing arrived after the warm-up")?;
    let mut latency_ns: Vec<u64> =
        counted.iter().map(|record| (record.arrival_ns - record.capture_ns).max(0) as u64).collect();
    latency_ns.sort_unstable();
    let expected = asked.all.saturating_sub(asked.warm_up) * cameras;
    let seen = records.iter().filter(|record| record.seq >= asked.warm_up).count() as u64;
    let lost = expected.saturating_sub(seen);
    Ok(Window {
        cameras: cameras as u32,
        frames: counted.len() as u64,
        took_ns: (end_ns - begin_ns).max(1) as u64,
        begin_ns,
        end_ns,
        latency_ns,
        dropped_percent: if expected == 0 { 0.0 } else { 100.0 * lost as f64 / expected as f64 },
    })
}

/// Value at a share of a sorted list, the next higher one.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

/// Processor time at a time, between the two reports around it.
fn cpu_at(reports: &[(i64, u64)], at_ns: i64) -> Option<f64> {
    let after = reports.iter().position(|(time, _)| *time >= at_ns);
    match after {
        Some(0) => reports.first().map(|(_, cpu)| *cpu as f64),
        Some(index) => {
            let ((t0, c0), (t1, c1)) = (reports[index - 1], reports[index]);
            let share = if t1 > t0 { (at_ns - t0) as f64 / (t1 - t0) as f64 } else { 1.0 };
            Some(c0 as f64 + share * (c1 as f64 - c0 as f64))
        }
        None => reports.last().map(|(_, cpu)| *cpu as f64),
    }
}

/// Processor time that a node took in the counted part.
fn cpu_ns(node: &NodeWatch, window: &Window) -> f64 {
    match (cpu_at(&node.cpu, window.begin_ns), cpu_at(&node.cpu, window.end_ns)) {
        (Some(begin), Some(end)) => (end - begin).max(0.0),
        _ => 0.0,
    }
}

/// All figures of a run. `which` are the nodes of the arm, by their place in the graph; `records` in number is all that
/// arrived, as the counters of bytes are of the whole run.
pub(super) fn figures(watched: &Watched, which: &[usize], window: &Window, records: usize) -> BTreeMap<Metric, f64> {
    let mut all = BTreeMap::new();
    let (frames, took_s) = (window.frames as f64, window.took_ns as f64 / 1e9);
    all.insert(Metric::Fps, frames / took_s);
    for (metric, share) in [(Metric::LatencyP50Ms, 0.5), (Metric::LatencyP95Ms, 0.95), (Metric::LatencyP99Ms, 0.99)] {
        all.insert(metric, quantile(&window.latency_ns, share) as f64 / 1e6);
    }
    let nodes = || which.iter().map(|index| &watched.nodes[*index]);
    let cpu: f64 = nodes().map(|node| cpu_ns(node, window)).sum();
    if cpu > 0.0 {
        all.insert(Metric::CpuMsPerFrame, cpu / 1e6 / frames);
        all.insert(Metric::CpuPercentPerCamera, cpu / 1e7 / took_s / f64::from(window.cameras.max(1)));
    }
    let memory = watched.memory.iter().map(|look| which.iter().filter_map(|index| look.get(*index)).sum::<u64>());
    if let Some(most) = memory.max().filter(|most| *most > 0) {
        all.insert(Metric::MemoryMib, most as f64 / f64::from(1 << 20));
    }
    let moved: u64 = nodes()
        .map(|node| ["bytes_in", "bytes_out", "bytes_inside"].iter().map(|c| node.totals.counter(c)).sum::<u64>())
        .sum();
    if moved > 0 {
        all.insert(Metric::MovedMbPerFrame, moved as f64 / 1e6 / records.max(1) as f64);
    }
    all.insert(Metric::DroppedPercent, window.dropped_percent);
    gpu(watched, window, &mut all);
    all
}

/// Means over the counted part, and the most of the memory.
fn gpu(watched: &Watched, window: &Window, all: &mut BTreeMap<Metric, f64>) {
    let counted = || {
        let inside = |at: i64| (window.begin_ns..=window.end_ns).contains(&at);
        watched.gpu.iter().filter(move |(at, _)| inside(*at)).map(|(_, sample)| sample)
    };
    let mut mean = |metric, of: fn(&Sample) -> Option<f64>| {
        let values: Vec<f64> = counted().filter_map(of).collect();
        if !values.is_empty() {
            all.insert(metric, values.iter().sum::<f64>() / values.len() as f64);
        }
    };
    mean(Metric::GpuPercent, |sample| sample.gpu_percent);
    mean(Metric::GpuMemoryBusyPercent, |sample| sample.memory_percent);
    mean(Metric::NvdecPercent, |sample| sample.nvdec_percent);
    if let Some(most) = counted().filter_map(|sample| sample.memory_mib).reduce(f64::max) {
        all.insert(Metric::GpuMemoryMib, most);
    }
}

/// Times at each node: what it needed for a frame itself, and how old the frame was when it came.
pub(super) fn stages(watched: &Watched, which: &[usize], window: &Window) -> Vec<Stage> {
    let stage = |index: &usize| {
        let node = &watched.nodes[*index];
        let work = work(node);
        let age = times(node, "age");
        Stage {
            node: node.totals.id.clone(),
            work_p50_ns: work[0],
            work_p95_ns: work[1],
            work_p99_ns: work[2],
            age_p50_ns: age[0],
            age_p95_ns: age[1],
            age_p99_ns: age[2],
            cpu_ns_per_frame: (cpu_ns(node, window) / window.frames.max(1) as f64) as u64,
        }
    };
    which.iter().map(stage).collect()
}

/// A node that takes items tells how long each kept it busy. A source tells how long each of its steps took.
fn work(node: &NodeWatch) -> [u64; 3] {
    let busy = times(node, "busy");
    if busy[0] > 0 {
        return busy;
    }
    let steps: BTreeSet<&str> =
        node.totals.last.iter().flat_map(|last| &last.latency).map(|times| times.name.as_str()).collect();
    let mut sum = [0; 3];
    for step in steps.into_iter().filter(|name| !matches!(*name, "age" | "result_age" | "on_input" | "busy")) {
        for (all, one) in sum.iter_mut().zip(times(node, step)) {
            *all += one;
        }
    }
    sum
}

/// Median, 95th and 99th percentile of a node's times: the mean over its cameras, by their counts.
fn times(node: &NodeWatch, name: &str) -> [u64; 3] {
    let all = node.totals.last.iter().flat_map(|last| &last.latency);
    let all: Vec<_> = all.filter(|times| times.name == name && times.count > 0).collect();
    let count: f64 = all.iter().map(|times| times.count as f64).sum();
    if count == 0.0 {
        return [0; 3];
    }
    let mean = |of: fn(&crate::status::Latency) -> u64| {
        (all.iter().map(|times| of(times) as f64 * times.count as f64).sum::<f64>() / count) as u64
    };
    [mean(|t| t.p50_ns), mean(|t| t.p95_ns), mean(|t| t.p99_ns)]
}

/// What was lost, by node and cause.
pub(super) fn drops(watched: &Watched, which: &[usize]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for node in which.iter().map(|index| &watched.nodes[*index].totals) {
        for ((cause, _), lost) in node.losses() {
            *all.entry(format!("{}: {cause}", node.id)).or_default() += lost;
        }
    }
    all
}

/// All counters, by node and name.
pub(super) fn counters(watched: &Watched, which: &[usize]) -> BTreeMap<String, u64> {
    let nodes = which.iter().map(|index| &watched.nodes[*index].totals);
    nodes
        .flat_map(|node| node.counters().into_iter().map(|(name, value)| (format!("{}.{name}", node.id), value)))
        .collect()
}
