//! frame-checksum
fn main() {}
