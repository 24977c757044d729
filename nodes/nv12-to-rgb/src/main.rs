//! nv12-to-rgb
fn main() {}
