//! `cpu-infer`: an ONNX detector in pure Rust, on the CPU.
#![forbid(unsafe_code)]

mod engine;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<millrace_infer::InferNode<engine::Rten>>()
}
