//! cpu-infer
fn main() {}
