//! ort-infer
fn main() {}
