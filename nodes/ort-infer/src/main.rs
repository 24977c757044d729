//! `ort-infer`: an ONNX detector over ONNX Runtime.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    millrace_infer::main::<ort_infer::Ort>()
}
