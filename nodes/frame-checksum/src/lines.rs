//! FFmpeg's framemd5 format, version 2: a header, then a line per frame with the MD5 of its packed planes.

use md5::{Digest, Md5};
use millrace_frame::{ImageDesc, Timebase, Timing, counted};
use millrace_node::create_file;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Why the file cannot be written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub(crate) enum LinesError {
    #[error("cannot make {path}: {cause}; PATH must name a file in a folder that exists and may be written")]
    Create { path: PathBuf, cause: std::io::Error },
    #[error("cannot write {path} after {}: {cause}", counted(*frames, "frame", "frames"))]
    Write { path: PathBuf, frames: u64, cause: std::io::Error },
}

/// The MD5 of what is shown of an image, rows packed, planes one after the other: what FFmpeg hashes.
///
/// `bytes` is the slot that `image` was validated against. Chroma rows and columns of an odd size are rounded up; a
/// display area that begins at an odd sample uses the chroma sample that this sample belongs to.
pub(crate) fn image_md5(image: &ImageDesc, bytes: &[u8]) -> (String, u64) {
    let d = image.display;
    // bytes per luma sample and per chroma step, in a row: by the row of one luma pixel, and of two
    let shapes = |w, h| image.format.plane_shapes(millrace_frame::Size::new(w, h));
    let pixel = shapes(1, 1);
    let shown = shapes(d.width_px + d.x_px % 2, d.height_px + d.y_px % 2);
    let mut hash = Md5::new();
    let mut size_bytes = 0;
    for (n, plane) in image.planes.iter().enumerate() {
        // only chroma has fewer rows than luma
        let subsampled = shapes(2, 2)[n].1 == 1;
        let (x, y) = if subsampled { (d.x_px / 2, d.y_px / 2) } else { (d.x_px, d.y_px) };
        let (row_bytes, rows) = if subsampled { shown[n] } else { shapes(d.width_px, d.height_px)[n] };
        for row in 0..rows {
            let at =
                plane.offset_bytes + (u64::from(y) + row) * u64::from(plane.pitch_bytes) + u64::from(x) * pixel[n].0;
            hash.update(&bytes[at as usize..(at + row_bytes) as usize]);
            size_bytes += row_bytes;
        }
    }
    (format!("{:x}", hash.finalize()), size_bytes)
}

/// The file, one whole line at a time.
pub(crate) struct Framemd5 {
    file: File,
    path: PathBuf,
    frames: u64,
    /// The file has its header, by an earlier process.
    has_header: bool,
    timebase: Option<Timebase>,
}

impl Framemd5 {
    /// Opens `path`: emptied, or with `append` behind what an earlier process of the node wrote.
    pub(crate) fn open(path: &Path, append: bool) -> Result<Self, LinesError> {
        let failed = |cause| LinesError::Create { path: path.into(), cause };
        let file = create_file(path, append).map_err(failed)?;
        let has_header = append && file.metadata().map_err(failed)?.len() > 0;
        Ok(Self { file, path: path.into(), frames: 0, has_header, timebase: None })
    }

    /// Adds a frame. The header goes out with the first one, whose timebase and size it states.
    pub(crate) fn frame(&mut self, image: &ImageDesc, bytes: &[u8], timing: &Timing) -> Result<(), LinesError> {
        let mut text = String::new();
        let timebase = *self.timebase.get_or_insert_with(|| {
            if !self.has_header {
                text = header(image, timing.timebase);
            }
            timing.timebase
        });
        let pts = ticks(timing.pts_ns, timebase);
        let (md5, size_bytes) = image_md5(image, bytes);
        // FFmpeg's columns; decoded frames have no decoding time of their own, and their duration is not known here
        text += &format!("0, {pts:>10}, {pts:>10}, {:>8}, {size_bytes:>8}, {md5}\n", 1);
        self.write(text.as_bytes())?;
        self.frames += 1;
        Ok(())
    }

    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Everything is on the disk when this returns.
    pub(crate) fn finish(&mut self) -> Result<(), LinesError> {
        match self.file.sync_data() {
            // a pipe or a device has no disk behind it
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
            result => result.map_err(|cause| self.failed(cause)),
        }
    }

    /// One call per line, so that a reader never sees half of one.
    fn write(&mut self, line: &[u8]) -> Result<(), LinesError> {
        self.file.write_all(line).map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: std::io::Error) -> LinesError {
        LinesError::Write { path: self.path.clone(), frames: self.frames, cause }
    }
}

fn header(image: &ImageDesc, timebase: Timebase) -> String {
    let size = image.display_size();
    format!(
        "#format: frame checksums\n#version: 2\n#hash: MD5\n#software: millrace frame-checksum {}\n#tb 0: {}/{}\n\
         #media_type 0: video\n#codec_id 0: rawvideo\n#dimensions 0: {size}\n#sar 0: 0/1\n\
         #stream#, dts,        pts, duration,     size, hash\n",
        env!("CARGO_PKG_VERSION"),
        timebase.num,
        timebase.den,
    )
}

/// A time in ticks of `timebase`, rounded to the nearest.
fn ticks(pts_ns: i64, timebase: Timebase) -> i64 {
    let per_tick = i128::from(timebase.num.max(1)) * 1_000_000_000;
    let scaled = i128::from(pts_ns) * i128::from(timebase.den);
    let half = if scaled < 0 { -per_tick / 2 } else { per_tick / 2 };
    ((scaled + half) / per_tick).clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}
