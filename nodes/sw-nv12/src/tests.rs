#![allow(clippy::unwrap_used)]

use crate::node::SwNv12;
use millrace_frame::{ImageDesc, Matrix, Origin, Payload, Range};
use millrace_node::Input;
use millrace_node::testing::{Bench, Seen};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// 25 frames of 190x106, H.264 High with B pictures, made by FFmpeg; its checksums are beside it.
fn clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/ingest/tests/data/crop_b.mp4")
}

/// Times of the packets and of the frames of a run that ends by itself.
fn play(settings: &[(&str, &str)]) -> (Vec<i64>, Vec<i64>) {
    let (seen, result) = Bench::start::<SwNv12>(settings).finish();
    result.unwrap();
    let times = |wanted: &str| {
        let of = |(port, seen): &(&str, Seen)| match seen {
            Seen::Frame(item, _) if *port == wanted => Some(item.timing.pts_ns),
            _ => None,
        };
        seen.iter().filter_map(of).collect()
    };
    (times("packet"), times("frame"))
}

#[test]
fn packets_and_frames_carry_the_same_times() {
    let (mut packets, frames) = play(&[("SOURCE", clip().to_str().unwrap())]);
    assert_eq!(frames, (0..25).map(|n| n * 40_000_000).collect::<Vec<_>>());
    assert_ne!(packets, frames, "packets come in decoding order");
    packets.sort();
    assert_eq!(packets, frames);
}

#[test]
fn a_repeated_file_goes_on_in_time() {
    let (_, frames) = play(&[("SOURCE", clip().to_str().unwrap()), ("LOOP", "true"), ("FRAMES", "60")]);
    assert_eq!(frames, (0..60).map(|n| n * 40_000_000).collect::<Vec<_>>());
}

#[test]
fn a_paced_file_takes_its_time() {
    let began = Instant::now();
    let settings =
        [("SOURCE", clip().to_str().unwrap().to_owned()), ("PACE", "realtime".into()), ("FRAMES", "11".into())];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let (_, frames) = play(&settings);
    assert_eq!(frames.len(), 11);
    // the eleventh picture is due ten frame times after the first
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

#[test]
fn a_file_without_a_picture_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let cut = dir.path().join("cut.mp4");
    // the index is whole, of the pictures there is nothing
    let whole = std::fs::read(clip()).unwrap();
    let mdat = whole.windows(4).position(|w| w == b"mdat").unwrap();
    assert!(whole.windows(4).position(|w| w == b"moov").unwrap() < mdat, "the clip has its index in front");
    std::fs::write(&cut, &whole[..mdat + 8]).unwrap();
    let (_, result) = Bench::start::<SwNv12>(&[("SOURCE", cut.to_str().unwrap())]).finish();
    let error = result.unwrap_err();
    assert!(error.contains("cut.mp4' could be decoded: 0 access units were read, 25 lost by truncated"), "{error}");
}

#[test]
fn the_node_publishes_every_frame_and_packet_in_lossless_flow() {
    let source = clip();
    let mut bench =
        Bench::start::<SwNv12>(&[("SOURCE", source.to_str().unwrap()), ("CAMERA", "gate"), ("MATRIX", "bt2020ncl")]);
    let (mut frames, mut packets) = (Vec::new(), Vec::new());
    let mut take = |port: &str, input: Input| {
        let Input::Frame(lease) = input else { panic!("{port} carried detections") };
        let item = lease.item();
        assert_eq!(item.source, "gate");
        match &item.payload {
            Payload::Image(image) => {
                assert_eq!((port, item.seq as usize), ("frame", frames.len()));
                check_image(image);
                frames.push(item.timing.pts_ns);
            }
            Payload::Packet(packet) => {
                assert_eq!(port, "packet");
                assert!(lease.bytes().starts_with(&[0, 0, 0, 1]), "Annex-B");
                assert_eq!(packet.key, packets.is_empty(), "the clip has one key picture, its first");
                packets.push(item.timing.pts_ns);
            }
            other => panic!("{other:?}"),
        }
    };
    // One by one: in lossless flow a lease that is kept stops the node.
    for n in 0..50 {
        let (port, input) =
            bench.receive(Duration::from_secs(20)).unwrap_or_else(|| panic!("only {n} of 50 items came"));
        take(port, input);
    }
    let (rest, result) = bench.finish();
    assert!(rest.is_empty());
    result.unwrap();
    assert_eq!(frames, (0..25).map(|n| n * 40_000_000).collect::<Vec<_>>());
    packets.sort();
    assert_eq!(packets, frames);
}

fn check_image(image: &ImageDesc) {
    assert_eq!((image.coded.width_px, image.coded.height_px), (190, 106), "what is shown, not what is coded");
    assert_eq!(image.planes[0].pitch_bytes, 192);
    assert_eq!((image.colour.matrix.value, image.colour.matrix.origin), (Matrix::Bt2020Ncl, Origin::Setting));
    assert_eq!((image.colour.range.value, image.colour.range.origin), (Range::Full, Origin::Bitstream));
}

#[test]
fn a_file_that_is_not_video_stops_the_node_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notes.mp4");
    std::fs::write(&path, "these are no pictures").unwrap();
    let (_, result) = Bench::start::<SwNv12>(&[("SOURCE", path.to_str().unwrap())]).finish();
    let error = result.unwrap_err();
    assert!(
        error.contains("notes.mp4' is text, not video") && error.contains("H.264, H.265 or Motion JPEG"),
        "{error}"
    );
}

#[test]
fn frames_ends_the_source_before_its_end_and_after_it() {
    let source = clip();
    for (count, repeat) in [("7", "false"), ("60", "true")] {
        let settings = [("SOURCE", source.to_str().unwrap()), ("FRAMES", count), ("LOOP", repeat), ("CAMERA", "gate")];
        let (seen, metrics) = Bench::start::<SwNv12>(&settings).finish();
        let frames = seen.iter().filter(|(port, _)| *port == "frame").count();
        assert_eq!((frames.to_string().as_str(), metrics.is_ok()), (count, true));
    }
}

#[test]
fn the_two_formats_are_told_apart_by_the_bytes_that_move() {
    let source = clip();
    let run = |format: &str| {
        let settings = [("SOURCE", source.to_str().unwrap()), ("FORMAT", format), ("FRAMES", "5"), ("CAMERA", "gate")];
        let (seen, metrics) = Bench::start::<SwNv12>(&settings).finish();
        let frames = seen.iter().filter_map(|(port, seen)| match seen {
            Seen::Frame(item, _) if *port == "frame" => Some(item.payload.bytes()),
            _ => None,
        });
        (frames.collect::<Vec<_>>(), metrics.unwrap().counted("bytes_inside", "gate"))
    };
    let nv12_bytes = 190 * 106 * 3 / 2;
    assert_eq!(run("nv12"), (vec![nv12_bytes; 5], 5 * nv12_bytes));
    assert_eq!(run("bgr24"), (vec![190 * 106 * 3; 5], 5 * nv12_bytes));
}

#[test]
fn many_cameras_are_decoded_in_one_process() {
    let source = clip();
    let sources: Vec<String> = (0..6).map(|n| format!("cam{n}={}", source.to_str().unwrap())).collect();
    let (seen, metrics) = Bench::start::<SwNv12>(&[("SOURCES", &sources.join("\n"))]).finish();
    let metrics = metrics.unwrap();
    for n in 0..6 {
        let camera = format!("cam{n}");
        let of = |(port, seen): &(&str, Seen)| match seen {
            Seen::Frame(item, _) if *port == "frame" && item.source == camera => Some(item.timing.pts_ns),
            _ => None,
        };
        let times: Vec<i64> = seen.iter().filter_map(of).collect();
        assert_eq!(times, (0..25).map(|n| n * 40_000_000).collect::<Vec<_>>(), "{camera}");
        assert_eq!(metrics.dropped("loop_behind", &camera), 0);
    }
}
