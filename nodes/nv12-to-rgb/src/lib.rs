//! Turns decoded frames into a model's input tensor: colour, letterbox, normalization and layout in one pass.

mod config;
mod gpu;
mod node;
#[cfg(test)]
mod tests;

use millrace_node::Stage;
use std::process::ExitCode;

/// The `main` of its program.
pub fn main() -> ExitCode {
    millrace_node::main::<node::Nv12ToRgb>()
}

/// The node as a part of a process of several.
pub const fn stage() -> Stage {
    Stage::of::<node::Nv12ToRgb>()
}
