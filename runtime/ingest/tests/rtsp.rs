//! RTSP against a real server (GStreamer's), by TCP and UDP, with credentials, and with the server killed and back.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Frame, decode, frame_of};
use millrace_ingest::{Decoded, Event, Ingest, IngestError, Options, RtspTransport, SoftwareDecoder};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Server(Child);

impl Server {
    /// `None`, with a line that says why, where the server's packages are not installed.
    fn start(port: u16, user: &[&str]) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rtsp_server.py");
        // Debian's Python: the bindings are not on PyPI, and another Python in front of the path lacks them
        let python = Path::new("/usr/bin/python3");
        if !python.exists() {
            eprintln!("skipped: /usr/bin/python3 with gst-rtsp-server is absent");
            return None;
        }
        let mut command = Command::new(python);
        command.arg(script).arg(clip()).arg(port.to_string()).args(user);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if let Some(what) = line.strip_prefix("missing: ") {
            eprintln!("skipped: gst-rtsp-server is absent: {}", what.trim());
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

/// A port that nobody listens on just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Viewer {
    ingest: Ingest,
    decoder: SoftwareDecoder,
    lost: BTreeMap<&'static str, u64>,
}

impl Viewer {
    fn open(url: &str, rtsp_transport: RtspTransport) -> Self {
        let ingest = Ingest::open(url, &Options { rtsp_transport, ..Options::default() }).unwrap();
        Self { ingest, decoder: SoftwareDecoder::new(millrace_ingest::ReorderPolicy::Live), lost: BTreeMap::new() }
    }

    /// The next `count` frames, or as many as come within `limit`; ends early when something was lost by `cause`.
    fn watch(&mut self, count: usize, limit: Duration, cause: &str) -> Result<Vec<Frame>, IngestError> {
        let mut frames = Vec::new();
        let until = Instant::now() + limit;
        while frames.len() < count && Instant::now() < until && !self.lost.contains_key(cause) {
            match self.ingest.next_event()? {
                Event::Unit(unit) => self.decoder.push(&unit)?,
                Event::Loss(loss) => *self.lost.entry(loss.cause).or_default() += loss.count,
                Event::Flush => self.decoder.flush(),
                Event::Wait(wait) => std::thread::sleep(wait),
                Event::End => panic!("a camera has no end"),
            }
            while let Some(out) = self.decoder.take() {
                match out {
                    Decoded::Picture(picture) => frames.push(frame_of(&picture)),
                    Decoded::Loss(loss) => *self.lost.entry(loss.cause).or_default() += loss.count,
                }
            }
        }
        Ok(frames)
    }
}

/// The frames are those of the file from its beginning, at its pace.
fn assert_like_the_file(frames: &[Frame]) {
    let file = decode(&clip(), &Options::default()).unwrap().frames;
    for (n, (got, want)) in frames.iter().zip(&file).enumerate() {
        assert_eq!(got.md5, want.md5, "frame {n}");
        let apart = (got.pts_ns - frames[0].pts_ns) - (want.pts_ns - file[0].pts_ns);
        // RTP counts 90 000 ticks a second
        assert!(apart.abs() < 50_000, "frame {n} is {apart} ns off");
    }
}

#[test]
fn every_frame_arrives_by_tcp_and_by_udp() {
    for transport in [RtspTransport::Tcp, RtspTransport::Udp] {
        let port = free_port();
        let Some(_server) = Server::start(port, &[]) else { return };
        let mut viewer = Viewer::open(&format!("rtsp://127.0.0.1:{port}/camera"), transport);
        let frames = viewer.watch(60, Duration::from_secs(60), "").unwrap();
        assert_eq!(frames.len(), 60, "{transport:?}: lost {:?}", viewer.lost);
        assert!(viewer.lost.is_empty(), "{transport:?}: {:?}", viewer.lost);
        assert_like_the_file(&frames);
    }
}

#[test]
fn a_camera_that_went_away_is_taken_up_again() {
    let port = free_port();
    let url = format!("rtsp://127.0.0.1:{port}/camera");
    // the camera comes up after the viewer
    let mut viewer = Viewer::open(&url, RtspTransport::Tcp);
    assert!(viewer.watch(1, Duration::from_millis(700), "").unwrap().is_empty());
    let Some(server) = Server::start(port, &[]) else { return };
    let before = viewer.watch(20, Duration::from_secs(60), "").unwrap();
    assert_eq!(before.len(), 20);
    drop(server);
    let rest = viewer.watch(usize::MAX, Duration::from_secs(30), "connection_lost").unwrap();
    assert_eq!(viewer.lost.remove("connection_lost"), Some(1));
    let Some(_server) = Server::start(port, &[]) else { panic!("it was there before") };
    let after = viewer.watch(20, Duration::from_secs(60), "").unwrap();
    assert_like_the_file(&before);
    // What the decoder held came out when the connection ended; pictures in between may never have arrived.
    let file = decode(&clip(), &Options::default()).unwrap().frames;
    let mut later = file.iter().skip(20);
    assert!(rest.iter().all(|frame| later.any(|f| f.md5 == frame.md5)), "{} more", rest.len());
    assert_like_the_file(&after);
    let times: Vec<i64> = [&before[..], &rest, &after[..]].concat().iter().map(|f| f.pts_ns).collect();
    assert!(times.windows(2).all(|t| t[0] < t[1]), "{times:?}");
}

#[test]
fn credentials_are_used_and_never_shown() {
    let port = free_port();
    let password = "s3cret?p@ss";
    let Some(_server) = Server::start(port, &["viewer7", password]) else { return };
    let mut viewer =
        Viewer::open(&format!("rtsp://viewer7:s3cret%3Fp%40ss@127.0.0.1:{port}/camera"), RtspTransport::Tcp);
    assert_eq!(viewer.watch(3, Duration::from_secs(60), "").unwrap().len(), 3);
    for (user, fix) in
        [("viewer7:wr0ng%40pw@", "check user and password"), ("", "write user and password into the URL")]
    {
        let mut viewer = Viewer::open(&format!("rtsp://{user}127.0.0.1:{port}/camera"), RtspTransport::Tcp);
        let error = viewer.watch(1, Duration::from_secs(60), "").unwrap_err();
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains("401"), "{text}");
            assert!(!text.contains("viewer7") && !text.contains("wr0ng"), "{text}");
        }
        assert!(error.to_string().ends_with(fix), "{error}");
    }
}

#[test]
fn a_wrong_path_is_told_at_once() {
    let port = free_port();
    let Some(_server) = Server::start(port, &[]) else { return };
    let mut viewer = Viewer::open(&format!("rtsp://127.0.0.1:{port}/door"), RtspTransport::Tcp);
    let error = viewer.watch(1, Duration::from_secs(60), "").unwrap_err().to_string();
    assert!(error.starts_with(&format!("RTSP source rtsp://127.0.0.1:{port}/door: 404")), "{error}");
    assert!(error.ends_with("check the path in the URL"), "{error}");
}

#[test]
fn a_url_that_is_none_is_refused_without_showing_it() {
    let error = Ingest::open("rtsp://user:hidden1@", &Options::default()).err().unwrap().to_string();
    assert!(error.starts_with("RTSP source rtsp://…@: not a URL (empty host)"), "{error}");
    assert!(!error.contains("hidden1"));
}

#[test]
fn a_viewer_ends_quickly_whatever_the_camera_does() {
    // somebody listens and never answers
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://{}/camera", silent.local_addr().unwrap());
    let mut viewer = Viewer::open(&url, RtspTransport::Tcp);
    assert!(viewer.watch(1, Duration::from_millis(300), "").unwrap().is_empty());
    let began = Instant::now();
    drop(viewer);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
