//! RTSP against a real server (GStreamer's), by TCP and UDP, with credentials, and with the server killed and back.
#![allow(clippy::unwrap_used)]

mod common;

use common::viewer::{Seen, Viewer};
use common::{Frame, decode};
use millrace_frame::{CameraState, monotonic_ns};
use millrace_ingest::{IngestOptions, RtspTransport};
use millrace_needs::skip_without;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

struct Server(Child);

impl Server {
    /// Without the server's packages the test is skipped.
    fn start(port: u16, user: &[&str]) -> Option<Self> {
        // no test decodes the file while another one watches a camera
        file();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rtsp_server.py");
        // Debian's Python: the bindings are not on PyPI, and another Python in front of the path lacks them
        let python = Path::new("/usr/bin/python3");
        if !python.exists() {
            skip_without("gstreamer", "no /usr/bin/python3");
            return None;
        }
        let mut command = Command::new(python);
        command.arg(script).arg(clip()).arg(port.to_string()).args(user);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if let Some(what) = line.strip_prefix("missing: ") {
            skip_without("gstreamer", what.trim());
            let _ = child.wait();
            return None;
        }
        assert_eq!(line, "ready\n");
        Some(Self(child))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// H.264 High with B pictures, ten seconds and more of it.
fn clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/demo/clip.mp4")
}

const LIMIT: Duration = Duration::from_secs(60);

/// A port that nobody listens on just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The file's frames. Decoding them takes longer than a camera waits, so a test that watches one asks for them first.
fn file() -> &'static [Frame] {
    static FRAMES: OnceLock<Vec<Frame>> = OnceLock::new();
    FRAMES.get_or_init(|| decode(&clip(), &IngestOptions::default()).unwrap().frames)
}

/// The frames are those of the file from its beginning, at its pace.
fn assert_like_the_file(seen: &[Seen]) {
    let file = file();
    for (n, (got, want)) in seen.iter().map(|s| &s.frame).zip(file).enumerate() {
        assert_eq!(got.md5, want.md5, "frame {n}");
        let apart = (got.pts_ns - seen[0].frame.pts_ns) - (want.pts_ns - file[0].pts_ns);
        // RTP counts 90 000 ticks a second
        assert!(apart.abs() < 50_000, "frame {n} is {apart} ns off");
    }
}

#[test]
fn every_frame_arrives_by_tcp_and_by_udp() {
    for rtsp_transport in [RtspTransport::Tcp, RtspTransport::Udp] {
        let port = free_port();
        let Some(_server) = Server::start(port, &[]) else { return };
        let options = IngestOptions { rtsp_transport, ..IngestOptions::default() };
        let mut viewer = Viewer::open(&format!("rtsp://127.0.0.1:{port}/camera"), &options);
        viewer.watch_frames(60, LIMIT);
        assert!(viewer.lost.is_empty(), "{rtsp_transport:?}: {:?}", viewer.lost);
        assert!(viewer.counted.is_empty(), "{rtsp_transport:?}: {:?}", viewer.counted);
        assert_like_the_file(&viewer.seen[..60]);
    }
}

#[test]
fn the_servers_wall_clock_comes_with_the_pictures() {
    let port = free_port();
    let Some(_server) = Server::start(port, &[]) else { return };
    let mut viewer = Viewer::open(&format!("rtsp://127.0.0.1:{port}/camera"), &IngestOptions::default());
    // the first report comes within five seconds
    assert!(viewer.watch(LIMIT, |v| v.seen.last().is_some_and(|s| s.timing.sender_ns.is_some())));
    let timing = viewer.seen.last().unwrap().timing;
    // the server's clock is ours; it sends a picture no earlier than it is due, and holds B pictures' references back
    let late_ms = (timing.capture_ns - timing.sender_ns.unwrap()) / 1_000_000;
    assert!((-1000..1000).contains(&late_ms), "{late_ms}");
}

#[test]
fn a_camera_that_went_away_is_taken_up_again() {
    file();
    let port = free_port();
    let url = format!("rtsp://127.0.0.1:{port}/camera");
    // the camera comes up after the viewer
    let mut viewer = Viewer::open(&url, &IngestOptions::default());
    viewer.watch_for(Duration::from_millis(700));
    assert!(viewer.seen.is_empty());
    let state = viewer.state();
    assert_eq!(state.state, CameraState::Connecting);
    assert!(state.last_error.contains("Connection refused") && state.tries >= 1, "{state:?}");
    let Some(server) = Server::start(port, &[]) else { return };
    viewer.watch_state(CameraState::Live, Duration::from_secs(10));
    viewer.watch_frames(20, LIMIT);
    assert_like_the_file(&viewer.seen);
    drop(server);
    assert!(viewer.watch(Duration::from_secs(4), |v| v.state().state != CameraState::Live), "not seen in time");
    assert_eq!(viewer.lost.remove("connection_lost"), Some(1));
    let gone_ns = monotonic_ns();
    // What was held was given out with the end of the connection: in order, though a B picture may not have arrived.
    assert_like_the_file(&viewer.seen[..20]);
    let places: Vec<_> = viewer.seen.iter().map(|s| file().iter().position(|f| f.md5 == s.frame.md5)).collect();
    assert!(places.windows(2).all(|p| p[0].is_some() && p[0] < p[1]), "{places:?}");
    let before = viewer.seen.len();
    viewer.watch_for(Duration::from_secs(2));
    assert_eq!(viewer.seen.len(), before);
    let Some(_server) = Server::start(port, &[]) else { panic!("it was there before") };
    let cured = Instant::now();
    viewer.watch_frames(before + 20, LIMIT);
    assert!(cured.elapsed() < Duration::from_secs(10), "{:?}", cured.elapsed());
    assert!(viewer.seen[before..].iter().all(|s| s.timing.arrival_ns > gone_ns));
    assert_eq!(viewer.seen[before].frame.md5, viewer.seen[0].frame.md5, "the file begins again");
    assert_like_the_file(&viewer.seen[before..]);
    let times = viewer.pts_ns();
    assert!(times.windows(2).all(|t| t[0] < t[1]), "{times:?}");
    viewer.lost.remove("cut_off");
    assert!(viewer.lost.is_empty(), "{:?}", viewer.lost);
}

#[test]
fn credentials_are_used_and_never_shown() {
    let port = free_port();
    let password = "s3cret?p@ss";
    let Some(_server) = Server::start(port, &["viewer7", password]) else { return };
    let url = format!("rtsp://viewer7:s3cret%3Fp%40ss@127.0.0.1:{port}/camera");
    let by = |rtsp_transport| IngestOptions { rtsp_transport, ..IngestOptions::default() };
    for transport in [RtspTransport::Tcp, RtspTransport::Udp] {
        Viewer::open(&url, &by(transport)).watch_frames(3, LIMIT);
    }
    let check = "401 Unauthorized: check user and password";
    for (user, transport, reason) in [
        ("viewer7:wr0ng%40pw@", RtspTransport::Tcp, check),
        ("viewer7:wr0ng%40pw@", RtspTransport::Udp, check),
        ("", RtspTransport::Tcp, "401 Unauthorized: write user and password into the URL or the cameras file"),
        ("", RtspTransport::Udp, "401 Unauthorized: write user and password into the URL or the cameras file"),
    ] {
        let mut viewer = Viewer::open(&format!("rtsp://{user}127.0.0.1:{port}/camera"), &by(transport));
        viewer.watch_state(CameraState::Refused, LIMIT);
        let state = viewer.state();
        assert_eq!(state.last_error, reason);
        let text = format!("{state:?}");
        assert!(!text.contains("viewer7") && !text.contains("wr0ng"), "{text}");
    }
}

#[test]
fn a_wrong_path_is_told_at_once_and_costs_no_other_camera_a_frame() {
    let port = free_port();
    let Some(_server) = Server::start(port, &[]) else { return };
    let mut good = Viewer::open(&format!("rtsp://127.0.0.1:{port}/camera"), &IngestOptions::default());
    let mut wrong = Viewer::open(&format!("rtsp://127.0.0.1:{port}/door"), &IngestOptions::default());
    let watching = std::thread::spawn(move || {
        wrong.watch_state(CameraState::Refused, LIMIT);
        assert_eq!(wrong.state().last_error, "404 Not Found: check the path in the URL");
        assert!(wrong.watch(LIMIT, |v| v.state().tries >= 3), "it is tried again");
        assert_eq!(wrong.state().state, CameraState::Refused);
    });
    good.watch_frames(60, LIMIT);
    assert_like_the_file(&good.seen[..60]);
    assert!(good.lost.is_empty(), "{:?}", good.lost);
    watching.join().unwrap();
}
