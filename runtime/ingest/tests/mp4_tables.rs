//! MP4 and QuickTime files as recorders and phones write them: boxes, tracks, sample descriptions and sample tables.
#![allow(clippy::unwrap_used)]

mod common;

use common::mp4_writer::{Movie, Sample, boxed, coded, description, other_track, table, tkhd, visual, words};
use common::{Run, Scratch, decode, decode_with, own_data, reference, shared_data};
use millrace_ingest::{Event, Ingest, IngestOptions, ReorderPolicy};
use std::path::Path;

fn pts_ns(path: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| (line.parse::<f64>().unwrap() * 1e6).round() as i64).collect()
}

/// Each frame of each case, as FFmpeg has it, and its time where the case states it.
#[test]
fn the_shared_cases_are_exact() {
    let Some(data) = shared_data() else { return };
    for name in [
        "01-mov-audio-description-v2/aac96k_v2.mov",
        "02-mov-without-ftyp/mdat_first_no_ftyp.mov",
        "04-two-sample-entries/same_size.mp4",
        "05-parameter-sets-in-band-only/avc3_empty_avcC.mp4",
        "08-fragment-decode-times/gap_of_two_seconds.mp4",
        "09-edit-lists/two_cuts.mp4",
        "10-sample-tables-of-recorders/media_duration_0.mp4",
        "10-sample-tables-of-recorders/one_sample_of_no_bytes.mp4",
        "22-other-containers-and-no-pictures/good.mp4",
    ] {
        let path = data.join("../cases").join(name);
        let beside = |end: &str| path.with_file_name(format!("{}.{end}", path.file_name().unwrap().to_str().unwrap()));
        let want = reference(&beside("framemd5")).1;
        for policy in [ReorderPolicy::Lossless, ReorderPolicy::Live] {
            let run =
                decode_with(&path, &IngestOptions::default(), policy, |_| {}).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(run.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{name}: {:?}", run.lost);
            assert_eq!(run.lost_in_all(), 0, "{name}: {:?}", run.lost);
            let stated = beside("pts_ms");
            if stated.exists() {
                let got: Vec<i64> = run.frames.iter().map(|frame| frame.pts_ns).collect();
                assert_eq!(got, pts_ns(&stated), "{name}");
            }
        }
    }
}

fn decoded(name: &str, bytes: &[u8]) -> Run {
    let file = Scratch::new(name, bytes);
    decode(&file.0, &IngestOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn refusal(name: &str, bytes: &[u8]) -> String {
    let file = Scratch::new(name, bytes);
    let error =
        decode(&file.0, &IngestOptions::default()).err().unwrap_or_else(|| panic!("{name} is read")).to_string();
    assert!(error.contains(name), "{error}");
    error
}

/// All pictures, 40 ms apart from `from_ms` on.
fn assert_whole(name: &str, run: &Run, md5s: &[String], from_ms: i64) {
    assert_eq!(run.md5s(), md5s, "{name}: {:?}", run.lost);
    let times: Vec<i64> = run.frames.iter().map(|frame| frame.pts_ns / 1_000_000).collect();
    assert_eq!(times, (0..md5s.len() as i64).map(|n| from_ms + n * 40).collect::<Vec<_>>(), "{name}");
    assert_eq!(run.lost_in_all(), 0, "{name}: {:?}", run.lost);
}

fn whole(name: &str) -> (Movie, Vec<String>) {
    let (pictures, md5s) = coded(name);
    (Movie::of(&pictures, name.ends_with("265")), md5s)
}

#[test]
fn the_writer_of_these_tests_writes_what_is_read() {
    for name in ["pyramid.264", "open_gop.264", "baseline_slices.264", "closed_gop.265", "open_gop.265"] {
        let (movie, md5s) = whole(name);
        assert_whole(name, &decoded("plain.mp4", &movie.file()), &md5s, 0);
    }
}

#[test]
fn boxes_may_stand_in_any_order_and_have_any_size_field() {
    let (movie, md5s) = whole("pyramid.264");
    let data: Vec<u8> = movie.samples.iter().flat_map(|sample| sample.bytes.clone()).collect();
    let large = |kind: &[u8; 4], body: &[u8]| {
        [&1u32.to_be_bytes()[..], kind, &(body.len() as u64 + 16).to_be_bytes(), body].concat()
    };
    let index = |data_at: usize| movie.index(data_at as u32);
    let index_bytes = index(0).len();
    let uuid = boxed(b"uuid", &[7; 40]);
    let to_the_end = |body: &[u8]| [&[0; 4][..], b"mdat", body].concat();
    for (name, file) in [
        ("no ftyp, mdat first", [boxed(b"mdat", &data), index(8)].concat()),
        ("wide", [boxed(b"wide", b""), boxed(b"mdat", &data), index(16)].concat()),
        ("free, skip, uuid", {
            let before = [boxed(b"free", &[0; 9]), boxed(b"skip", b"x"), uuid.clone()].concat();
            [before.clone(), boxed(b"mdat", &data), uuid.clone(), index(before.len() + 8)].concat()
        }),
        ("uuid first", [uuid.clone(), boxed(b"mdat", &data), index(uuid.len() + 8)].concat()),
        ("64-bit size", [large(b"mdat", &data), index(16)].concat()),
        ("to the end", [index(index_bytes + 8), to_the_end(&data)].concat()),
        ("zeros behind", [boxed(b"mdat", &data), index(8), vec![0; 5000]].concat()),
        ("junk behind", [boxed(b"mdat", &data), index(8), vec![0, 0, 0, 3, 9, 9, 9, 9, 9]].concat()),
        ("two mdat and a second moov", {
            [boxed(b"mdat", b"nothing"), boxed(b"mdat", &data), index(15 + 8), index(0)].concat()
        }),
    ] {
        assert_whole(name, &decoded("boxes.mov", &file), &md5s, 0);
    }
    let inner = |kind: &[u8; 4]| {
        let moov = index(8);
        let at = moov.windows(4).position(|w| w == kind).unwrap();
        (moov[at + 4..at - 4 + u32::from_be_bytes(moov[at - 4..at].try_into().unwrap()) as usize].to_vec(), at)
    };
    // a box inside of the index that has a 64-bit size
    let (body, _) = inner(b"stsz");
    let stbl_extra = large(b"stsz", &body);
    let mut movie = movie.clone();
    movie.instead.insert(*b"stco", Some(table(0, 0, [])));
    movie.instead.insert(*b"stsz", None);
    let file = movie.file();
    let co64 = table(0, 9, chunk_starts(&movie, 28).into_iter().flat_map(|at| [0, at]));
    let at = file.windows(4).position(|w| w == b"stco").unwrap() - 4;
    let file = insert(&file, at, 16, &[stbl_extra, boxed(b"co64", &co64)].concat());
    assert_whole("co64, 64-bit size inside", &decoded("co64.mp4", &file), &md5s, 0);
}

/// Where the chunks of a file are whose data begin there.
fn chunk_starts(movie: &Movie, data_at: usize) -> Vec<u32> {
    let mut at = data_at as u32;
    let chunks = movie.samples.chunks(movie.samples_in_chunk).map(|chunk| {
        let start = at;
        at += chunk.iter().map(|sample| sample.bytes.len() as u32).sum::<u32>();
        start
    });
    chunks.collect()
}

/// Replaces bytes inside of `stbl`, and corrects the sizes of all boxes around it.
fn insert(file: &[u8], at: usize, old: usize, new: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    for kind in [b"moov", b"trak", b"mdia", b"minf", b"stbl"] {
        let at = file.windows(4).position(|w| w == kind).unwrap() - 4;
        let size = u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
        file[at..at + 4].copy_from_slice(&(size + new.len() as u32 - old as u32).to_be_bytes());
    }
    file.splice(at..at + old, new.iter().copied());
    file
}

#[test]
fn a_recording_behind_the_first_is_named() {
    let (movie, md5s) = whole("flat.264");
    let file = movie.file();
    let twice = decoded("twice.mp4", &[&file[..], &file].concat());
    assert_eq!(twice.md5s(), md5s);
    assert_eq!(twice.lost.into_iter().collect::<Vec<_>>(), [("unread_recording", 1)]);
}

#[test]
fn fragments_of_a_recording_behind_the_first_are_none_of_its_own() {
    for first in ["stated_size.mp4", "fragmented.mp4"] {
        let (_, want) = reference(&own_data(&format!("{first}.framemd5")));
        let other = if first == "fragmented.mp4" {
            Movie::of(&coded("flat.264").0, false).file()
        } else {
            data("fragmented.mp4")
        };
        let run = decoded("two.mp4", &[data(first), other].concat());
        assert_eq!(run.md5s(), want.iter().map(|frame| frame.md5.as_str()).collect::<Vec<_>>(), "{first}");
        assert_eq!(run.lost.into_iter().collect::<Vec<_>>(), [("unread_recording", 1)], "{first}");
    }
}

fn data(name: &str) -> Vec<u8> {
    std::fs::read(own_data(name)).unwrap()
}

#[test]
fn tracks_that_are_not_read_spoil_nothing() {
    let (movie, md5s) = whole("pyramid.264");
    // QuickTime sound descriptions of version 0, 1 and 2: 20 bytes, 16 more, and 36 more
    let sound = |version: u8, more: usize| {
        let body = [&[0, 0, 0, 0, 0, 0, 0, 1, 0, version][..], &vec![0xa5; 18 + more]].concat();
        boxed(b"stsd", &[words([0, 1]), boxed(b"mp4a", &body)].concat())
    };
    let of_four = |kind: &[u8; 4], stbl: &[u8]| other_track(7, kind, stbl);
    let tracks = vec![
        of_four(b"soun", &sound(0, 0)),
        of_four(b"soun", &sound(1, 16)),
        of_four(b"soun", &sound(2, 36)),
        of_four(b"text", b"\0\0\0\x03stsd"),
        of_four(b"tmcd", &boxed(b"stsz", &words([0, 0, 0xffff_ffff]))),
        of_four(b"camm", &boxed(b"stsd", &words([0, 0xffff_ffff]))),
        of_four(b"meta", &[0xff; 50]),
        boxed(b"trak", b""),
        boxed(b"trak", &boxed(b"mdia", &[1; 30])),
        boxed(b"udta", &[0; 4]),
    ];
    for (n, track) in tracks.iter().enumerate() {
        let movie = Movie { tracks: vec![track.clone()], ..movie.clone() };
        assert_whole(&format!("track {n}"), &decoded("tracks.mov", &movie.file()), &md5s, 0);
    }
    let movie = Movie { tracks, ..movie };
    assert_whole("all", &decoded("tracks.mov", &movie.file()), &md5s, 0);
}

/// The pictures of two streams, the second of which has another sample description.
fn joined(first: &str, second: &str) -> (Movie, Vec<String>) {
    let [(a, a_md5s), (b, b_md5s)] = [coded(first), coded(second)];
    let mut movie = Movie::of(&a, first.ends_with("265"));
    let other = Movie::of(&b, second.ends_with("265"));
    movie.samples_in_chunk = 1;
    movie.descriptions.extend(other.descriptions);
    movie.samples.extend(other.samples.into_iter().map(|sample| Sample { description: 2, ..sample }));
    (movie, [a_md5s, b_md5s].concat())
}

#[test]
fn each_sample_description_is_a_stream_of_its_own() {
    for (first, second) in [
        ("pyramid.264", "baseline_slices.264"), // another profile, the same size
        ("cavlc_b.264", "pyramid.264"),         // another size
        ("pyramid.264", "closed_gop.265"),      // another codec
        ("open_gop.265", "open_gop.264"),
    ] {
        let (movie, md5s) = joined(first, second);
        assert_whole(&format!("{first} {second}"), &decoded("two.mp4", &movie.file()), &md5s, 0);
    }
    // a description that begins without a key picture: nothing refers to what came before it
    let (mut movie, md5s) = joined("pyramid.264", "baseline_slices.264");
    let of_first = coded("pyramid.264").1.len();
    movie.samples.remove(of_first);
    let run = decoded("two.mp4", &movie.file());
    assert_eq!(run.md5s(), [&md5s[..of_first], &md5s[of_first + 10..]].concat());
    assert_eq!(run.lost_in_all(), 9, "up to the next key picture: {:?}", run.lost);
    // some recorders count from 0
    let (mut movie, md5s) = whole("pyramid.264");
    movie.samples.iter_mut().for_each(|sample| sample.description = 0);
    assert_whole("0", &decoded("zero.mp4", &movie.file()), &md5s, 0);
    // a description that is not read costs its own samples, under a name
    let (mut movie, md5s) = joined("pyramid.264", "baseline_slices.264");
    movie.descriptions[1] = visual(b"mp4v", b"");
    let of_first = coded("pyramid.264").1.len();
    let run = decoded("two.mp4", &movie.file());
    assert_eq!(run.md5s(), md5s[..of_first]);
    assert_eq!(run.lost, [("unreadable_description", (md5s.len() - of_first) as u64)].into());
}

#[test]
fn parameter_sets_may_be_in_the_samples_alone() {
    for (name, fourcc, config) in [("pyramid.264", b"avc3", b"avcC"), ("closed_gop.265", b"hev1", b"hvcC")] {
        let h265 = name.ends_with("265");
        let (pictures, md5s) = coded(name);
        let samples = Movie::samples(&pictures, h265, 4, true);
        for description in [
            description(fourcc, 4, &[]),
            visual(fourcc, &boxed(config, b"")),
            visual(fourcc, b""),
            // also where the name says that they are outside
            description(if h265 { b"hvc1" } else { b"avc1" }, 4, &[]),
        ] {
            let movie = Movie::of_samples(samples.clone(), vec![description]);
            assert_whole(name, &decoded("inside.mp4", &movie.file()), &md5s, 0);
        }
        // start codes in place of lengths, as some recorders write them
        let with_start_codes = samples.iter().zip(&pictures).map(|(sample, picture)| Sample {
            bytes: picture.nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect(),
            ..sample.clone()
        });
        let movie = Movie::of_samples(with_start_codes.collect(), vec![visual(fourcc, b"")]);
        assert_whole(name, &decoded("start_codes.mp4", &movie.file()), &md5s, 0);
    }
}

#[test]
fn lengths_of_one_two_three_and_four_bytes() {
    // the first has no unit of 256 bytes or more, the others none of 65536
    for (name, least) in [("flat.264", 1), ("cavlc_b.264", 2), ("closed_gop.265", 2)] {
        let (pictures, md5s) = coded(name);
        for bytes in least..=4 {
            let movie = Movie::with_lengths(&pictures, name.ends_with("265"), bytes);
            let run = decoded("lengths.mp4", &movie.file());
            assert_eq!((run.md5s().len(), run.lost_in_all()), (md5s.len(), 0), "{name}, {bytes}: {:?}", run.lost);
            assert_whole(name, &run, &md5s, 0);
        }
    }
}

#[test]
fn samples_without_bytes_are_no_pictures_and_take_their_time() {
    let (movie, md5s) = whole("baseline_slices.264");
    let mut with_empty = movie.clone();
    with_empty.samples.insert(5, Sample { bytes: vec![], offset: 0, sync: false, ..movie.samples[5].clone() });
    let run = decoded("empty.mp4", &with_empty.file());
    assert_eq!(run.md5s(), md5s);
    assert_eq!(run.lost_in_all(), 0, "{:?}", run.lost);
    let want: Vec<i64> = (0..=md5s.len() as i64).filter(|&n| n != 5).map(|n| n * 40_000_000).collect();
    assert_eq!(run.frames.iter().map(|frame| frame.pts_ns).collect::<Vec<_>>(), want);
}

#[test]
fn composition_offsets_below_0_count_in_either_version() {
    let (movie, md5s) = whole("pyramid.264");
    // all offsets 80 ms earlier, so some are below 0: the first picture is shown at the beginning all the same
    let earlier = movie.samples.iter().flat_map(|sample| [1, (sample.offset - 80) as u32]).collect::<Vec<_>>();
    for version in [0, 1] {
        let movie = movie.clone().put(b"ctts", table(version, movie.samples.len(), earlier.clone()));
        assert_whole("below 0", &decoded("ctts.mp4", &movie.file()), &md5s, 0);
    }
    // a table that ends early: the first picture's offset from there on
    let (movie, md5s) = whole("baseline_slices.264");
    for body in [table(0, 1, [3, 0]), table(0, 0, [])] {
        let movie = movie.clone().put(b"ctts", body);
        assert_whole("short", &decoded("ctts.mp4", &movie.file()), &md5s, 0);
    }
}

#[test]
fn durations_that_are_missing_or_0() {
    let (movie, md5s) = whole("baseline_slices.264");
    let count = movie.samples.len();
    // the last duration goes on, as in FFmpeg
    let short = movie.clone().put(b"stts", table(0, 1, [3, 40]));
    assert_whole("short", &decoded("stts.mp4", &short.file()), &md5s, 0);
    let empty_runs = movie.clone().put(b"stts", table(0, 3, [0, 7, count as u32, 40, 0, 9]));
    assert_whole("empty runs", &decoded("stts.mp4", &empty_runs.file()), &md5s, 0);
    // one picture that lasts no time is shown all the same
    let (with_b_pictures, b_md5s) = whole("pyramid.264");
    for movie in [&movie, &with_b_pictures] {
        let mut movie = movie.clone();
        movie.samples[5].duration = 0;
        let run = decoded("stts.mp4", &movie.file());
        let md5s = if run.frames.len() == count { &md5s } else { &b_md5s };
        assert_eq!((run.md5s(), run.lost_in_all()), (md5s.iter().map(|s| &s[..]).collect(), 0), "{:?}", run.lost);
    }
    // none at all: no times, so a constant rate, as for a byte stream
    for stts in [table(0, 1, [count as u32, 0]), table(0, 0, [])] {
        let run = decoded("stts.mp4", &movie.clone().put(b"stts", stts).without(b"ctts").file());
        assert_whole("none", &run, &md5s, 0);
    }
    // the last picture lasts as long as the one before
    let mut last = movie.clone();
    last.samples[count - 1].duration = 0;
    let file = Scratch::new("last.mp4", &last.file());
    let mut ingest = Ingest::open(file.0.to_str().unwrap(), &IngestOptions::default()).unwrap();
    let mut durations = Vec::new();
    loop {
        match ingest.next_event().unwrap() {
            Event::Unit(unit) => durations.push(unit.duration_ns),
            Event::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(durations, vec![40_000_000; count]);
}

#[test]
fn sync_tables_and_compact_sizes() {
    for name in ["pyramid.264", "open_gop.264", "closed_gop.265"] {
        let (movie, md5s) = whole(name);
        assert_whole("no stss", &decoded("stss.mp4", &movie.clone().without(b"stss").file()), &md5s, 0);
    }
    let (movie, md5s) = whole("pyramid.264");
    let none = movie.clone().put(b"stss", table(0, 0, []));
    assert_whole("empty stss", &decoded("stss.mp4", &none.file()), &md5s, 0);
    let sizes: Vec<u16> = movie.samples.iter().map(|sample| sample.bytes.len() as u16).collect();
    let stz2 = [words([0, 16, sizes.len() as u32]), sizes.iter().flat_map(|s| s.to_be_bytes()).collect()].concat();
    let file = movie.clone().put(b"stsz", stz2).file();
    let at = file.windows(4).position(|w| w == b"stsz").unwrap();
    let file = [&file[..at], b"stz2", &file[at + 4..]].concat();
    assert_whole("stz2", &decoded("stz2.mp4", &file), &md5s, 0);
}

#[test]
fn of_several_video_tracks_the_first_that_is_enabled_is_read_and_counted() {
    let (movie, md5s) = whole("pyramid.264");
    let stsd = |description: Vec<u8>| boxed(b"stsd", &[words([0, 1]), description].concat());
    let h264 = stsd(movie.descriptions[0].clone());
    let disabled = {
        let track = other_track(4, b"vide", &h264);
        let at = track.windows(4).position(|w| w == b"tkhd").unwrap() + 4;
        [&track[..at], &tkhd(4, false), &track[at + tkhd(4, false).len()..]].concat()
    };
    // beside other video, Motion JPEG is a preview, and no video track
    let thumbnail = other_track(3, b"vide", &stsd(visual(b"jpeg", b"")));
    for (tracks, others) in [(vec![thumbnail.clone()], 0), (vec![disabled.clone()], 1), (vec![thumbnail, disabled], 1)]
    {
        let movie = Movie { tracks, ..movie.clone() };
        let file = Scratch::new("several.mp4", &movie.file());
        let mut ingest = Ingest::open(file.0.to_str().unwrap(), &IngestOptions::default()).unwrap();
        let counted = match ingest.next_event().unwrap() {
            Event::Counted(counted) => Some((counted.name, counted.count, counted.detail)),
            _ => None,
        };
        let want = (others > 0).then(|| {
            ("other_video_tracks", others, "the file has 2 video tracks, of which track 1 is read".to_owned())
        });
        assert_eq!(counted, want);
        assert_whole("several", &decoded("several.mp4", &movie.file()), &md5s, 0);
    }
}

#[test]
fn what_cannot_be_decoded_is_refused_by_its_own_name() {
    let (movie, _) = whole("pyramid.264");
    let with = |description| Movie { descriptions: vec![description], ..movie.clone() }.file();
    let transcode = "H.264 (avc1, avc3), H.265 (hvc1, hev1) or Motion JPEG (jpeg) is expected; transcode it";
    for (fourcc, what) in [
        (b"mjpb", "its video is 'mjpb' (Motion JPEG of two fields)"),
        (b"mp4v", "its video is 'mp4v' (MPEG-4 Part 2)"),
        (b"av01", "its video is 'av01' (AV1)"),
        (b"apcn", "its video is 'apcn' (ProRes)"),
        (b"xyz1", "its video is 'xyz1'"),
    ] {
        let error = refusal("other.mov", &with(visual(fourcc, b"")));
        assert!(error.contains(what) && error.contains(transcode), "{error}");
    }
    let sinf = [boxed(b"frma", b"avc1"), boxed(b"schm", b"\0\0\0\0cenc\0\x01\0\0")].concat();
    let error = refusal("locked.mp4", &with(visual(b"encv", &boxed(b"sinf", &sinf))));
    assert!(error.contains("its video is encrypted by cenc ('encv', in fact avc1); export it without"), "{error}");
    let mut sound_only = movie.clone();
    sound_only.instead.insert(*b"hdlr", Some([&words([0, 0])[..], b"soun", &[0; 13]].concat()));
    let elsewhere = |flag: u8| {
        let alis = boxed(b"alis", &[&[0, 0, 0, flag][..], b"other.mov\0"].concat());
        let dinf = boxed(b"dinf", &boxed(b"dref", &[words([0, 1]), alis].concat()));
        let stbl = boxed(b"stsd", &[words([0, 1]), movie.descriptions[0].clone()].concat());
        movie.clone().put(b"minf", [dinf, boxed(b"stbl", &stbl)].concat()).file()
    };
    assert!(refusal("ref.mov", &elsewhere(0)).contains("its pictures are in another file; export it"));
    assert!(decoded("ref.mov", &elsewhere(1)).frames.is_empty());
    let compressed = [boxed(b"ftyp", b"qt  "), boxed(b"moov", &boxed(b"cmov", &[1; 30]))].concat();
    assert!(refusal("cmov.mov", &compressed).contains("its index is compressed (cmov)"));
    let error = refusal("sound.m4a", &sound_only.file());
    assert!(error.contains("it has no video track; its tracks are: sound; a file with H.264"), "{error}");
    let Some(data) = shared_data() else { return };
    let cases = data.join("../cases/22-other-containers-and-no-pictures");
    let error = decode(&cases.join("audio_only.mp4"), &IngestOptions::default()).err().unwrap().to_string();
    assert!(error.contains("its tracks are: sound") && error.contains("audio_only.mp4"), "{error}");
}
