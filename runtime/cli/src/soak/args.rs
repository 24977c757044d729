//! The command line of `millrace soak`.

use crate::load::report_folder;
use crate::set_parser;
use millrace_ab::soak::SoakAsked;
use millrace_graph::check::Set;
use millrace_graph::schedule::parse_duration;
use std::path::PathBuf;
use std::time::Duration;

/// A graph, what is done to it, and what has to hold.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The graph file.
    pub(super) graph: PathBuf,
    /// How long the graph is watched: 20s, 10m, 2h, 7d. The same command goes on after an interruption.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub(super) length: Duration,
    /// YAML file of the faults to inject; without it nothing is done to the graph.
    #[arg(long, value_name = "FILE")]
    pub(super) faults: Option<PathBuf>,
    /// Share of its due time in which each camera has to be served, in percent, the times of injected faults left out.
    #[arg(long, value_name = "PERCENT", default_value_t = 99.9, value_parser = percent)]
    pub(super) availability: f64,
    /// Within what time a fault has to be seen.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = parse_duration)]
    pub(super) seen: Duration,
    /// Within what time of its cure a fault has to be healed.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(super) healed: Duration,
    /// JSON file of another judge, which is read at the end: its list 'problems' counts against the graph.
    #[arg(long, value_name = "FILE")]
    pub(super) judge: Option<PathBuf>,
    /// Give a setting of a node another value, over what the graph says; may be repeated.
    #[arg(long = "set", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    pub(super) sets: Vec<Set>,
    /// The folder of the report, and of what a soak that was interrupted goes on from. By default target/soak/GRAPH.
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: Option<PathBuf>,
    /// Don't run the graph's build commands.
    #[arg(long)]
    pub(super) no_build: bool,
    /// Print nothing but the verdict.
    #[arg(long, short)]
    pub(super) quiet: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("'{text}' is not a number"))?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err(format!("{text} is not from 0 to 100")) }
}

impl Args {
    /// What has to hold.
    pub(super) fn asked(&self) -> SoakAsked {
        SoakAsked {
            seconds: self.length.as_secs_f64(),
            availability_percent: self.availability,
            seen_s: self.seen.as_secs_f64(),
            healed_s: self.healed.as_secs_f64(),
        }
    }

    /// Where the report goes.
    pub(super) fn out_folder(&self) -> anyhow::Result<PathBuf> {
        report_folder("soak", &self.graph, self.out.as_deref())
    }
}
