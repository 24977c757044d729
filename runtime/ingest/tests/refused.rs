//! What is not read is refused by the file's name, what it is, and what to do; and streams that can only be joined late.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Scratch, decode, own_data, reference, shared_data};
use millrace_ingest::{Ingest, IngestOptions, PacedSource, PacedStep, SourceSettings, annexb_nals};
use std::path::Path;

fn refusal(path: &Path) -> String {
    let error =
        PacedSource::open(path.to_str().unwrap(), &SourceSettings::default()).err().expect("refused").to_string();
    assert!(error.contains(&*path.to_string_lossy()), "it names the file: {error}");
    error
}

#[test]
fn files_of_other_kinds_are_named() {
    let asf = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9";
    for (name, bytes, what) in [
        ("a.gif", &b"GIF89a"[..], "a GIF picture"),
        ("a.flv", b"FLV\x01\x05", "Flash video (FLV)"),
        ("a.wmv", asf, "a Windows Media file (WMV, ASF)"),
        ("a.mp3", b"ID3\x04\0\0", "an MP3 sound file"),
        ("a.mpg", b"\0\0\x01\xba\x44", "an MPEG program stream"),
        ("a.txt", b"not a video\n", "text"),
        ("empty.mp4", b"", "empty"),
        ("zeros.mp4", &[0; 5000], "nothing but zeros"),
        ("noise.mp4", &[0xfe; 5000], "in a format that is not known here"),
    ] {
        let file = Scratch::new(name, bytes);
        let error = refusal(&file.0);
        assert!(error.contains(&format!("' is {what}, not video that can be read here; expected MP4/MOV")), "{error}");
        assert!(error.ends_with("convert it with another tool, or name another file"), "{error}");
    }
}

#[test]
fn pipes_and_devices_are_refused_at_once() {
    let folder = std::env::temp_dir();
    let pipe = folder.join(format!("millrace-pipe-{}", std::process::id()));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = refusal(&pipe);
    std::fs::remove_file(&pipe).unwrap();
    assert!(error.contains("is a pipe (FIFO), not video"), "{error}");
    assert!(error.ends_with("write what comes out of it to a file, and name that"), "{error}");
    let error = refusal(Path::new("/dev/null"));
    assert!(error.contains("is a device, not video") && error.ends_with("http:// URL of a camera"), "{error}");
    assert!(refusal(Path::new("/no/such.mp4")).contains("No such file"));
}

#[test]
fn what_streams_differently_says_what_to_do() {
    let playlist = Scratch::new("live.m3u8", b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:4,\na.ts\n");
    let error = refusal(&playlist.0);
    assert!(error.contains("is an HLS playlist, not video") && error.contains("ffmpeg -i PLAYLIST -c copy"), "{error}");
    for url in ["rtmp://me:hidden7@server/live", "srt://server:9000", "udp://239.0.0.1:1234", "v4l2:///dev/video0"] {
        let error = Ingest::open(url, &IngestOptions::default()).err().unwrap().to_string();
        let scheme = url.split(':').next().unwrap();
        let wanted =
            format!("camera {scheme}://…: this kind of address is not read; rtsp:// and http:// (Motion JPEG) are.");
        assert!(error.starts_with(&wanted) && !error.contains("hidden7"), "{error}");
    }
    // a node as the system's own video devices are, where this process may make one
    let device = std::env::temp_dir().join(format!("millrace-video-{}", std::process::id()));
    let made = std::process::Command::new("mknod").arg(&device).args(["c", "81", "0"]).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return millrace_needs::skip_without("root", "no device can be made here");
    }
    let error = refusal(&device);
    std::fs::remove_file(&device).unwrap();
    assert!(
        error.contains("is a camera of this machine (V4L2), not video") && error.contains("Motion JPEG over HTTP"),
        "{error}"
    );
}

#[test]
fn eight_bits_of_a_profile_with_other_tools_are_refused_by_its_name() {
    let mut whole = std::fs::read(own_data("closed_gop.265")).unwrap();
    // general_profile_idc and the flag of compatibility, in the sequence parameter set (7.3.3)
    let main = [0x42, 1, 1, 1, 0x60];
    let mut changed = 0;
    for at in 0..whole.len() - main.len() {
        if whole[at..].starts_with(&main) {
            whole[at + 3..at + 5].copy_from_slice(&[4, 8]);
            changed += 1;
        }
    }
    assert!(changed > 0);
    let error = decode(&Scratch::new("rext.265", &whole).0, &IngestOptions::default()).err().unwrap().to_string();
    assert!(error.contains("h265 stream (Range Extensions, 96x64, 8 bit) may use tools"), "{error}");
}

/// What is said of a file in which nothing can be decoded.
fn nothing_in(path: &Path) -> String {
    let mut source = PacedSource::open(path.to_str().unwrap(), &SourceSettings::default()).unwrap();
    loop {
        match source.step().unwrap() {
            PacedStep::End => return source.end().unwrap_err().to_string(),
            PacedStep::Loss(_) | PacedStep::State(_) | PacedStep::Unit(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_without_a_picture_says_what_is_in_it() {
    let sets: Vec<u8> = annexb_nals(&std::fs::read(own_data("pyramid.264")).unwrap())
        .filter(|nal| matches!(nal[0] & 31, 7 | 8))
        .take(2)
        .flat_map(|nal| [&[0, 0, 0, 1], nal].concat())
        .collect();
    let error = nothing_in(&Scratch::new("sets.264", &sets).0);
    assert!(
        error.contains("sets.264' could be decoded: 0 access units were read, none lost; it holds parameter sets"),
        "{error}"
    );
    let mut scrambled = std::fs::read(own_data("pyramid.ts")).unwrap();
    scrambled.chunks_mut(188).filter(|packet| packet[1] & 0x1f == 1).for_each(|packet| packet[3] |= 0xc0);
    let error = nothing_in(&Scratch::new("scrambled.ts", &scrambled).0);
    assert!(
        error.ends_with("; the stream is scrambled: record it without scrambling")
            && error.contains("lost by scrambled ("),
        "{error}"
    );
}

/// A byte stream from its `skip`th picture on, with the parameter sets in front.
fn joined_at(name: &str, skip: usize) -> Vec<u8> {
    let whole = std::fs::read(own_data(name)).unwrap();
    let mut pictures = 0;
    let mut out = Vec::new();
    for nal in annexb_nals(&whole) {
        let is_slice = matches!(nal[0] & 31, 1 | 5);
        let is_set = matches!(nal[0] & 31, 7 | 8);
        // an SEI is in front of its picture
        if pictures >= skip || is_set && pictures == 0 {
            out.extend([&[0, 0, 0, 1], nal].concat());
        }
        pictures += usize::from(is_slice && nal[1] & 0x80 != 0);
    }
    out
}

#[test]
fn a_stream_with_intra_refresh_is_exact_some_frames_after_a_recovery_point() {
    for name in ["intra_refresh.264", "intra_refresh_b.264"] {
        let (_, whole) = reference(&own_data(&format!("{name}.framemd5")));
        let mut exact = 0;
        for skip in [1, 5, 14, 15, 20, 28, 33] {
            let file = Scratch::new(name, &joined_at(name, skip));
            let run = decode(&file.0, &IngestOptions::default()).unwrap();
            let mut rest = whole.iter();
            for (n, frame) in run.frames.iter().enumerate() {
                assert!(rest.any(|w| w.md5 == frame.md5), "{name} from {skip}: frame {n} is not exact; {:?}", run.lost);
            }
            let pictures = whole.len() - skip;
            assert_eq!(run.frames.len() + run.lost_in_all() as usize, pictures, "{name} from {skip}: {:?}", run.lost);
            // a B picture that a stream begins with is followed by one that refers to what was before
            let causes = ["recovering", "waiting_for_key", "missing_reference"];
            assert!(run.lost.keys().all(|cause| causes.contains(cause)), "{:?}", run.lost);
            exact = exact.max(run.frames.len());
        }
        assert!(exact >= 25, "{name}: at most {exact} pictures");
    }
}

#[test]
fn the_shared_stream_that_is_joined_at_a_recovery_point_is_exact() {
    let Some(data) = shared_data() else { return };
    let folder = data.join("../cases/14-intra-refresh");
    let run = decode(&folder.join("joined_at_a_recovery_point.264"), &IngestOptions::default()).unwrap();
    let (_, want) = reference(&folder.join("joined_at_a_recovery_point.264.framemd5"));
    assert_eq!(run.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{:?}", run.lost);
    assert_eq!(run.lost, [("recovering", 18)].into());
}

#[test]
fn the_shared_files_in_other_containers_have_the_pictures_of_the_good_one() {
    let Some(data) = shared_data() else { return };
    let folder = data.join("../cases/22-other-containers-and-no-pictures");
    let (timebase, want) = reference(&folder.join("good.mp4.framemd5"));
    for name in ["h264.ts", "h264.mkv"] {
        let run = decode(&folder.join(name), &IngestOptions::default()).unwrap();
        let got: Vec<(&str, i64)> = run.frames.iter().map(|f| (&f.md5[..], f.pts_ns)).collect();
        let want: Vec<(&str, i64)> = want.iter().map(|w| (&w.md5[..], common::to_ns(w.pts, timebase))).collect();
        assert_eq!(got, want, "{name}: {:?}", run.lost);
    }
    assert!(nothing_in(&folder.join("only_parameter_sets.264")).contains("it holds parameter sets and no picture"));
}
