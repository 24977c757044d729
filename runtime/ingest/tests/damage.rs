//! Damaged streams: what is lost is counted, what comes out is right, and pictures go on at the next key picture.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Run, Scratch, decode, own_data, reference, shared_data};
use millrace_ingest::{Event, Ingest, IngestOptions, annexb_nals};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

fn decode_bytes(name: &str, bytes: &[u8]) -> Run {
    let file = Scratch::new(name, bytes);
    decode(&file.0, &IngestOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Every frame that came out is one that FFmpeg has of the whole stream, in the same order.
fn assert_subset(name: &str, run: &Run, framemd5: &Path) {
    let (_, want) = reference(framemd5);
    let mut rest = want.iter();
    for (n, got) in run.frames.iter().enumerate() {
        assert!(
            rest.any(|w| w.md5 == got.md5),
            "{name}: frame {n} at {} ns is not in order in the original",
            got.pts_ns
        );
    }
}

#[test]
fn a_lost_reference_costs_the_pictures_up_to_the_next_key_picture() {
    let Some(data) = shared_data() else { return };
    // BA_MW_D without its second picture: 99 pictures are left, of which 28 refer to what is missing; IDR at 30, 60, 90
    let run = decode(&data.join("h264/BA_MW_D_P_LOST.264"), &IngestOptions::default()).unwrap();
    let (_, whole) = reference(&data.join("refs/framemd5/BA_MW_D.264.framemd5"));
    let want: Vec<&str> = [&whole[..1], &whole[30..]].concat().iter().map(|w| w.md5.clone().leak() as &str).collect();
    assert_eq!(run.md5s(), want);
    assert_eq!(run.lost, [("missing_reference", 1), ("waiting_for_key", 27)].into());
    assert_eq!(run.frames[1].pts_ns, 29 * 40_000_000, "lost pictures keep their place in time");
}

/// Takes picture `drop` of a byte stream away and decodes the rest.
fn without_picture(name: &str, drop: usize) -> Run {
    let whole = std::fs::read(own_data(name)).unwrap();
    let h265 = name.ends_with("265");
    let mut out = Vec::new();
    let mut picture = 0usize;
    for nal in annexb_nals(&whole) {
        let slice = if h265 { nal[0] >> 1 & 63 < 32 } else { matches!(nal[0] & 31, 1 | 5) };
        let first = slice && (if h265 { nal[2] } else { nal[1] }) & 0x80 != 0;
        picture += usize::from(first);
        if !(slice && picture == drop + 1) {
            out.extend_from_slice(&[0, 0, 0, 1]);
            out.extend_from_slice(nal);
        }
    }
    decode_bytes(name, &out)
}

/// A byte stream with each parameter set of one kind changed.
fn with_sets_changed(name: &str, is_set: fn(&[u8]) -> bool, change: impl Fn(&mut Vec<u8>)) -> Run {
    let whole = std::fs::read(own_data(name)).unwrap();
    let mut out = Vec::new();
    for nal in annexb_nals(&whole) {
        let mut nal = nal.to_vec();
        if is_set(&nal) {
            change(&mut nal);
        }
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(&nal);
    }
    decode_bytes(name, &out)
}

#[test]
fn bytes_behind_the_end_of_a_parameter_set_change_nothing() {
    let is_h264_sps = |nal: &[u8]| nal[0] & 31 == 7;
    let is_h265_sps = |nal: &[u8]| nal[0] >> 1 & 63 == 33;
    for name in ["pyramid.264", "baseline_slices.264", "crop_left_top.264", "open_gop.265", "closed_gop.265"] {
        let is_set = if name.ends_with("264") { is_h264_sps } else { is_h265_sps };
        for tail in [&[0x42, 0x99, 0x60, 0x5a][..], &[0x80], &[0xff; 40]] {
            let run = with_sets_changed(name, is_set, |nal| nal.extend_from_slice(tail));
            let (_, want) = reference(&own_data(&format!("{name}.framemd5")));
            assert_eq!(run.lost_in_all(), 0, "{name}, tail {tail:?}: {:?}", run.lost);
            assert_eq!(run.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{name}, tail {tail:?}");
        }
    }
}

#[test]
fn the_shared_streams_with_bytes_behind_their_parameter_sets_are_exact() {
    let Some(data) = shared_data() else { return };
    let folder = data.join("../cases/06-sps-with-bytes-behind-its-end");
    for name in ["sps_with_tail.264", "avcC_sps_with_tail.mp4"] {
        let run = decode(&folder.join(name), &IngestOptions::default()).unwrap();
        let (_, want) = reference(&folder.join(format!("{name}.framemd5")));
        assert_eq!(run.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{name}: {:?}", run.lost);
    }
}

#[test]
fn a_parameter_set_that_cannot_be_read_is_the_cause_that_is_counted() {
    // the avcC's parameter set, from its level on: zeros, so its first field has no end
    let mut bytes = std::fs::read(own_data("crop_b.mp4")).unwrap();
    let avcc = bytes.windows(4).position(|w| w == b"avcC").unwrap() + 4;
    let sps = avcc + 8;
    assert_eq!(bytes[sps] & 31, 7);
    let len = usize::from(u16::from_be_bytes([bytes[sps - 2], bytes[sps - 1]]));
    bytes[sps + 4..sps + len].fill(0);
    let file = Scratch::new("unreadable.mp4", &bytes);
    let mut ingest = Ingest::open(file.0.to_str().unwrap(), &IngestOptions::default()).unwrap();
    let mut lost = Vec::new();
    loop {
        match ingest.next_event().unwrap() {
            Event::Loss(loss) => lost.push(loss),
            Event::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(lost.iter().all(|loss| loss.cause == "unreadable_parameter_set"), "{lost:?}");
    assert_eq!(lost.iter().map(|loss| loss.count).sum::<u64>(), 25);
    let why = "the stream's sequence parameter set cannot be read: it ends inside of seq_parameter_set_id";
    assert_eq!(lost[0].detail, why);
}

#[test]
fn any_one_lost_picture_leaves_only_right_ones() {
    // the lengths of their groups of pictures, in decoding order
    for (name, group) in [("pyramid.264", 12), ("baseline_slices.264", 10), ("closed_gop.265", 9)] {
        let framemd5 = own_data(&format!("{name}.framemd5"));
        let whole = reference(&framemd5).1.len();
        for drop in 0..20 {
            let run = without_picture(name, drop);
            assert_subset(&format!("{name} without picture {drop}"), &run, &framemd5);
            assert!(run.frames.len() + group >= whole, "{name} without {drop}: {} of {whole}", run.frames.len());
            assert!(run.frames.len() < whole);
            let seen = run.frames.len() as u64 + run.lost_in_all();
            assert_eq!(
                seen,
                whole as u64 - 1,
                "{name} without {drop}: each other picture is shown or counted: {:?}",
                run.lost
            );
        }
    }
}

#[test]
fn a_stream_that_begins_in_the_middle_begins_at_its_next_key_picture() {
    for name in ["open_gop.264", "open_gop.265", "closed_gop.265"] {
        let whole = std::fs::read(own_data(name)).unwrap();
        // the parameter sets, then everything from some picture on
        let nals: Vec<&[u8]> = annexb_nals(&whole).collect();
        let sets = if name.ends_with("264") { 2 } else { 3 };
        let mut bytes = Vec::new();
        for nal in nals.iter().take(sets).chain(nals.iter().skip(sets + 5)) {
            bytes.extend_from_slice(&[0, 0, 0, 1]);
            bytes.extend_from_slice(nal);
        }
        let run = decode_bytes(name, &bytes);
        assert_subset(name, &run, &own_data(&format!("{name}.framemd5")));
        assert!(run.lost["waiting_for_key"] > 0, "{name}");
        assert!(run.frames.len() >= 24, "{name}: {} frames, lost {:?}", run.frames.len(), run.lost);
    }
}

/// As a recorder gives it that is started at any moment: the first pictures have no parameter sets.
#[test]
fn pictures_before_the_first_parameter_sets_cost_no_other() {
    for name in ["open_gop.264", "cavlc_b.264", "open_gop.265", "closed_gop.265"] {
        let whole = std::fs::read(own_data(name)).unwrap();
        let nals: Vec<&[u8]> = annexb_nals(&whole).collect();
        let is_late = |nal: &&&[u8]| if name.ends_with("264") { nal[0] & 31 == 1 } else { nal[0] >> 1 < 16 };
        // each picture has one slice here
        let early: Vec<&[u8]> = nals.iter().filter(is_late).skip(3).take(7).copied().collect();
        let mut bytes = Vec::new();
        for nal in early.iter().chain(&nals) {
            bytes.extend_from_slice(&[0, 0, 0, 1]);
            bytes.extend_from_slice(nal);
        }
        let run = decode_bytes(name, &bytes);
        let (_, want) = reference(&own_data(&format!("{name}.framemd5")));
        assert_eq!(run.md5s(), want.iter().map(|w| w.md5.as_str()).collect::<Vec<_>>(), "{name}: lost {:?}", run.lost);
        assert_eq!(run.lost, [("waiting_for_key", 7)].into(), "{name}");
    }
}

#[test]
fn a_truncated_mp4_gives_what_is_there_and_counts_the_rest() {
    let whole = std::fs::read(own_data("crop_b.mp4")).unwrap();
    for keep in [whole.len() - 1, whole.len() * 3 / 4, whole.len() / 2] {
        let run = decode_bytes("cut.mp4", &whole[..keep]);
        assert_subset("cut.mp4", &run, &own_data("crop_b.mp4.framemd5"));
        assert!(run.lost["truncated"] > 0);
        assert_eq!(run.frames.len() as u64 + run.lost_in_all(), 25, "{:?}", run.lost);
    }
}

/// These files state their own length, so that nothing of them is missing in silence.
#[test]
fn a_file_that_is_cut_anywhere_gives_all_its_pictures_or_says_that_some_are_missing() {
    for (name, mark) in [
        ("pyramid.mkv", &b"\x1f\x43\xb6\x75"[..]),
        ("pyramid.mkv", b"\xa3"),
        ("h264.avi", b"00dc"),
        ("h265.avi", b"00dc"),
        ("crop_b.mp4", b"\0\0\x01"),
    ] {
        let whole = std::fs::read(own_data(name)).unwrap();
        let all = decode_bytes(name, &whole).frames.len();
        let marks = (whole.len() / 4..whole.len() - mark.len()).filter(|&at| whole[at..].starts_with(mark));
        for cut in marks.chain((whole.len() / 4..whole.len() - 8).step_by(97)) {
            let file = Scratch::new(name, &whole[..cut]);
            // where the headers are cut it is refused
            let Ok(run) = decode(&file.0, &IngestOptions::default()) else { continue };
            assert!(
                run.frames.len() == all || !run.lost.is_empty(),
                "{name} of {cut} bytes gives {} of {all} pictures without a word",
                run.frames.len()
            );
        }
    }
}

#[test]
fn files_that_are_not_video_are_refused_with_what_they_are() {
    let whole = std::fs::read(own_data("edit_list.mp4")).unwrap();
    let moov = whole.windows(4).position(|w| w == b"moov").unwrap();
    for (name, bytes, what) in [
        ("empty.mp4", &b""[..], "is empty, not video that can be read here"),
        ("a.264", b"what is this", "is text, not video"),
        ("b.mp4", b"GIF89a and so on", "is a GIF picture, not video"),
        (
            "c.mp4",
            &whole[..moov - 4],
            "it has no index; the recording was cut short before its index (moov) was written",
        ),
    ] {
        let file = Scratch::new(name, bytes);
        let error = decode(&file.0, &IngestOptions::default()).err().expect(name).to_string();
        assert!(error.contains(name) && error.contains(what), "{error}");
    }
    let error = decode(Path::new("/no/such/file.mp4"), &IngestOptions::default()).err().unwrap().to_string();
    assert!(error.starts_with("cannot open '/no/such/file.mp4': No such file"), "{error}");
    let error = decode(Path::new("/"), &IngestOptions::default()).err().unwrap().to_string();
    assert!(error.starts_with("'/' is a folder without JPEG or PNG pictures"), "{error}");
}

#[test]
fn a_size_that_no_level_allows_is_not_allocated() {
    // an SPS that claims 65536x65536 luma samples: profile 66, level 30, ids 0, widths as ue(4095)
    let mut bits = String::from("010000100000000000011110"); // profile, constraints, level
    bits += "1"; // sps id
    bits += "1"; // log2_max_frame_num - 4
    bits += "011"; // order count type 2
    bits += "010"; // one reference frame
    bits += "0"; // no gaps
    bits += "0000000000001000000000000"; // 4095
    bits += "0000000000001000000000000"; // 4095
    bits += "1"; // frames only
    bits += "1"; // direct 8x8
    bits += "0"; // no cropping
    bits += "0"; // no VUI
    bits += "1"; // stop bit
    while bits.len() % 8 != 0 {
        bits.push('0');
    }
    let sps: Vec<u8> =
        bits.as_bytes().chunks(8).map(|b| u8::from_str_radix(std::str::from_utf8(b).unwrap(), 2).unwrap()).collect();
    let stream =
        [&[0, 0, 0, 1, 0x67][..], &sps, &[0, 0, 0, 1, 0x68, 0xce, 0x38, 0x80, 0, 0, 0, 1, 0x65, 0x88, 0x80]].concat();
    let file = Scratch::new("huge.264", &stream);
    let error = decode(&file.0, &IngestOptions::default()).err().unwrap().to_string();
    assert!(error.contains("no readable parameter set") && error.contains("larger than any level allows"), "{error}");
}

/// Whatever is done to a stream: no panic, no hang, and no frames out of nothing.
fn survives(name: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    let file = Scratch::new(name, bytes);
    let path = file.0.clone();
    let (send, done) = std::sync::mpsc::channel();
    // a hang must fail the test, not hang it
    let decoding = std::thread::spawn(move || {
        let counts = decode(&path, &IngestOptions::default()).map(|run| (run.frames.len(), run.units.len()));
        let _ = send.send(());
        counts
    });
    prop_assert!(done.recv_timeout(Duration::from_secs(20)).is_ok() || decoding.is_finished(), "{} hangs", name);
    let counts = decoding.join();
    prop_assert!(counts.is_ok(), "{} panics", name);
    if let Ok(Ok((frames, units))) = counts {
        prop_assert!(frames <= units, "{}: {} frames of {} units", name, frames, units);
    }
    Ok(())
}

/// A reader that believes such a box goes round in circles.
#[test]
fn a_box_shorter_than_its_header_is_refused() {
    let whole = std::fs::read(own_data("crop_b.mp4")).unwrap();
    for kind in [b"mvhd", b"trak", b"tkhd", b"edts", b"mdia", b"minf", b"stbl", b"stsd", b"stts", b"udta"] {
        let at = whole.windows(4).position(|w| w == kind).unwrap();
        for claim in 0..8 {
            let mut bytes = whole.clone();
            bytes[at - 4..at].copy_from_slice(&[0, 0, 0, claim]);
            survives("short_box.mp4", &bytes).unwrap();
        }
    }
}

const STREAMS: [&str; 9] = [
    "crop_b.mp4",
    "fragmented.mp4",
    "h265_crop.mp4",
    "pyramid.264",
    "open_gop.264",
    "baseline_slices.264",
    "cavlc_b.264",
    "closed_gop.265",
    "open_gop.265",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn corrupted_streams_neither_panic_nor_hang(
        name in prop::sample::select(&STREAMS[..]),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        cut in prop::option::of(any::<prop::sample::Index>()),
        at_the_front: bool,
    ) {
        let mut bytes = std::fs::read(own_data(name)).unwrap();
        // half of the cases hit the headers, where the structure is
        let len = if at_the_front { bytes.len().min(1200) } else { bytes.len() };
        for (at, value) in hits {
            bytes[at.index(len)] ^= value | 1;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        survives(name, &bytes)?;
    }

    #[test]
    fn noise_neither_panics_nor_hangs(bytes in prop::collection::vec(any::<u8>(), 0..4096), start in 0usize..3) {
        let head: &[u8] = [&b""[..], b"\0\0\0\x18ftypisom\0\0\0\0\0\0\0\0\0\0\x08\0moov", b"\0\0\x01\x67\x42"][start];
        survives("noise", &[head, &bytes].concat())?;
    }
}

#[test]
fn corrupted_real_streams_neither_panic_nor_hang() {
    let Some(data) = shared_data() else { return };
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % n as u64) as usize
    };
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(data.join("h264")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "264") {
            continue;
        }
        let whole = std::fs::read(&path).unwrap();
        for _ in 0..4 {
            let mut bytes = whole.clone();
            for _ in 0..1 + random(30) {
                let at = random(bytes.len());
                bytes[at] ^= 1 << random(8);
            }
            survives("real", &bytes).unwrap();
        }
        names.insert(path);
    }
    assert_eq!(names.len(), 13);
}
