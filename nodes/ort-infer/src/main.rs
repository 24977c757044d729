//! `ort-infer`: an ONNX detector over ONNX Runtime's CPU provider.
#![forbid(unsafe_code)]

mod config;
mod engine;
mod library;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<millrace_infer::InferNode<engine::Ort>>()
}
