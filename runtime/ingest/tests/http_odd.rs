//! HTTP cameras whose answers are damaged: each has its words or its count, and no other camera loses a picture by it.
#![allow(clippy::unwrap_used)]

mod common;

use common::mjpeg::{checksums, pictures};
use common::viewer::Viewer;
use millrace_frame::CameraState;
use millrace_ingest::IngestOptions;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const MULTIPART: &str = "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n";

/// What comes of a camera.
enum Comes {
    /// All pictures of the first connection, and these losses.
    Pictures(&'static [(&'static str, u64)]),
    /// This state, and an error that has these words.
    Error(CameraState, &'static str),
}

/// The text, then the pieces, each as often as it says; 0 is until the viewer leaves.
struct Answer {
    head: String,
    pieces: Vec<(Vec<u8>, usize)>,
}

/// A camera that answers each connection so. It stays until the viewer leaves.
fn camera(answer: Answer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            // a viewer may leave at any time
            let _ = serve(&mut connection, &answer);
        }
    });
    format!("http://{at}/")
}

fn serve(connection: &mut TcpStream, answer: &Answer) -> std::io::Result<()> {
    let _ = connection.read(&mut [0; 4096])?;
    connection.write_all(answer.head.replace('@', &connection.local_addr()?.to_string()).as_bytes())?;
    for (piece, times) in &answer.pieces {
        for _ in 0..if *times == 0 { usize::MAX } else { *times } {
            connection.write_all(piece)?;
            std::thread::sleep(Duration::from_micros(piece.len() as u64 / 12 + 20));
        }
    }
    if answer.pieces.is_empty() { Ok(()) } else { connection.read(&mut [0]).map(drop) }
}

/// The pictures as parts, each behind this.
fn parts(head: impl Fn(usize) -> String) -> Vec<(Vec<u8>, usize)> {
    pictures().iter().map(|picture| ([head(picture.len()).as_bytes(), picture, b"\r\n"].concat(), 1)).collect()
}

fn answer(head: &str, pieces: Vec<(Vec<u8>, usize)>) -> Answer {
    Answer { head: head.to_owned(), pieces }
}

fn status(text: &str) -> Answer {
    answer(&format!("HTTP/1.1 {text}\r\nContent-Length: 0\r\n\r\n"), vec![])
}

fn cases() -> Vec<(&'static str, Answer, Comes)> {
    use CameraState::{Connecting, Refused, Stalled};
    let multipart = |pieces| answer(MULTIPART, pieces);
    let plain = || parts(|len| format!("--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len}\r\n\r\n"));
    let with = |at: usize, piece: &[u8]| {
        let mut all = plain();
        all.insert(at, (piece.to_vec(), 1));
        all
    };
    let comment = [&[0xff, 0xfe, 0xff, 0xff][..], &[0; 0xfffd]].concat();
    vec![
        ("another boundary", multipart(parts(|_| "--not-it\r\n\r\n".to_owned())), Comes::Pictures(&[])),
        ("no boundary", multipart(parts(|_| String::new())), Comes::Pictures(&[])),
        (
            "lengths of gigabytes",
            multipart(parts(|_| "--b\r\nContent-Length: 9000000000\r\n\r\n".to_owned())),
            Comes::Pictures(&[]),
        ),
        (
            "lengths of nothing",
            multipart(parts(|_| "--b\r\nContent-Length: 0\r\n\r\n".to_owned())),
            Comes::Pictures(&[]),
        ),
        (
            "a part that is no picture",
            multipart(with(2, b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n")),
            Comes::Pictures(&[]),
        ),
        (
            "half a picture",
            multipart(with(2, pictures()[0].split_last_chunk::<100>().unwrap().0)),
            Comes::Pictures(&[("damaged_sample", 1)]),
        ),
        (
            "beginnings alone",
            multipart(with(2, &[0xff, 0xd8].repeat(100_000))),
            Comes::Pictures(&[("damaged_sample", 99_999)]),
        ),
        (
            "a picture without end",
            multipart(vec![(vec![0xff, 0xd8], 1), (comment, 0)]),
            Comes::Error(Stalled, "no picture for 900 ms, though"),
        ),
        (
            "parts of headers alone",
            multipart(vec![(b"X-Filler: on\r\n".repeat(1000), 0)]),
            Comes::Error(Stalled, "no picture for 900 ms, though"),
        ),
        ("a byte at a time", multipart(vec![(vec![b'x'], 0)]), Comes::Error(Stalled, "no picture for 900 ms, though")),
        (
            "a chunk of gigabytes",
            answer(
                "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
                plain(),
            ),
            Comes::Pictures(&[]),
        ),
        (
            "a chunk that is none",
            answer(
                "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\nTransfer-Encoding: chunked\r\n\r\nlong\r\n",
                plain(),
            ),
            Comes::Error(Connecting, "chunk size"),
        ),
        (
            "an end that is early",
            answer(
                "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\nContent-Length: 100\r\n\r\n",
                vec![(vec![b'x'; 100], 1)],
            ),
            Comes::Error(Connecting, "the camera has ended the stream without a JPEG picture, though 100 bytes came"),
        ),
        (
            "other pictures",
            answer(
                "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace;boundary=b\r\nContent-Length: 60\r\n\r\n",
                vec![(b"--b\r\nContent-type:  image/png\r\nContent-Length: 9\r\n\r\n\x89PNG....".to_vec(), 1)],
            ),
            Comes::Error(
                Connecting,
                "the camera has ended the stream without a JPEG picture, though 60 bytes of the type 'image/png' came",
            ),
        ),
        (
            "pages",
            multipart(vec![(b"--b\r\nContent-Type: text/html\r\n\r\n<p>".to_vec(), 0)]),
            Comes::Error(Stalled, " bytes of the type 'text/html' came"),
        ),
        (
            "an end at once",
            answer("HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace\r\nContent-Length: 0\r\n\r\n", vec![]),
            Comes::Error(Connecting, "the camera has ended the stream without a JPEG picture"),
        ),
        (
            "headers without end",
            answer("HTTP/1.1 200 OK\r\n", vec![(b"X-Filler: on\r\n".repeat(100), 0)]),
            Comes::Error(Connecting, "message head is too large"),
        ),
        (
            "a line without end",
            answer("HTTP/1.1 200 OK\r\nX-Filler: ", vec![(vec![b'x'; 8000], 0)]),
            Comes::Error(Connecting, "message head is too large"),
        ),
        (
            "a slow header",
            answer("HTTP/1.1 200 OK\r\n", vec![(b"X: y\r\n".to_vec(), 5)]),
            Comes::Error(Connecting, "no answer within 5000 ms"),
        ),
        ("no HTTP", answer("RTSP/1.0 200 OK\r\n\r\n", vec![]), Comes::Error(Connecting, "invalid HTTP version")),
        ("TLS", answer("\u{15}\u{3}\u{3}\0\u{2}\u{2}\n", vec![]), Comes::Error(Connecting, "invalid HTTP version")),
        ("nothing", answer("", vec![]), Comes::Error(Connecting, "connection closed before message completed")),
        (
            "no content",
            status("204 No Content"),
            Comes::Error(Refused, "204 No Content: the camera has nothing at this address"),
        ),
        (
            "compressed",
            answer(&MULTIPART.replace("\r\n\r\n", "\r\nContent-Encoding: gzip\r\n\r\n"), plain()),
            Comes::Error(Refused, "the camera compresses its answer ('gzip')"),
        ),
        (
            "moved to itself",
            status("302 Found\r\nLocation: http://@/"),
            Comes::Error(Refused, "302 Found: the pictures are at another address, 'http://127.0.0.1:"),
        ),
        (
            "moved nowhere",
            status("301 Moved Permanently"),
            Comes::Error(Refused, "the pictures are at another address, ''"),
        ),
        (
            "switching protocols",
            status("101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade"),
            Comes::Error(Refused, "101 Switching Protocols"),
        ),
        (
            "no type",
            answer("HTTP/1.1 200 OK\r\n\r\n", vec![]),
            Comes::Error(Refused, "the camera sends 'nothing named'"),
        ),
        (
            "a type that is no text",
            answer("HTTP/1.1 200 OK\r\nContent-Type: \u{e9}\r\n\r\n", vec![]),
            Comes::Error(Refused, "the camera sends 'nothing named'"),
        ),
    ]
}

fn judge(name: &str, url: &str, comes: &Comes) {
    let options = IngestOptions { stall_timeout: Some(Duration::from_millis(900)), ..IngestOptions::default() };
    let mut viewer = Viewer::open(url, &options);
    match comes {
        Comes::Error(state, words) => {
            let done = viewer.watch(LIMIT, |v| v.state().state == *state && v.state().last_error.contains(words));
            assert!(done, "{name}: {:?}", viewer.states);
            assert!(viewer.seen.is_empty(), "{name}");
        }
        Comes::Pictures(lost) => {
            let ended = viewer.watch(LIMIT, |v| v.lost.contains_key("connection_lost"));
            let what = format!("{name}: lost {:?}, {:?}", viewer.lost, viewer.states);
            assert!(ended, "{what}");
            assert_eq!(viewer.md5s(), checksums(), "{what}");
            let lost: BTreeMap<_, _> = lost.iter().copied().chain([("connection_lost", 1)]).collect();
            assert_eq!(viewer.lost, lost, "{what}");
        }
    }
}

#[test]
fn each_damage_has_its_words_or_its_count_and_costs_no_other_camera_a_picture() {
    std::thread::scope(|threads| {
        let beside = threads.spawn(|| {
            let pictures = pictures().into_iter().map(|picture| (picture, 1));
            let mut all: Vec<_> = pictures.collect();
            all = (0..40).flat_map(|_| all.iter().cloned().chain([(vec![b'\n'; 400_000], 1)])).collect();
            let mut viewer = Viewer::open(&camera(answer(MULTIPART, all)), &IngestOptions::default());
            viewer.watch_frames(40 * 6, LIMIT);
            (viewer.md5s().into_iter().map(str::to_owned).collect::<Vec<_>>(), viewer.lost)
        });
        let judged: Vec<_> = cases()
            .into_iter()
            .map(|(name, answer, comes)| threads.spawn(move || judge(name, &camera(answer), &comes)))
            .collect();
        let failed = judged.into_iter().filter_map(|thread| thread.join().err()).count();
        let (seen, lost) = beside.join().unwrap();
        let whole = checksums();
        assert_eq!(seen, (0..40).flat_map(|_| whole.iter().cloned()).collect::<Vec<_>>());
        assert!(lost.is_empty(), "{lost:?}");
        assert_eq!(failed, 0, "cases, above");
    });
}
