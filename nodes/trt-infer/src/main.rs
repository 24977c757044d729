//! `trt-infer`: an ONNX detector on an NVIDIA GPU, over TensorRT.
#![forbid(unsafe_code)]

mod cache;
mod config;
mod engine;
mod plan;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<millrace_infer::InferNode<engine::Trt>>()
}
