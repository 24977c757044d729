//! The kernels on a real GPU: are they right, and how fast are they?
//!
//! ```sh
//! cargo run --release -p millrace-kernels --example gpu_kernels -- [--json FILE] [--variants FOLDER] [--device N]
//! ```
//! The program needs a GPU and its driver, no compiler and no network. It exits 1 where there is no GPU or a value is wrong.
//! `--variants` takes kernels that `kernels/ptx/build.py --tune FOLDER` made, and measures them too.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for a terminal")]

#[path = "../../tests/common/mod.rs"]
mod common;
mod correct;
mod replay;
mod speed;

use millrace_cuda::Gpu;
use std::process::ExitCode;

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let (mut json, mut variants, mut device) = (None, None, 0);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--json" => json = Some(value),
            "--variants" => variants = Some(value),
            "--device" => device = value.parse()?,
            _ => return Err(format!("{name}: --json FILE, --variants FOLDER, --device N").into()),
        }
    }
    let gpu = Gpu::open(device)?;
    let (major, minor) = gpu.compute_capability()?;
    let driver = millrace_cuda::driver_version()?;
    println!("{} (compute {major}.{minor}), driver for CUDA {}.{}", gpu.name(), driver / 1000, driver % 1000 / 10);
    let checked = correct::run(&gpu)?;
    let measured = speed::run(&gpu, variants.as_deref())?;
    if let Some(path) = json {
        let name = gpu.name().replace(['"', '\\'], "");
        let head = format!("\"gpu\": \"{name}\", \"compute\": \"{major}.{minor}\", \"cuda\": {driver}");
        std::fs::write(path, format!("{{{head}, \"correct\": {}, \"speed\": {measured}}}\n", checked.json))?;
    }
    Ok(checked.right)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
