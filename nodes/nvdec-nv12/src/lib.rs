//! `nvdec-nv12`: video to NV12 on the GPU.

mod admitted;
mod config;
mod node;
mod surface;
#[cfg(test)]
mod tests;

use millrace_node::Stage;
use std::process::ExitCode;

/// The `main` of its program.
pub fn main() -> ExitCode {
    millrace_node::main::<node::NvdecNv12>()
}

/// The node as a part of a process of several.
pub const fn stage() -> Stage {
    Stage::of::<node::NvdecNv12>()
}
