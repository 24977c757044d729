//! sw-nv12
fn main() {}
