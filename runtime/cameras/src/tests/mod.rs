//! The node on a decoder that needs no device. What is decided here is what every node that decodes has in common: order,
//! bounds, states, and that one camera's failure is not another's.
#![allow(clippy::unwrap_used)]

mod fake;
mod file;
mod isolation;
mod password;
mod rtsp;

use fake::{Fakes, PICTURES, WAITED_FOR};
use millrace_frame::CameraState;
use millrace_node::testing::Bench;
use millrace_node::{Input, Metrics, Node};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A clip of the ingest tests; FFmpeg made it.
fn clip(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ingest/tests/data").join(name).to_str().unwrap().to_owned()
}

#[test]
fn settings_that_serve_nobody_are_found_before_the_start() {
    let found = |more: &[(&str, &str)]| {
        millrace_node::testing::remarks::<Fakes>(&[&[("SOURCE", "clip.mp4")][..], more].concat())
    };
    let here = env!("CARGO_MANIFEST_DIR");
    for (more, setting, says) in [
        (&[("CAMERAS", "c.yml")][..], "CAMERAS", "SOURCE and CAMERAS are both set"),
        (&[("GROUP", "a")], "GROUP", "CAMERAS is not set"),
        (&[("CAMERA", "a\u{7}")], "CAMERA", "control character"),
        (&[("PART", "3/2")], "PART", "a part of the cameras file is expected"),
        (&[("SANDBOX_PORTS", "80,http")], "SANDBOX_PORTS", "has 'http'"),
        (&[("SANDBOX_READ", "/nowhere, /tmp")], "SANDBOX_READ", "names '/nowhere', which is not there"),
    ] {
        let refused = found(more).refused;
        assert!(refused.iter().any(|r| r.setting == setting && r.why.contains(says)), "{more:?}: {refused:?}");
    }
    assert_eq!(found(&[("SANDBOX_READ", here)]).refused, []);
    let warned: Vec<String> =
        found(&[("SANDBOX", "off"), ("SANDBOX_READ", here)]).warned.into_iter().map(|r| r.setting).collect();
    assert_eq!(warned, ["SANDBOX_READ"]);
}

/// Presentation times of the frames and packets of each camera, in the order in which they came.
#[derive(Debug, Default, PartialEq)]
struct Came {
    frames: Vec<i64>,
    packets: Vec<i64>,
}

fn take(came: &mut BTreeMap<String, Came>, (port, input): (&'static str, Input)) {
    let Input::Frame(lease) = input else { panic!("{port} carried detections") };
    let item = lease.item();
    let of = came.entry(item.source.clone()).or_default();
    let list = if port == "frame" { &mut of.frames } else { &mut of.packets };
    assert_eq!(item.seq as usize, list.len(), "{port} of {}", item.source);
    list.push(item.timing.pts_ns);
}

/// Receives until nothing comes any more.
fn play(settings: &[(&str, &str)]) -> (BTreeMap<String, Came>, Result<Metrics, String>) {
    play_on::<Fakes>(settings)
}

fn play_on<N: Node>(settings: &[(&str, &str)]) -> (BTreeMap<String, Came>, Result<Metrics, String>) {
    let mut bench = Bench::start::<N>(settings);
    let mut came = BTreeMap::new();
    while let Some(item) = bench.receive(Duration::from_millis(1500)) {
        take(&mut came, item);
    }
    let (rest, result) = bench.finish();
    assert!(rest.is_empty());
    (came, result)
}

/// The clip's pictures are 25 a second.
fn times(count: i64) -> Vec<i64> {
    (0..count).map(|n| n * 40_000_000).collect()
}

fn state(metrics: &Metrics, camera: &str) -> Option<(CameraState, String)> {
    let found = metrics.cameras().into_iter().find(|status| status.source == camera);
    found.map(|status| (status.state, status.last_error))
}

/// What a camera received against what became of it; both where nothing is on its way any more.
fn assert_balanced(metrics: &Metrics, camera: &str) {
    let lost: Vec<_> = metrics.drops(camera).into_iter().filter(|(_, port, _)| *port != "packet").collect();
    let names = ["over_target_fps", "not_shown", "frame_unread", "camera_stopped"];
    let left_out = names.map(|name| metrics.counted(name, camera));
    let published = metrics.published("frame", camera);
    // a frame that nobody read was published
    let pictures = lost.iter().filter(|(cause, ..)| *cause != "unread_at_end").map(|(.., count)| count);
    let fates = published + pictures.sum::<u64>() + left_out.iter().sum::<u64>();
    let received = metrics.counted("received", camera);
    assert_eq!(received, fates, "{camera}: published {published}, lost {lost:?}, left out {left_out:?}");
    assert!(received > 0, "{camera}");
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < end, "it never came to: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn every_frame_and_packet_of_every_camera_comes_in_its_order() {
    let sources = format!("a={}\n b={}\tc={}", clip("crop_b.mp4"), clip("crop_b.mp4"), clip("crop_b.mp4"));
    let settings = [("SOURCES", sources.as_str())];
    for (came, result) in [play(&settings), play_on::<Fakes<WAITED_FOR>>(&settings)] {
        let metrics = result.unwrap();
        assert_eq!(came.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        for (camera, mut came) in came {
            assert_eq!(came.frames, times(25), "{camera}: presentation order");
            assert_ne!(came.packets, times(25), "{camera}: decoding order");
            came.packets.sort();
            assert_eq!(came.packets, times(25), "{camera}");
            assert_eq!(metrics.counted("camera_failed", &camera), 0);
            assert_eq!(state(&metrics, &camera), Some((CameraState::Ended, String::new())));
            assert_eq!(metrics.counted("received", &camera), 25, "as FFmpeg made it");
            assert_eq!(metrics.gauged("frame_period_ns", &camera), Some(40_000_000), "25 a second");
            assert_balanced(&metrics, &camera);
        }
    }
}

/// The age of a picture counts from when it was decoded, but not of one that the decoder held until its stream stopped.
#[test]
fn a_picture_that_comes_out_because_the_stream_stops_is_as_old_as_its_arrival() {
    let mut bench = Bench::start::<Fakes>(&[("SOURCES", &format!("a={}", clip("crop_b.mp4")))]);
    let mut decoded = Vec::new();
    while let Some((port, Input::Frame(lease))) = bench.receive(Duration::from_millis(1500)) {
        let timing = lease.item().timing;
        if port == "frame" {
            assert!(timing.ready_ns == 0 || timing.ready_ns >= timing.arrival_ns, "{timing:?}");
            decoded.push(timing.ready_ns != 0);
        }
    }
    assert_eq!(decoded.len(), 25);
    // a pyramid of five B pictures: the last ones come out when nothing follows
    let held = decoded.iter().skip_while(|decoded| **decoded).count();
    assert!((1..=6).contains(&held), "{decoded:?}");
    assert!(decoded[25 - held..].iter().all(|decoded| !decoded), "{decoded:?}");
}

#[test]
fn one_camera_that_fails_does_not_disturb_the_others() {
    // 4:2:2, which no decoder here takes, and a file that is not there
    let sources = format!("good={} bad={} gone=/nowhere.mp4", clip("crop_b.mp4"), clip("chroma422.264"));
    let (came, result) = play(&[("SOURCES", &sources)]);
    let metrics = result.unwrap();
    assert_eq!(came["good"].frames, times(25));
    assert_eq!(came.get("bad").map_or(0, |c| c.frames.len()), 0);
    for (camera, lost) in [("good", 0), ("bad", 1), ("gone", 1)] {
        assert_eq!(metrics.counted("camera_failed", camera), lost, "{camera}");
    }
    // of the 4:2:2 file one unit was read, with which the source failed
    assert_eq!(metrics.drops("bad"), [("source_failed", "", 1)]);
    assert_balanced(&metrics, "bad");
    let (gone, why) = state(&metrics, "gone").unwrap();
    assert!(
        gone == CameraState::Refused && why.starts_with("cannot open '\"/nowhere.mp4\"'")
            || why.contains("/nowhere.mp4"),
        "{why}"
    );
    let (bad, why) = state(&metrics, "bad").unwrap();
    assert!(bad == CameraState::Refused && why.contains("4:2:2"), "{why}");
}

#[test]
fn a_node_whose_cameras_have_all_failed_ends_with_each_ones_reason() {
    let sources = format!("bad={} gone=/nowhere.mp4", clip("chroma422.264"));
    let (_, result) = play(&[("SOURCES", &sources)]);
    let error = result.unwrap_err();
    assert!(error.contains("camera 'bad': ") && error.contains("4:2:2"), "{error}");
    assert!(error.contains("camera 'gone': cannot open '/nowhere.mp4'"), "{error}");
}

#[test]
fn a_single_file_that_cannot_be_read_is_the_nodes_own_fault() {
    for (source, says) in [("/nowhere.mp4".to_owned(), "cannot open '/nowhere.mp4'"), (clip("chroma422.264"), "4:2:2")]
    {
        let (_, result) = play(&[("SOURCE", &source)]);
        let error = result.unwrap_err();
        assert!(error.contains(says) && !error.contains("camera '"), "{error}");
    }
}

#[test]
fn a_repeated_file_goes_on_in_time_and_a_stop_ends_it() {
    let source = clip("crop_b.mp4");
    let mut bench = Bench::start::<Fakes>(&[("SOURCE", &source), ("CAMERA", "gate"), ("LOOP", "true")]);
    let mut came = BTreeMap::new();
    while came.get("gate").is_none_or(|came: &Came| came.frames.len() < 60) {
        take(&mut came, bench.receive(Duration::from_secs(20)).unwrap());
    }
    assert_eq!(came["gate"].frames, times(60));
    bench.stop();
    let metrics = bench.join().unwrap();
    assert_balanced(&metrics, "gate");
    assert!(metrics.counted("camera_stopped", "gate") > 0, "{:?}", metrics.drops("gate"));
}

#[test]
fn every_camera_ends_after_as_many_frames_as_are_asked_for() {
    // one that ends before, one within a pass, one after several
    for frames in [10, 25, 60] {
        let sources = format!("a={} b={}", clip("crop_b.mp4"), clip("crop_b.mp4"));
        let (came, result) = play(&[("SOURCES", &sources), ("LOOP", "true"), ("FRAMES", &frames.to_string())]);
        let metrics = result.unwrap();
        assert_eq!(came.keys().collect::<Vec<_>>(), ["a", "b"]);
        for (camera, came) in came {
            assert_eq!(came.frames, times(frames), "{camera}");
            // the pictures behind the last one that is asked for are read, and not shown
            assert_balanced(&metrics, &camera);
        }
    }
}

#[test]
fn a_consumer_that_takes_nothing_stops_the_decoder_soon_in_lossless_flow() {
    let source = clip("crop_b.mp4");
    let settings = [("SOURCE", &source[..]), ("LOOP", "true"), ("SLOTS", "2")];
    let mut bench = Bench::start::<Fakes<1>>(&settings);
    let first = bench.receive(Duration::from_secs(20)).unwrap();
    let held = || PICTURES[1].load(Ordering::Relaxed);
    // until the number does not change
    let mut before = -1;
    until("a decoder that waits", || {
        let same = held() == before;
        before = held();
        std::thread::sleep(Duration::from_millis(300));
        same
    });
    assert_eq!(held(), before, "it goes on decoding for a consumer that takes nothing");
    // both queues, and what each of the three threads has in hand; the decoder's own burst is at most 16
    assert!((1..=4 + 4 + 3 + 16).contains(&before), "{before} pictures are held");
    drop(first);
    bench.stop();
    let metrics = bench.join().unwrap();
    assert_eq!(held(), 0, "pictures that nobody let go of");
    assert_balanced(&metrics, "node");
    assert!(metrics.counted("camera_stopped", "node") >= before as u64, "{:?}", metrics.drops("node"));
}

/// A second opening of an MP4 file, whose composition times say when a picture can go: none is held longer than at the first.
#[test]
fn a_source_that_is_opened_again_delays_its_pictures_no_longer() {
    use crate::{Backend, Config, Decoder, Origin, Output};
    use std::sync::{Arc, Mutex};
    let source_settings = millrace_ingest::SourceSettings::default();
    let config = Config::new("gate", Origin::File(clip("crop_b.mp4")));
    let timeline = crate::timeline::Timeline::default();
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut source = config.open(&source_settings).unwrap();
        let came = Arc::new(Mutex::new(0_i64));
        let counts = came.clone();
        let sink = Box::new(move |output| {
            *counts.lock().unwrap() += i64::from(matches!(output, Output::Picture { .. }));
        });
        let mut decoder = fake::Fake::<2>.decoder("gate", sink).unwrap();
        let (mut offset_ns, mut units, mut most) = (None, 0, 0);
        loop {
            match source.step().unwrap() {
                millrace_ingest::PacedStep::Unit(unit) => {
                    let unit = crate::feeding::moved(unit, &mut offset_ns, &timeline);
                    decoder.push(&unit).unwrap();
                    units += 1;
                    most = most.max(units - *came.lock().unwrap());
                }
                millrace_ingest::PacedStep::End => break,
                _ => {}
            }
        }
        decoder.flush();
        assert_eq!(*came.lock().unwrap(), 25);
        held.push(most);
    }
    assert_eq!(held[0], held[1], "pictures held at most, at the first opening and at the second");
}

#[test]
fn a_paced_camera_takes_its_time() {
    let source = clip("crop_b.mp4");
    let began = Instant::now();
    let (came, result) = play(&[("SOURCE", &source), ("PACE", "realtime")]);
    result.unwrap();
    assert_eq!(came["node"].frames, times(25));
    // the last picture is shown 24 frame times after the first
    assert!(began.elapsed() >= Duration::from_millis(960), "{:?}", began.elapsed());
}
