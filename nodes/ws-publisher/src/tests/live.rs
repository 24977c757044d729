//! What changes while the node runs: the rate and the quality of JPEG pictures.

use super::{found, next};
use crate::node::WsPublisher;
use millrace_frame::{Colour, ImageDesc, Item, Payload, PixelFormat, Size, Timebase, Timing, monotonic_ns, unix_ns};
use millrace_node::testing::Bench;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

/// A picture that JPEG has something to do with.
fn send(bench: &mut Bench, seq: u64) {
    let (image, bytes) = ImageDesc::packed(PixelFormat::Rgb24, Size::new(64, 64), Colour::assumed_for_height(64), 1);
    let pixels: Vec<u8> = (0..bytes).map(|i| (i * i / 7 % 251) as u8).collect();
    let timing = Timing { pts_ns: seq as i64, timebase: Timebase::NANOSECONDS, capture_ns: 0, ..Timing::default() };
    bench.send("frame", &Item::on_host("gate", seq, timing, Payload::Image(image)), &pixels).unwrap();
}

/// Sends pictures until the client has one of these as JPEG, and gives its size.
fn picture(bench: &mut Bench, socket: &mut WebSocket<TcpStream>, seqs: &mut std::ops::RangeFrom<u64>) -> usize {
    let first = seqs.start as i64;
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < until, "no picture came");
        send(bench, seqs.next().unwrap());
        loop {
            match socket.read() {
                // the picture's time is in its header
                Ok(Message::Binary(bytes)) if i64::from_le_bytes(bytes[8..16].try_into().unwrap()) >= first => {
                    return bytes.len();
                }
                Ok(_) => {}
                Err(tungstenite::Error::Io(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    break;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
}

/// The address of the node's page, as it notes it.
fn address(bench: &Bench) -> String {
    let until = Instant::now() + Duration::from_secs(20);
    let note = loop {
        assert!(Instant::now() < until, "the node has not noted its address");
        match bench.metrics().notes().pop() {
            Some(note) => break note,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    note.split_once("http://").and_then(|(_, rest)| rest.split('/').next()).expect("an address").to_owned()
}

/// The node's own event loop is what `/livez` looks at, and detections that went through it make it ready.
#[test]
fn a_node_that_runs_is_alive_and_with_detections_ready() {
    let mut bench = Bench::start::<WsPublisher>(&[("PORT", "0")]);
    let address = address(&bench);
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), serde_json::from_str::<serde_json::Value>(body).unwrap())
    };
    let until = Instant::now() + Duration::from_secs(20);
    let alive = loop {
        let (code, alive) = ask("/livez");
        assert_eq!(code, "200", "{alive}");
        if !alive["loop_age_ms"].is_null() {
            break alive;
        }
        assert!(Instant::now() < until, "the loop does not turn");
    };
    assert!(alive["loop_age_ms"].as_u64() < Some(3_000), "{alive}");
    assert_eq!(ask("/readyz").0, "503");
    let mut seqs = 1..;
    let ready = loop {
        let seq = seqs.next().unwrap();
        let mut one = found("gate", seq, 1);
        one.arrival_ns = monotonic_ns();
        bench.send_detections("detections", &one, Timing { capture_ns: unix_ns(), ..Timing::default() }).unwrap();
        let (code, ready) = ask("/readyz");
        if code == "200" {
            break ready;
        }
        assert!(Instant::now() < until, "{ready}");
    };
    assert_eq!((ready["cameras"]["live"].as_u64(), ready["missing"].to_string().as_str()), (Some(1), "[]"));
    bench.finish().1.unwrap();
}

#[test]
fn rate_and_quality_of_pictures_change() {
    let mut bench = Bench::start::<WsPublisher>(&[("PORT", "0"), ("JPEG_FPS", "0"), ("JPEG_QUALITY", "95")]);
    let address = address(&bench);
    let stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut socket, _) = tungstenite::client(format!("ws://{address}/ws?video=jpeg"), stream).unwrap();
    assert!(matches!(next(&mut socket), Message::Text(text) if text.contains("hello")));
    socket.get_mut().set_read_timeout(Some(Duration::from_millis(20))).unwrap();

    let mut seqs = 1..;
    for seq in seqs.by_ref().take(20) {
        send(&mut bench, seq);
    }
    let until = Instant::now() + Duration::from_secs(20);
    while bench.metrics().counted("in", "gate") < 20 {
        assert!(Instant::now() < until, "the node has not taken 20 frames");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(!bench.set("JPEG_FPS", "-1"));
    assert_eq!(bench.metrics().counted("jpegs", "gate"), 0, "JPEG_FPS was 0");
    assert!(bench.set("JPEG_FPS", "1000"));
    let fine = picture(&mut bench, &mut socket, &mut seqs);
    assert!(bench.set("JPEG_QUALITY", "5"));
    let coarse = picture(&mut bench, &mut socket, &mut seqs);
    assert!(coarse < fine / 2, "{coarse} bytes of quality 5, {fine} of 95");

    assert!(bench.set("JPEG_FPS", "0"));
    let before = bench.metrics().counted("jpegs", "gate");
    for seq in seqs.take(20) {
        send(&mut bench, seq);
    }
    let (_, metrics) = bench.finish();
    // one may have been with the encoder, and one before it
    assert!(metrics.unwrap().counted("jpegs", "gate") <= before + 2);
}
