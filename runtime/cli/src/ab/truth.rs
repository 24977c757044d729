//! What is to be seen in the frames, where a file beside the clip says so, and from which score on a box is one.

use crate::trial::plan::{Plan, PlanNode};
use anyhow::Context;
use millrace_ab::model::FrameBoxes;
use millrace_frame::DetBox;
use millrace_graph::yaml::Yaml;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The name of the file beside a clip.
const BESIDE: &str = "truth.jsonl";

#[derive(Deserialize)]
struct Line {
    seq: u64,
    #[serde(default)]
    pts_ns: i64,
    boxes: Vec<TrueBox>,
}

#[derive(Deserialize)]
struct TrueBox {
    x1: f32,
    y1: f32,
    x2: f32,
    y2: f32,
    class_id: u32,
    #[serde(default)]
    label: String,
    /// Too small or too hidden to count either way.
    #[serde(default)]
    ignore: bool,
}

/// The truth of the frames that were seen: from `file` for all cameras, else from beside each camera's clip.
pub(super) fn of(plan: &Plan, file: Option<&Path>, seen: &BTreeSet<(String, u64)>) -> anyhow::Result<Vec<FrameBoxes>> {
    let mut all = Vec::new();
    for (camera, clip) in plan.nodes.iter().filter(|node| node.is_source()).flat_map(clips) {
        let path = match file {
            Some(file) => file.to_path_buf(),
            None => {
                let beside = clip.with_file_name(BESIDE);
                if !beside.is_file() {
                    continue;
                }
                beside
            }
        };
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("the truth {} cannot be read", path.display()))?;
        for (at, line) in text.lines().enumerate() {
            let line: Line = serde_json::from_str(line)
                .with_context(|| format!("the truth {}, line {}, is no frame with boxes", path.display(), at + 1))?;
            if seen.contains(&(camera.clone(), line.seq)) {
                all.push(frame(&camera, line));
            }
        }
    }
    Ok(all)
}

fn frame(camera: &str, line: Line) -> FrameBoxes {
    let (ignored, boxes): (Vec<TrueBox>, Vec<TrueBox>) = line.boxes.into_iter().partition(|b| b.ignore);
    let of = |all: Vec<TrueBox>| {
        let one = |b: TrueBox| {
            let TrueBox { x1, y1, x2, y2, class_id, label, .. } = b;
            DetBox { x1, y1, x2, y2, score: 1.0, class_id, label, ..DetBox::default() }
        };
        all.into_iter().map(one).collect()
    };
    FrameBoxes { source: camera.to_owned(), seq: line.seq, pts_ns: line.pts_ns, boxes: of(boxes), ignored: of(ignored) }
}

/// The cameras of a source and their files.
fn clips(node: &PlanNode) -> Vec<(String, PathBuf)> {
    let setting = |key: &str| node.settings.get(key).filter(|value| !value.is_empty());
    let of_list = |text: &String| {
        let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
        pairs.map(|(camera, clip)| (camera.to_owned(), node.folder.join(clip))).collect()
    };
    if let Some(list) = setting("SOURCES") {
        return of_list(list);
    }
    let camera = setting("CAMERA").unwrap_or(&node.original).clone();
    setting("SOURCE").map(|clip| (camera, PathBuf::from(clip))).into_iter().collect()
}

/// The detectors' threshold, by their `model.yml`: 0 where there is none.
pub(super) fn score_threshold(plan: &Plan) -> f32 {
    let detectors = plan.nodes.iter().filter(|node| node.ports_of("detections").next().is_some());
    let models = detectors.filter_map(|node| node.settings.get("MODEL"));
    let read = |path: &String| {
        let yaml = Yaml::parse(&std::fs::read_to_string(path).ok()?).ok()?;
        yaml.get("thresholds")?.get("score")?.text()?.parse::<f32>().ok()
    };
    models.filter_map(read).reduce(f32::max).unwrap_or(0.0)
}
