#![allow(clippy::unwrap_used)]

use crate::config::{Encodings, Mode, Settings};
use crate::key::chunk;
use crate::link::{Link, configuration};
use crate::message::{ARROW, JSON, encode};
use crate::outbox::{Lost, Outbox, Put, Sink};
use millrace_frame::{DetBox, Detections, wire};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use zenoh::Wait;
use zenoh::key_expr::keyexpr;

const SOON: Duration = Duration::from_secs(10);

fn found(source: &str, seq: u64) -> Detections {
    let car =
        DetBox { x1: 1.5, y1: 2.0, x2: 30.0, y2: 40.25, score: 0.9, class_id: 2, label: "car".into(), track_id: None };
    Detections {
        schema: Detections::SCHEMA,
        source: source.into(),
        seq,
        pts_ns: 40_000_000 * seq as i64,
        boxes: vec![car],
        capture_ns: 5,
        model: "m".into(),
        width_px: 640,
        height_px: 480,
    }
}

fn put(n: u8) -> Put {
    Put { source: format!("cam{n}").into(), payloads: vec![(JSON, vec![n])] }
}

/// A subscriber that takes a put only when the test lets it.
struct Gate {
    taken: Sender<Put>,
    go: Receiver<()>,
}

impl Sink for Gate {
    fn put(&mut self, put: Put) -> Result<(), String> {
        self.go.recv().map_err(|e| e.to_string())?;
        self.taken.send(put).map_err(|e| e.to_string())
    }
}

fn gated(capacity: usize, reliable: bool) -> (Outbox, Receiver<Put>, Sender<()>) {
    let ((taken, puts), (open, go)) = (channel(), channel());
    let outbox = Outbox::start(capacity, reliable, SOON, move || Ok(Gate { taken, go }), |_, _| {}).unwrap();
    (outbox, puts, open)
}

#[test]
fn the_oldest_frames_go_when_nobody_takes_them() {
    let (outbox, puts, open) = gated(2, false);
    outbox.push(put(0), || false);
    // the thread holds the first one
    while !outbox.is_idle() {
        std::thread::yield_now();
    }
    let lost: Vec<_> = (1..6).map(|n| outbox.push(put(n), || false)).collect();
    assert_eq!(lost, [None, None, Some(1), Some(2), Some(3)].map(|n| n.map(|n: u8| Lost { source: put(n).source })));
    for _ in 0..3 {
        open.send(()).unwrap();
    }
    assert_eq!(outbox.finish(SOON), []);
    assert_eq!(puts.iter().collect::<Vec<_>>(), [put(0), put(4), put(5)]);
}

#[test]
fn reliable_waits_for_room_and_a_stop_ends_the_wait() {
    let (outbox, puts, open) = gated(1, true);
    let outbox = Arc::new(outbox);
    let pusher = {
        let outbox = outbox.clone();
        std::thread::spawn(move || (0..5).filter_map(|n| outbox.push(put(n), || false)).count())
    };
    for n in 0..5 {
        open.send(()).unwrap();
        assert_eq!(puts.recv_timeout(SOON), Ok(put(n)));
    }
    assert_eq!(pusher.join().unwrap(), 0);
    // one that the thread holds, one that waits, and one that finds no room
    outbox.push(put(5), || false);
    while !outbox.is_idle() {
        std::thread::yield_now();
    }
    outbox.push(put(6), || false);
    assert_eq!(outbox.push(put(7), || true), Some(Lost { source: "cam7".into() }));
}

#[test]
fn a_stuck_subscriber_does_not_hold_up_the_end() {
    let (outbox, _puts, _open) = gated(4, false);
    outbox.push(put(0), || false);
    while !outbox.is_idle() {
        std::thread::yield_now();
    }
    outbox.push(put(1), || false);
    let begun = Instant::now();
    assert_eq!(outbox.finish(Duration::from_millis(200)), [Lost { source: "cam1".into() }]);
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_sink_that_does_not_open_is_an_error() {
    let never =
        Outbox::start(1, false, Duration::from_millis(100), || Ok(std::thread::sleep(SOON)).map(|()| Never), |_, _| {});
    assert_eq!(never.unwrap_err(), "the session did not open within 0 s");
    let refused = Outbox::start::<Never>(1, false, SOON, || Err("no".into()), |_, _| {});
    assert_eq!(refused.unwrap_err(), "no");
}

struct Never;
impl Sink for Never {
    fn put(&mut self, _: Put) -> Result<(), String> {
        Ok(())
    }
}

proptest! {
    /// Whatever a camera is called, its key is one that zenoh takes, is one chunk, and leads back to the name.
    #[test]
    fn every_camera_id_has_one_chunk(id in "\\PC{1,20}|[/*$#?@%\\x00-\\x1f.a-z]{1,12}") {
        let chunk = chunk(&id).unwrap();
        prop_assert!(!chunk.contains('/'));
        prop_assert!(keyexpr::new(chunk.as_str()).is_ok(), "{chunk}");
        prop_assert!(!chunk.contains('*'));
        // decoded as a URL is
        let (mut bytes, mut rest) = (Vec::new(), chunk.bytes());
        while let Some(b) = rest.next() {
            if b == b'%' {
                let hex = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
            } else {
                bytes.push(b);
            }
        }
        prop_assert_eq!(String::from_utf8(bytes).unwrap(), id);
    }
}

#[test]
fn known_chunks() {
    assert_eq!(chunk("cam0").as_deref(), Some("cam0"));
    assert_eq!(chunk("rtsp://a/b?c#1").as_deref(), Some("rtsp:%2F%2Fa%2Fb%3Fc%231"));
    assert_eq!(chunk("50%").as_deref(), Some("50%25"));
    assert_eq!(chunk(""), None);
}

#[test]
fn the_encodings_are_what_the_document_says() {
    let both = encode(&found("gate", 7), Encodings::Both).unwrap();
    assert_eq!(both.iter().map(|(e, _)| *e).collect::<Vec<_>>(), [JSON, ARROW]);
    assert_eq!(
        String::from_utf8(both[0].1.clone()).unwrap(),
        r#"{"type":"detections","schema":1,"source":"gate","seq":7,"pts_ns":280000000,"capture_ns":5,"width_px":640,"height_px":480,"model":"m","boxes":[{"x1":1.5,"y1":2.0,"x2":30.0,"y2":40.25,"score":0.9,"class_id":2,"label":"car"}]}"#
    );
    assert_eq!(wire::detections_from_ipc(&both[1].1).unwrap(), found("gate", 7));
    assert_eq!(encode(&found("gate", 7), Encodings::Json).unwrap().len(), 1);
    assert_eq!(encode(&found("gate", 7), Encodings::Arrow).unwrap()[0].0, ARROW);
    let mut bad = found("gate", 7);
    bad.boxes[0].x2 = f32::INFINITY;
    assert!(encode(&bad, Encodings::Both).unwrap_err().to_string().contains("box 0"));
}

fn settings(connect: &str, listen: &str) -> Settings {
    Settings {
        graph: "test".into(),
        encodings: Encodings::Both,
        mode: Mode::Peer,
        connect: connect.into(),
        listen: listen.into(),
        scouting: false,
        reliable: false,
        queue_frames: 64,
    }
}

/// A port of loopback that nobody listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_subscriber_hears_both_encodings_and_sees_the_camera_live_and_leave() {
    let endpoint = format!("tcp/127.0.0.1:{}", free_port());
    let listener = zenoh::open(configuration(&settings("", &endpoint)).unwrap()).wait().unwrap();
    let subscriber = listener.declare_subscriber("millrace/test/*/detections").wait().unwrap();
    let alive = listener.liveliness().declare_subscriber("millrace/test/*/alive").history(true).wait().unwrap();

    let mut link = Link::open(configuration(&settings(&endpoint, "")).unwrap(), "test".into()).unwrap();
    // the subscription travels to the publisher in its own time, so the first frames may find nobody
    let deadline = Instant::now() + SOON;
    let first = loop {
        let payloads = encode(&found("a/b", 7), Encodings::Both).unwrap();
        link.put(Put { source: "a/b".into(), payloads }).unwrap();
        if let Ok(Some(sample)) = subscriber.recv_timeout(Duration::from_millis(50)) {
            break sample;
        }
        assert!(Instant::now() < deadline, "nothing arrived");
    };
    let second = subscriber.recv_timeout(SOON).unwrap().unwrap();
    for sample in [&first, &second] {
        assert_eq!(sample.key_expr().as_str(), "millrace/test/a%2Fb/detections");
        let bytes = sample.payload().to_bytes();
        match sample.encoding().to_string().as_str() {
            JSON => assert!(bytes.starts_with(b"{\"type\":\"detections\",\"schema\":1,\"source\":\"a/b\",\"seq\":7")),
            ARROW => assert_eq!(wire::detections_from_ipc(&bytes).unwrap(), found("a/b", 7)),
            other => panic!("encoding {other}"),
        }
    }
    assert_ne!(first.encoding(), second.encoding());
    let token = alive.recv_timeout(SOON).unwrap().unwrap();
    assert_eq!(
        (token.key_expr().as_str(), token.kind()),
        ("millrace/test/a%2Fb/alive", zenoh::sample::SampleKind::Put)
    );
    drop(link);
    let gone = alive.recv_timeout(SOON).unwrap().unwrap();
    assert_eq!(gone.kind(), zenoh::sample::SampleKind::Delete);
}

#[test]
fn what_cannot_be_opened_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp/127.0.0.1:{}", taken.local_addr().unwrap().port());
    let busy = Link::open(configuration(&settings("", &endpoint)).unwrap(), "test".into());
    assert!(busy.err().unwrap().contains("LISTEN"));
    let nobody = Settings { mode: Mode::Client, ..settings(&format!("tcp/127.0.0.1:{}", free_port()), "") };
    let alone = Link::open(configuration(&nobody).unwrap(), "test".into());
    assert!(alone.err().unwrap().contains("does the router run?"));
    let text = configuration(&settings("127.0.0.1:7447", "")).unwrap_err();
    assert!(text.starts_with("CONNECT: zenoh does not take [\"127.0.0.1:7447\"]"), "{text}");
}

#[test]
fn a_neighbour_that_says_nothing_holds_up_neither_opening_nor_sending() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp/127.0.0.1:{}", silent.local_addr().unwrap().port());
    let config = configuration(&settings(&endpoint, "")).unwrap();
    let outbox =
        Outbox::start(4, false, Duration::from_secs(15), move || Link::open(config, "test".into()), |_, _| {}).unwrap();
    for n in 0..10 {
        outbox.push(put(n), || false);
    }
    let begun = Instant::now();
    outbox.finish(Duration::from_millis(1500));
    assert!(begun.elapsed() < Duration::from_secs(3));
}
