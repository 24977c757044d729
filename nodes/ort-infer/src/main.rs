//! `ort-infer`: an ONNX detector over ONNX Runtime.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    ort_infer::main()
}
