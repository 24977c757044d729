//! zenoh-publisher
fn main() {}
