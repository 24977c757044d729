//! MP4 files that show their pictures in another order than their stream does: the stream's order counts, and the pictures
//! get the file's times in it.
#![allow(clippy::unwrap_used)]

mod common;

use common::mp4_writer::{Fragment, Movie, coded, fragmented, table};
use common::{Run, Scratch, decode_with};
use millrace_ingest::{IngestOptions, ReorderPolicy};

/// Streams with B pictures, in closed and open groups.
const STREAMS: [&str; 4] = ["pyramid.264", "open_gop.264", "closed_gop.265", "open_gop.265"];

fn runs(bytes: &[u8]) -> [Run; 2] {
    let file = Scratch::new("order.mp4", bytes);
    [ReorderPolicy::Lossless, ReorderPolicy::Live]
        .map(|policy| decode_with(&file.0, &IngestOptions::default(), policy, |_| {}).unwrap())
}

/// All pictures in FFmpeg's order, and the time of each in ms. Of those at times that are not the file's own it is said so.
fn assert_shows(what: &str, bytes: &[u8], md5s: &[String], want_ms: impl Fn(i64) -> i64) {
    for run in runs(bytes) {
        assert_eq!(run.md5s(), md5s, "{what}: {:?}", run.lost);
        assert_eq!(run.lost_in_all(), 0, "{what}: {:?}", run.lost);
        let got: Vec<i64> = run.frames.iter().map(|frame| frame.pts_ns / 1_000_000).collect();
        assert_eq!(got, (0..md5s.len() as i64).map(&want_ms).collect::<Vec<_>>(), "{what}");
        assert!(run.counted.get("time_order_ignored").is_some_and(|count| *count > 0), "{what}: {:?}", run.counted);
        assert!(run.units.windows(2).all(|w| w[0].dts_ns <= w[1].dts_ns), "{what}: decoding times go back");
    }
}

#[test]
fn without_composition_offsets_the_decoding_times_are_given_out_in_picture_order() {
    for name in STREAMS {
        let (pictures, md5s) = coded(name);
        let movie = Movie::of(&pictures, name.ends_with("265"));
        let count = movie.samples.len();
        let shows = |what: &str, bytes: &[u8]| assert_shows(&format!("{name}, {what}"), bytes, &md5s, |n| 40 * n);
        shows("no table", &movie.clone().without(b"ctts").file());
        shows("a table of zeros", &movie.clone().put(b"ctts", table(0, 1, [count as u32, 0])).file());
        shows("an empty table", &movie.clone().put(b"ctts", table(0, 0, [])).file());
        let mut none = movie.clone();
        none.samples.iter_mut().for_each(|sample| sample.offset = 0);
        let time = |n: usize| Fragment { time: Some(280 * n as u64), ..Fragment::default() };
        shows("fragments", &fragmented(&none, 7, time));
        shows("one fragment", &fragmented(&none, count, |_| Fragment::default()));
    }
}

#[test]
fn an_edit_list_counts_the_times_that_are_left() {
    let (pictures, md5s) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false).without(b"ctts").edits(&[(0, 80, 0x10000)]);
    assert_shows("an edit from the third time on", &movie.file(), &md5s[2..], |n| 40 * n);
}

#[test]
fn a_table_that_ends_early_goes_on_with_the_delay_of_the_first_picture() {
    for name in STREAMS {
        let (pictures, md5s) = coded(name);
        let mut movie = Movie::of(&pictures, name.ends_with("265"));
        movie.samples.iter_mut().for_each(|sample| sample.offset += 80);
        for known in [1, 2, 3, 13, movie.samples.len() - 1] {
            let rows = movie.samples[..known].iter().flat_map(|sample| [1, sample.offset as u32]);
            let file = movie.clone().put(b"ctts", table(0, known, rows)).file();
            for run in runs(&file) {
                assert_eq!(run.md5s(), md5s, "{name}, {known}: {:?}", run.lost);
                let got: Vec<i64> = run.frames.iter().map(|frame| frame.pts_ns / 1_000_000).collect();
                assert!(got.is_sorted_by(|one, next| one < next), "{name}, {known}: {got:?}");
                // but for the pictures around the place where the table ends, each is at its time
                let ends = known as i64 - 4..known as i64 + 4;
                let far = (0i64..).zip(&got).filter(|(n, _)| !ends.contains(n));
                far.for_each(|(n, ms)| assert_eq!(*ms, 80 + 40 * n, "{name}, {known}: frame {n} of {got:?}"));
            }
        }
    }
}

#[test]
fn times_that_collide_or_are_exchanged_are_put_in_order() {
    for name in STREAMS {
        let (pictures, md5s) = coded(name);
        let with = |shown: fn(i64) -> i64| {
            let mut movie = Movie::of(&pictures, name.ends_with("265"));
            for ((n, sample), picture) in (0i64..).zip(&mut movie.samples).zip(&pictures) {
                sample.offset = (40 * (shown(picture.rank) - n)) as i32;
            }
            movie.file()
        };
        let last = md5s.len() as i64 - 1;
        // the second of two at one time is shown a tick of the track later
        let two = |n: i64| 40 * (n - n % 2) + n % 2;
        assert_shows(&format!("{name}, two at a time"), &with(|rank| rank - rank % 2), &md5s, two);
        assert_eq!(last % 2, 1, "{name} has pairs of pictures");
        assert_shows(&format!("{name}, exchanged"), &with(|rank| rank ^ 1), &md5s, |n| 40 * n);
    }
}

/// One count of a table was changed: offsets are those of other pictures from there on. The edit list is as long as all.
#[test]
fn offsets_of_other_pictures_cost_no_picture() {
    for name in STREAMS {
        let (pictures, md5s) = coded(name);
        let mut movie = Movie::of(&pictures, name.ends_with("265"));
        movie.samples.iter_mut().for_each(|sample| sample.offset += 80);
        let offsets: Vec<u32> = movie.samples.iter().map(|sample| sample.offset as u32).collect();
        let movie = movie.edits(&[(md5s.len() as u32 * 24, 80, 0x10000)]);
        for changed in [1, 2, 3, 11] {
            for count in [0, 3, 61] {
                let rows = (0..).zip(&offsets).flat_map(|(n, offset)| [if n == changed { count } else { 1 }, *offset]);
                for run in runs(&movie.clone().put(b"ctts", table(0, offsets.len(), rows)).file()) {
                    assert_eq!(run.md5s(), md5s, "{name}, {changed}, {count}: {:?}", run.lost);
                    let times: Vec<i64> = run.frames.iter().map(|frame| frame.pts_ns).collect();
                    assert!(times.is_sorted_by(|one, next| one < next), "{name}, {changed}, {count}: {times:?}");
                }
            }
        }
    }
}

/// One offset of a table was changed: it leads to minutes before the recording, or behind it.
#[test]
fn an_offset_that_leads_out_of_the_recording_costs_no_picture() {
    for name in ["pyramid.264", "open_gop.265"] {
        let (pictures, md5s) = coded(name);
        let mut whole = Movie::of(&pictures, name.ends_with("265"));
        whole.samples.iter_mut().for_each(|sample| sample.offset += 80);
        for damaged in [0, 1, 5, 20, md5s.len() - 1] {
            for offset in [i32::MIN, -3_000_000, 3_000_000, i32::MAX] {
                let mut movie = whole.clone();
                movie.samples[damaged].offset = offset;
                let movie = movie.edits(&[(md5s.len() as u32 * 24, 80, 0x10000)]);
                for run in runs(&movie.file()) {
                    assert_eq!(run.md5s(), md5s, "{name}, {damaged}, {offset}: {:?}", run.lost);
                    let got: Vec<i64> = run.frames.iter().map(|frame| frame.pts_ns / 1_000_000).collect();
                    assert!(got.is_sorted_by(|one, next| one < next), "{name}, {damaged}, {offset}: {got:?}");
                    let off = (0i64..).zip(&got).filter(|(n, ms)| 40 * n != **ms).count();
                    assert!(off <= 17, "{name}, {damaged}, {offset}: {off} are at other times: {got:?}");
                    assert!(run.counted.contains_key("time_order_ignored"));
                }
            }
        }
    }
}
