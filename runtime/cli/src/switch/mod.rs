//! `millrace switch`: a running dataflow from A to B, node by node, and back by itself if B is not as good.

pub(crate) mod control;
mod countdown;
mod guard;
mod journal;
mod measure;
mod plan;
mod swap;
pub(crate) mod watch;

use crate::load::{Loaded, load};
use crate::out::{complain, err, outln};
use anyhow::{Context, bail};
use control::{Control, Dataflow};
use countdown::Countdown;
use guard::Guard;
use journal::{Journal, JournalLock, Runs};
use millrace_graph::check::Set;
use millrace_graph::describe::Programs;
use plan::Definitions;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use swap::Swap;
use watch::Watch;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millrace switch graphs/B.yml --dataflow cameras
  millrace switch graphs/A.yml --set detect.SCORE=0.4 --watch 1m
  millrace switch --back

Exit codes: 0 B is kept, 1 A was put back, 2 the switch could not begin or not be finished.")]
pub(crate) struct Args {
    /// The graph to switch to.
    #[arg(required_unless_present_any = ["resume", "back"])]
    graph: Option<PathBuf>,
    /// The running dataflow, by name or id; may be left out where only one runs.
    #[arg(long, value_name = "NAME")]
    dataflow: Option<String>,
    /// The graph that runs now, where its nodes cannot tell.
    #[arg(long, value_name = "A.yml")]
    from: Option<PathBuf>,
    /// Give a setting of a node of B another value, over what the graph says; may be repeated.
    #[arg(long = "set", value_name = "NODE.KEY=VALUE", value_parser = crate::set_parser())]
    sets: Vec<Set>,
    /// What B has to keep: conditions on fps, drops, boxes and latency_p95 as multiples of A's figures.
    #[arg(long, value_name = "EXPR", default_value = guard::DEFAULT)]
    guard: String,
    /// How long A is measured before, and B is watched after.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::parse_duration)]
    watch: Duration,
    /// Go on with a switch that was cut short.
    #[arg(long, conflicts_with_all = ["graph", "back", "from", "sets"])]
    resume: bool,
    /// Put A back after a switch that was cut short.
    #[arg(long, conflicts_with_all = ["graph", "from", "sets"])]
    back: bool,
}

/// The code for a switch that could not begin, or not be finished.
const UNFINISHED: u8 = 2;

pub(crate) fn switch(args: &Args) -> ExitCode {
    match run(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error);
            ExitCode::from(UNFINISHED)
        }
    }
}

/// `true`: B is kept; `false`: A was put back.
fn run(args: &Args) -> anyhow::Result<bool> {
    let faults = |faults: String| anyhow::anyhow!("--guard: {}", faults.replace('\n', "\n--guard: "));
    let guard: Guard = args.guard.parse().map_err(faults)?;
    let control = Control::new()?;
    let flow = control.dataflow(args.dataflow.as_deref())?;
    let journal_lock = JournalLock::of(&flow.uuid)?;
    let open = journal_lock.read()?;
    if args.resume || args.back {
        let Some(mut journal) = open else {
            bail!("no switch of dataflow '{}' was cut short: there is nothing to finish", flow.called());
        };
        let guard = journal.guard.parse().map_err(faults)?;
        if args.back && journal.back.is_none() {
            journal.back = Some("asked for by --back".to_owned());
        }
        let watch = Watch::new(&flow.uuid)?;
        return Swap::new(control, journal_lock, journal, guard, watch)?.finish();
    }
    if let Some(journal) = open {
        bail!(
            "a switch of dataflow '{}' to {} was cut short, with {} of {} nodes replaced. Finish it first: \
             'millrace switch --resume' goes on, 'millrace switch --back' puts back what ran before \
             (the journal: {})",
            flow.called(),
            journal.graph,
            journal.steps.iter().filter(|step| step.runs != Runs::A).count(),
            journal.steps.len(),
            journal_lock.path().display()
        );
    }
    begin(args, guard, control, flow, journal_lock)
}

fn begin(
    args: &Args,
    guard: Guard,
    control: Control,
    flow: Dataflow,
    journal_lock: JournalLock,
) -> anyhow::Result<bool> {
    let graph = args.graph.as_ref().context("no graph was named")?;
    let b = Definitions::of_graph(&without_faults(graph, &args.sets)?)?;
    let mut watch = Watch::new(&flow.uuid)?;
    let ids = control.nodes(&flow.uuid)?;
    let a = what_runs(args, &ids, &b, &mut watch)?;
    let steps = plan::steps(&a, &b).map_err(|against| {
        let lines = against.join("\n  ");
        anyhow::anyhow!(
            "dataflow '{}' cannot be switched to {} while it runs:\n  {lines}\nStop it and start the other: \
             'dora stop', then 'dora start {}'",
            flow.called(),
            graph.display(),
            graph.display()
        )
    })?;
    if steps.is_empty() {
        outln!("dataflow '{}' runs {} already: nothing to do", flow.called(), graph.display());
        return Ok(true);
    }
    let nodes = if steps.len() == 1 { "node" } else { "nodes" };
    outln!("dataflow '{}': {} {nodes} to replace, from the end of the graph:", flow.called(), steps.len());
    for step in &steps {
        plan::changes(step).iter().for_each(|change| outln!("  {}: {change}", step.node));
    }
    outln!("measuring what runs for {:.0} s", args.watch.as_secs_f64());
    ids.iter().for_each(|id| watch.expect(id));
    watch.begin();
    let last = plan::last_nodes(&a);
    let mut countdown = Countdown::new(args.watch);
    while let Some(left) = countdown.left() {
        watch.listen(left.min(Duration::from_millis(500)));
        if let Some(illness) = watch.illness() {
            bail!("{illness} before anything was replaced; nothing was changed");
        }
    }
    drop(countdown);
    let before = watch.measure(&|node| last.contains(node));
    if before.streams().is_empty() {
        bail!(
            "in {:.0} s no frame of any camera reached the end of the graph, so there is nothing to hold B against; \
             nothing was changed",
            args.watch.as_secs_f64()
        );
    }
    // what its settings point to may have gone meanwhile
    without_faults(graph, &args.sets)?;
    let journal = Journal {
        v: 1,
        dataflow: flow.uuid,
        name: flow.name,
        graph: graph.display().to_string(),
        guard: args.guard.clone(),
        watch_ms: args.watch.as_millis() as u64,
        back: None,
        before,
        steps,
    };
    Swap::new(control, journal_lock, journal, guard, watch)?.finish()
}

/// A graph in which `millrace check` finds no fault: with its settings, and the files that they point to.
fn without_faults(graph: &Path, sets: &[Set]) -> anyhow::Result<Loaded> {
    let loaded = load(graph, sets, &Programs::default())?;
    if !loaded.checked.report.is_ok() {
        err!("{}", loaded.checked.report.text(false));
        bail!("{} has faults, so nothing was changed", graph.display());
    }
    Ok(loaded)
}

/// The definitions of what runs: from a file, or as its nodes tell.
fn what_runs(args: &Args, ids: &[String], b: &Definitions, watch: &mut Watch) -> anyhow::Result<Definitions> {
    /// Nodes report twice a second; one that waits for a camera may be slower.
    const PATIENCE: Duration = Duration::from_secs(15);
    if let Some(from) = &args.from {
        let loaded = without_faults(from, &[])?;
        watch.listen(Duration::from_millis(1_500));
        return Definitions::of_graph(&loaded);
    }
    let until = Instant::now() + PATIENCE;
    loop {
        watch.listen(Duration::from_millis(700));
        let silent: Vec<&str> = ids.iter().map(String::as_str).filter(|id| watch.definition(id).is_none()).collect();
        if silent.is_empty() {
            break;
        }
        if Instant::now() > until {
            bail!(
                "no report came of {}: nodes of Millrace that run on this machine, as this user, report. For other \
                 programs say what runs by --from A.yml",
                silent.join(", ")
            );
        }
    }
    let mut a = Definitions::default();
    for id in ids {
        if let Some(said) = watch.definition(id) {
            a.add_running(id, said, b);
        }
    }
    a.refuse_expanded()?;
    Ok(a)
}
