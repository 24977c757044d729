//! A frame rate that the user gives: sources without times follow it, the others say that they do not.
#![allow(clippy::unwrap_used)]

mod common;

use common::own_data;
use millrace_ingest::{Event, FRAME_RATE_IGNORED, Ingest, IngestOptions};

/// Presentation times of the first pictures, in milliseconds and order, and how often it was said that the rate is ignored.
fn read(name: &str, frame_rate: Option<f64>) -> (Vec<i64>, u64) {
    let mut ingest = Ingest::open(&own_data(name), &IngestOptions { frame_rate, ..IngestOptions::default() }).unwrap();
    let (mut times, mut said) = (Vec::new(), 0);
    loop {
        match ingest.next_event().unwrap() {
            Event::Unit(unit) => times.push(unit.timing.pts_ns / 1_000_000),
            Event::Counted(of) if of.name == FRAME_RATE_IGNORED => {
                assert!(times.is_empty() && of.detail.contains("FRAME_RATE is 10 "), "{of:?}");
                said += of.count;
            }
            Event::End => break,
            _ => {}
        }
    }
    times.sort_unstable();
    (times, said)
}

#[test]
fn a_source_without_times_has_the_rate_that_is_given() {
    for name in ["flat.264", "closed_gop.265", "mjpeg.mjpeg", "h265.avi", "stills"] {
        let (times, said) = read(name, Some(10.0));
        assert!(times.len() > 2 && times.windows(2).all(|pair| pair[1] - pair[0] == 100), "{name}: {times:?}");
        assert_eq!(said, 0, "{name}");
    }
}

#[test]
fn a_source_with_times_keeps_them_and_says_so() {
    for name in ["fragmented.mp4", "mjpeg.mov", "pyramid.mkv", "pyramid.ts"] {
        let (times, said) = read(name, Some(10.0));
        assert_eq!((times, 0), read(name, None), "{name}");
        assert_eq!(said, 1, "{name}");
    }
}
