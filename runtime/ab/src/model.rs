//! What was measured: the raw record of an experiment, as the JSON report has it.

use millrace_frame::DetBox;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;

/// Everything that was measured of two graphs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Experiment {
    /// Version of this form: [`SCHEMA`].
    pub schema: u32,
    /// What is compared, for headings.
    pub title: String,
    /// Day of the measurement, as `2026-11-24`, UTC.
    pub date: String,
    /// The command that repeats it.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// The two arms: A, then B.
    pub arms: [Arm; 2],
    /// What differs between the arms: effective settings and programs, nothing else.
    pub differences: Vec<Difference>,
    /// The runs, by load.
    pub loads: Vec<LoadRuns>,
    /// What came out of the arms on identical frames; `None` where it was not compared.
    pub quality: Option<Quality>,
}

/// The machine of a measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: u32,
    /// Main memory in bytes.
    pub memory_bytes: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The GPU's name, where a graph uses one.
    pub gpu: Option<String>,
    /// The driver's version.
    pub driver: Option<String>,
    /// Programs and their versions: millrace with its commit, dora, libraries.
    pub versions: Vec<(String, String)>,
}

/// One of the two graphs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arm {
    /// Name for tables: the graph's file stem, or the `--set` that makes it differ.
    pub name: String,
    /// The graph file.
    pub graph: String,
    /// Settings of the command line, as `node.KEY=value`.
    pub sets: Vec<String>,
}

/// One place in which the arms differ.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// `node.KEY`, or `node` where the program differs or one arm has no such node.
    pub what: String,
    /// In arm A; `None` where it is not there.
    pub a: Option<String>,
    /// In arm B.
    pub b: Option<String>,
}

/// How the graphs were driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// As fast as the graph goes, every frame (`FLOW: lossless`, `PACE: asfast`).
    Saturated,
    /// At the cameras' own rate (`FLOW: live`, `PACE: realtime`).
    Cameras,
}

/// All runs of one load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadRuns {
    /// How the graphs were driven.
    pub pace: Pace,
    /// The node after which the graphs were cut off; `None` for the whole graphs.
    pub until: Option<String>,
    /// Cameras in the graph.
    pub cameras: u32,
    /// Frames of each run, of all cameras, that were not counted.
    pub warm_up_frames: u64,
    /// Both arms ran at the same time, fed from the same decoders.
    pub together: bool,
    /// The runs, in the order in which they were made.
    pub runs: Vec<Run>,
}

/// Which arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The first graph.
    A,
    /// The second graph.
    B,
}

/// One run of one arm. A round is A B B A, so a round has two pairs: runs 0 and 1, and runs 3 and 2.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Its arm.
    pub side: Side,
    /// The round, from 0.
    pub round: u32,
    /// The place in the round: 0 to 3.
    pub place: u32,
    /// Frames that were counted, after the warm-up.
    pub frames: u64,
    /// Time in which they were published, in nanoseconds.
    pub took_ns: u64,
    /// The figures of the run, one a metric.
    pub figures: BTreeMap<Metric, f64>,
    /// Times at each node, in the graph's order.
    pub stages: Vec<Stage>,
    /// Frames that were lost, by `node: cause`.
    pub drops: BTreeMap<String, u64>,
    /// Counters of the nodes, by `node.counter`, of the whole run: they prove what ran.
    pub counters: BTreeMap<String, u64>,
    /// Why it is not to be used; such a run makes the experiment fail.
    pub failure: Option<String>,
}

/// Times at one node of one run, in nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stage {
    /// The node.
    pub node: String,
    /// Median time that a frame took in the node's own work.
    pub work_p50_ns: u64,
    /// Its 95th percentile.
    pub work_p95_ns: u64,
    /// Its 99th percentile.
    pub work_p99_ns: u64,
    /// Median age of a frame (since its capture) when it reached the node; 0 for a source.
    pub age_p50_ns: u64,
    /// Its 95th percentile.
    pub age_p95_ns: u64,
    /// Its 99th percentile.
    pub age_p99_ns: u64,
    /// Processor time that the node took a frame.
    pub cpu_ns_per_frame: u64,
}

/// A figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Frames a second, of all cameras.
    Fps,
    /// Median time from capture to publication, in milliseconds.
    LatencyP50Ms,
    /// Its 95th percentile.
    LatencyP95Ms,
    /// Its 99th percentile.
    LatencyP99Ms,
    /// Processor time of all nodes a frame, in milliseconds.
    CpuMsPerFrame,
    /// Share of one core, in percent, for each camera.
    CpuPercentPerCamera,
    /// Resident memory of all nodes at its highest, in MiB; pages that several share are counted once.
    MemoryMib,
    /// GPU memory that the graph took, in MiB.
    GpuMemoryMib,
    /// Share of the time in which a kernel ran, in percent.
    GpuPercent,
    /// Share of the time in which the GPU's memory was read or written, in percent.
    GpuMemoryBusyPercent,
    /// Use of the decoder engines, in percent.
    NvdecPercent,
    /// Bytes that our code read and wrote, in MB a frame.
    MovedMbPerFrame,
    /// Share of the frames that were lost, in percent.
    DroppedPercent,
}

/// What the arms made of identical frames.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Quality {
    /// The model's input of each frame, compared; empty where the arms have no tensors in common.
    pub tensors: Vec<TensorPair>,
    /// What arm A found, a frame each.
    pub detections_a: Vec<FrameBoxes>,
    /// What arm B found.
    pub detections_b: Vec<FrameBoxes>,
    /// What is to be seen, where that is known.
    pub truth: Vec<FrameBoxes>,
    /// Boxes that score less are no boxes to the detector.
    pub score_threshold: f32,
    /// Pictures of the frames that differ most, worst first.
    pub pictures: Vec<Picture>,
}

/// The tensors that both arms made of one frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorPair {
    /// Camera id.
    pub source: String,
    /// Number of the frame within its camera.
    pub seq: u64,
    /// Presentation time, nanoseconds.
    pub pts_ns: i64,
    /// Elements of each tensor.
    pub elements: u64,
    /// How many of them differ.
    pub differing: u64,
    /// Sum of the squared differences.
    pub sum_squared: f64,
    /// The largest difference, without its sign.
    pub largest: f64,
    /// The least and the greatest element of arm A's tensor.
    pub range_a: [f64; 2],
}

/// The boxes of one frame.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FrameBoxes {
    /// Camera id.
    pub source: String,
    /// Number of the frame within its camera.
    pub seq: u64,
    /// Presentation time, nanoseconds.
    pub pts_ns: i64,
    /// The boxes. Of truth, the score is 1, and `ignore` ones (too small or hidden to count either way) stand in `ignored`.
    pub boxes: Vec<DetBox>,
    /// Truth only: boxes whose detection counts neither for nor against.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<DetBox>,
}

/// A frame to look at.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Picture {
    /// Camera id.
    pub source: String,
    /// Number of the frame within its camera.
    pub seq: u64,
    /// Size of the frame, which the boxes are in.
    pub width_px: u32,
    /// Its height.
    pub height_px: u32,
    /// The frame as JPEG, base64.
    pub jpeg_base64: String,
}
