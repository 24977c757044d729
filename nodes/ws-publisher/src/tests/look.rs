use super::*;
use millrace_frame::{CameraState, CameraStatus, Size, monotonic_ns, unix_ns};
use std::time::Instant;
#[test]
#[ignore = "to look at"]
fn look() {
    let hub = Hub::new("Yard".into(), 4, Limits::default(), LoopAge(Box::new(|| Some(Duration::ZERO))));
    let _server = Server::start(LOOPBACK, 18999, "", 4, hub.clone()).unwrap();
    let st = |s: &str, state, ago_s: i64, e: &str, tries| CameraStatus {
        state,
        since_ns: unix_ns() - ago_s * 1_000_000_000,
        last_error: e.into(),
        tries,
        ..CameraStatus::new(s)
    };
    std::thread::sleep(Duration::from_secs(3));
    let jpeg = std::fs::read("/tmp/w-watch-pic.jpg").unwrap();
    hub.camera(&st(
        "door",
        CameraState::Refused,
        95,
        "401 Unauthorized from rtsp://10.0.0.7:554/Streaming/Channels/101; give user and password in cameras.yml",
        7,
    ))
    .unwrap();
    hub.camera(&st("gate", CameraState::Connecting, 4, "", 1)).unwrap();
    hub.camera(&st("old-clip", CameraState::Ended, 700, "", 0)).unwrap();
    hub.camera(&st("yard", CameraState::Live, 300, "", 0)).unwrap();
    hub.camera(&st("hall", CameraState::Live, 300, "", 0)).unwrap();
    let start = Instant::now();
    for seq in 0..1500u64 {
        let dead = (500..1000).contains(&seq);
        if seq == 500 {
            hub.camera(&st("hall", CameraState::Stalled, 3, "no picture for 3 s", 0)).unwrap();
        }
        if seq == 1000 {
            hub.camera(&st("hall", CameraState::Live, 0, "", 0)).unwrap();
        }
        for cam in ["yard", "hall"] {
            if cam == "hall" && dead {
                continue;
            }
            hub.picture(cam, unix_ns()).unwrap();
            if hub.jpeg_wanted(cam) {
                let _ = hub.jpeg(cam, 40_000_000 * seq as i64, Size::new(640, 360), &jpeg);
            }
            let mut f = found(cam, seq, 2);
            f.arrival_ns = monotonic_ns() - 21_000_000;
            f.capture_ns = unix_ns();
            f.height_px = 360;
            for (i, b) in f.boxes.iter_mut().enumerate() {
                (b.x1, b.x2, b.y1, b.y2) = (100. + 250. * i as f32, 260. + 250. * i as f32, 80., 260.);
                b.class_id = i as u32;
            }
            hub.detections(&f).unwrap();
        }
        std::thread::sleep((start + Duration::from_millis(40 * seq)).saturating_duration_since(Instant::now()));
    }
}
