//! `ab-sink`: what arrived at the end of an arm of a comparison, and when.
#![forbid(unsafe_code)]

mod config;
mod node;
mod records;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::AbSink>()
}
