//! The command line of `millrace capacity`.

use crate::load::report_folder;
use crate::{parse_duration, set_parser};
use millrace_graph::check::Set;
use std::path::PathBuf;
use std::time::Duration;

/// A graph, what its cameras play, and what has to hold.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The graph file. Its decoders get a cameras file with so many copies of the clip.
    pub(super) graph: PathBuf,
    /// What each camera plays, at its own speed and again and again. By default the first file that the graph plays.
    #[arg(long, value_name = "FILE")]
    pub(super) clip: Option<PathBuf>,
    /// Bound on the 95th percentile of the results' age, of the camera that is worst.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = parse_duration)]
    pub(super) p95: Duration,
    /// Cameras of the first step.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) from: u32,
    /// Most cameras that are tried.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) most: u32,
    /// Measured seconds of each step; those of its start come before.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(5..=3600))]
    pub(super) seconds: u32,
    /// Give a setting of a node another value, over what the graph says; may be repeated.
    #[arg(long = "set", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    pub(super) sets: Vec<Set>,
    /// The folder of the report. By default target/capacity/GRAPH.
    #[arg(long, value_name = "FOLDER")]
    pub(super) out: Option<PathBuf>,
    /// Don't run the graph's build commands.
    #[arg(long)]
    pub(super) no_build: bool,
    /// Print nothing but the table and faults.
    #[arg(long, short)]
    pub(super) quiet: bool,
}

impl Args {
    /// Where the report goes.
    pub(super) fn out_folder(&self) -> anyhow::Result<PathBuf> {
        report_folder("capacity", &self.graph, self.out.as_deref())
    }
}
