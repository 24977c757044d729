//! What this crate logs of a camera: nothing at the usual level, since the node that is given each state logs its changes.
//! What it logs for those who look closer shows no credentials. Alone in its process, since the log is the process's.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/odd_server.rs"]
mod odd_server;

use common::viewer::Viewer;
use millrace_frame::CameraState;
use millrace_ingest::{Event, Ingest, IngestOptions, annexb_nals};
use odd_server::{Answer, OddServer, Packetizer, Sent, Show, Then, sdp};
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

/// Collects what this crate logs.
struct Collector(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::DEBUG && metadata.target().starts_with("millrace_ingest")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn each_change_is_told_by_its_state_alone() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    tracing::subscriber::set_global_default(Collector(lines.clone())).unwrap();
    let path = common::own_data("baseline_slices.264");
    let mut ingest = Ingest::open(path.to_str().unwrap(), &IngestOptions::default()).unwrap();
    let (mut packetizer, mut sent, mut number) = (Packetizer::new(false), Vec::new(), 0);
    while let Event::Unit(unit) = ingest.next_event().unwrap() {
        let nals: Vec<&[u8]> = annexb_nals(&unit.data).collect();
        for bytes in packetizer.picture(&nals, number * 3600) {
            sent.push(Sent { after: Duration::from_millis(5), channel: 0, bytes });
        }
        number += 1;
    }
    let show = |then| Answer::Play(Arc::new(Show { sdp: sdp("H264", "x=1"), sent: sent.clone(), then }));
    let (first, then) = (show(Then::Close), show(Then::Silence));
    let server = OddServer::start(move |n| match n {
        0..3 => Answer::Status(404, "Not Found"),
        3 => first.clone(),
        4..6 => Answer::Close,
        _ => then.clone(),
    });
    let url = server.url().replace("rtsp://", "rtsp://viewer7:s3cret@");
    let mut viewer = Viewer::open(&url, &IngestOptions::default());
    assert!(viewer.watch(Duration::from_secs(60), |v| v.lost.contains_key("connection_lost")));
    viewer.watch_state(CameraState::Connecting, Duration::from_secs(60));
    viewer.watch_state(CameraState::Live, Duration::from_secs(60));
    drop(viewer);
    let lines = lines.lock().unwrap();
    let all = lines.join("\n");
    assert!(lines.iter().all(|line| line.starts_with("DEBUG")), "{all}");
    assert!(all.contains("404 Not Found: check the path") && all.contains("the camera is live"), "{all}");
    assert!(!all.contains("viewer7") && !all.contains("s3cret"), "{all}");
}
