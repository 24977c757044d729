//! `cpu-infer`: an ONNX detector in pure Rust, on the CPU.
#![forbid(unsafe_code)]

mod engine;
#[cfg(test)]
mod tests;

use millrace_node::Stage;
use std::process::ExitCode;

/// The `main` of its program.
pub fn main() -> ExitCode {
    millrace_infer::main::<engine::Rten>()
}

/// The node as a part of a process of several.
pub const fn stage() -> Stage {
    millrace_infer::stage::<engine::Rten>()
}
