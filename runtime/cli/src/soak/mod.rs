//! `millrace soak`: a graph runs for hours or days, faults are injected, everything is sampled, and a verdict follows.

mod args;
mod balance;
mod delivery;
mod injector;
mod sample;
mod session;
mod shell;
mod store;

use crate::ab::{command, display_path};
use crate::life::Launch;
use crate::load::ready;
use crate::out::{complain, err, errln, outln};
use crate::signals::Signals;
use crate::trial::machine;
use crate::trial::plan::Plan;
use anyhow::{Context, bail};
pub(crate) use args::Args;
use millrace_ab::soak::{Soak, SoakWord, Standing};
use millrace_graph::fault::Report;
use millrace_graph::model::Graph;
use millrace_graph::schedule::{self, Schedule};
use session::Session;
use std::process::ExitCode;
use store::Store;

/// Something did not hold.
const DID_NOT_HOLD: u8 = 1;
/// It could not be run.
const NOT_RUN: u8 = 2;
/// It was interrupted, and the same command goes on.
const INTERRUPTED: u8 = 130;

/// Runs a soak, or goes on with one.
pub(crate) fn soak(args: &Args) -> ExitCode {
    match try_soak(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(NOT_RUN)
        }
    }
}

fn try_soak(args: &Args) -> anyhow::Result<u8> {
    let Some((dora, loaded)) = ready(&args.graph, &args.sets, args.no_build, args.quiet)? else { return Ok(NOT_RUN) };
    let graph = loaded.checked.graph.as_ref().context("there is no graph")?;
    let Some((text, schedule)) = faults(args, graph)? else { return Ok(NOT_RUN) };
    let store = Store::open(&args.out_folder()?)?;
    let name = args.graph.display().to_string();
    let mut fresh = Soak::new(date(), command(), machine::machine(&Plan::of(&loaded)?), name, args.asked());
    fresh.sets = args.sets.iter().map(|set| format!("{}.{}={}", set.node, set.key, set.value)).collect();
    fresh.schedule = text;
    let soak = store.go_on(fresh)?;
    let launch = Launch::of("soak", dora, &args.graph, &loaded)?;
    let signals = Signals::listen()?;
    let mut session = Session::new(&launch, &loaded.checked, soak, schedule, args.quiet);
    session.run(&store, &signals)?;
    let mut soak = session.end();
    if let Some(file) = args.judge.as_ref().filter(|_| soak.complete) {
        soak.others = Some(store::problems(file).unwrap_or_else(|error| vec![format!("{error:#}")]));
    }
    store.save(&soak)?;
    Ok(tell(&soak, &store))
}

/// The file of faults, as text and as what it says; none where it has faults of its own, which were shown.
fn faults(args: &Args, graph: &Graph) -> anyhow::Result<Option<(String, Schedule)>> {
    let Some(file) = &args.faults else { return Ok(Some(Default::default())) };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("the file of faults {} cannot be read", file.display()))?;
    let mut report = Report::new(file.display().to_string(), &text);
    let nodes: Vec<&str> = graph.nodes.iter().map(|node| node.id.value.as_str()).collect();
    let schedule = schedule::read(&text, &nodes, &mut report);
    if schedule.is_none() {
        err!("{}", report.text(false));
    }
    let longest = schedule.iter().flat_map(|schedule| &schedule.faults).map(|fault| fault.length + args.healed).max();
    if longest.is_some_and(|longest| longest >= args.length) {
        bail!("--for {} s is too short for the faults of {}", args.length.as_secs_f64(), file.display());
    }
    Ok(schedule.map(|schedule| (text, schedule)))
}

/// Today and the time of day, of this machine.
fn date() -> String {
    chrono::Local::now().format("%Y-%m-%d %H:%M").to_string()
}

/// Says how it went, and gives the exit code.
fn tell(soak: &Soak, store: &Store) -> u8 {
    let verdict = soak.verdict();
    for finding in &verdict.findings {
        let word = match finding.standing {
            Standing::Met => "holds",
            Standing::NotMet => "DOES NOT HOLD",
            Standing::Open => "not shown",
        };
        outln!("{:24}{word:15}{}", finding.what, finding.figures);
    }
    outln!("\n{}", verdict.word.text());
    outln!("{}", display_path(&store.page()));
    if !soak.complete {
        errln!("interrupted; the same command goes on: {}", soak.command);
        return INTERRUPTED;
    }
    if verdict.word == SoakWord::Held { 0 } else { DID_NOT_HOLD }
}
