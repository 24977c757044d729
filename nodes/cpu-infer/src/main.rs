//! `cpu-infer`: an ONNX detector in pure Rust, on the CPU.
#![forbid(unsafe_code)]

mod engine;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_infer::main::<engine::Rten>()
}
