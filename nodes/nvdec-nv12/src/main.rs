//! `nvdec-nv12`: video to NV12 on the GPU.

mod backend;
mod camera;
mod config;
mod cuda;
mod node;
mod one;
mod surface;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::NvdecNv12<cuda::Cuda>>()
}
