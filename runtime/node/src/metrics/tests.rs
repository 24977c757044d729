#![allow(clippy::unwrap_used)]
use super::*;
use millrace_frame::CameraState;

#[test]
fn counters_add_up_by_camera_and_histograms_give_their_quantiles() {
    let metrics = Metrics::default();
    metrics.count("boxes", "a", 2);
    metrics.count("boxes", "a", 3);
    metrics.count("boxes", "b", 1);
    metrics.drop("gone", "a", 0);
    metrics.drop("gone", "b", 4);
    assert_eq!((metrics.counted("boxes", "a"), metrics.counted("boxes", "b")), (5, 1));
    assert_eq!((metrics.dropped("gone", "a"), metrics.dropped("gone", "b")), (0, 4));
    for ms in 1..=100 {
        metrics.observe_ns("on_input", "a", ms * 1_000_000);
    }
    let latency = &metrics.snapshot().latency[0];
    assert_eq!(latency.count, 100);
    assert_eq!(latency.recent_p50_ns, Some(latency.p50_ns), "all of them are of the last seconds");
    assert_eq!(latency.recent_p95_ns, Some(latency.p95_ns));
    assert_eq!(latency.recent_p99_ns, Some(latency.p99_ns));
    // two significant digits
    assert!((49_500_000..=51_000_000).contains(&latency.p50_ns), "{}", latency.p50_ns);
    assert!((98_000_000..=101_000_000).contains(&latency.p99_ns), "{}", latency.p99_ns);
}

#[test]
fn a_camera_has_its_newest_state_until_it_is_removed() {
    let metrics = Metrics::default();
    metrics.camera(CameraStatus::new("door"), true);
    metrics.camera(CameraStatus { state: CameraState::Live, ..CameraStatus::new("door") }, true);
    metrics.camera(CameraStatus::new("yard"), true);
    let states: Vec<_> = metrics.cameras().into_iter().map(|c| (c.source, c.state)).collect();
    assert_eq!(states, [("door".to_owned(), CameraState::Live), ("yard".to_owned(), CameraState::Connecting)]);
    metrics.remove_camera("door");
    assert_eq!(metrics.cameras().len(), 1);
    assert_eq!(serde_json::to_value(metrics.snapshot()).unwrap()["cameras"][0]["state"], "connecting");
}

#[test]
fn the_age_of_the_loop_is_that_of_its_last_turn() {
    let metrics = Metrics::default();
    assert_eq!(metrics.loop_age(), None, "it has not turned yet");
    metrics.beat();
    std::thread::sleep(Duration::from_millis(30));
    let age = metrics.loop_age().unwrap();
    assert!(age >= Duration::from_millis(30) && age < Duration::from_secs(20), "{age:?}");
}

/// While a report of many cameras is made, nobody who counts waits for it: the lock is held for the copy of plain numbers
/// alone.
#[test]
fn a_report_of_many_cameras_holds_nobody_up() {
    let metrics = Metrics::default();
    for camera in 0..500 {
        for name in ["age", "on_input", "busy"] {
            for ms in 1..50 {
                metrics.observe_ns(name, &format!("camera-{camera:03}"), ms * 1_000_000);
            }
        }
    }
    // somebody reads the durations of one camera, for as long as this test likes
    let (_, _, _, times) =
        metrics.state().latency.iter().next().map(|(n, p, s, t)| (n, p, s.clone(), t.clone())).unwrap();
    let reading = locked(&times);
    let reporter = std::thread::spawn({
        let metrics = metrics.clone();
        move || metrics.snapshot().latency.len()
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!reporter.is_finished(), "the report waits for that camera's durations");
    let began = Instant::now();
    metrics.count("in", "camera-007", 1);
    metrics.observe_ns("age", "camera-007", 1_000_000);
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(reading);
    assert_eq!(reporter.join().unwrap(), 1500);
}

/// `cargo test --release -p millrace-node --lib -- --ignored --nocapture cost_of_a_report`
#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout, reason = "what was measured")]
fn cost_of_a_report() {
    for cameras in [1u64, 140, 500] {
        let metrics = Metrics::default();
        for camera in 0..cameras {
            let id = format!("camera-{camera:03}");
            for k in 0..2000u64 {
                for name in ["age", "on_input", "busy"] {
                    metrics.observe_ns(name, &id, 5_000_000 + (k * 7919 % 40_000) * 1_000);
                }
            }
            for name in ["in", "out", "bytes_in", "bytes_out", "boxes", "doorbells"] {
                metrics.count_port(name, "frame", &id, 1);
            }
            metrics.drop_port("backlog", "frame", &id, 1);
        }
        let began = Instant::now();
        for _ in 0..10 {
            std::hint::black_box(metrics.snapshot());
        }
        let snapshot = began.elapsed() / 10;
        let began = Instant::now();
        let bytes = serde_json::to_vec(&metrics.snapshot()).unwrap().len();
        println!("{cameras} cameras: snapshot {snapshot:?}, with JSON {:?}, {bytes} bytes", began.elapsed());
    }
}
