//! Empty: it lets the manifest name build-dependencies.
fn main() {}
