//! Cameras on the network: what arrives is published or has a name, however a camera ends.

#[path = "../../../ingest/tests/common/odd_server.rs"]
mod odd_server;

use super::fake::Fakes;
use super::{Came, assert_balanced, clip, take, until};
use millrace_ingest::{Event, Ingest, IngestOptions, annexb_nals};
use millrace_node::Input;
use millrace_node::testing::Bench;
use odd_server::{Answer, Marking, OddServer, Packetizer, Sent, Show, Then, sdp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The clip's pictures in decoding order, so many milliseconds apart, and how many they are.
fn show(name: &str, apart_ms: u64, marking: Marking, then: Then) -> (Answer, u64) {
    let mut ingest = Ingest::open(&clip(name), &IngestOptions::default()).unwrap();
    let mut packetizer = Packetizer { marking, ..Packetizer::new(false) };
    let (mut sent, mut pictures) = (Vec::new(), 0);
    while let Event::Unit(unit) = ingest.next_event().unwrap() {
        let nals: Vec<&[u8]> = annexb_nals(&unit.data).collect();
        let ticks = (unit.timing.pts_ns / 1_000_000) as u32 * 90;
        for (n, bytes) in packetizer.picture(&nals, ticks).into_iter().enumerate() {
            let after = Duration::from_millis(if n == 0 { apart_ms } else { 0 });
            sent.push(Sent { after, channel: 0, bytes });
        }
        pictures += 1;
    }
    (Answer::Play(Arc::new(Show { sdp: sdp("H264", "packetization-mode=1"), sent, then })), pictures)
}

#[test]
fn every_picture_of_a_connection_is_received_and_has_a_fate() {
    // one that ends its pictures by markers, one that leaves the last picture open, and a connection that breaks in a packet
    for (marking, then) in [
        (Marking::Pictures, Then::Silence),
        (Marking::Never, Then::Silence),
        (Marking::Pictures, Then::CloseAmidPacket),
    ] {
        let (answer, pictures) = show("pyramid.264", 10, marking, then);
        let server = OddServer::start(move |n| if n == 0 { answer.clone() } else { Answer::Silence });
        let url = server.url();
        let settings =
            [("SOURCE", &url[..]), ("FLOW", "live"), ("SLOTS", "64"), ("CAMERA", "gate"), ("STALL_TIMEOUT_MS", "700")];
        let mut bench = Bench::start::<Fakes>(&settings);
        let mut came = BTreeMap::new();
        until("the end of the connection", || {
            while let Some(item) = bench.receive(Duration::from_millis(5)) {
                take(&mut came, item);
            }
            bench.metrics().counted("connection_lost", "gate") == 1
        });
        // the frames follow on another thread
        while let Some(item) = bench.receive(Duration::from_millis(300)) {
            take(&mut came, item);
        }
        let metrics = bench.metrics();
        assert_balanced(metrics, "gate");
        assert_eq!(metrics.counted("received", "gate"), pictures, "{marking:?}");
        let cut_off = metrics.dropped("cut_off", "gate");
        assert_eq!(cut_off, u64::from(marking == Marking::Never), "{marking:?}: nothing says that the last is whole");
        assert_eq!(came["gate"].frames.len() as u64, pictures - cut_off, "{marking:?}: {:?}", metrics.drops("gate"));
        bench.stop();
        bench.join().unwrap();
    }
}

/// A decoder that is slow, or whose process is stopped amid a picture, makes no old picture a fresh one.
#[test]
fn a_picture_is_under_way_from_the_arrival_of_the_one_that_it_waited_for() {
    for (name, reorders) in [("baseline_slices.264", false), ("pyramid.264", true)] {
        let (answer, _) = show(name, 10, Marking::Pictures, Then::Silence);
        let server = OddServer::start(move |n| if n == 0 { answer.clone() } else { Answer::Silence });
        let url = server.url();
        let mut bench =
            Bench::start::<Fakes>(&[("SOURCE", &url), ("FLOW", "live"), ("SLOTS", "64"), ("CAMERA", "gate")]);
        let mut timings = Vec::new();
        while let Some((port, item)) = bench.receive(Duration::from_millis(700)) {
            if let ("frame", Input::Frame(lease)) = (port, item) {
                timings.push(lease.item().timing);
            }
        }
        let arrivals: BTreeSet<i64> = timings.iter().map(|timing| timing.arrival_ns).collect();
        let ready: Vec<_> = timings.iter().filter(|timing| timing.ready_ns != 0).collect();
        assert!(ready.len() >= 10, "{name}: {timings:?}");
        // the last pictures wait for none that comes, and are too old when the stall ends that
        let last_ns = arrivals.last().copied();
        for timing in &ready {
            let is_known = arrivals.contains(&timing.ready_ns) || Some(timing.ready_ns) > last_ns;
            assert!(timing.ready_ns >= timing.arrival_ns && is_known, "{name}: {timing:?}");
        }
        assert_eq!(ready.iter().any(|timing| timing.ready_ns > timing.arrival_ns), reorders, "{name}: {timings:?}");
        bench.stop();
        bench.join().unwrap();
    }
}

#[test]
fn a_camera_that_is_stopped_amid_its_pictures_leaves_none_without_a_fate() {
    // faster than it is decoded, so that pictures wait everywhere; and stopped at several moments
    for frames in [1, 4, 9, 14] {
        let (answer, _) = show("pyramid.264", 0, Marking::Pictures, Then::Silence);
        let server = OddServer::start(move |_| answer.clone());
        let url = server.url();
        let mut bench =
            Bench::start::<Fakes>(&[("SOURCE", &url), ("FLOW", "live"), ("SLOTS", "2"), ("CAMERA", "slow")]);
        let mut came: BTreeMap<String, Came> = BTreeMap::new();
        until("a few frames", || {
            while let Some(item) = bench.receive(Duration::from_millis(1)) {
                take(&mut came, item);
            }
            came.get("slow").is_some_and(|came| came.frames.len() >= frames)
        });
        bench.stop();
        let metrics = bench.join().unwrap();
        assert_balanced(&metrics, "slow");
    }
}
