//! `cpu-infer`: an ONNX detector in pure Rust, on the CPU.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cpu_infer::main()
}
