//! AVI files: H.264, H.265 and Motion JPEG, as FFmpeg writes them and as others do.
#![allow(clippy::unwrap_used)]

mod common;

use common::mp4_writer::{Movie, coded};
use common::{Scratch, decode, own_data, reference};
use millrace_ingest::{Ingest, IngestOptions};
use std::path::Path;

#[test]
fn pictures_of_an_avi_file_are_those_of_its_stream() {
    for (avi, stream, step_ns) in [("h264.avi", "cavlc_b.264", 40_000_000), ("h265.avi", "closed_gop.265", 40_000_000)]
    {
        let run = decode(&own_data(avi), &IngestOptions::default()).unwrap();
        let (_, want) = reference(&own_data(&format!("{stream}.framemd5")));
        assert_eq!(run.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{avi}: {:?}", run.lost);
        let times: Vec<i64> = run.frames.iter().map(|f| f.pts_ns).collect();
        assert_eq!(times, (0..want.len() as i64).map(|n| n * step_ns).collect::<Vec<_>>(), "{avi}");
    }
}

fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut chunk = [&kind[..], &(body.len() as u32).to_le_bytes(), body].concat();
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    chunk
}

fn list(kind: &[u8; 4], of: &[u8; 4], chunks: &[Vec<u8>]) -> Vec<u8> {
    chunk(kind, &[&of[..], &chunks.concat()].concat())
}

/// A stream's list: what it is, in which codec, and for how long each of its chunks lasts (seconds as a fraction).
fn stream(kind: &[u8; 4], codec: &[u8; 4], scale: u32, rate: u32) -> Vec<u8> {
    configured(kind, codec, scale, rate, b"")
}

/// The same, with the codec's configuration behind its format.
fn configured(kind: &[u8; 4], codec: &[u8; 4], scale: u32, rate: u32, config: &[u8]) -> Vec<u8> {
    let mut strh = [&kind[..], codec, &[0; 12]].concat();
    strh.extend([scale, rate, 0, 0, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    let mut strf = [40u32, 64, 48, 0x0018_0001].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    strf.extend_from_slice(codec);
    strf.resize(40, 0);
    strf.extend_from_slice(config);
    list(b"LIST", b"strl", &[chunk(b"strh", &strh), chunk(b"strf", &strf)])
}

/// The pictures of the Motion JPEG stream.
fn pictures() -> Vec<Vec<u8>> {
    let whole = std::fs::read(own_data("mjpeg.mjpeg")).unwrap();
    let mut starts: Vec<usize> = (0..whole.len() - 2).filter(|&at| whole[at..at + 3] == [0xff, 0xd8, 0xff]).collect();
    starts.push(whole.len());
    starts.windows(2).map(|at| whole[at[0]..at[1]].to_vec()).collect()
}

/// Sound is the first stream, so that the pictures are in chunks '01dc'. The second half is in another part (OpenDML).
fn file(codec: &[u8; 4], halves: [&[Vec<u8>]; 2]) -> Vec<u8> {
    let streams = [stream(b"auds", b"\x01\0\0\0", 1, 8000), stream(b"vids", codec, 1001, 10010)];
    let header = [vec![chunk(b"avih", &[0; 56])], streams.to_vec()].concat();
    let sound = chunk(b"00wb", &[1; 31]);
    let group = list(b"LIST", b"rec ", &[vec![sound.clone()], halves[0].to_vec()].concat());
    let first = [list(b"LIST", b"hdrl", &header), chunk(b"JUNK", &[0; 9]), list(b"LIST", b"movi", &[group])];
    let index = chunk(b"idx1", &[0; 64]);
    let second = list(b"LIST", b"movi", &[vec![chunk(b"ix01", &[0; 24]), sound], halves[1].to_vec()].concat());
    [list(b"RIFF", b"AVI ", &[first.to_vec(), vec![index]].concat()), list(b"RIFF", b"AVIX", &[second])].concat()
}

fn times_and_losses(bytes: &[u8]) -> (Vec<i64>, Vec<(&'static str, u64)>, usize) {
    let scratch = Scratch::new("own.avi", bytes);
    let run = decode(&scratch.0, &IngestOptions::default()).unwrap();
    let whole = decode(&own_data("mjpeg.mjpeg"), &IngestOptions::default()).unwrap();
    let known = run.frames.iter().filter(|f| whole.frames.iter().any(|w| w.md5 == f.md5)).count();
    (run.frames.iter().map(|f| f.pts_ns / 1_000_000).collect(), run.lost.into_iter().collect(), known)
}

#[test]
fn an_empty_chunk_is_time_that_passes() {
    let mut chunks: Vec<Vec<u8>> = pictures().iter().map(|picture| chunk(b"01dc", picture)).collect();
    chunks.insert(2, chunk(b"01dc", b""));
    chunks.insert(3, chunk(b"01dc", b""));
    let (first, second) = chunks.split_at(5);
    let (times, lost, known) = times_and_losses(&file(b"MJPG", [first, second]));
    assert_eq!((times, lost, known), (vec![0, 100, 400, 500, 600, 700], vec![], 6));
}

#[test]
fn a_recording_that_was_cut_short_or_is_damaged_plays_what_is_whole() {
    let chunks: Vec<Vec<u8>> = pictures().iter().map(|picture| chunk(b"01dc", picture)).collect();
    let (first, second) = chunks.split_at(3);
    let whole = file(b"MJPG", [first, second]);
    let (times, lost, known) = times_and_losses(&whole[..whole.len() - 100]);
    assert_eq!((times.len(), lost, known), (5, vec![("truncated", 1)], 5));
    // the header of the second picture's chunk is overwritten
    let at = whole.windows(4).enumerate().filter(|(_, w)| w == b"01dc").nth(1).unwrap().0;
    let mut damaged = whole.clone();
    damaged[at..at + 8].copy_from_slice(&[0xfe; 8]);
    let (times, lost, known) = times_and_losses(&damaged);
    assert_eq!((times.len(), lost, known), (5, vec![("damaged_chunk", 1)], 5));
}

#[test]
fn a_chunk_longer_than_a_file_that_is_whole_costs_itself_alone() {
    let chunks: Vec<Vec<u8>> = pictures().iter().map(|picture| chunk(b"01dc", picture)).collect();
    let (first, second) = chunks.split_at(3);
    let whole = file(b"MJPG", [first, second]);
    let at = whole.windows(4).enumerate().filter(|(_, w)| w == b"01dc").nth(1).unwrap().0;
    for kind in [b"01dc", b"xxxx"] {
        let mut damaged = whole.clone();
        damaged[at..at + 8].copy_from_slice(&[&kind[..], &[0xff, 0xff, 0xff, 0x7f]].concat());
        let (times, lost, known) = times_and_losses(&damaged);
        assert_eq!((times.len(), lost, known), (5, vec![("damaged_chunk", 1)], 5), "{}", kind.escape_ascii());
    }
}

fn refusal(path: &Path) -> String {
    Ingest::open(path, &IngestOptions::default()).err().expect("refused").to_string()
}

#[test]
fn what_is_not_read_is_named() {
    let scratch = Scratch::new("divx.avi", &file(b"XVID", [&[], &[]]));
    let error = refusal(&scratch.0);
    assert!(error.contains("AVI file '") && error.contains("divx.avi': its video is 'XVID'"), "{error}");
    assert!(error.ends_with("H.264, H.265 or Motion JPEG is expected; transcode the video"), "{error}");
    let sound = list(b"LIST", b"hdrl", &[chunk(b"avih", &[0; 56]), stream(b"auds", b"\x01\0\0\0", 1, 8000)]);
    let scratch = Scratch::new("sound.avi", &list(b"RIFF", b"AVI ", &[sound]));
    assert!(refusal(&scratch.0).contains("sound.avi': it has no video among its 1 streams"));
    let scratch = Scratch::new("cut.avi", &file(b"MJPG", [&[], &[]])[..40]);
    assert!(refusal(&scratch.0).contains("cut.avi': it has no list of its streams"));
}

/// A file with one stream, in chunks '00dc', for 40 ms each.
fn one_stream(codec: &[u8; 4], config: &[u8], chunks: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let header = [chunk(b"avih", &[0; 56]), configured(b"vids", codec, 1, 25, config)];
    let chunks: Vec<Vec<u8>> = chunks.into_iter().map(|body| chunk(b"00dc", &body)).collect();
    list(b"RIFF", b"AVI ", &[list(b"LIST", b"hdrl", &header), list(b"LIST", b"movi", &chunks)])
}

#[test]
fn a_damaged_chunk_of_the_only_stream_is_a_picture_and_its_time() {
    let whole = one_stream(b"MJPG", b"", pictures());
    let at = whole.windows(4).enumerate().filter(|(_, w)| w == b"00dc").nth(2).unwrap().0;
    for head in [b"xxxx\xff\xff\xff\x7f", b"00dc\xff\xff\xff\x7f", &[0xfe; 8]] {
        let mut damaged = whole.clone();
        damaged[at..at + 8].copy_from_slice(head);
        let (times, lost, known) = times_and_losses(&damaged);
        let want: Vec<i64> = (0..6).filter(|n| *n != 2).map(|n| 40 * n).collect();
        assert_eq!((times, lost, known), (want, vec![("damaged_chunk", 1)], 5), "{}", head.escape_ascii());
        if head.ends_with(&[0x7f]) {
            // of a file that ends early nobody knows which of the two it is
            let (times, lost, _) = times_and_losses(&damaged[..whole.len() - 100]);
            assert_eq!((times.len(), lost), (2, vec![("truncated", 1)]), "{}", head.escape_ascii());
        }
    }
}

/// As FFmpeg copies an MP4: the configuration behind the format, and lengths in front of the units. A length of 256 to 511
/// looks like a start code.
#[test]
fn units_behind_their_lengths_are_read_by_the_configuration() {
    let mut like_start_codes = 0;
    for (name, codec) in
        [("pyramid.264", b"H264"), ("pyramid.264", b"avc1"), ("closed_gop.265", b"hevc"), ("open_gop.265", b"HEVC")]
    {
        let (pictures, md5s) = coded(name);
        let h265 = name.ends_with("265");
        let movie = Movie::of(&pictures, h265);
        // behind the head of its box, what all descriptions have, and the head of the configuration's box
        let config = &movie.descriptions[0][8 + 78 + 8..];
        let samples = || movie.samples.iter().map(|sample| sample.bytes.clone());
        like_start_codes += samples().filter(|sample| sample.starts_with(&[0, 0, 1])).count();
        let sets_inside = Movie::samples(&pictures, h265, 4, true);
        let byte_stream = || {
            pictures
                .iter()
                .map(|picture| picture.nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect())
        };
        for (what, file) in [
            ("lengths", one_stream(codec, config, samples())),
            ("lengths, and nothing said", one_stream(codec, b"", sets_inside.into_iter().map(|sample| sample.bytes))),
            ("start codes", one_stream(codec, b"", byte_stream())),
            ("start codes, and lengths in the header", one_stream(codec, config, byte_stream())),
        ] {
            if what == "lengths, and nothing said" && samples().any(|sample| sample.starts_with(&[0, 0, 1])) {
                continue;
            }
            let scratch = Scratch::new("lengths.avi", &file);
            let run = decode(&scratch.0, &IngestOptions::default()).unwrap();
            assert_eq!(run.md5s(), md5s, "{name}, {what}: {:?}", run.lost);
            assert_eq!(run.lost_in_all(), 0, "{name}, {what}: {:?}", run.lost);
            let times: Vec<i64> = run.frames.iter().map(|frame| frame.pts_ns / 1_000_000).collect();
            assert_eq!(times, (0..md5s.len() as i64).map(|n| 40 * n).collect::<Vec<_>>(), "{name}, {what}");
        }
    }
    assert!(like_start_codes > 0, "no sample begins with a length that looks like a start code");
}

/// Those that FFmpeg has in its table for AVI.
#[test]
fn other_names_of_h264() {
    let (pictures, md5s) = coded("pyramid.264");
    for codec in [b"h264", b"X264", b"DAVC", b"SMV2", b"VSSH", b"Q264", b"V264", b"GAVC", b"UMSV", b"tshd", b"INMC"] {
        let units = pictures
            .iter()
            .map(|picture| picture.nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect());
        let scratch = Scratch::new("named.avi", &one_stream(codec, b"", units));
        assert_eq!(decode(&scratch.0, &IngestOptions::default()).unwrap().md5s(), md5s, "{}", codec.escape_ascii());
    }
}
