//! `sw-nv12`: video to NV12 on the CPU.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sw_nv12::main()
}
