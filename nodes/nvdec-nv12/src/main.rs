//! `nvdec-nv12`: video to NV12 on the GPU.

mod admitted;
mod config;
mod node;
mod surface;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::NvdecNv12>()
}
