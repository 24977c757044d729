//! ws-publisher
fn main() {}
