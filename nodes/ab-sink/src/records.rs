//! What arrived, kept in memory until the end: a disk has no place in what is measured.

use millrace_frame::DetBox;
use millrace_node::create_file;
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// One item that arrived.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Record {
    /// Camera id.
    pub(crate) source: String,
    /// Number of the frame within its camera.
    pub(crate) seq: u64,
    /// Presentation time, nanoseconds.
    pub(crate) pts_ns: i64,
    /// When the frame arrived at the first node, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(crate) capture_ns: i64,
    /// When it was complete here, by the same clock.
    pub(crate) arrival_ns: i64,
    /// What was found in it, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) boxes: Option<Vec<DetBox>>,
}

/// Writes all records, one JSON line each.
pub(crate) fn write(path: &Path, records: &[Record]) -> io::Result<()> {
    let mut file = BufWriter::new(create_file(path, false)?);
    for record in records {
        serde_json::to_writer(&mut file, record)?;
        file.write_all(b"\n")?;
    }
    file.flush()
}
