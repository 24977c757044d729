//! `trt-infer`: an ONNX detector on an NVIDIA GPU, over TensorRT.
#![forbid(unsafe_code)]

mod builder;
mod cache;
mod config;
mod engine;
mod plan;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    builder::asked().unwrap_or_else(millrace_infer::main::<engine::Trt>)
}
