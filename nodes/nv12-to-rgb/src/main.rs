//! Turns decoded frames into a model's input tensor: colour, letterbox, normalization and layout in one pass.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    nv12_to_rgb::main()
}
