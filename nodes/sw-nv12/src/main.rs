//! `sw-nv12`: video to NV12 on the CPU.

mod config;
mod node;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::SwNv12>()
}
