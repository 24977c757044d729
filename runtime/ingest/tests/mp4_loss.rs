//! MP4 files that state more than is in them: what is missing has a name, whichever table knows of it.
#![allow(clippy::unwrap_used)]

mod common;

use common::mp4_writer::{Fragment, Movie, boxed, coded, fragmented, table, words};
use common::{Run, Scratch, decode};
use millrace_ingest::IngestOptions;

/// Groups of 12 pictures, four in all, without reordering across them.
const EACH: usize = 12;

fn movie() -> (Movie, Vec<String>) {
    let (pictures, md5s) = coded("pyramid.264");
    (Movie::of(&pictures, false), md5s)
}

fn decoded(bytes: &[u8]) -> Run {
    let file = Scratch::new("loss.mp4", bytes);
    decode(&file.0, &IngestOptions::default()).unwrap()
}

fn lost(run: &Run) -> Vec<(&'static str, u64)> {
    run.lost.iter().map(|(cause, count)| (*cause, *count)).collect()
}

/// Where the boxes of a kind begin.
fn starts(file: &[u8], kind: &[u8; 4]) -> Vec<usize> {
    file.windows(4).enumerate().filter(|(_, window)| window == kind).map(|(at, _)| at - 4).collect()
}

/// Fragments at their times, numbered from 1.
fn whole(movie: &Movie) -> Vec<u8> {
    fragmented(movie, EACH, |n| Fragment { number: n as u32 + 1, time: Some(480 * n as u64), ..Fragment::default() })
}

#[test]
fn an_index_of_fragments_says_where_they_end() {
    let (movie, md5s) = movie();
    let plain = whole(&movie);
    let moofs = starts(&plain, b"moof");
    // version, track, time scale, earliest time, first offset, reserved and count, rows of size, duration, start
    let sidx = |version: u32, between: u32| {
        let ends = moofs.iter().skip(1).copied().chain([plain.len()]);
        let sizes = moofs.iter().zip(ends).map(|(start, end)| (end - start) as u32);
        let times = if version == 0 { vec![0, between] } else { vec![0, 0, 0, between] };
        let head = [version << 24, 1, 1000].into_iter().chain(times).chain([moofs.len() as u32]);
        boxed(b"sidx", &words(head.chain(sizes.flat_map(|size| [size, 480, 0x9000_0000]))))
    };
    for version in [0, 1] {
        for between in [0, 20] {
            let free = if between > 0 { boxed(b"free", &[0; 12]) } else { Vec::new() };
            let file = [&plain[..moofs[0]], &sidx(version, between), &free, &plain[moofs[0]..]].concat();
            let added = file.len() - plain.len();
            assert_eq!((decoded(&file).frames.len(), lost(&decoded(&file))), (md5s.len(), vec![]), "whole");
            for (keep, frames) in [(moofs[3], 36), (moofs[1], 12)] {
                let run = decoded(&file[..keep + added]);
                assert_eq!((run.frames.len(), lost(&run)), (frames, vec![("truncated", 1)]), "{version}, {between}");
            }
        }
    }
    // the head of the next box is cut off
    let run = decoded(&plain[..moofs[2] + 5]);
    assert_eq!((run.frames.len(), lost(&run)), (24, vec![("damaged_fragment", 1)]));
}

#[test]
fn a_number_and_a_time_that_are_left_out_are_a_fragment_that_is_missing() {
    let (movie, _) = movie();
    let missing = |numbers: [u32; 4], times: Option<[u64; 4]>| {
        let how = |n: usize| Fragment { number: numbers[n], time: times.map(|times| times[n]), ..Fragment::default() };
        let run = decoded(&fragmented(&movie, EACH, how));
        assert!(run.frames.len() >= 41, "{numbers:?}: {:?}", run.lost);
        lost(&run)
    };
    let (none, row) = (vec![], [0, 480, 960, 1440]);
    let gap = [0, 480, 1440, 1920];
    assert_eq!(missing([1, 2, 4, 5], Some(gap)), [("missing_fragment", 1)]);
    assert_eq!(missing([901, 905, 906, 910], Some([0, 2400, 2880, 4800])), [("missing_fragment", 6)]);
    // a camera that stalled: time is missing, no number is
    assert_eq!(missing([1, 2, 3, 4], Some(gap)), none);
    // one track of two, or a recorder that counts otherwise: numbers are missing, no time is, so they say nothing
    assert_eq!(missing([1, 3, 5, 7], Some(row)), none);
    assert_eq!(missing([1, 3, 5, 7], Some([0, 480, 960, 2400])), none);
    // a recorder that begins anew, or has no numbers
    assert_eq!(missing([7, 8, 1, 2], Some(gap)), none);
    assert_eq!(missing([0, 0, 0, 0], Some(gap)), none);
    // without times, numbers count where they have counted up
    assert_eq!(missing([4, 5, 8, 9], None), [("missing_fragment", 2)]);
    assert_eq!(missing([4, 6, 8, 10], None), none);
}

/// What begins within a group, behind a fragment that is missing, is not decoded as if nothing were.
#[test]
fn behind_a_missing_fragment_pictures_begin_with_a_key_picture() {
    let (movie, md5s) = movie();
    let each = |n: usize| Fragment { number: n as u32, time: Some(160 * n as u64), ..Fragment::default() };
    let file = fragmented(&movie, 4, each);
    let moofs = starts(&file, b"moof");
    // pictures 16 to 19 in decoding order, of the group of 12 to 23
    let run = decoded(&[&file[..moofs[4]], &file[moofs[5]..]].concat());
    let ours: Vec<&str> = run.md5s();
    let others: Vec<usize> = (0..md5s.len()).filter(|n| !ours.contains(&md5s[*n].as_str())).collect();
    assert!(others.iter().all(|n| (12..24).contains(n)) && others.len() >= 8, "{others:?}");
    assert!(ours.iter().all(|ours| md5s.iter().any(|md5| md5 == ours)), "a wrong picture is shown");
    assert_eq!(run.lost.get("missing_fragment"), Some(&1), "{:?}", run.lost);
    let lost: u64 = run.lost.iter().filter(|(cause, _)| **cause != "missing_fragment").map(|(_, count)| count).sum();
    assert_eq!(lost, others.len() as u64 - 4, "{:?}", run.lost);
}

#[test]
fn a_fragment_without_its_name_is_missed() {
    let (movie, md5s) = movie();
    // as x264 writes it: the first picture's offset is cut away by the edit list
    let mut delayed = movie.clone();
    delayed.samples.iter_mut().for_each(|sample| sample.offset += 80);
    for movie in [movie, delayed.edits(&[(0, 80, 0x10000)])] {
        let file = whole(&movie);
        for kind in [b"moof", b"traf", b"tfhd", b"trun"] {
            for (n, at) in starts(&file, kind).into_iter().enumerate() {
                let mut damaged = file.clone();
                damaged[at + 4] ^= 0x20;
                let run = decoded(&damaged);
                let want: Vec<&String> = md5s[..EACH * n].iter().chain(md5s.iter().skip(EACH * (n + 1))).collect();
                assert_eq!(run.md5s(), want, "{kind:?} {n}: {:?}", run.lost);
                let parts = ["damaged_fragment", "missing_fragment"].map(|cause| run.lost.get(cause).unwrap_or(&0));
                assert!(parts[0] + parts[1] > 0, "{kind:?} {n}: {:?}", run.lost);
            }
        }
        for (n, at) in starts(&file, b"tfhd").into_iter().enumerate() {
            // another track, which the index does not have
            let mut damaged = file.clone();
            damaged[at + 12] = 0x40;
            let run = decoded(&damaged);
            assert_eq!(run.lost.get("damaged_fragment"), Some(&1), "{n}: {:?}", run.lost);
        }
        // the index has another number for the track
        let mut damaged = file.clone();
        damaged[starts(&file, b"tkhd")[0] + 8 + 12 + 3] = 7;
        let run = decoded(&damaged);
        assert_eq!((run.frames.len(), lost(&run)), (0, vec![("damaged_fragment", 4)]));
    }
}

#[test]
fn data_that_an_editor_has_cut_out_are_not_missed() {
    let (movie, md5s) = movie();
    let beside = |file: Vec<u8>| decoded(&[file, boxed(b"mdat", &[7; 900])].concat());
    let run = beside(movie.file());
    assert_eq!((run.frames.len(), lost(&run)), (md5s.len(), vec![]));
    // beside fragments they are those of one
    let run = beside(whole(&movie));
    assert_eq!((run.frames.len(), lost(&run)), (md5s.len(), vec![("damaged_fragment", 1)]));
}

#[test]
fn sizes_for_fewer_samples_than_the_other_tables_have() {
    let (movie, md5s) = movie();
    let count = movie.samples.len();
    let sizes = |of: usize| {
        let each = movie.samples[..of].iter().map(|sample| sample.bytes.len() as u32);
        words([0, 0, of as u32].into_iter().chain(each))
    };
    for missing in [1, 7] {
        let run = decoded(&movie.clone().put(b"stsz", sizes(count - missing)).file());
        assert_eq!(lost(&run).first(), Some(&("damaged_sample", missing as u64)), "{:?}", run.lost);
    }
    // one table alone is wrong
    let long = table(0, 1, [count as u32 + 5, 40]);
    let run = decoded(&movie.clone().put(b"stts", long).file());
    assert_eq!((run.frames.len(), lost(&run)), (md5s.len(), vec![]));
    let run = decoded(
        &movie
            .clone()
            .put(b"stsc", table(0, 1, [1, 5 + 100, 1]))
            .put(b"stco", {
                let at = starts(&movie.file(), b"mdat")[0] as u32 + 8;
                table(0, 1, [at])
            })
            .file(),
    );
    assert_eq!((run.frames.len(), lost(&run)), (md5s.len(), vec![]));
}

#[test]
fn fragments_behind_a_damaged_head_of_a_box_are_a_loss() {
    let (movie, md5s) = movie();
    let plain = whole(&movie);
    let (moofs, datas) = (starts(&plain, b"moof"), starts(&plain, b"mdat"));
    let with = |at: usize, bytes: &[u8]| {
        let mut file = plain.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    // sectors of zeros, a head of zeros, and a box that claims what is behind it
    for (what, file, frames) in [
        ("a sector of zeros", with(moofs[2], &[0; 64]), 24),
        ("a head of zeros", with(moofs[2], &[0; 8]), 24),
        ("zeros in the last fragment", with(moofs[3], &[0; 64]), 36),
        ("a sector of ones", with(moofs[2], &[0xff; 64]), 24),
        ("data of 1 GiB", with(datas[2], &0x4000_0000u32.to_be_bytes()), 36),
        (
            "a fragment that is 4 bytes shorter",
            with(moofs[2], &(datas[2] as u32 - moofs[2] as u32 - 4).to_be_bytes()),
            0,
        ),
    ] {
        let run = decoded(&file);
        let said: Vec<_> = lost(&run).into_iter().filter(|(_, count)| *count > 0).collect();
        assert!(!said.is_empty(), "{what}: {} frames and nothing lost", run.frames.len());
        if frames > 0 {
            assert_eq!(run.frames.len(), frames, "{what}: {said:?}");
        }
    }
    // what a recorder has reserved and not used
    let reserved = [&plain[..], &[0; 4096]].concat();
    assert_eq!((decoded(&reserved).frames.len(), lost(&decoded(&reserved))), (md5s.len(), vec![]));
}

#[test]
fn a_recording_of_another_kind_behind_an_mp4_is_named() {
    let (movie, md5s) = movie();
    for (other, name) in [
        ("pyramid.ts", "an MPEG transport stream follows within this file"),
        ("pyramid.264", "an H.264 stream follows within this file"),
        ("closed_gop.265", "an H.265 stream follows within this file"),
        ("pyramid.mkv", "a Matroska file follows within this file"),
        ("h264.avi", "an AVI file follows within this file"),
    ] {
        let other = std::fs::read(common::own_data(other)).unwrap();
        for first in [movie.file(), whole(&movie)] {
            let run = decoded(&[first, other.clone()].concat());
            assert_eq!((run.frames.len(), lost(&run)), (md5s.len(), vec![("unread_recording", 1)]), "{name}");
        }
    }
}
