//! Files that are still written: what is whole in them is read, and their end says that there is more.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Run, Scratch, drain, own_data, reference};
use millrace_ingest::{Event, Ingest, IngestOptions, ReorderPolicy, SoftwareDecoder};
use std::collections::BTreeMap;
use std::io::Write;

/// Reads a file that has the first part of these bytes when it is opened, and all of them when its first picture has come.
fn read(name: &str, bytes: &[u8], at_first: usize) -> (Run, BTreeMap<&'static str, String>) {
    let file = Scratch::new(name, &bytes[..at_first]);
    let mut ingest = Ingest::open(file.0.to_str().unwrap(), &IngestOptions::default()).unwrap();
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Lossless);
    let (mut run, mut counted) = (Run::default(), BTreeMap::new());
    let mut rest = Some(&bytes[at_first..]);
    loop {
        match ingest.next_event().unwrap() {
            Event::Unit(unit) => {
                decoder.push(&unit).unwrap();
                if let Some(rest) = rest.take() {
                    std::fs::File::options().append(true).open(&file.0).unwrap().write_all(rest).unwrap();
                }
            }
            Event::Loss(loss) => *run.lost.entry(loss.cause).or_default() += loss.count,
            Event::Counted(of) => assert!(counted.insert(of.name, of.detail).is_none(), "{}", of.name),
            Event::Flush => decoder.flush(),
            Event::Wait(_) | Event::State(_) => {}
            Event::End => break,
        }
        drain(&mut decoder, &mut run);
    }
    decoder.flush();
    drain(&mut decoder, &mut run);
    (run, counted)
}

#[test]
fn what_is_whole_in_a_growing_file_is_read_and_its_end_says_so() {
    for name in ["fragmented.mp4", "pyramid.ts", "live.mkv"] {
        let bytes = std::fs::read(own_data(name)).unwrap();
        let by_ffmpeg = own_data(&format!("{name}.framemd5"));
        let whole: Vec<String> = if by_ffmpeg.exists() {
            reference(&by_ffmpeg).1.into_iter().map(|frame| frame.md5).collect()
        } else {
            let run = common::decode(&own_data(name), &IngestOptions::default()).unwrap();
            run.frames.into_iter().map(|frame| frame.md5).collect()
        };
        let mut frames = 0;
        // in the middle of something, mostly
        for at_first in [bytes.len() * 2 / 5, bytes.len() * 3 / 5, bytes.len() - 7] {
            let (run, counted) = read(name, &bytes, at_first);
            let what = format!("{name} at {at_first} of {}: {:?}", bytes.len(), run.lost);
            frames += run.frames.len();
            assert!(run.frames.iter().all(|frame| whole.contains(&frame.md5)), "{what}");
            let said = &counted["still_written"];
            assert!(said.contains(&format!("grew from {at_first} to {} bytes", bytes.len())), "{said}");
            assert!(
                run.lost.keys().all(|cause| ["truncated", "damaged_fragment", "damaged_sample"].contains(cause)),
                "{what}"
            );
        }
        assert!((2..=3 * whole.len()).contains(&frames), "{name}: {frames} frames");
        let (run, counted) = read(name, &bytes, bytes.len());
        assert_eq!(
            (run.md5s(), &run.lost, counted.get("still_written")),
            (whole.iter().map(String::as_str).collect(), &BTreeMap::new(), None),
            "{name}"
        );
    }
}
