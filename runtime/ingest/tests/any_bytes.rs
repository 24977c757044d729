//! Every reader of files, and the decoder behind it, over valid files that are changed, cut and put together by a seeded
//! generator: each ends, without a panic, and names what it lost.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Scratch, own_data};
use millrace_ingest::{Decoded, Event, Ingest, IngestOptions, ReorderPolicy, SoftwareDecoder};
use std::path::Path;

const CORPUS: [&str; 14] = [
    "mjpeg.avi",
    "h264.avi",
    "h265.avi",
    "mjpeg.mov",
    "mjpeg.mp4",
    "mjpeg.mkv",
    "mjpeg.mjpeg",
    "live.mkv",
    "wrap.ts",
    "flat.264",
    "turned/turned.mp4",
    "stills/odd_444_progressive.jpg",
    "stills/palette.png",
    "stills/grey_alpha.png",
];

/// More than any of these files has, however it is changed.
const MOST_EVENTS: u64 = 100_000;

/// Reads and decodes what there is of a file.
fn play(path: &Path) -> Result<(), String> {
    let mut ingest = Ingest::open(path, &IngestOptions::default()).map_err(|e| e.to_string())?;
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Lossless);
    for _ in 0..MOST_EVENTS {
        match ingest.next_event().map_err(|e| e.to_string())? {
            Event::Unit(unit) => decoder.push(&unit).map_err(|e| e.to_string())?,
            Event::Loss(loss) => assert!(loss.count > 0, "{loss:?}"),
            Event::End => {
                decoder.flush();
                return Ok(());
            }
            Event::Flush => decoder.flush(),
            Event::Counted(_) => {}
            other => panic!("a file gives no {other:?}"),
        }
        while let Some(out) = decoder.take() {
            match out {
                Decoded::Loss(loss) => assert!(loss.count > 0, "{loss:?}"),
                Decoded::Picture(picture) => {
                    let (desc, bytes) = picture.info.nv12(64);
                    picture.write_nv12(&desc, &mut vec![0; bytes as usize]).unwrap();
                }
            }
        }
    }
    panic!("{}: there is no end", path.display());
}

/// A file that was valid, changed in a few places.
fn changed(valid: &[u8], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for _ in 0..random.usize(1..6) {
        // what describes a file is at its beginning more than elsewhere
        let within = if random.bool() { bytes.len().min(600) } else { bytes.len() };
        let at = random.usize(..within);
        match random.u8(..6) {
            0 => bytes[at] = random.u8(..),
            1 => bytes[at] ^= 1 << random.u8(..8),
            2 => {
                let extreme = [0u32, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x0001_0000];
                let value = extreme[random.usize(..extreme.len())].to_le_bytes();
                let end = (at + 4).min(bytes.len());
                bytes[at..end].copy_from_slice(&value[..end - at]);
            }
            3 => drop(bytes.drain(at..(at + random.usize(1..40)).min(bytes.len()))),
            4 => {
                let from = random.usize(..valid.len());
                let piece = &valid[from..(from + random.usize(1..300)).min(valid.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

#[test]
fn whatever_the_bytes_are_a_file_has_an_end() {
    let mut read = 0;
    for (number, name) in (0u64..).zip(CORPUS) {
        let valid = std::fs::read(own_data(name)).unwrap();
        play(&own_data(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut random = fastrand::Rng::with_seed(0x616e_7962 + number);
        for _ in 0..150 {
            let file = Scratch::new("any", &changed(&valid, &mut random));
            read += u32::from(play(&file.0).is_ok());
        }
    }
    assert!(read > 500, "{read} files could be read: the changes are too large to say anything");
}
