//! Damage inside of slices that decoders make pictures of all the same, and parameter sets that nothing needs.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Run, Scratch, decode, own_data, reference};
use millrace_ingest::{IngestOptions, annexb_nals};
use std::ops::Range;

/// Coded by CABAC: without and with several slices, with B pictures, with recovery points in place of key pictures.
const NAMES: [&str; 4] = ["pyramid.264", "slices.264", "open_gop.264", "intra_refresh_b.264"];

fn read(name: &str) -> Vec<u8> {
    std::fs::read(own_data(name)).unwrap()
}

fn run(name: &str, bytes: &[u8]) -> Run {
    let file = Scratch::new(name, bytes);
    decode(&file.0, &IngestOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Where the bytes of the slices of an H.264 byte stream are, without their start codes.
fn slices(bytes: &[u8]) -> Vec<Range<usize>> {
    let start = bytes.as_ptr() as usize;
    let nals = annexb_nals(bytes).filter(|nal| matches!(nal[0] & 31, 1 | 5));
    nals.map(|nal| nal.as_ptr() as usize - start)
        .zip(annexb_nals(bytes).filter(|nal| matches!(nal[0] & 31, 1 | 5)))
        .map(|(at, nal)| at..at + nal.len())
        .collect()
}

/// Pictures that FFmpeg does not have of the whole stream, or has earlier.
fn wrong(name: &str, run: &Run) -> usize {
    let (_, want) = reference(&own_data(&format!("{name}.framemd5")));
    let mut from = 0;
    let is_wrong = |md5: &&str| match want[from..].iter().position(|w| w.md5 == **md5) {
        Some(at) => {
            from += at + 1;
            false
        }
        None => true,
    };
    run.md5s().into_iter().filter(is_wrong).count()
}

#[test]
fn a_slice_that_is_cut_short_is_a_loss_and_no_picture() {
    for name in NAMES {
        let whole = read(name);
        let slices = slices(&whole);
        for slice in slices.iter().step_by(3) {
            for part in 1..4 {
                let cut = slice.start + 8.max(slice.len() * part / 4);
                if slice.end - cut < 4 {
                    continue; // what is left may be enough
                }
                let within = run(name, &[&whole[..cut], &whole[slice.end..]].concat());
                assert_eq!(wrong(name, &within), 0, "{name}, {slice:?} cut at {cut}: {:?}", within.lost);
                assert!(within.lost_in_all() > 0, "{name}, {slice:?} cut at {cut}");
                let at_the_end = run(name, &whole[..cut]);
                assert_eq!(wrong(name, &at_the_end), 0, "{name} ends at {cut}: {:?}", at_the_end.lost);
                assert!(at_the_end.lost_in_all() > 0, "{name} ends at {cut}");
            }
        }
    }
}

#[test]
fn a_slice_that_is_missing_is_a_loss_and_no_picture() {
    let whole = read("slices.264");
    for slice in slices(&whole) {
        let run = run("slices.264", &[&whole[..slice.start - 3], &whole[slice.end..]].concat());
        assert_eq!(wrong("slices.264", &run), 0, "without {slice:?}: {:?}", run.lost);
        assert!(run.lost_in_all() > 0, "without {slice:?}");
    }
}

#[test]
fn a_bit_that_is_wrong_is_seen_nearly_always() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % n as u64) as usize
    };
    let (mut silent, mut tried) = (0, 0);
    for name in NAMES {
        let whole = read(name);
        let slices = slices(&whole);
        for _ in 0..60 {
            let slice = slices[random(slices.len())].clone();
            let mut bytes = whole.clone();
            // behind the header
            bytes[slice.start + slice.len() / 4 + random(slice.len() * 3 / 4)] ^= 1 << random(8);
            let run = run(name, &bytes);
            silent += usize::from(wrong(name, &run) > 0);
            tried += 1;
        }
    }
    assert!(silent * 50 <= tried, "{silent} of {tried} wrong bits are shown");
}

/// A stream with NAL units in front of each parameter set.
fn with_sets(name: &str, spare: &[&[u8]]) -> Vec<u8> {
    let is_set = |nal: &[u8]| if name.ends_with("264") { nal[0] & 31 == 7 } else { nal[0] >> 1 & 63 == 32 };
    let mut out = Vec::new();
    for nal in annexb_nals(&read(name)) {
        for nal in spare.iter().filter(|_| is_set(nal)).chain([&nal]) {
            out.extend_from_slice(&[0, 0, 0, 1]);
            out.extend_from_slice(nal);
        }
    }
    out
}

#[test]
fn parameter_sets_that_cannot_be_read_and_that_nothing_needs_cost_nothing() {
    let h264: [&[u8]; 3] = [b"\x67\x64\0\xff\xff\xff\xff\xff\xff", b"\x67", b"\x68\x30"];
    let h265: [&[u8]; 3] = [b"\x42\x01\xff\xff\xff", b"\x42\x01", b"\x44\x01\x30"];
    for name in ["pyramid.264", "baseline_slices.264", "closed_gop.265"] {
        let spare = if name.ends_with("264") { h264 } else { h265 };
        let run = run(name, &with_sets(name, &spare));
        let (_, want) = reference(&own_data(&format!("{name}.framemd5")));
        assert_eq!(run.lost_in_all(), 0, "{name}: {:?}", run.lost);
        assert_eq!(run.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn a_parameter_set_that_cannot_be_read_costs_the_pictures_that_need_it() {
    // groups of 12 pictures, each behind its sets: those of the second group end early
    for kind in [7, 8] {
        let mut seen = 0;
        let mut out = Vec::new();
        for nal in annexb_nals(&read("pyramid.264")) {
            let is_it = nal[0] & 31 == kind;
            seen += usize::from(is_it);
            out.extend_from_slice(&[0, 0, 0, 1]);
            let short = if kind == 7 { 5 } else { 2 };
            out.extend_from_slice(if is_it && seen == 2 { &nal[..short] } else { nal });
        }
        let run = run("pyramid.264", &out);
        let whole = reference(&own_data("pyramid.264.framemd5")).1;
        let want: Vec<&str> =
            [&whole[..12], &whole[24..]].concat().iter().map(|w| w.md5.clone().leak() as &str).collect();
        assert_eq!(run.md5s(), want, "set of kind {kind}: {:?}", run.lost);
        assert_eq!(run.lost, [("unreadable_parameter_set", 12)].into(), "set of kind {kind}");
    }
}
