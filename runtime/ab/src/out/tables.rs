//! The words and figures that all forms of the report share.

use super::Report;
use crate::analysis::LoadAnalysis;
use crate::model::{Difference, LoadRuns, Machine, Metric, Pace, Side, Stage};
use crate::stats::{Comparison, Interval};
use millrace_frame::counted;

/// A figure with about three digits.
pub(super) fn number(v: f64) -> String {
    match v.abs() {
        a if a >= 100.0 => format!("{v:.0}"),
        a if a >= 10.0 => format!("{v:.1}"),
        a if a >= 1.0 || a == 0.0 => format!("{v:.2}"),
        _ => format!("{v:.3}"),
    }
}

/// One line of a load's table.
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) primary: bool,
    pub(super) a: String,
    pub(super) b: String,
    pub(super) change: String,
    pub(super) interval: String,
    pub(super) interval_99: String,
    pub(super) spread: String,
}

impl Row {
    pub(super) const HEADS: [&'static str; 7] =
        ["metric", "A", "B", "B/A", "95 % interval", "99 % interval", "A against A"];

    pub(super) fn cells(&self) -> [&str; 6] {
        [&self.a, &self.b, &self.change, &self.interval, &self.interval_99, &self.spread]
    }
}

pub(super) fn rows(load: &LoadAnalysis) -> Vec<Row> {
    let row = |c: &Comparison| {
        let change = |v: f64| if c.by_difference { format!("{v:+.2}") } else { format!("{v:.3}") };
        let span = |i: Option<Interval>| {
            i.map_or_else(|| "-".to_owned(), |i| format!("{} to {}", change(i.low), change(i.high)))
        };
        Row {
            title: c.metric.title(),
            primary: c.metric == load.primary,
            a: number(c.a),
            b: number(c.b),
            change: change(c.change),
            interval: span(c.interval_95),
            interval_99: span(c.interval_99),
            spread: c.spread_a.map_or_else(
                || "-".to_owned(),
                |s| if c.by_difference { format!("±{s:.2}") } else { format!("±{s:.1} %") },
            ),
        }
    };
    load.metrics.iter().map(row).collect()
}

/// How a load was measured.
pub(super) fn conditions(load: &LoadRuns) -> String {
    let rounds = load.runs.iter().map(|r| r.round).max().map_or(0, |r| r + 1);
    let frames = load.runs.iter().map(|r| r.frames);
    let frames = match (frames.clone().min(), frames.max()) {
        (Some(low), Some(high)) if low == high => format!("{} a run", counted(low, "frame", "frames")),
        (Some(low), Some(high)) => format!("{low} to {high} frames a run"),
        _ => "no runs".to_owned(),
    };
    let cameras = counted(load.cameras, "camera", "cameras");
    let pace = match load.pace {
        Pace::Saturated => "as fast as the graph goes, every frame",
        Pace::Cameras => "at the cameras' rate",
    };
    let together = if load.together { ", both arms at the same time behind one decode" } else { "" };
    let of = if load.together { "" } else { " of A B B A" };
    format!("{pace}; {cameras}, {rounds} rounds{of}, {frames} after {} of warm-up{together}", load.warm_up_frames)
}

/// Median over the runs of a node's times, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) work_p50: f64,
    pub(super) work_p99: f64,
    pub(super) age_p50: f64,
    pub(super) age_p99: f64,
    pub(super) cpu: f64,
}

/// Each node of either arm with its times in A and B.
pub(super) fn stages(load: &LoadRuns) -> Vec<(&str, [Option<Times>; 2])> {
    let mut nodes: Vec<&str> = Vec::new();
    for stage in load.runs.iter().flat_map(|r| &r.stages) {
        if !nodes.contains(&stage.node.as_str()) {
            nodes.push(&stage.node);
        }
    }
    let times = |node: &str, side: Side| {
        let of: Vec<&Stage> =
            load.runs.iter().filter(|r| r.side == side).flat_map(|r| &r.stages).filter(|s| s.node == node).collect();
        let median = |f: fn(&Stage) -> u64| {
            let mut values: Vec<u64> = of.iter().map(|s| f(s)).collect();
            values.sort_unstable();
            values[values.len() / 2] as f64 / 1e6
        };
        (!of.is_empty()).then(|| Times {
            work_p50: median(|s| s.work_p50_ns),
            work_p99: median(|s| s.work_p99_ns),
            age_p50: median(|s| s.age_p50_ns),
            age_p99: median(|s| s.age_p99_ns),
            cpu: median(|s| s.cpu_ns_per_frame),
        })
    };
    nodes.into_iter().map(|n| (n, [times(n, Side::A), times(n, Side::B)])).collect()
}

/// Frames lost, summed over the runs: (`node: cause`, A, B).
pub(super) fn drops(load: &LoadRuns) -> Vec<(&str, u64, u64)> {
    let mut rows: Vec<(&str, u64, u64)> = Vec::new();
    for run in &load.runs {
        for (what, count) in &run.drops {
            let at = rows.iter().position(|r| r.0 == what).unwrap_or_else(|| {
                rows.push((what, 0, 0));
                rows.len() - 1
            });
            match run.side {
                Side::A => rows[at].1 += count,
                Side::B => rows[at].2 += count,
            }
        }
    }
    rows
}

/// Counters of each arm's first run that are not the same: what ran, by the nodes' own count.
pub(super) fn counters(load: &LoadRuns) -> Vec<(&str, Option<u64>, Option<u64>)> {
    let first = |side| load.runs.iter().find(|r| r.side == side).map(|r| &r.counters);
    let (Some(a), Some(b)) = (first(Side::A), first(Side::B)) else { return Vec::new() };
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let rows = names.into_iter().map(|n| (n.as_str(), a.get(n).copied(), b.get(n).copied()));
    rows.filter(|(_, a, b)| a != b).collect()
}

/// What limits the arms at a load, and whether what differs could change that.
pub(super) fn bottleneck(load: &LoadAnalysis, differences: &[Difference]) -> Option<String> {
    let [Some(a), Some(b)] = &load.bottleneck else { return None };
    let one = |name: &str, n: &crate::Bottleneck| {
        let (busy, frame) = (number(n.busy_ns_per_frame as f64 / 1e6), number(n.frame_ns as f64 / 1e6));
        if n.busy_ns_per_frame > n.frame_ns {
            // a decoder has several cameras, a detector several workers
            return format!(
                "{name}: '{}' is the busiest node: {busy} ms a frame, several at a time, one every {frame} ms",
                n.node
            );
        }
        format!("{name}: '{}' is the busiest node, {busy} ms of the {frame} ms between two frames", n.node)
    };
    let mut text = format!("{}; {}.", one("A", a), one("B", b));
    let touched: Vec<&str> =
        differences.iter().map(|d| d.what.rsplit_once('.').map_or(d.what.as_str(), |(node, _)| node)).collect();
    // no reason is looked for where there was a gain
    let none_shown =
        load.pace == Pace::Saturated && load.metric(load.primary).is_some_and(|c| crate::verdict::direction(c) == 0);
    if none_shown && a.node == b.node && !touched.is_empty() && !touched.contains(&a.node.as_str()) {
        text += &format!(" The arms do not differ in '{}', so what they differ in can hardly raise the rate.", a.node);
    }
    if none_shown && [a, b].iter().all(|n| n.busy_ns_per_frame * 2 < n.frame_ns) {
        text +=
            " No node is busy for half of the time: the hand-over between nodes, or the machine's cores, limit both.";
    }
    Some(text)
}

/// What the experiment says nothing about.
pub(super) fn not_measured(report: &Report) -> Vec<String> {
    let loads = &report.analysis.loads;
    let mut list = Vec::new();
    for (pace, name) in [
        (Pace::Saturated, "as fast as the graphs go (saturated)"),
        (Pace::Cameras, "at the cameras' rate: latency and processor time under a fixed load"),
    ] {
        if !loads.iter().any(|l| l.pace == pace) {
            list.push(name.to_owned());
        }
    }
    if !loads.is_empty() && loads.iter().all(|l| l.until.is_some()) {
        list.push("the whole graphs, end to end".to_owned());
    }
    let missing: Vec<_> =
        Metric::ALL.into_iter().filter(|m| !loads.iter().any(|l| l.metric(*m).is_some())).map(Metric::title).collect();
    if !missing.is_empty() {
        list.push(missing.join("; "));
    }
    if report.analysis.tensors.is_none() {
        list.push("the tensors of identical frames (no PSNR)".to_owned());
    }
    match &report.analysis.detections {
        None => list.push("the detections of identical frames".to_owned()),
        Some(d) if d.a_against_truth.is_none() => list.push("detections against a truth".to_owned()),
        Some(_) => {}
    }
    list
}

/// The rows of the tensors' table.
pub(super) fn tensor_rows(report: &Report) -> Vec<(&'static str, String)> {
    let Some(t) = &report.analysis.tensors else { return Vec::new() };
    let db = |v: Option<f64>| v.map_or_else(|| "identical".to_owned(), |v| format!("{v:.1} dB"));
    vec![
        ("frames", t.frames.to_string()),
        ("PSNR of the worst frame", db(t.worst_db)),
        ("median PSNR", db(t.median_db)),
        ("largest difference", format!("{} (range of A: {})", number(t.largest), number(t.peak))),
        ("elements that differ", format!("{:.3} %", t.differing * 100.0)),
    ]
}

/// The rows of the detections' table.
pub(super) fn detection_rows(report: &Report) -> Vec<(&'static str, String)> {
    let Some(d) = &report.analysis.detections else { return Vec::new() };
    let mut rows = vec![
        ("frames", d.frames.to_string()),
        ("boxes of A, of B", format!("{}, {}", d.boxes_a, d.boxes_b)),
        ("gained by B, lost by B", format!("{}, {}", d.gained, d.lost)),
        ("clear ones of them", format!("{}, {}", d.gained_clear, d.lost_clear)),
    ];
    for (name, accuracy) in [
        ("B against A: mAP@0.5, mAP@[.5:.95]", d.b_against_a),
        ("A against the truth", d.a_against_truth),
        ("B against the truth", d.b_against_truth),
    ] {
        if let Some(m) = accuracy {
            rows.push((name, format!("{:.2} %, {:.2} %", m.map_50 * 100.0, m.map_50_95 * 100.0)));
        }
    }
    if d.frames_unpaired > 0 {
        rows.push(("frames of one arm only", d.frames_unpaired.to_string()));
    }
    rows
}

/// The machine and the programs.
pub(super) fn machine(date: &str, m: &Machine) -> Vec<(String, String)> {
    let mut rows = vec![
        ("date".to_owned(), date.to_owned()),
        ("processor".to_owned(), format!("{}, {} cores", m.cpu, m.cores)),
        ("memory".to_owned(), format!("{:.1} GiB", m.memory_bytes as f64 / f64::from(1u32 << 30))),
        ("kernel".to_owned(), m.kernel.clone()),
    ];
    for (name, value) in [("GPU", &m.gpu), ("driver", &m.driver)] {
        rows.extend(value.as_ref().map(|v| (name.to_owned(), v.clone())));
    }
    rows.extend(m.versions.iter().cloned());
    rows
}
