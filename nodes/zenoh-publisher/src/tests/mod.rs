#![allow(clippy::unwrap_used)]

mod link;
mod message;
mod outbox;

use crate::message::JSON;
use crate::outbox::Put;
use millrace_frame::{DetBox, Detections};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn found(source: &str, seq: u64) -> Detections {
    let car = DetBox {
        x1: 1.5,
        y1: 2.0,
        x2: 30.0,
        y2: 40.25,
        score: 0.9,
        class_id: 2,
        label: "car".into(),
        ..DetBox::default()
    };
    Detections {
        schema: Detections::SCHEMA,
        source: source.into(),
        seq,
        pts_ns: 40_000_000 * seq as i64,
        boxes: vec![car],
        classes: Vec::new(),
        about: String::new(),
        capture_ns: 5,
        arrival_ns: 0,
        sender_ns: None,
        model: "m".into(),
        width_px: 640,
        height_px: 480,
    }
}

fn put(n: u8) -> Put {
    Put { source: format!("cam{n}").into(), payloads: vec![(JSON, vec![n])] }
}

#[test]
fn settings_that_reach_nobody_are_found_before_the_start() {
    let found = |settings: &[(&str, &str)]| millrace_node::testing::remarks::<crate::node::ZenohPublisher>(settings);
    for (settings, setting, says) in [
        (&[("GRAPH", "")][..], "GRAPH", "second part of every key"),
        (&[("CONNECT", "127.0.0.1:7447")], "CONNECT", "zenoh does not take"),
        (&[("CONNECT", "tcp/10.0.0.1:99999")], "CONNECT", "'tcp/10.0.0.1:99999' has no port"),
        (&[("LISTEN", "tcp/0.0.0.0")], "LISTEN", "has no port"),
        (&[("MODE", "client"), ("SCOUTING", "false")], "MODE", "no router can be found"),
    ] {
        let refused = found(settings).refused;
        assert!(refused.iter().any(|r| r.setting == setting && r.why.contains(says)), "{settings:?}: {refused:?}");
    }
    let warned = |settings: &[(&str, &str)]| found(settings).warned.into_iter().map(|r| r.setting).collect::<Vec<_>>();
    assert_eq!(warned(&[("MODE", "client"), ("LISTEN", "tcp/0.0.0.0:7447")]), ["LISTEN"]);
    assert_eq!(warned(&[("LISTEN", ""), ("SCOUTING", "false")]), ["LISTEN"]);
    let at = found(&[("LISTEN", "tcp/0.0.0.0:7447, udp/0.0.0.0:7447,tcp/[::1]:0")]).listens;
    assert_eq!(at.iter().map(|l| l.at.to_string()).collect::<Vec<_>>(), ["0.0.0.0:7447", "[::1]:0"]);
    assert_eq!(found(&[]).refused, []);
}
