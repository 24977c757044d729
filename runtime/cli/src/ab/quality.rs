//! What the arms make of identical frames: both in one graph, fed from one decode where it is the same in both.

use super::figures::{Record, lines};
use super::merge::Merged;
use super::progress::Progress;
use super::speed::{add_sinks, driven, enough, have_come, is_live, own_program, records};
use super::truth;
use crate::scratch::Scratch;
use crate::trial::launch::{Launcher, Watched};
use crate::trial::plan::{Plan, PlanNode, Port};
use anyhow::bail;
use millrace_ab::model::{FrameBoxes, Pace, Quality, Side, TensorPair};
use millrace_frame::counted;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What came of the comparison.
pub(super) enum Compared {
    /// It was made.
    Done(Box<Quality>),
    /// It cannot be, for this reason.
    Not(String),
    /// It should have been, and was not: the experiment fails.
    Failed(String),
}

/// Runs both arms on the same frames. `frames` of each camera, or a whole clip.
pub(super) fn compare(
    launcher: &Launcher<'_>,
    plans: [&Plan; 2],
    frames: Option<u64>,
    truth_file: Option<&Path>,
    progress: &mut Progress,
) -> anyhow::Result<Compared> {
    let live = plans.iter().any(|plan| plan.nodes.iter().any(|node| node.is_source() && is_live(node)));
    let arms = plans.map(|plan| driven(&plan.without_sinks(), Pace::Saturated, frames, false));
    let merged = Merged::of(&arms[0], &arms[1]);
    let own_sources = merged.plan.nodes.iter().any(|node| node.is_source() && merged.side(&node.id).is_some());
    if live && own_sources {
        return Ok(Compared::Not("the arms take from cameras in different ways, so no two frames are the same".into()));
    }
    let detections = [arms[0].taps("detections"), arms[1].taps("detections")];
    let pairs = tensor_pairs(&arms[0], &arms[1]);
    if pairs.is_empty() && detections.iter().any(Vec::is_empty) {
        return Ok(Compared::Not("the arms have neither tensors nor detections in common".into()));
    }
    let scratch = Scratch::new()?;
    let mut plan = merged.plan.clone();
    let mut sinks = Vec::new();
    for (side, ports, name) in [(Side::A, &detections[0], "-a"), (Side::B, &detections[1], "-b")] {
        let ports: Vec<Port> = ports.iter().map(|port| merged.port(side, port)).collect();
        sinks.push(add_sinks(&mut plan, &ports, name, true, &scratch)?);
    }
    let mut files = Vec::new();
    for (index, (a, b)) in pairs.iter().enumerate() {
        let file = scratch.path(&format!("tensors-{index}.jsonl"));
        let inputs = vec![("a".to_owned(), merged.port(Side::A, a)), ("b".to_owned(), merged.port(Side::B, b))];
        let given = [("PATH", file.display().to_string())];
        plan.nodes.push(PlanNode::own(&format!("ab.tensors-{index}"), own_program("tensor-compare")?, &given, inputs));
        files.push(file);
    }
    let stop = frames.and_then(|frames| enough(&plan, frames));
    let watched =
        launcher.run(&plan, &scratch, &mut |nodes| have_come(nodes, stop), &mut |nodes| progress.show(nodes))?;
    if watched.interrupted {
        bail!(super::Interrupted);
    }
    if let Some(why) = &watched.failure {
        return Ok(Compared::Failed(why.clone()));
    }
    if let Some(why) = not_comparable(&watched) {
        progress.say(&why);
    }
    let mut tensors: Vec<TensorPair> = Vec::new();
    for file in &files {
        tensors.extend(lines::<TensorPair>(file)?);
    }
    let wanted = |seq: u64| frames.is_none_or(|frames| seq < frames);
    tensors.retain(|pair| wanted(pair.seq));
    tensors.sort_by(|a, b| (&a.source, a.seq).cmp(&(&b.source, b.seq)));
    let [detections_a, detections_b] = [boxes(records(&sinks[0])?), boxes(records(&sinks[1])?)];
    let [detections_a, detections_b] = [detections_a, detections_b].map(|mut all| {
        all.retain(|frame| wanted(frame.seq));
        all
    });
    let seen: BTreeSet<(String, u64)> =
        detections_a.iter().chain(&detections_b).map(|frame| (frame.source.clone(), frame.seq)).collect();
    let truth = truth::of(plans[0], truth_file, &seen)?;
    let score_threshold = truth::score_threshold(plans[0]);
    let pictures = Vec::new();
    Ok(Compared::Done(Box::new(Quality { tensors, detections_a, detections_b, truth, score_threshold, pictures })))
}

fn boxes(records: Vec<Record>) -> Vec<FrameBoxes> {
    let mut frames: Vec<FrameBoxes> = records.into_iter().map(FrameBoxes::from).collect();
    frames.sort_by(|a, b| (&a.source, a.seq).cmp(&(&b.source, b.seq)));
    frames
}

/// Tensors that are to be compared: what the same input of the same node reads in both arms, else what a node of the
/// same name makes, else the only one that each arm has.
fn tensor_pairs(a: &Plan, b: &Plan) -> Vec<(Port, Port)> {
    let (taps_a, mut taps_b) = (a.taps("tensor"), b.taps("tensor"));
    let read_by = |plan: &Plan, port: &Port| -> BTreeSet<(String, String)> {
        plan.consumers(port).map(|(node, input)| (node.id.clone(), input.to_owned())).collect()
    };
    let mut pairs = Vec::new();
    let mut rest = Vec::new();
    for port in taps_a {
        let readers = read_by(a, &port);
        let twin = taps_b.iter().position(|other| !read_by(b, other).is_disjoint(&readers));
        match twin.or_else(|| taps_b.iter().position(|other| *other == port)) {
            Some(at) => pairs.push((port, taps_b.remove(at))),
            None => rest.push(port),
        }
    }
    if let ([a], [b]) = (rest.as_slice(), taps_b.as_slice()) {
        pairs.push((a.clone(), b.clone()));
    }
    pairs
}

fn not_comparable(watched: &Watched) -> Option<String> {
    let nodes = watched.nodes.iter().filter(|node| node.totals.id.starts_with("ab.tensors"));
    let all = nodes.flat_map(|node| node.totals.losses());
    let texts: Vec<String> = all
        .map(|((cause, _), frames)| {
            let why = match cause.as_str() {
                "not_comparable" => "tensors of different shapes in A and B",
                "only_a" => "a tensor in A alone",
                "only_b" => "a tensor in B alone",
                cause => cause,
            };
            format!("{} not compared: {why}", counted(frames, "frame", "frames"))
        })
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Decodes the sources once more and gives these frames as JPEG files: their cameras, numbers and paths.
pub(super) fn pictures(
    launcher: &Launcher<'_>,
    plan: &Plan,
    frames: &[(String, u64)],
    scratch: &Scratch,
    progress: &mut Progress,
) -> anyhow::Result<Vec<(String, u64, PathBuf)>> {
    let Some(last) = frames.iter().map(|(_, seq)| *seq).max() else { return Ok(Vec::new()) };
    let mut sources = plan.clone();
    sources.nodes.retain(PlanNode::is_source);
    if sources.nodes.iter().any(is_live) {
        return Ok(Vec::new());
    }
    let mut plan = driven(&sources, Pace::Saturated, Some(last + 1), false);
    let mut numbers: Vec<u64> = frames.iter().map(|(_, seq)| *seq).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    for (index, port) in sources.taps("image").into_iter().enumerate() {
        let given = [("FOLDER", scratch.path("").display().to_string()), ("FRAMES", numbers.join(","))];
        let inputs = vec![("frame".to_owned(), port)];
        plan.nodes.push(PlanNode::own(&format!("ab.pictures-{index}"), own_program("frame-picture")?, &given, inputs));
    }
    let watched = launcher.run(&plan, scratch, &mut |_| false, &mut |nodes| progress.show(nodes))?;
    if watched.interrupted {
        bail!(super::Interrupted);
    }
    if let Some(why) = watched.failure {
        // the report is worth having without them
        progress.say(&format!("no pictures of the frames that differ: {why}"));
        return Ok(Vec::new());
    }
    let path = |camera: &str, seq: u64| {
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        scratch.path(&format!("{}-{seq}.jpg", camera.chars().map(safe).collect::<String>()))
    };
    let all = frames.iter().map(|(camera, seq)| (camera.clone(), *seq, path(camera, *seq)));
    Ok(all.filter(|(_, _, path)| path.is_file()).collect())
}
