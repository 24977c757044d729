//! What the tests share: decoding a file to checksums, and FFmpeg's checksums to compare them with.
#![allow(clippy::unwrap_used, dead_code)]

pub(crate) mod mjpeg;
pub(crate) mod mp4_writer;
pub(crate) mod viewer;

use md5::{Digest, Md5};
use millrace_ingest::{
    AccessUnit, Decoded, Event, Ingest, IngestError, IngestOptions, Picture, ReorderPolicy, SoftwareDecoder,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A file that is gone with the test.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("millrace-ingest-{}-{n}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Everything that came out of a source.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) frames: Vec<Frame>,
    /// Lost, by cause.
    pub(crate) lost: BTreeMap<&'static str, u64>,
    /// Counted by the source, by name.
    pub(crate) counted: BTreeMap<&'static str, u64>,
    pub(crate) units: Vec<UnitFacts>,
    lost_in_decoder: u64,
    /// The most pictures that were in the decoder and neither out nor lost, after a unit had gone in.
    pub(crate) largest_hold: usize,
    /// Of each frame: how many units went in after its own before it came out.
    pub(crate) waited_units: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) pts_ns: i64,
    pub(crate) size: (u32, u32),
    pub(crate) md5: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitFacts {
    pub(crate) pts_ns: i64,
    pub(crate) dts_ns: i64,
    pub(crate) key: bool,
    pub(crate) bytes: usize,
}

impl Run {
    pub(crate) fn md5s(&self) -> Vec<&str> {
        self.frames.iter().map(|f| &f.md5[..]).collect()
    }
    fn note_waits(&mut self, shown_units: &BTreeMap<i64, usize>) {
        for frame in &self.frames[self.waited_units.len()..] {
            self.waited_units.push(self.units.len() - 1 - shown_units[&frame.pts_ns]);
        }
        let held = shown_units.len().saturating_sub(self.frames.len() + self.lost_in_decoder as usize);
        self.largest_hold = self.largest_hold.max(held);
    }

    pub(crate) fn lost_in_all(&self) -> u64 {
        self.lost.values().sum()
    }
}

/// The MD5 of the packed NV12 planes, as FFmpeg's framemd5 has it. The slot that the picture is written to has a pitch of
/// its own, so the packing is this function's.
pub(crate) fn frame_of(picture: &Picture) -> Frame {
    let (desc, bytes) = picture.info.nv12(64);
    let mut slot = vec![0x5A; bytes as usize];
    picture.write_nv12(&desc, &mut slot).unwrap();
    let size = (desc.coded.width_px, desc.coded.height_px);
    let mut hash = Md5::new();
    let chroma = (size.0.div_ceil(2) * 2, size.1.div_ceil(2));
    for (plane, (row, rows)) in desc.planes.iter().zip([size, chroma]) {
        for y in 0..rows {
            let at = plane.offset_bytes as usize + y as usize * plane.pitch_bytes as usize;
            hash.update(&slot[at..at + row as usize]);
        }
    }
    Frame { pts_ns: picture.timing.pts_ns, size, md5: format!("{:x}", hash.finalize()) }
}

pub(crate) fn decode(path: &Path, options: &IngestOptions) -> Result<Run, IngestError> {
    decode_with(path, options, ReorderPolicy::Lossless, |_| {})
}

/// Decodes a file; `forget` changes what is known of each unit before it is decoded.
pub(crate) fn decode_with(
    path: &Path,
    options: &IngestOptions,
    policy: ReorderPolicy,
    forget: impl Fn(&mut AccessUnit),
) -> Result<Run, IngestError> {
    let mut run = Run::default();
    let mut ingest = Ingest::open(path.to_str().unwrap(), options)?;
    let mut decoder = SoftwareDecoder::new(policy);
    let mut shown_units = BTreeMap::new();
    loop {
        match ingest.next_event()? {
            Event::Unit(mut unit) => {
                forget(&mut unit);
                if unit.shown {
                    shown_units.insert(unit.timing.pts_ns, run.units.len());
                }
                run.units.push(UnitFacts {
                    pts_ns: unit.timing.pts_ns,
                    dts_ns: unit.dts_ns,
                    key: unit.key,
                    bytes: unit.data.len(),
                });
                decoder.push(&unit)?;
            }
            Event::Loss(loss) => *run.lost.entry(loss.cause).or_default() += loss.count,
            Event::Flush => decoder.flush(),
            Event::Counted(counted) => *run.counted.entry(counted.name).or_default() += counted.count,
            Event::Wait(_) | Event::State(_) => {}
            Event::End => break,
        }
        drain(&mut decoder, &mut run);
        run.note_waits(&shown_units);
    }
    decoder.flush();
    drain(&mut decoder, &mut run);
    run.note_waits(&shown_units);
    Ok(run)
}

pub(crate) fn drain(decoder: &mut SoftwareDecoder, run: &mut Run) {
    while let Some(out) = decoder.take() {
        match out {
            Decoded::Picture(picture) => run.frames.push(frame_of(&picture)),
            Decoded::Loss(loss) => {
                run.lost_in_decoder += loss.count;
                *run.lost.entry(loss.cause).or_default() += loss.count;
            }
        }
    }
}

/// One line of a framemd5 file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) pts: i64,
    pub(crate) size_bytes: u64,
    pub(crate) md5: String,
}

/// FFmpeg's framemd5 file: its timebase (seconds per tick) and its frames.
pub(crate) fn reference(path: &Path) -> ((i64, i64), Vec<Reference>) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut timebase = (0, 0);
    let mut frames = Vec::new();
    for line in text.lines() {
        if let Some(tb) = line.strip_prefix("#tb 0: ") {
            let (num, den) = tb.split_once('/').unwrap();
            timebase = (num.parse().unwrap(), den.parse().unwrap());
        } else if !line.starts_with('#') {
            let f: Vec<&str> = line.split(',').map(str::trim).collect();
            frames.push(Reference {
                pts: f[2].parse().unwrap(),
                size_bytes: f[4].parse().unwrap(),
                md5: f[5].to_owned(),
            });
        }
    }
    (timebase, frames)
}

/// `pts` ticks in nanoseconds.
pub(crate) fn to_ns(pts: i64, (num, den): (i64, i64)) -> i64 {
    ((i128::from(pts) * i128::from(num) * 1_000_000_000 * 2 + i128::from(den)) / (2 * i128::from(den))) as i64
}

pub(crate) fn own_data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The folder of real data beside the repository. Without it the test is skipped.
pub(crate) fn shared_data() -> Option<PathBuf> {
    millrace_needs::data()
}
