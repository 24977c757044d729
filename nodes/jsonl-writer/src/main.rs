//! jsonl-writer
fn main() {}
