use super::*;
use crate::config::{Encodings, Mode, Settings};
use crate::key::chunk;
use crate::link::{Link, configuration};
use crate::message::{ARROW, encode};
use crate::outbox::{Outbox, Sink};
use millrace_frame::{CameraState, CameraStatus, wire};
use proptest::prelude::*;
use std::time::Instant;
use zenoh::Wait;
use zenoh::key_expr::keyexpr;

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
    link.state(&status("a/b", CameraState::Live, "")).unwrap();
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

fn status(source: &str, state: CameraState, last_error: &str) -> CameraStatus {
    CameraStatus { state, since_ns: 5, last_error: last_error.into(), tries: 2, ..CameraStatus::new(source) }
}

#[test]
fn the_token_is_there_while_the_camera_is_live_and_its_state_can_be_asked_for() {
    let endpoint = format!("tcp/127.0.0.1:{}", free_port());
    let listener = zenoh::open(configuration(&settings("", &endpoint)).unwrap()).wait().unwrap();
    let alive = listener.liveliness().declare_subscriber("millrace/test/*/alive").history(true).wait().unwrap();
    let states = listener.declare_subscriber("millrace/test/*/state").wait().unwrap();
    let mut link = Link::open(configuration(&settings(&endpoint, "")).unwrap(), "test".into()).unwrap();
    let next_token = || alive.recv_timeout(SOON).unwrap().map(|s| s.kind());
    // the subscription travels to the publisher in its own time: the state is said until it is heard
    let deadline = Instant::now() + SOON;
    let refused = loop {
        link.state(&status("a/b", CameraState::Refused, "401 Unauthorized")).unwrap();
        if let Ok(Some(sample)) = states.recv_timeout(Duration::from_millis(50)) {
            break sample;
        }
        assert!(Instant::now() < deadline, "no state arrived");
    };
    assert_eq!(refused.key_expr().as_str(), "millrace/test/a%2Fb/state");
    assert_eq!(refused.encoding().to_string(), JSON);
    assert_eq!(
        String::from_utf8(refused.payload().to_bytes().into_owned()).unwrap(),
        r#"{"type":"state","schema":1,"source":"a/b","state":"refused","since_ns":5,"last_error":"401 Unauthorized","tries":2}"#
    );
    assert!(alive.try_recv().unwrap().is_none(), "a camera that is refused is not alive");
    link.state(&status("a/b", CameraState::Live, "")).unwrap();
    assert_eq!(next_token(), Some(zenoh::sample::SampleKind::Put));
    let asked = || {
        let replies = listener.get("millrace/test/*/state").timeout(SOON).wait().unwrap();
        let reply = replies.recv_timeout(SOON).unwrap().unwrap();
        let sample = reply.result().unwrap();
        serde_json::from_slice::<serde_json::Value>(&sample.payload().to_bytes()).unwrap()
    };
    assert_eq!((asked()["source"].as_str(), asked()["state"].as_str()), (Some("a/b"), Some("live")));
    link.state(&status("a/b", CameraState::Stalled, "no picture for 3 s")).unwrap();
    assert_eq!(next_token(), Some(zenoh::sample::SampleKind::Delete));
    assert_eq!(asked()["state"], "stalled");
    link.state(&status("a/b", CameraState::Live, "")).unwrap();
    assert_eq!(next_token(), Some(zenoh::sample::SampleKind::Put));
    link.state(&status("a/b", CameraState::Ended, "")).unwrap();
    assert_eq!(next_token(), Some(zenoh::sample::SampleKind::Delete));
    assert_eq!(asked()["state"], "ended");
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
    let (setting, text) = configuration(&settings("127.0.0.1:7447", "")).unwrap_err();
    assert!(setting == "CONNECT" && text.starts_with("CONNECT: zenoh does not take [\"127.0.0.1:7447\"]"), "{text}");
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
