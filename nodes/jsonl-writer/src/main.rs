//! `jsonl-writer`: detections as JSON lines in a file.

mod config;
mod lines;
mod node;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::JsonlWriter>()
}
