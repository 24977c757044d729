//! The pictures of a Motion JPEG stream, for tests of cameras that send them.

use super::{decode, own_data};
use millrace_ingest::IngestOptions;

/// Each picture's own bytes.
pub(crate) fn pictures() -> Vec<Vec<u8>> {
    let whole = std::fs::read(own_data("mjpeg.mjpeg")).unwrap();
    let mut starts: Vec<usize> = (0..whole.len() - 2).filter(|&at| whole[at..at + 3] == [0xff, 0xd8, 0xff]).collect();
    starts.push(whole.len());
    starts.windows(2).map(|at| whole[at[0]..at[1]].to_vec()).collect()
}

/// What FFmpeg's file of the same pictures decodes to here; that is held against FFmpeg in another test.
pub(crate) fn checksums() -> Vec<String> {
    decode(&own_data("mjpeg.mjpeg"), &IngestOptions::default())
        .unwrap()
        .frames
        .into_iter()
        .map(|frame| frame.md5)
        .collect()
}
