//! `millrace`: checks and runs camera graphs.
//!
//! It adds checks, `--set` and a live view to what dora's own verbs do; a graph that it runs, `dora run` runs as well.

mod ab;
mod cameras;
mod capacity;
mod check;
mod clock;
mod doctor;
mod dora;
mod efficiency;
mod events;
mod fit;
mod life;
mod load;
mod logs;
mod make;
mod model;
mod out;
mod procs;
mod run;
mod running;
mod schema;
mod scratch;
mod set;
mod signals;
mod soak;
mod status;
mod supervise;
mod switch;
mod table;
mod totals;
mod trial;
mod view;
mod vitals;
mod warnings;

use crate::out::{complain, errln, outln};
use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use millrace_graph::check::Set;
use millrace_graph::nearest::nearest;
use millrace_graph::schedule::parse_duration;
use millrace_graph::settings;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// On a terminal, unless NO_COLOR is set.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Checks, runs and compares camera graphs: video in, detections out, on a CPU or a GPU.
#[derive(Parser)]
#[command(version, propagate_version = true, styles = STYLES, after_help = "\
Examples:
  millrace run graphs/demo.yml                             show the demo, with its page
  millrace check graphs/*.yml                              find all faults of graphs
  millrace run graphs/demo.yml --set detect.SCORE=0.4      run it with another setting
  millrace ab graphs/demo.yml --set to-rgb.FUSED=false     measure what a change costs
  millrace doctor                                          see what this machine lacks

Each command explains itself: 'millrace run --help'. The graphs' pages begin at docs/graphs.md.")]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build what a graph needs, check it, and run it with a live view.
    Run(run::Args),
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
    Check(check::Args),
    /// Change a setting of a node while it runs, and print the node's answer.
    Set(set::Args),
    /// Show the graphs that run on this machine.
    List(running::ListArgs),
    /// End a graph that runs on this machine, and wait until it has ended.
    Stop(running::StopArgs),
    /// Print what the nodes of a graph logged.
    Logs(running::LogsArgs),
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
    let program = dora::ensure(&mut |line| errln!("{line}"))?;
    errln!("dora is {}", program.display());
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| hinted(error).exit());
    let outcome = match args.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Ab(args) => Ok(ab::ab(&args)),
        Verb::Capacity(args) => Ok(capacity::capacity(&args)),
        Verb::Soak(args) => Ok(soak::soak(&args)),
        Verb::Supervise(args) => supervise::supervise(&args),
        Verb::Switch(args) => Ok(switch::switch(&args)),
        Verb::Check(args) => Ok(check::check(&args)),
        Verb::Set(args) => Ok(set::set(&args)),
        Verb::List(args) => running::list(&args),
        Verb::Stop(args) => running::stop(&args),
        Verb::Logs(args) => running::logs(&args),
        Verb::Setup => setup(),
        Verb::Doctor(args) => doctor::doctor(&args),
        Verb::Model(args) => model::model(&args),
        Verb::Schema(args) => schema::schema(&args.programs, &args.output, args.check),
        Verb::Describe { program, json } => describe(&program, json),
    };
    outcome.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

/// The error of a command that is not there, with the one that was meant. clap finds none for swapped letters, nor for
/// a graph without a command.
fn hinted(mut error: clap::Error) -> clap::Error {
    let wrong = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(wrong)) if error.kind() == ErrorKind::InvalidSubcommand => wrong.clone(),
        _ => return error,
    };
    let has_one = error.get(ContextKind::SuggestedSubcommand).is_some();
    let command = Args::command();
    if let Some(near) = nearest(&wrong, command.get_subcommands().map(|verb| verb.get_name())).filter(|_| !has_one) {
        let near = ContextValue::Strings(vec![near.to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, near);
    } else if [".yml", ".yaml"].iter().any(|ending| wrong.ends_with(ending)) {
        let way = format!("'millrace run {wrong}' runs a graph, 'millrace check {wrong}' checks it");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![way.into()]));
    }
    error
}

fn describe(program: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let found = schema::describe(program)?;
    if json {
        outln!("{:#}", serde_json::to_value(&*found)?);
        return Ok(ExitCode::SUCCESS);
    }
    outln!("{} {}: {}\n", found.name, found.version, found.summary);
    for port in &found.inputs {
        let need = if port.required { ", required" } else { "" };
        outln!("input {} ({}{need}): {}", port.name, port.accepts.join(" or "), port.doc);
    }
    for port in &found.outputs {
        outln!("output {} ({}): {}", port.name, port.carries, port.doc);
    }
    for doc in settings::document(&found.schema()) {
        let default = match (&doc.default, doc.required) {
            (_, true) => "required".to_owned(),
            (None, _) if doc.optional => "unset by default".to_owned(),
            (None, _) => "with a default".to_owned(),
            (Some(value), _) => format!("default {}", settings::to_text(value)),
        };
        let live = if doc.live { "; live" } else { "" };
        outln!("\n{}: {} ({default}{live})\n    {}", doc.key, doc.allowed, doc.doc);
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_mistyped_command_is_recognised() {
        let said = |word: &str| hinted(Args::try_parse_from(["millrace", word]).err().unwrap()).to_string();
        for (wrong, right) in [("rnu", "run"), ("chekc", "check"), ("docter", "doctor"), ("lsit", "list")] {
            assert!(said(wrong).contains(&format!("'{right}'")), "{}", said(wrong));
        }
        assert!(said("demo.yml").contains("'millrace run demo.yml' runs a graph"), "{}", said("demo.yml"));
        assert!(!said("frobnicate").contains("tip:"), "{}", said("frobnicate"));
    }

    #[test]
    fn help_has_examples() {
        let mut command = Args::command();
        assert!(command.render_help().to_string().contains("millrace run graphs/demo.yml"));
        for name in ["run", "check", "ab", "set", "logs", "switch"] {
            let verb = command.find_subcommand_mut(name).unwrap();
            assert!(verb.render_help().to_string().contains("Example"), "{name}");
        }
    }
}
