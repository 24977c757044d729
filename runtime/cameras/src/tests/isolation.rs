//! What one camera does is not another's business.

use super::fake::Fakes;
use super::{clip, state, take, times, until};
use millrace_frame::CameraState;
use millrace_node::Input;
use millrace_node::testing::Bench;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[test]
fn a_decoder_that_panics_is_started_again_and_nobody_else_notices() {
    let sources = format!("good={} panics={}", clip("crop_b.mp4"), clip("crop_b.mp4"));
    let settings = [("SOURCES", &sources[..]), ("LOOP", "true"), ("FRAMES", "100")];
    let mut bench = Bench::start::<Fakes>(&settings);
    let mut came = BTreeMap::new();
    until("both cameras' ends", || {
        while let Some(item) = bench.receive(Duration::from_millis(20)) {
            take(&mut came, item);
        }
        let ended = |camera| state(bench.metrics(), camera).is_some_and(|(state, _)| state == CameraState::Ended);
        ended("good") && ended("panics")
    });
    let (_, result) = bench.finish();
    let metrics = result.unwrap();
    assert_eq!(came["good"].frames, times(100));
    assert_eq!(came["panics"].frames.len(), 100);
    // The clip is one group of 25 pictures. In each pass the decoder gives out some of the first nine, panics at the tenth
    // with the rest of them inside, and the other 15 wait for the key picture of the next pass.
    let passes = metrics.counted("decoder_restarts", "panics");
    let (panicked, waited) =
        (metrics.dropped("decoder_panicked", "panics"), metrics.dropped("waiting_for_key", "panics"));
    assert!(passes > 10 && panicked >= passes, "{passes} passes, {panicked} lost");
    // received = delivered + lost: the last pass may be cut short
    let whole = passes - 1;
    let delivered =
        came["panics"].frames.iter().filter(|pts_ns| **pts_ns < whole as i64 * 1_000_000_000).count() as u64;
    assert!(waited >= 15 * (whole - 1), "{waited} waited");
    let fewest = 25 * whole;
    assert!(
        (fewest..=fewest + 25).contains(&(delivered + panicked + waited)),
        "{delivered} + {panicked} + {waited} of {whole} passes"
    );
    assert_eq!(metrics.counted("decoder_restarts", "good") + metrics.dropped("decoder_panicked", "good"), 0);
}

#[test]
fn a_decoder_that_hangs_stops_its_own_camera_says_so_and_holds_no_end_up() {
    let sources = format!("good={} hangs={}", clip("crop_b.mp4"), clip("crop_b.mp4"));
    let settings =
        [("SOURCES", &sources[..]), ("LOOP", "true"), ("PACE", "realtime"), ("FLOW", "live"), ("SLOTS", "32")];
    let mut bench = Bench::start::<Fakes>(&settings);
    let mut came = BTreeMap::new();
    until("the state of the camera that hangs", || {
        while let Some(item) = bench.receive(Duration::from_millis(5)) {
            take(&mut came, item);
        }
        state(bench.metrics(), "hangs").is_some_and(|(state, _)| state == CameraState::Stalled)
    });
    let (_, why) = state(bench.metrics(), "hangs").unwrap();
    assert_eq!(why, "the decoder has not come back from a picture for 2.5 s");
    assert_eq!(state(bench.metrics(), "good"), Some((CameraState::Live, String::new())));
    // three seconds at 25 a second
    assert!(came["good"].frames.len() >= 70, "{} frames", came["good"].frames.len());
    assert_eq!(came["good"].frames, times(came["good"].frames.len() as i64), "no frame of the other is missing");
    let began = Instant::now();
    bench.stop();
    bench.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_camera_that_floods_loses_its_own_frames_in_live_flow() {
    // both are read as fast as they can be, and the event loop needs 30 ms for each frame of one of them
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cameras.yml");
    let text = format!(
        "cameras: [{{ id: good, file: {0}, loop: true }}, {{ id: slow, file: {0}, loop: true }}]\n",
        clip("crop_b.mp4")
    );
    std::fs::write(&file, text).unwrap();
    let settings = [("CAMERAS", file.to_str().unwrap()), ("FLOW", "live"), ("SLOTS", "64")];
    let mut bench = Bench::start::<Fakes>(&settings);
    let end = Instant::now() + Duration::from_secs(3);
    let (mut good, mut slow) = (0, 0);
    while Instant::now() < end {
        if let Some((port, input)) = bench.receive(Duration::from_millis(5)) {
            let is_good = input.source() == "good";
            (good, slow) =
                (good + u32::from(is_good && port == "frame"), slow + u32::from(!is_good && port == "frame"));
        }
    }
    bench.stop();
    let metrics = bench.join().unwrap();
    assert!(metrics.dropped("loop_behind", "slow") > 0, "what the loop is too slow for is counted");
    super::assert_balanced(&metrics, "slow");
    assert!(slow >= 30, "the slow one goes on: {slow}");
    // the event loop serves them in turn
    assert!(good * 10 >= slow * 7, "good {good}, slow {slow}");
}

#[test]
fn a_burst_on_an_idle_machine_loses_nothing_in_live_flow() {
    // other tests may have both cores at any moment, so one run of five has to lose nothing
    let lost: Vec<_> = (0..5).map_while(|_| lost_of_a_burst()).collect();
    assert!(lost.len() < 5, "{lost:?}");
}

/// What a file that is read as fast as it goes, one burst of 25 pictures, loses by cause; `None` where it loses nothing.
fn lost_of_a_burst() -> Option<Vec<(&'static str, &'static str, u64)>> {
    let source = clip("crop_b.mp4");
    let settings = [("SOURCE", &source[..]), ("FLOW", "live"), ("SLOTS", "64"), ("CAMERA", "gate")];
    let mut bench = Bench::start::<Fakes>(&settings);
    let mut pictures = Vec::new();
    while let Some((port, input)) = bench.receive(Duration::from_millis(1500)) {
        if let ("frame", Input::Frame(lease)) = (port, input) {
            pictures.push(lease.item().timing.pts_ns);
        }
    }
    let metrics = bench.finish().1.unwrap();
    let lost = metrics.drops("gate");
    (pictures != times(25) || !lost.is_empty()).then_some(lost)
}

#[test]
fn a_node_with_140_cameras_ends_in_time() {
    let clip = clip("crop_b.mp4");
    let sources: Vec<String> = (0..140).map(|n| format!("cam{n}={clip}")).collect();
    for (flow, pace) in [("live", "realtime"), ("live", "asfast"), ("lossless", "asfast")] {
        let sources = sources.join(" ");
        let settings = [("SOURCES", &sources[..]), ("LOOP", "true"), ("FLOW", flow), ("PACE", pace), ("SLOTS", "64")];
        let mut bench = Bench::start::<Fakes>(&settings);
        let mut came = std::collections::BTreeSet::new();
        until("frames of all", || {
            if let Some((_, input)) = bench.receive(Duration::from_millis(5)) {
                came.insert(input.source().to_owned());
            }
            came.len() == 140
        });
        let began = Instant::now();
        bench.stop();
        bench.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{flow}, {pace}: {:?}", began.elapsed());
    }
}

#[test]
fn target_fps_thins_evenly_and_is_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cameras.yml");
    let text = format!("cameras:\n  - id: gate\n    file: {}\n    target_fps: 5\n", clip("crop_b.mp4"));
    std::fs::write(&file, text).unwrap();
    let (came, result) = super::play(&[("CAMERAS", file.to_str().unwrap())]);
    let metrics = result.unwrap();
    assert_eq!(came["gate"].frames, [0, 200_000_000, 400_000_000, 600_000_000, 800_000_000]);
    assert_eq!(came["gate"].packets.len(), 25, "packets are not thinned: they depend on each other");
    assert_eq!(metrics.counted("over_target_fps", "gate"), 20);
    super::assert_balanced(&metrics, "gate");
}
