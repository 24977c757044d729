//! `millrace model`: asked of the detector's program that computes the model.

use anyhow::Context;
use std::ffi::OsString;
use std::process::{Command, ExitCode};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The detector that computes the model: cpu-infer or ort-infer.
    #[arg(long, default_value = "cpu-infer", value_parser = ["cpu-infer", "ort-infer"])]
    engine: String,
    /// `check MODEL.yml` or `add FILE.onnx`, with `--help` for what can follow.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    request: Vec<OsString>,
}

/// Runs the detector's program, which is built beside this one, and ends as it ends.
pub(crate) fn model(args: &Args) -> anyhow::Result<ExitCode> {
    let here = std::env::current_exe().context("the path of this program is not known")?;
    let program = here.with_file_name(&args.engine);
    let status = Command::new(&program).arg("--model").args(&args.request).status();
    let status = status.with_context(|| {
        format!("{} cannot be started; build it: cargo build --release -p {}", program.display(), args.engine)
    })?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
