//! `trt-infer`: an ONNX detector on an NVIDIA GPU, over TensorRT.
#![forbid(unsafe_code)]

mod builder;
mod cache;
mod config;
mod engine;
mod plan;
mod ready;
#[cfg(test)]
mod tests;

pub use config::{Precision, Settings, Tactic};
pub use engine::{InTrt, Trt};

use millrace_node::Stage;
use std::process::ExitCode;

/// The `main` of its program.
pub fn main() -> ExitCode {
    building().unwrap_or_else(millrace_infer::main::<engine::Trt>)
}

/// The exit code of a process that was started to build an engine, by the program that needs it; `None` in any other.
pub fn building() -> Option<ExitCode> {
    builder::asked()
}

/// The node as a part of a process of several.
pub const fn stage() -> Stage {
    millrace_infer::stage::<engine::Trt>()
}
