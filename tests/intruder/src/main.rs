//! `intruder`: a software decoder that its first picture takes over, for the test of what a sandbox leaves to it.
#![forbid(unsafe_code)]

mod attempts;
mod node;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::Intruder>()
}
