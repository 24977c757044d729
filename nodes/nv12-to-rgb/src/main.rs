//! Turns decoded frames into a model's input tensor: colour, letterbox, normalization and layout in one pass.

mod config;
mod gpu;
mod node;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::Nv12ToRgb>()
}
