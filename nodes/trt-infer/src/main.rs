//! `trt-infer`: an ONNX detector on an NVIDIA GPU, over TensorRT.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    trt_infer::main()
}
