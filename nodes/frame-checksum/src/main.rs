//! `frame-checksum`: FFmpeg's framemd5 lines of the frames that arrive.

mod config;
mod lines;
mod node;
#[cfg(test)]
mod tests;

fn main() -> std::process::ExitCode {
    millrace_node::main::<node::FrameChecksum>()
}
