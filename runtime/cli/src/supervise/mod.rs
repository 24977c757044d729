//! `millrace supervise`: a graph runs for months. What dora does not start again is started again here, and each thing that
//! was done is a line.

mod hang;
mod keeper;
mod notify;

use crate::life::Launch;
use crate::load::{Loaded, ready};
use crate::out::{err, errln};
use crate::set_parser;
use crate::signals::Signals;
use anyhow::{Context, bail};
use keeper::Keeper;
use millrace_graph::check::Set;
use millrace_graph::schedule::parse_duration;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A node that reports is silent for 2.5 s at most; a busy machine needs room.
const SHORTEST_HANG: Duration = Duration::from_secs(5);

/// A graph, and when a node of it hangs.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The graph file.
    graph: PathBuf,
    /// End a node that has not reported, or whose event loop has not turned, for so long: 10s, 2m; at least 5s.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = hang_after)]
    hang: Duration,
    /// Give a setting of a node another value, over what the graph says; may be repeated.
    #[arg(long = "set", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    sets: Vec<Set>,
    /// Don't run the graph's build commands.
    #[arg(long)]
    no_build: bool,
    /// Print nothing but what was done to the graph, and faults.
    #[arg(long, short)]
    quiet: bool,
}

fn hang_after(text: &str) -> Result<Duration, String> {
    let after = parse_duration(text)?;
    if after >= SHORTEST_HANG {
        return Ok(after);
    }
    Err(format!("{text} is less than {} s: a node that is well reports twice a second", SHORTEST_HANG.as_secs()))
}

/// Runs a graph until somebody stops it, or until it has done its work.
pub(crate) fn supervise(args: &Args) -> anyhow::Result<ExitCode> {
    let Some((dora, loaded)) = ready(&args.graph, &args.sets, args.no_build, args.quiet)? else {
        return Ok(ExitCode::FAILURE);
    };
    refuse_jobs(&loaded)?;
    let graph = loaded.checked.graph.as_ref().context("there is no graph")?;
    err!("{}", loaded.checked.report.warnings());
    for node in graph.nodes.iter().filter(|node| node.restarts.is_some_and(|restarts| restarts.most.is_some())) {
        errln!(
            "warning: node '{}' has a max_restarts: when they are used up, the whole graph is started again; without \
             max_restarts, and with a max_restart_delay, the others go on",
            node.id.value
        );
    }
    let launch = Launch::of("supervise", dora, &args.graph, &loaded)?;
    let signals = Signals::listen()?;
    Keeper::new(&launch, &loaded.checked, args.hang, args.quiet).run(&signals)
}

/// A lossless job that starts over gives its frames a second time.
fn refuse_jobs(loaded: &Loaded) -> anyhow::Result<()> {
    for node in &loaded.checked.nodes {
        let flow = node.settings.iter().find(|setting| setting.key == "FLOW").and_then(|flow| flow.value.as_deref());
        if flow == Some("lossless") {
            bail!(
                "{}: node '{}' has FLOW: lossless, and a job that is started again gives its frames a second time; run it \
                 by 'millrace run', or set FLOW: live",
                loaded.name,
                node.id
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::hang_after;
    use std::time::Duration;

    #[test]
    fn a_node_that_is_well_is_not_taken_for_one_that_hangs() {
        assert_eq!(hang_after("10s"), Ok(Duration::from_secs(10)));
        assert!(hang_after("4s").is_err_and(|why| why.contains("less than 5 s")));
        assert!(hang_after("soon").is_err());
    }
}
