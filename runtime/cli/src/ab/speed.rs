//! The runs that are timed: A B B A, round after round.

use super::figures::{Asked, Record, counters, drops, figures, lines, stages, window};
use super::merge::Merged;
use super::progress::Progress;
use crate::scratch::Scratch;
use crate::trial::launch::{Launcher, NodeWatch, Watched};
use crate::trial::plan::{Plan, PlanNode, Port};
use anyhow::{Context, bail};
use millrace_ab::model::{LoadRuns, Pace, Run, Side};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The order of a round: what changes steadily in the machine meets both arms alike.
const ROUND: [Side; 4] = [Side::A, Side::B, Side::B, Side::A];

/// Inputs of one `ab-sink`.
const SINK_PORTS: usize = 16;

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount {
    pub(super) rounds: u32,
    /// Frames of each camera.
    pub(super) frames: u64,
    pub(super) warm_up: u64,
}

/// One of the loads.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) pace: Pace,
    pub(super) until: Option<String>,
    pub(super) together: bool,
}

impl Load {
    /// For headings.
    pub(super) fn title(&self) -> String {
        let pace = match self.pace {
            Pace::Saturated => "saturated",
            Pace::Cameras => "cameras",
        };
        self.until.as_ref().map_or_else(|| pace.to_owned(), |node| format!("{pace} until {node}"))
    }
}

/// A graph that is driven so: its flow, its pace, its length.
pub(super) fn driven(plan: &Plan, pace: Pace, frames: Option<u64>, repeat: bool) -> Plan {
    let mut plan = plan.clone();
    let (flow, speed) = match pace {
        Pace::Saturated => ("lossless", "asfast"),
        Pace::Cameras => ("live", "realtime"),
    };
    plan.force("FLOW", flow, |_| true);
    // what each arm loses is compared
    plan.force("ALLOW_LOSS", "true", |_| true);
    let of_file = |node: &PlanNode| node.is_source() && !is_live(node);
    plan.force("PACE", speed, of_file);
    if let Some(frames) = frames {
        plan.force("FRAMES", &frames.to_string(), PlanNode::is_source);
        plan.force("LOOP", if repeat { "true" } else { "false" }, of_file);
    }
    plan
}

/// When a graph is to be stopped, if one of its sources has no setting for a number of frames.
pub(super) fn enough(plan: &Plan, frames: u64) -> Option<u64> {
    plan.nodes.iter().any(|node| node.is_source() && !node.has("FRAMES")).then_some(frames)
}

/// Every camera that came has come to the recorders so often; never where nothing is said.
pub(super) fn have_come(nodes: &[NodeWatch], enough: Option<u64>) -> bool {
    let Some(enough) = enough else { return false };
    let mut by_camera: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for sink in nodes.iter().filter(|node| is_recorder(&node.totals.id)) {
        let counters = sink.totals.last.iter().flat_map(|last| &last.counters);
        for counter in counters.filter(|counter| counter.name == "in") {
            *by_camera.entry((&sink.totals.id, &counter.source)).or_default() += counter.value;
        }
    }
    !by_camera.is_empty() && by_camera.values().all(|count| *count >= enough)
}

/// One of the nodes that record what comes out of an arm.
fn is_recorder(id: &str) -> bool {
    id.starts_with("ab.sink")
}

/// The node takes from a camera, which nobody can make wait.
pub(super) fn is_live(node: &PlanNode) -> bool {
    ["SOURCE", "SOURCES"].iter().any(|key| node.settings.get(*key).is_some_and(|value| value.contains("rtsp://")))
}

/// The program of one of the nodes that an experiment brings along: beside this one.
pub(super) fn own_program(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    if !program.is_file() {
        bail!(
            "there is no {}: build it by 'cargo build --release -p {name}', or leave out --no-build",
            program.display()
        );
    }
    Ok(program)
}

/// Adds the nodes that record what arrives at these ports; `name` tells the arms' apart. Gives their files.
pub(super) fn add_sinks(
    plan: &mut Plan,
    ports: &[Port],
    name: &str,
    boxes: bool,
    scratch: &Scratch,
) -> anyhow::Result<Vec<PathBuf>> {
    let program = own_program("ab-sink")?;
    let mut files = Vec::new();
    for (index, ports) in ports.chunks(SINK_PORTS).enumerate() {
        let id = format!("ab.sink{name}{}", if index == 0 { String::new() } else { format!("-{index}") });
        let file = scratch.path(&format!("{id}.jsonl"));
        let mut given = vec![("PATH", file.display().to_string()), ("BOXES", boxes.to_string())];
        let common = plan.common.clone();
        given.extend(common.iter().filter(|(key, _)| key != "FLOW").map(|(key, value)| (key.as_str(), value.clone())));
        let inputs = ports.iter().enumerate().map(|(at, port)| (format!("in{at}"), port.clone())).collect();
        plan.nodes.push(PlanNode::own(&id, program.clone(), &given, inputs));
        files.push(file);
    }
    Ok(files)
}

/// All that arrived at an arm's end.
pub(super) fn records(files: &[PathBuf]) -> anyhow::Result<Vec<Record>> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines::<Record>(file)?);
    }
    Ok(all)
}

/// Runs one load to its end, or to the first run that failed, which is then the last one.
pub(super) fn run(
    launcher: &Launcher<'_>,
    plans: [&Plan; 2],
    load: &Load,
    amount: Amount,
    progress: &mut Progress,
) -> anyhow::Result<LoadRuns> {
    let plans = match &load.until {
        Some(until) => [plans[0].cut(until)?, plans[1].cut(until)?],
        None => [plans[0].clone(), plans[1].clone()],
    };
    let mut runs = LoadRuns {
        pace: load.pace,
        until: load.until.clone(),
        cameras: 0,
        warm_up_frames: 0,
        together: load.together,
        runs: Vec::new(),
    };
    progress.load(&load.title(), amount.rounds, load.together);
    // the first run reads programs, models and clips from the disk
    let first = Amount { frames: 1, ..amount };
    let sides: &[Side] = if load.together { &[Side::A] } else { &[Side::A, Side::B] };
    for side in sides {
        let mut warm = one(launcher, &plans, load, *side, first, progress)?;
        if warm.iter().any(|run| run.1.failure.is_some()) {
            runs.runs.extend(warm.drain(..).map(|(_, run)| run));
            return Ok(runs);
        }
    }
    for round in 0..amount.rounds {
        let places: &[(u32, Side)] = if load.together {
            &[(0, Side::A), (3, Side::A)]
        } else {
            &[(0, ROUND[0]), (1, ROUND[1]), (2, ROUND[2]), (3, ROUND[3])]
        };
        for (place, side) in places {
            progress.run(round, *place, *side);
            for (cameras, mut run) in one(launcher, &plans, load, *side, amount, progress)? {
                // run together, the second pair of a round stands in it as B A
                run.place = match (load.together, run.side, *place) {
                    (true, Side::B, 0) => 1,
                    (true, Side::B, _) => 2,
                    (_, _, place) => place,
                };
                run.round = round;
                runs.cameras = runs.cameras.max(cameras);
                runs.warm_up_frames = amount.warm_up * u64::from(runs.cameras);
                progress.done(&run);
                let failed = run.failure.is_some();
                runs.runs.push(run);
                if failed {
                    return Ok(runs);
                }
            }
        }
        runs.runs.sort_by_key(|run| (run.round, run.place));
    }
    Ok(runs)
}

/// One run of dora: of one arm, or of both together. Gives the cameras and the run, for each arm.
fn one(
    launcher: &Launcher<'_>,
    plans: &[Plan; 2],
    load: &Load,
    side: Side,
    amount: Amount,
    progress: &mut Progress,
) -> anyhow::Result<Vec<(u32, Run)>> {
    let scratch = Scratch::new()?;
    let frames = amount.warm_up + amount.frames;
    let drive = |plan: &Plan| driven(plan, load.pace, Some(frames), true);
    let ends =
        |plan: &Plan| plan.ends().context("no node of the graph gives detections, tensors or images").map(|e| e.1);
    let (plan, sinks) = if load.together {
        let arms = [drive(&plans[0].without_sinks()), drive(&plans[1].without_sinks())];
        let merged = Merged::of(&arms[0], &arms[1]);
        let mut plan = merged.plan.clone();
        let mut sinks = Vec::new();
        for (side, arm, name) in [(Side::A, &arms[0], "-a"), (Side::B, &arms[1], "-b")] {
            let ports: Vec<Port> = ends(arm)?.iter().map(|port| merged.port(side, port)).collect();
            let files = add_sinks(&mut plan, &ports, name, false, &scratch)?;
            let own = (0..plan.nodes.len()).filter(|at| merged.side(&plan.nodes[*at].id) == Some(side)).collect();
            sinks.push((side, files, own));
        }
        (plan, sinks)
    } else {
        let mut plan = drive(&plans[side as usize]);
        let own: Vec<usize> = (0..plan.nodes.len()).collect();
        let files = add_sinks(&mut plan, &ends(&plans[side as usize])?, "", false, &scratch)?;
        (plan, vec![(side, files, own)])
    };
    let asked = Asked { warm_up: amount.warm_up, all: frames, lossless: load.pace == Pace::Saturated };
    let stop = enough(&plan, frames);
    let watched =
        launcher.run(&plan, &scratch, &mut |nodes| have_come(nodes, stop), &mut |nodes| progress.show(nodes))?;
    if watched.interrupted {
        bail!(super::Interrupted);
    }
    Ok(sinks
        .into_iter()
        .map(|(side, files, own)| measured(side, &watched, &files, &own, asked, load.together))
        .collect())
}

fn measured(
    side: Side,
    watched: &Watched,
    files: &[PathBuf],
    own: &[usize],
    asked: Asked,
    is_together: bool,
) -> (u32, Run) {
    // run together, a node of one arm alone is called after it
    let prefix = ["a.", "b."][side as usize];
    let plain = |all: BTreeMap<String, u64>| {
        let own = |key: &str| key.strip_prefix(prefix).filter(|_| is_together).unwrap_or(key).to_owned();
        all.into_iter().map(|(key, value)| (own(&key), value)).collect()
    };
    let mut run = Run {
        side,
        round: 0,
        place: 0,
        frames: 0,
        took_ns: 0,
        figures: BTreeMap::new(),
        stages: Vec::new(),
        drops: plain(drops(watched, own)),
        counters: plain(counters(watched, own)),
        failure: watched.failure.clone(),
    };
    if run.failure.is_some() {
        return (0, run);
    }
    let records = match records(files) {
        Ok(records) => records,
        Err(e) => {
            run.failure = Some(format!("{e:#}"));
            return (0, run);
        }
    };
    match window(&records, asked) {
        Ok(window) => {
            run.frames = window.frames;
            run.took_ns = window.took_ns;
            run.figures = figures(watched, own, &window, records.len());
            run.stages = stages(watched, own, &window);
            for stage in run.stages.iter_mut().filter(|_| is_together) {
                stage.node = stage.node.strip_prefix(prefix).unwrap_or(&stage.node).to_owned();
            }
            (window.cameras, run)
        }
        Err(why) => {
            run.failure = Some(format!("{why}{}", lost(&run.drops)));
            (0, run)
        }
    }
}

fn lost(drops: &BTreeMap<String, u64>) -> String {
    let all: Vec<String> = drops.iter().map(|(what, count)| format!("{what}: {count}")).collect();
    if all.is_empty() { String::new() } else { format!("; dropped were {}", all.join(", ")) }
}

/// Frames a second at the end of the arm that runs, by the last reports.
pub(super) fn running_fps(nodes: &[NodeWatch]) -> Option<(u64, f64)> {
    let sink = nodes.iter().find(|node| is_recorder(&node.totals.id))?;
    Some((sink.totals.frames(), sink.totals.rates(std::time::Instant::now()).map_or(0.0, |(fps, _)| fps)))
}
