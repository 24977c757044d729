//! `ort-infer`: an ONNX detector over ONNX Runtime.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    millrace_node::main::<millrace_infer::InferNode<ort_infer::Ort>>()
}
