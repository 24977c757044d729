//! `millrace`: checks and runs camera graphs.
//!
//! It adds checks, `--set` and a live view to what dora's own verbs do; a graph that it runs, `dora run` runs as well.

// A command-line program's stdout is its product.
#![allow(clippy::print_stdout)]

mod ab;
mod cameras;
mod capacity;
mod clock;
mod doctor;
mod dora;
mod efficiency;
mod fit;
mod life;
mod load;
mod make;
mod model;
mod procs;
mod run;
mod schema;
mod scratch;
mod soak;
mod status;
mod supervise;
mod switch;
mod totals;
mod trial;
mod view;
mod vitals;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};
use load::Loaded;
use millrace_graph::check::Set;
use millrace_graph::describe::Programs;
use millrace_graph::explain::explain;
use millrace_graph::schedule::parse_duration;
use millrace_graph::settings;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Checks and runs camera graphs.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build what a graph needs, check it, and run it with a live view.
    Run(RunArgs),
    /// Compare two graphs, or a graph with and without a change: speed, cost and quality on the same frames.
    #[command(name = "ab")]
    Ab(Box<ab::Args>),
    /// Find by experiment how many cameras of a clip a graph holds on this machine.
    Capacity(Box<capacity::Args>),
    /// Run a graph for hours or days, break it on purpose, and say whether it can be trusted.
    Soak(Box<soak::Args>),
    /// Run a graph for months: what ends or hangs is started again, and each thing that was done is a line.
    Supervise(supervise::Args),
    /// Move a running dataflow to another graph, node by node, and put it back if that is not as good.
    Switch(switch::Args),
    /// Find all faults of a graph without running it.
    Check(CheckArgs),
    /// Install dora's command-line tool into the build folder, once; 'run' does it by itself.
    Setup,
    /// Show what this machine has for graphs, GPU and libraries included, and what to do about what is missing.
    Doctor(doctor::Args),
    /// Check a detector's model on a picture, or write the description of a new one.
    Model(model::Args),
    /// Write the JSON Schema of graphs, with which editors complete and check them.
    Schema(SchemaArgs),
    /// Show the ports and settings of a node's program.
    Describe {
        /// The program, for example target/release/sw-nv12.
        program: PathBuf,
        /// Print the description as JSON, as the program gives it.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct SchemaArgs {
    /// The nodes' programs; by default those of all folders under nodes/.
    programs: Vec<PathBuf>,
    /// Where it is written.
    #[arg(long, short, default_value = "graphs/schema.json")]
    output: PathBuf,
    /// Write nothing, and fail when the file is not what would be written.
    #[arg(long)]
    check: bool,
}

#[derive(clap::Args)]
struct RunArgs {
    /// The graph file.
    graph: PathBuf,
    /// Give a setting of a node another value, over what the graph says; may be repeated.
    #[arg(long = "set", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    sets: Vec<Set>,
    /// Don't run the graph's build commands.
    #[arg(long)]
    no_build: bool,
    /// Stop the graph after this time: 30, 500ms, 10s, 5m, 1h, 2d.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    stop_after: Option<Duration>,
    /// Print nothing but faults.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(clap::Args)]
struct CheckArgs {
    /// The graph file.
    graph: PathBuf,
    /// Give a setting of a node another value, over what the graph says; may be repeated.
    #[arg(long = "set", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    sets: Vec<Set>,
    /// Show every setting's effective value and where it comes from, and what could not be checked.
    #[arg(long)]
    explain: bool,
    /// Print the findings as JSON.
    #[arg(long, conflicts_with = "explain")]
    json: bool,
}

/// Settings are text; what the shell hands over may be more.
fn parse_set(given: OsString) -> Result<Set, String> {
    let text = given.into_string().map_err(|given| {
        format!(
            "'{}' is not UTF-8, and a setting is text; name the file by a file: URL \
             (file:///folder/caf%E9.mp4), or give it another name",
            given.display()
        )
    })?;
    text.parse()
}

fn set_parser() -> impl TypedValueParser<Value = Set> {
    OsStringValueParser::new().try_map(parse_set)
}

fn setup() -> anyhow::Result<ExitCode> {
    let program = dora::ensure(&mut |line| eprintln!("{line}"))?;
    eprintln!("dora is {}", program.display());
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let outcome = match Args::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Ab(args) => Ok(ab::ab(&args)),
        Verb::Capacity(args) => Ok(capacity::capacity(&args)),
        Verb::Soak(args) => Ok(soak::soak(&args)),
        Verb::Supervise(args) => supervise::supervise(&args),
        Verb::Switch(args) => Ok(switch::switch(&args)),
        Verb::Check(args) => check(&args),
        Verb::Setup => setup(),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Model(args) => model::model(&args),
        Verb::Schema(args) => schema::schema(&args.programs, &args.output, args.check),
        Verb::Describe { program, json } => describe(&program, json),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("millrace: {error:#}");
        ExitCode::FAILURE
    })
}

fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let Loaded { checked, .. } = load::load(&args.graph, &args.sets, &Programs::default())?;
    if args.json {
        let mut json = checked.report.json();
        json["memory"] = serde_json::json!({
            "shared_bytes": checked.memory.host_bytes(), "gpu_bytes": checked.memory.gpu_bytes(),
        });
        println!("{json:#}");
    } else {
        if args.explain {
            print!("{}", explain(&checked));
        } else {
            print!("{}", checked.memory.line());
        }
        print!("{}", checked.report.text(args.explain));
    }
    Ok(if checked.report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(program: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let found = schema::describe(program)?;
    if json {
        println!("{:#}", serde_json::to_value(&*found)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} {}: {}\n", found.name, found.version, found.summary);
    for port in &found.inputs {
        let need = if port.required { ", required" } else { "" };
        println!("input {} ({}{need}): {}", port.name, port.accepts.join(" or "), port.doc);
    }
    for port in &found.outputs {
        println!("output {} ({}): {}", port.name, port.carries, port.doc);
    }
    for doc in settings::document(&found.schema()) {
        let default = match (&doc.default, doc.required) {
            (_, true) => "required".to_owned(),
            (None, _) if doc.optional => "unset by default".to_owned(),
            (None, _) => "with a default".to_owned(),
            (Some(value), _) => format!("default {}", settings::to_text(value)),
        };
        let live = if doc.live { "; live" } else { "" };
        println!("\n{}: {} ({default}{live})\n    {}", doc.key, doc.allowed, doc.doc);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
