//! `faulty-node`: hands tensors and detections on, with one thing wrong, for tests of what has to find it.

mod config;
mod node;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::FaultyNode>()
}
