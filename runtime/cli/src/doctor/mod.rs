//! `millrace doctor`: what this machine has for graphs, a line for each thing.
//!
//! Nothing of a GPU is touched in this process: each probe is a process of its own, with a time limit.

mod check;
mod child;
mod host;
mod onnxruntime;
mod probe;
mod sharing;
mod surroundings;

use crate::out::{columns, out, outln};
use check::{Check, Report};
use probe::Probe;
use std::process::ExitCode;
use std::time::Duration;

/// The arguments of the verb.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail also when something is missing that graphs on a GPU need.
    #[arg(long)]
    gpu: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// How long a check of the GPU or of a library may take.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = crate::parse_duration)]
    time_limit: Duration,
    /// Run one of the checks that have a process of their own, and print its lines.
    #[arg(long, hide = true)]
    probe: Option<Probe>,
}

/// Prints the report; the exit code says whether graphs can run.
pub(crate) fn doctor(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(probe) = args.probe {
        return probe::run(probe);
    }
    let report = Report { checks: all(args.time_limit) };
    if args.json {
        outln!("{:#}", report.json());
    } else {
        out!("{}", report.text(columns()));
    }
    let fine = report.cpu_lacks().is_empty() && (!args.gpu || report.gpu_lacks().is_empty());
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn all(limit: Duration) -> Vec<Check> {
    let mut checks = host::checks();
    checks.extend(surroundings::checks());
    for probe in [Probe::Driver, Probe::Nvdec] {
        checks.extend(child::run(probe, "", probe.promises(), limit));
    }
    for way in sharing::WAYS {
        checks.extend(child::run(way, "", way.promises(), limit));
    }
    let onnxruntime = onnxruntime::find();
    match &onnxruntime {
        Ok(path) => {
            let input = path.display().to_string();
            for probe in [Probe::Onnxruntime, Probe::OrtCuda, Probe::OrtTensorrt] {
                checks.extend(child::run(probe, &input, probe.promises(), limit));
            }
        }
        Err(why) => checks.extend(onnxruntime::without(why)),
    }
    for probe in [Probe::CudaLibraries, Probe::Tensorrt] {
        checks.extend(child::run(probe, "", probe.promises(), limit));
    }
    checks
}
