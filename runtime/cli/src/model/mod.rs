//! `millrace model`: asked of the detector's program that computes the model, but for `get`, which computes nothing.

mod get;

use anyhow::{Context, bail};
use millrace_graph::nearest::nearest;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

const VERBS: [&str; 4] = ["add", "check", "build", "get"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The detector that computes the model; left out, cpu-infer, and for `build` trt-infer.
    #[arg(long, value_parser = ["cpu-infer", "ort-infer", "trt-infer"])]
    engine: Option<String>,
    /// `check MODEL.yml`, `add FILE.onnx` or `build MODEL.yml`, with `--help` for what can follow; or `get [NAME]`, which says
    /// where well-known models are had.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    request: Vec<OsString>,
}

/// Runs the detector's program, which is built beside this one, and ends as it ends.
pub(crate) fn model(args: &Args) -> anyhow::Result<ExitCode> {
    if args.request[0] == "get" {
        let names: Vec<String> = args.request[1..].iter().map(|name| name.to_string_lossy().into_owned()).collect();
        return get::get(&names);
    }
    let verb = args.request[0].to_string_lossy();
    if !VERBS.contains(&&*verb) && !verb.starts_with('-') {
        let near = nearest(&verb, VERBS).map_or(String::new(), |near| format!("; did you mean '{near}'?"));
        bail!("there is no 'millrace model {verb}'{near} (known: {})", VERBS.join(", "));
    }
    let here = std::env::current_exe().context("the path of this program is not known")?;
    let usual = if args.request.first().is_some_and(|verb| verb == "build") { "trt-infer" } else { "cpu-infer" };
    let engine = args.engine.as_deref().unwrap_or(usual);
    let program = here.with_file_name(engine);
    let status = Command::new(&program).arg("--model").args(&args.request).status();
    let status = status.with_context(|| {
        format!("{} cannot be started; build it: cargo build --release -p {engine}", program.display())
    })?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
