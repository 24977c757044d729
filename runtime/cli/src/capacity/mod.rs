//! `millrace capacity`: how many cameras of a clip a graph holds on this machine, by running it with more and more of them.

mod args;
mod copies;
mod measure;

use crate::ab::command;
use crate::load::ready;
use crate::out::{complain, errln, outln};
use crate::scratch::Scratch;
use crate::signals::Signals;
use crate::trial::launch::Launcher;
use crate::trial::machine;
use crate::trial::plan::Plan;
use anyhow::{Context, bail};
pub(crate) use args::Args;
use copies::Copies;
use measure::Measure;
use millrace_ab::capacity::{Asked, CAPACITY_SCHEMA, Capacity, Step};
use millrace_ab::{capacity_html, capacity_row};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Share of its rate that each camera has to have, in percent.
const RATE_PERCENT: f64 = 98.0;
/// What passes between the moment in which all cameras are there and the measured time.
const LEFT_OUT_S: f64 = 5.0;
/// No step held.
const NONE_HELD: u8 = 1;
/// It could not be measured.
const NOT_MEASURED: u8 = 2;

/// Runs a search.
pub(crate) fn capacity(args: &Args) -> ExitCode {
    match try_capacity(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(NOT_MEASURED)
        }
    }
}

fn try_capacity(args: &Args) -> anyhow::Result<u8> {
    let say = |line: &str| {
        if !args.quiet {
            errln!("{line}");
        }
    };
    if args.from > args.most {
        bail!(
            "--from {} is more than --most {}: a search begins with no more cameras than it ends with",
            args.from,
            args.most
        );
    }
    let Some((dora, loaded)) = ready(&args.graph, &args.sets, args.no_build, args.quiet)? else {
        return Ok(NOT_MEASURED);
    };
    let copies = Copies::of(&loaded, &args.graph, &args.sets, args.clip.as_deref())?;
    let asked = Asked {
        p95_ms: args.p95.as_secs_f64() * 1e3,
        rate_percent: RATE_PERCENT,
        from: args.from,
        most: args.most,
        seconds: f64::from(args.seconds),
        left_out_s: LEFT_OUT_S,
    };
    let mut found = Capacity {
        schema: CAPACITY_SCHEMA,
        date: machine::today(),
        command: command(),
        machine: machine::machine(&Plan::of(&loaded)?),
        graph: args.graph.display().to_string(),
        sets: args.sets.iter().map(|set| format!("{}.{}={}", set.node, set.key, set.value)).collect(),
        clip: copies.clip().display().to_string(),
        asked,
        steps: Vec::new(),
        unfinished: None,
    };
    let out = args.out_folder()?;
    let signals = Signals::listen()?;
    let launcher = Launcher { dora, signals: &signals };
    let (seconds, left_out_s) = (asked.seconds, asked.left_out_s);
    say(&format!("each step: its start and {left_out_s} s are left out, then {seconds} s are measured"));
    while let Some(cameras) = found.next_cameras() {
        let Some(step) = step(&copies, &launcher, cameras, asked)? else {
            found.unfinished = Some("stopped before the search came to its end".to_owned());
            break;
        };
        if found.steps.is_empty() {
            if step.figures.is_none() {
                bail!(
                    "{} does not run with {cameras} of these cameras: {}",
                    args.graph.display(),
                    step.faults.join("; ")
                );
            }
            outln!("{}", capacity_row(None));
        }
        outln!("{}", capacity_row(Some(&step)));
        found.steps.push(step);
        save(&found, &out)?;
    }
    outln!("\n{}", found.outcome());
    if found.steps.is_empty() {
        return Ok(130);
    }
    save(&found, &out)?;
    outln!("{}", crate::ab::display_path(&out.join("capacity.html")));
    Ok(match (&found.unfinished, found.held()) {
        (Some(_), _) => 130,
        (None, Some(_)) => 0,
        (None, None) => NONE_HELD,
    })
}

/// Runs the graph with so many cameras; nothing where somebody asked to stop.
fn step(copies: &Copies<'_>, launcher: &Launcher<'_>, cameras: u32, asked: Asked) -> anyhow::Result<Option<Step>> {
    let scratch = Scratch::new()?;
    let plan = match copies.plan(cameras, &scratch.path(""))? {
        Ok(plan) => plan,
        // the pools of so many cameras may need more memory than there is
        Err(refused) => {
            let why = format!("the check refuses it:\n{}", refused.trim_end());
            return Ok(Some(Step { cameras, faults: vec![why], figures: None }));
        }
    };
    let mut measure = Measure::new(&plan, Copies::ids(cameras), asked);
    let watched = launcher.run(&plan, &scratch, &mut |nodes| measure.turn(nodes, Instant::now()), &mut |_| {})?;
    if watched.interrupted {
        return Ok(None);
    }
    Ok(Some(measure.judge(watched.failure.as_deref(), &watched.gpu)))
}

/// Writes what there is so far.
fn save(found: &Capacity, out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("{} cannot be made", out.display()))?;
    for (name, text) in
        [("capacity.json", serde_json::to_string_pretty(found)?), ("capacity.html", capacity_html(found))]
    {
        let path = out.join(name);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}
