//! Cameras that send Motion JPEG over HTTP: what they send is what is seen, and what is wrong with them is said.
#![allow(clippy::unwrap_used)]

mod common;

use common::mjpeg::{checksums, pictures};
use common::viewer::Viewer;
use millrace_frame::CameraState;
use millrace_ingest::{Ingest, IngestOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// A camera: each connection is answered by the next of these, the last one again and again. It is given the request.
fn camera(answers: &'static [fn(&mut TcpStream, &str)]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (n, connection) in listener.incoming().enumerate() {
            let answer = answers[n.min(answers.len() - 1)];
            let Ok(mut connection) = connection else { return };
            std::thread::spawn(move || {
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|n| n == 1) {
                    request.push(byte[0]);
                }
                answer(&mut connection, &String::from_utf8(request).unwrap());
            });
        }
    });
    at.to_string()
}

/// With lengths, as most cameras send it. What fails is a viewer that has gone.
fn send_pictures(connection: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=--frame\r\n\r\n";
    let _ = connection.write_all(head.as_bytes());
    for picture in pictures() {
        let part = format!("--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len());
        let _ = connection.write_all(&[part.as_bytes(), &picture, b"\r\n"].concat());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn plain(connection: &mut TcpStream, request: &str) {
    assert!(request.starts_with("GET /video?size=small HTTP/1.1\r\n"), "{request}");
    send_pictures(connection);
}

/// In chunks that cut pictures anywhere, without lengths.
fn chunked(connection: &mut TcpStream, _: &str) {
    let head =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: multipart/x-mixed-replace;boundary=b\r\n\r\n";
    let _ = connection.write_all(head.as_bytes());
    let body: Vec<u8> = pictures().iter().flat_map(|p| [b"--b\r\n\r\n", &p[..], b"\r\n"].concat()).collect();
    for piece in body.chunks(333) {
        let _ = connection.write_all(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    std::thread::sleep(LIMIT);
}

#[test]
fn pictures_are_seen_as_they_were_sent_and_a_lost_connection_is_made_again() {
    let at = camera(&[plain]);
    let mut viewer = Viewer::open(&format!("http://{at}/video?size=small"), &IngestOptions::default());
    viewer.watch_frames(9, LIMIT);
    let want = checksums();
    assert_eq!(viewer.md5s()[..6], want.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(viewer.md5s()[6..9], want[..3].iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(viewer.lost.get("connection_lost"), Some(&1), "{:?}", viewer.lost);
    let times = viewer.pts_ns();
    assert!(times[0] == 0 && times.windows(2).all(|w| w[0] < w[1]), "{times:?}");
    assert!(viewer.seen.iter().all(|seen| seen.timing.arrival_ns > 0 && seen.timing.arrival_ns <= seen.at_ns));
}

#[test]
fn pictures_may_come_in_pieces_and_without_lengths() {
    let at = camera(&[chunked]);
    let mut viewer = Viewer::open(&format!("http://{at}/"), &IngestOptions::default());
    viewer.watch_frames(6, LIMIT);
    assert_eq!(viewer.md5s(), checksums());
    assert!(viewer.lost.is_empty(), "{:?}", viewer.lost);
}

/// Basic is answered by the password in base64: "cam:p@ss" is Y2FtOnBAc3M=.
fn with_login(connection: &mut TcpStream, request: &str) {
    if request.to_ascii_lowercase().contains("authorization: basic y2ftonbac3m=") {
        return send_pictures(connection);
    }
    let _ = connection
        .write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"cam\"\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn a_login_is_given_and_never_shown() {
    let at = camera(&[with_login]);
    let mut viewer = Viewer::open(&format!("http://cam:p%40ss@{at}/"), &IngestOptions::default());
    viewer.watch_frames(6, LIMIT);
    let mut viewer = Viewer::open(&format!("http://cam:wrong-one@{at}/?token=hidden7"), &IngestOptions::default());
    viewer.watch_state(CameraState::Refused, LIMIT);
    let said = viewer.state().last_error;
    assert!(said.contains("401 Unauthorized") && !said.contains("wrong-one") && !said.contains("hidden7"), "{said}");
}

#[test]
fn what_is_wrong_with_a_camera_is_said() {
    for (answer, says) in [
        ("404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"),
        (
            "302 Found\r\nLocation: http://me:hidden7@other/video\r\nContent-Length: 0\r\n\r\n",
            "'http://…@other/video'; name that",
        ),
        ("200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 0\r\n\r\n", "a single picture (image/jpeg)"),
        (
            "200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n",
            "the camera sends 'text/html'; multipart/x-mixed-replace",
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let _ = connection.read(&mut [0; 4096]);
                let _ = connection.write_all(format!("HTTP/1.1 {answer}").as_bytes());
            }
        });
        let mut viewer = Viewer::open(&format!("http://{at}/"), &IngestOptions::default());
        viewer.watch_state(CameraState::Refused, LIMIT);
        let said = viewer.state().last_error;
        assert!(said.contains(says) && !said.contains("hidden7"), "{said}");
    }
}

/// A picture, and then nothing but bytes that are none.
fn silent(connection: &mut TcpStream, _: &str) {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n--b\r\n\r\n";
    let _ = connection.write_all(&[head.as_bytes(), &pictures()[0]].concat());
    while connection.write_all(b"noise").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_camera_that_falls_silent_has_stalled() {
    let at = camera(&[silent]);
    let options = IngestOptions { stall_timeout: Some(Duration::from_millis(600)), ..IngestOptions::default() };
    let mut viewer = Viewer::open(&format!("http://{at}/"), &options);
    viewer.watch_state(CameraState::Stalled, LIMIT);
    let said = viewer.state().last_error;
    assert!(said.starts_with("no picture for 600 ms, though ") && said.ends_with(" bytes came"), "{said}");
    assert_eq!(viewer.seen.len(), 1);
}

#[test]
fn tls_is_refused_before_anything_is_sent() {
    let error = Ingest::open("https://me:hidden7@cam/video", &IngestOptions::default()).err().unwrap().to_string();
    assert!(error.starts_with("camera https://…@cam/video: HTTP over TLS is not supported"), "{error}");
}
