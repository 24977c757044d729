//! `frame-picture`: chosen frames as JPEG files.
#![forbid(unsafe_code)]

mod config;
// ws-publisher's own: a picture of a frame is the same wherever it is shown, and no node may depend on a node.
#[path = "../../ws-publisher/src/jpeg.rs"]
mod jpeg;
mod node;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::FramePicture>()
}
