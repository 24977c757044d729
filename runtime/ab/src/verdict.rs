//! The one word, and why.

use crate::analysis::LoadAnalysis;
use crate::detections::DetectionResult;
use crate::model::{Experiment, LoadRuns, Metric, Pace, Run, Side};
use crate::stats::{Comparison, Interval};
use crate::tensors::TensorResult;
use millrace_frame::counted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A shown change does not matter if both ends of its interval are within this share of A.
pub(crate) const SMALL: f64 = 0.005;
/// A tensor below this is a changed one. Of 8-bit pixels, an error of one level in every element is 48.1 dB and of two
/// levels 42.1 dB (20 log10(255 / levels)): rounding in another order stays above it.
pub(crate) const PSNR_DB: f64 = 42.0;
/// Points of mAP@0.5 by which quality may fall.
pub(crate) const MAP_POINTS: f64 = 0.5;
/// Share of A's boxes that may be gained or lost clearly.
pub(crate) const CLEAR_SHARE: f64 = 0.005;

/// The outcome of an experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// B is faster or cheaper.
    Faster,
    /// B is slower or dearer.
    Slower,
    /// Nothing that matters was shown.
    NoDifferenceShown,
    /// The arms do not compute the same, so speed decides nothing.
    QualityChanged,
    /// The runs cannot be compared.
    Failed,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faster => "faster",
            Self::Slower => "slower",
            Self::NoDifferenceShown => "no difference shown",
            Self::QualityChanged => "quality changed",
            Self::Failed => "failed",
        })
    }
}

/// The outcome with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The word.
    pub word: Word,
    /// One plain sentence.
    pub reason: String,
}

/// The node that limits an arm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bottleneck {
    /// The node.
    pub node: String,
    /// What it was busy for a frame: the larger of its median work and its processor time.
    pub busy_ns_per_frame: u64,
    /// Time between two frames of the arm at that load.
    pub frame_ns: u64,
}

pub(crate) fn primary(pace: Pace, metrics: &[Comparison]) -> Metric {
    let order: &[Metric] = match pace {
        Pace::Saturated => &[Metric::Fps],
        Pace::Cameras => &[Metric::LatencyP50Ms, Metric::CpuMsPerFrame],
    };
    order.iter().copied().find(|m| metrics.iter().any(|c| c.metric == *m)).unwrap_or(order[0])
}

/// What one comparison says: -1 worse, 1 better, 0 nothing that matters.
pub(crate) fn direction(c: &Comparison) -> i8 {
    let Some(Interval { low, high }) = c.interval_99 else { return 0 };
    let (none, small) = if c.by_difference { (0.0, 0.0) } else { (1.0, SMALL) };
    let matters = high > none + small || low < none - small;
    let up = match () {
        () if !matters => 0,
        () if low > none => 1,
        () if high < none => -1,
        () => 0,
    };
    if c.metric.more_is_better() { up } else { -up }
}

pub(crate) fn verdict(
    experiment: &Experiment,
    loads: &[LoadAnalysis],
    tensors: Option<&TensorResult>,
    detections: Option<&DetectionResult>,
) -> Verdict {
    let say = |word, reason| Verdict { word, reason };
    if let Some(reason) = unusable(experiment) {
        return say(Word::Failed, reason);
    }
    if let Some(reason) = quality(tensors, detections) {
        return say(Word::QualityChanged, reason);
    }
    // throughput at saturation decides first, then latency, then processor time at the cameras' rate
    let mut order: Vec<(&LoadAnalysis, &Comparison)> = Vec::new();
    for (pace, metric) in
        [(Pace::Saturated, Metric::Fps), (Pace::Cameras, Metric::LatencyP50Ms), (Pace::Cameras, Metric::CpuMsPerFrame)]
    {
        order.extend(loads.iter().filter(|l| l.pace == pace).filter_map(|l| Some((l, l.metric(metric)?))));
    }
    // three looks at 99 % each are still wrong less often than one in twenty (ADR 0014)
    let mut shown = order.iter().filter(|(_, c)| direction(c) != 0);
    if let Some((load, c)) = shown.next() {
        let up = direction(c) > 0;
        let against = shown.find(|(_, other)| (direction(other) > 0) != up);
        let but = against.map_or_else(String::new, |(l, c)| format!("; but {}: {}", l.title(), sentence(c)));
        let word = if up { Word::Faster } else { Word::Slower };
        return say(word, format!("{}: {}{but}.", load.title(), sentence(c)));
    }
    match order.first() {
        Some((load, c)) if c.interval_99.is_none() => say(
            Word::NoDifferenceShown,
            format!("{}: one round gives no interval; measure at least 4 rounds.", load.title()),
        ),
        Some((load, c)) => {
            let small = c.interval_99.is_some_and(|i| !(i.low..=i.high).contains(&1.0)) && !c.by_difference;
            let why = if small {
                format!("which is not 1, but within {} %, too little to matter", SMALL * 100.0)
            } else {
                "which includes no change".to_owned()
            };
            say(Word::NoDifferenceShown, format!("{}: {}, {why}.", load.title(), sentence(c)))
        }
        None => say(Word::NoDifferenceShown, "nothing that decides about speed was measured.".to_owned()),
    }
}

fn sentence(c: &Comparison) -> String {
    let (what, of) = if c.by_difference { ("B - A", "") } else { ("B/A", "x") };
    let interval =
        c.interval_99.map_or_else(String::new, |i| format!(" (99 % interval {:.3} to {:.3})", i.low, i.high));
    format!("{} {what} = {:.3}{of}{interval}", c.metric.title(), c.change)
}

fn unusable(experiment: &Experiment) -> Option<String> {
    for load in &experiment.loads {
        let name = |run: &Run| {
            let side = if run.side == Side::A { "A" } else { "B" };
            format!("run {} of round {} (arm {side})", run.place, run.round)
        };
        if let Some((run, failure)) = load.runs.iter().find_map(|r| Some((r, r.failure.as_ref()?))) {
            return Some(format!("{} is not to be used: {failure}", name(run)));
        }
        // live runs may lose frames, which is a figure of theirs; with every frame asked for, all runs have the same
        if load.pace == Pace::Saturated
            && let Some(first) = load.runs.first()
            && let Some(run) = load.runs.iter().find(|r| r.frames != first.frames)
        {
            return Some(format!(
                "{} counted {} and {} {}: the arms did not do the same work.",
                name(first),
                counted(first.frames, "frame", "frames"),
                name(run),
                run.frames
            ));
        }
        if load.runs.is_empty() || load.runs.iter().all(|r| r.frames == 0) {
            return Some("no run published a frame.".to_owned());
        }
    }
    (experiment.loads.is_empty() && experiment.quality.is_none()).then(|| "nothing was measured.".to_owned())
}

fn quality(tensors: Option<&TensorResult>, detections: Option<&DetectionResult>) -> Option<String> {
    let mut faults = Vec::new();
    if let Some(worst) = tensors.and_then(|t| t.worst_db).filter(|db| *db < PSNR_DB) {
        faults.push(format!("the worst frame's tensor has {worst:.1} dB, less than {PSNR_DB} dB"));
    }
    if let Some(d) = detections {
        if d.frames_unpaired > 0 {
            faults.push(format!("{} with detections of one arm only", counted(d.frames_unpaired, "frame", "frames")));
        }
        if let Some(drop) = d.map_drop().filter(|m| *m > MAP_POINTS) {
            faults.push(format!("mAP@0.5 falls by {drop:.2} points, more than {MAP_POINTS}"));
        }
        let clear = d.gained_clear + d.lost_clear;
        // one box of a few is a share that rounding does not make: at least one has to go beyond the share
        if clear as f64 > CLEAR_SHARE * d.boxes_a as f64 {
            faults.push(format!(
                "of {}, {} clear ones are gained and {} lost",
                counted(d.boxes_a, "box", "boxes"),
                d.gained_clear,
                d.lost_clear
            ));
        }
    }
    (!faults.is_empty()).then(|| format!("{}.", faults.join("; ")))
}

/// The busiest node of each arm, over the runs' medians.
pub(crate) fn bottlenecks(load: &LoadRuns) -> [Option<Bottleneck>; 2] {
    [Side::A, Side::B].map(|side| {
        let runs: Vec<_> = load.runs.iter().filter(|r| r.side == side && r.frames > 0).collect();
        let mut busy: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for stage in runs.iter().flat_map(|r| &r.stages) {
            busy.entry(&stage.node).or_default().push(stage.work_p50_ns.max(stage.cpu_ns_per_frame));
        }
        let median = |mut v: Vec<u64>| {
            v.sort_unstable();
            v[v.len() / 2]
        };
        let frame_ns = median(
            runs.iter()
                .map(|r| r.took_ns / r.frames)
                .collect::<Vec<_>>()
                .into_iter()
                .chain(runs.is_empty().then_some(0))
                .collect(),
        );
        let (node, busy_ns_per_frame) =
            busy.into_iter().map(|(node, v)| (node, median(v))).max_by_key(|(_, busy)| *busy)?;
        Some(Bottleneck { node: node.to_owned(), busy_ns_per_frame, frame_ns })
    })
}
