//! `nvdec-nv12`: video to NV12 on the GPU.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    nvdec_nv12::main()
}
