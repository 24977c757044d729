//! `millrace ab`: two graphs, the same frames, one verdict.

mod args;
mod compare;
mod figures;
mod merge;
mod output;
mod progress;
mod quality;
mod selftest;
mod speed;
mod truth;

use crate::load::{Loaded, load};
use crate::out::{complain, err, outln};
use crate::run::refuse_what_dora_must_fetch;
use crate::signals::Signals;
use crate::trial::launch::Launcher;
use crate::trial::machine;
use crate::trial::plan::Plan;
use crate::{dora, make};
use anyhow::{Context, bail};
use args::Sides;
pub(crate) use args::{Args, command};
use millrace_ab::model::{Arm, Experiment, LoadRuns, Pace, Quality, SCHEMA};
use millrace_ab::{Analysis, Requirements, Word, analyse};
use millrace_graph::describe::{Blind, Describer, Programs};
use progress::Progress;
use quality::Compared;
use speed::Load;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Somebody asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("stopped; nothing was reported")]
struct Interrupted;

/// The requirements, or the experiment's own verdict on quality, were not met.
const NOT_MET: u8 = 1;
/// It could not be measured.
const NOT_MEASURED: u8 = 2;

/// Runs an experiment.
pub(crate) fn ab(args: &Args) -> ExitCode {
    let error = match try_ab(args) {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    if args.json {
        outln!("{:#}", serde_json::json!({ "error": format!("{error:#}") }));
    }
    complain(&error);
    ExitCode::from(if error.is::<Interrupted>() { 130 } else { NOT_MEASURED })
}

fn try_ab(args: &Args) -> anyhow::Result<u8> {
    let requirements = args.require.as_deref().map(requirements).transpose()?;
    let sides = args.sides()?;
    let mut progress = Progress::new(args.quiet, args.load_count());
    let Some(plans) = prepare(args, &sides, &mut progress)? else { return Ok(NOT_MEASURED) };
    let signals = Signals::listen()?;
    let dora = dora::ensure(&mut |line| progress.say(line))?;
    let launcher = Launcher { dora, signals: &signals };
    if let Some(times) = args.self_test {
        return selftest::run(args, &sides, &launcher, &plans, times, &mut progress);
    }
    let out = args.out_folder(&sides)?;
    let mut experiment = describe(args, &sides, &plans);
    tell(&experiment, &mut progress);
    if let Some(why) = measure(args, &launcher, [&plans[0], &plans[1]], &mut experiment, &mut progress)? {
        output::save_json(&experiment, &out)?;
        bail!("{why}\nwhat was measured until then is in {}", out.display());
    }
    if !args.no_quality {
        progress.part("quality: both arms on the same frames");
        let arms = [&plans[0], &plans[1]];
        match quality::compare(&launcher, arms, args.quality_frames, args.truth.as_deref(), &mut progress)? {
            Compared::Done(quality) => experiment.quality = Some(*quality),
            Compared::Not(why) => progress.say(&format!("quality was not compared: {why}")),
            Compared::Failed(why) => {
                output::save_json(&experiment, &out)?;
                bail!("the comparison of quality failed: {why}");
            }
        }
    }
    let analysis = analyse(&experiment);
    if let Some(quality) = &mut experiment.quality {
        output::add_pictures(&launcher, &plans[0], quality, &analysis, &mut progress)?;
    }
    progress.erase();
    finish(args, experiment, analysis, requirements.as_ref(), &out)
}

fn finish(
    args: &Args,
    experiment: Experiment,
    analysis: Analysis,
    requirements: Option<&Requirements>,
    out: &Path,
) -> anyhow::Result<u8> {
    let judged = requirements.map(|all| all.judge(&analysis)).unwrap_or_default();
    let unmet = judged.iter().any(|judgement| judgement.outcome != millrace_ab::Outcome::Met);
    // a requirement on speed is not met at the price of another result
    let changed = requirements.is_some() && analysis.verdict.word == Word::QualityChanged;
    let failed = analysis.verdict.word == Word::Failed;
    let report = millrace_ab::Report { experiment, analysis, requirements: judged };
    output::write(args, &report, out)?;
    Ok(if failed {
        NOT_MEASURED
    } else if unmet || changed {
        NOT_MET
    } else {
        0
    })
}

fn requirements(text: &str) -> anyhow::Result<Requirements> {
    Requirements::parse(text).map_err(|faults| {
        let all: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", all.join("\n"))
    })
}

/// Checks and builds both graphs, all faults of both at once. None where there were some, which have been shown.
fn prepare(args: &Args, sides: &[Sides; 2], progress: &mut Progress) -> anyhow::Result<Option<[Plan; 2]>> {
    let Some(first) = both(args, sides, &Blind, false)? else { return Ok(None) };
    for (loaded, side) in first.iter().zip(sides) {
        let graph = loaded.checked.graph.as_ref().context("there is no graph")?;
        refuse_what_dora_must_fetch(graph, &side.graph)?;
    }
    if !args.no_build {
        for loaded in &first {
            let graph = loaded.checked.graph.as_ref().context("there is no graph")?;
            make::make(graph, &loaded.folder, args.quiet, &mut |line| progress.say(line))?;
        }
        let names = ["ab-sink", "tensor-compare", "frame-picture"];
        make::packages(&names, &first[0].folder, args.quiet, &mut |line| progress.say(line))?;
    }
    let Some(loaded) = both(args, sides, &Programs::default(), !args.quiet)? else { return Ok(None) };
    let plans = [Plan::of(&loaded[0])?, Plan::of(&loaded[1])?];
    let unequal = compare::unequal_sinks(&plans[0], &plans[1]);
    if !unequal.is_empty() {
        bail!("the arms do not end alike, so their times are of different work:\n  {}", unequal.join("\n  "));
    }
    if let Some(until) = &args.until {
        plans.iter().try_for_each(|plan| plan.cut(until).map(drop))?;
    }
    Ok(Some(plans))
}

fn both(args: &Args, sides: &[Sides; 2], describer: &dyn Describer, warn: bool) -> anyhow::Result<Option<[Loaded; 2]>> {
    let [a, b] = [0, 1].map(|at| load(&sides[at].graph, &sides[at].sets, describer));
    let loaded = [a?, b?];
    let mut fine = true;
    for (index, one) in loaded.iter().enumerate() {
        let ok = one.checked.report.is_ok() && one.checked.graph.is_some();
        // the same file twice has the same faults
        let again = index == 1 && sides[0].graph == sides[1].graph && sides[0].sets == sides[1].sets;
        if !ok && !again {
            err!("{}", one.checked.report.text(false));
        } else if warn && !again {
            err!("{}", one.checked.report.warnings());
        }
        fine &= ok;
    }
    if args.json && !fine {
        let graphs = loaded.each_ref().map(|one| one.checked.report.json());
        outln!("{:#}", serde_json::json!({ "error": "a graph has faults", "graphs": graphs }));
    }
    Ok(fine.then_some(loaded))
}

/// The experiment before anything was measured.
fn describe(args: &Args, sides: &[Sides; 2], plans: &[Plan; 2]) -> Experiment {
    let arm = |side: &Sides| Arm {
        name: side.name.clone(),
        graph: side.graph.display().to_string(),
        sets: side.sets.iter().map(|set| format!("{}.{}={}", set.node, set.key, set.value)).collect(),
    };
    Experiment {
        schema: SCHEMA,
        title: args.title.clone().unwrap_or_else(|| format!("{} against {}", sides[1].name, sides[0].name)),
        date: machine::today(),
        command: command(),
        machine: machine::machine(&plans[0]),
        arms: [arm(&sides[0]), arm(&sides[1])],
        differences: compare::differences(&plans[0], &plans[1]),
        loads: Vec::new(),
        quality: None,
    }
}

fn tell(experiment: &Experiment, progress: &mut Progress) {
    progress.say(&format!("A is {}, B is {}", experiment.arms[0].name, experiment.arms[1].name));
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    for difference in &experiment.differences {
        progress.say(&format!("  {}: {} in A, {} in B", difference.what, text(&difference.a), text(&difference.b)));
    }
    if experiment.differences.is_empty() {
        progress.say("  the arms are the same");
    }
}

/// Makes all timed runs. Gives why a run was worth nothing, which ends the experiment.
fn measure(
    args: &Args,
    launcher: &Launcher<'_>,
    plans: [&Plan; 2],
    experiment: &mut Experiment,
    progress: &mut Progress,
) -> anyhow::Result<Option<String>> {
    if args.quality_only {
        return Ok(None);
    }
    let live = plans.iter().any(|plan| plan.nodes.iter().any(|node| node.is_source() && speed::is_live(node)));
    if live && !args.together {
        progress.say("the frames come from cameras: both arms run at the same time, fed from the same decoders");
    }
    let together = live || args.together;
    if together {
        progress.say("the graphs' own sinks do not run: two of each would be in each other's way");
    }
    let mut loads: Vec<Load> = args.paces().into_iter().map(|pace| Load { pace, until: None, together }).collect();
    if live {
        // nobody can make a camera wait
        loads.retain(|load| load.pace == Pace::Cameras);
    }
    if let Some(until) = args.until.clone().filter(|_| !live) {
        loads.push(Load { pace: Pace::Saturated, until: Some(until), together });
    }
    for load in &loads {
        let amount = args.amount(load.pace);
        let runs: LoadRuns = speed::run(launcher, plans, load, amount, progress)?;
        let failure = runs.runs.iter().find_map(|run| Some((run.side, run.failure.clone()?)));
        experiment.loads.push(runs);
        if let Some((side, why)) = failure {
            return Ok(Some(format!("a run of arm {side:?} ({}) cannot be used: {why}", load.title())));
        }
    }
    Ok(None)
}

/// The worst frames of an experiment, worst first: those whose boxes changed, then those whose tensors did.
fn worst(quality: &Quality, analysis: &Analysis, most: usize) -> Vec<(String, u64)> {
    let changed = analysis.detections.iter().flat_map(|found| &found.changed);
    let mut all: Vec<(String, u64)> = changed.map(|frame| (frame.source.clone(), frame.seq)).collect();
    // half of the places are for tensors, where both have changed
    let differ = quality.tensors.iter().filter(|pair| pair.differing > 0);
    let mut tensors: Vec<_> = differ.collect();
    tensors.sort_by(|a, b| b.sum_squared.total_cmp(&a.sum_squared));
    if !tensors.is_empty() {
        all.truncate(most - most / 3);
    }
    for pair in tensors {
        let frame = (pair.source.clone(), pair.seq);
        if !all.contains(&frame) {
            all.push(frame);
        }
    }
    all.truncate(most);
    all
}

/// The path of a file, for people.
pub(crate) fn display_path(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).map_or_else(|_| PathBuf::from(path), Path::to_path_buf).display().to_string()
}
