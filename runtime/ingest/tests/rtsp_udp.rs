//! Cameras that send by UDP over networks that put packets out of order, repeat them or lose them. The judge is FFmpeg, by
//! its checksums of the pictures.
#![allow(clippy::unwrap_used)]

#[path = "common/clip.rs"]
mod clip;
mod common;
#[path = "common/odd_server.rs"]
mod odd_server;

use clip::Clip;
use common::viewer::Viewer;
use millrace_frame::CameraState;
use millrace_ingest::{IngestOptions, RtspTransport};
use odd_server::{Answer, Marking, OddServer, Sent, Show, Then, sender_report};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// Much longer than packets are waited for.
const LATE: Duration = Duration::from_millis(400);

fn udp() -> IngestOptions {
    IngestOptions { rtsp_transport: RtspTransport::Udp, ..IngestOptions::default() }
}

/// Plays this, and watches until so many frames are there.
fn watch(clip: &Clip, sent: Vec<Sent>, frames: usize) -> Viewer {
    let answer = clip.show(sent, Then::Silence);
    let server = OddServer::start(move |_| answer.clone());
    let mut viewer = Viewer::open(&server.url(), &udp());
    viewer.watch_frames(frames, LIMIT);
    viewer
}

/// What the packets' numbers say of a network: how many arrived behind a later one, and how many again.
fn disorder(sent: &[Sent], first: u16) -> (u64, u64) {
    let number = |s: &Sent| u16::from_be_bytes([s.bytes[2], s.bytes[3]]).wrapping_sub(first);
    let (mut overtaken, mut again) = (0, 0);
    let mut seen = BTreeSet::new();
    for n in sent.iter().map(number) {
        if seen.contains(&n) {
            again += 1;
        } else if seen.last().is_some_and(|newest| *newest > n) {
            overtaken += 1;
        }
        seen.insert(n);
    }
    (overtaken, again)
}

fn counted(pairs: &[(&'static str, u64)]) -> BTreeMap<&'static str, u64> {
    pairs.iter().copied().filter(|(_, n)| *n > 0).collect()
}

#[test]
fn no_picture_is_lost_where_packets_arrive_out_of_order_and_twice() {
    for (name, seed) in [("open_gop.264", 1), ("baseline_slices.264", 2), ("pyramid.264", 3), ("closed_gop.265", 4)] {
        let clip = Clip::read(name);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sent = Vec::new();
        // each run of packets arrives at once and in any order
        let mut rest = clip.sent(0, true, Marking::Pictures, 8);
        while !rest.is_empty() {
            let mut run: Vec<Sent> = rest.drain(..rest.len().min(random.usize(1..40))).collect();
            let copies: Vec<Sent> = run.iter().filter(|_| random.u8(..10) == 0).cloned().collect();
            run.extend(copies);
            random.shuffle(&mut run);
            run.iter_mut().for_each(|packet| packet.after = Duration::ZERO);
            run[0].after = Duration::from_millis(5);
            sent.extend(run);
        }
        let (overtaken, again) = disorder(&sent, 65_530);
        assert!(overtaken > 5 && again > 0, "{name}: {overtaken} {again}");
        // the last picture of the file comes out with the packet of another one
        let viewer = watch(&clip, sent, clip.md5s.len() - 1);
        assert_eq!(viewer.md5s(), clip.md5s[..viewer.seen.len()], "{name}");
        assert!(viewer.lost.is_empty(), "{name}: {:?}", viewer.lost);
        assert_eq!(viewer.counted, counted(&[("rtp_reordered", overtaken), ("rtp_duplicate", again)]), "{name}");
    }
}

#[test]
fn a_packet_that_is_later_than_the_window_is_lost_and_named() {
    let clip = Clip::read("closed_gop.265");
    let mut sent = clip.sent(0, true, Marking::Pictures, 8);
    let place = sent.len() / 3;
    let mut late = sent.remove(place);
    late.after = LATE;
    // a pause, in which the packet is given up; then it comes, and twice
    sent.splice(place + 2..place + 2, [late.clone(), Sent { after: Duration::ZERO, ..late }]);
    let mut viewer = watch(&clip, sent, clip.md5s.len() / 2);
    assert!(viewer.watch(LIMIT, |v| v.counted.contains_key("rtp_late")));
    viewer.watch_for(Duration::from_millis(200));
    assert_eq!(viewer.lost.get("rtp_loss"), Some(&1), "{:?}", viewer.lost);
    assert_eq!(viewer.counted, counted(&[("rtp_late", 2)]));
    assert!(viewer.md5s().iter().all(|md5| clip.md5s.iter().any(|known| known == md5)), "a wrong picture is shown");
}

#[test]
fn what_is_not_of_the_stream_costs_no_picture() {
    let clip = Clip::read("baseline_slices.264");
    let mut sent = clip.sent(0, true, Marking::Pictures, 8);
    let at_once = |channel, bytes| Sent { after: Duration::ZERO, channel, bytes };
    let mut foreign = sent[5].bytes.clone();
    foreign[8] ^= 0x40;
    // of the right stream by its SSRC, and far from its numbers
    let mut far = sent[5].bytes.clone();
    far[2] ^= 0x80;
    // a type that Geovision cameras add, with the number of a packet that carries media
    let mut no_media = sent[9].bytes.clone();
    no_media[1] = 50;
    let strays = [foreign, far, no_media, vec![], vec![0x80, 96, 0], vec![0; 40]];
    let count = strays.len() as u64 + 1;
    for (n, bytes) in strays.into_iter().enumerate() {
        sent.insert(9 + 3 * n, at_once(0, bytes));
    }
    sent.insert(4, at_once(1, vec![0x80, 200, 0, 90]));
    let viewer = watch(&clip, sent, clip.md5s.len() - 1);
    assert_eq!(viewer.md5s(), clip.md5s[..viewer.seen.len()]);
    assert!(viewer.lost.is_empty(), "{:?}", viewer.lost);
    assert_eq!(viewer.counted, counted(&[("rtp_stray", count)]));
}

#[test]
fn another_stream_amid_a_connection_is_taken_up() {
    let clip = Clip::read("closed_gop.265");
    let cases =
        [(true, 30_000u16, 0x4321_0000u32), (true, 0, 0x4321_0000), (false, 40_000, 0x4321_0000), (true, 0, 1 << 29)];
    for (ssrc, shift, jump) in cases {
        let first = clip.sent(0, true, Marking::Pictures, 8);
        let mut second = first.clone();
        let packets = first.len() as u16;
        for packet in &mut second {
            let number = u16::from_be_bytes([packet.bytes[2], packet.bytes[3]]);
            packet.bytes[2..4].copy_from_slice(&number.wrapping_add(packets).wrapping_add(shift).to_be_bytes());
            let ticks = u32::from_be_bytes(packet.bytes[4..8].try_into().unwrap());
            packet.bytes[4..8].copy_from_slice(&ticks.wrapping_add(jump).to_be_bytes());
            packet.bytes[8] ^= u8::from(ssrc);
        }
        let frames = clip.md5s.len();
        let viewer = watch(&clip, [first, second].concat(), 2 * frames - 1);
        let twice: Vec<&str> = clip.md5s.iter().chain(&clip.md5s).map(String::as_str).collect();
        assert_eq!(viewer.md5s(), twice[..viewer.seen.len()], "{ssrc} {shift}");
        assert!(viewer.lost.is_empty(), "{ssrc} {shift}: {:?}", viewer.lost);
        assert_eq!(viewer.counted, counted(&[("rtp_restart", 1)]), "{ssrc} {shift}");
        assert!(viewer.pts_ns().windows(2).all(|t| t[0] < t[1]), "{ssrc} {shift} {jump}: {:?}", viewer.pts_ns());
    }
}

#[test]
fn the_cameras_clock_comes_by_udp_too() {
    let clip = Clip::read("baseline_slices.264");
    let mut sent = clip.sent(0, true, Marking::Pictures, 8);
    let ticks = u32::from_be_bytes(sent[0].bytes[4..8].try_into().unwrap());
    let ntp = (3_900_000_000u64 << 32) | 1 << 31;
    sent.insert(0, Sent { after: Duration::ZERO, channel: 1, bytes: sender_report(ticks, ntp) });
    let viewer = watch(&clip, sent, 3);
    // half a second after 3 900 000 000 s of NTP's era, whose zero is 2 208 988 800 s before Unix's
    let unix_ns = (3_900_000_000 - 2_208_988_800) * 1_000_000_000 + 500_000_000;
    assert_eq!(viewer.seen[0].timing.sender_ns, Some(unix_ns));
}

#[test]
fn the_camera_is_told_when_a_viewer_leaves() {
    let clip = Clip::read("baseline_slices.264");
    let answer = clip.show(clip.sent(0, true, Marking::Pictures, 8), Then::Silence);
    let server = OddServer::start(move |_| answer.clone());
    let mut viewer = Viewer::open(&server.url(), &udp());
    viewer.watch_frames(clip.md5s.len() - 1, LIMIT);
    drop(viewer);
    let requests = server.requests.lock().unwrap().clone();
    assert_eq!(requests, ["DESCRIBE", "SETUP", "PLAY", "TEARDOWN"]);
}

#[test]
fn the_end_of_the_session_is_the_end_of_the_connection() {
    let clip = Clip::read("baseline_slices.264");
    let sent = clip.sent(0, true, Marking::Pictures, 8);
    let answer = Answer::Play(Arc::new(Show { sdp: clip.sdp(true), sent, then: Then::Close }));
    let server = OddServer::start(move |_| answer.clone());
    let mut viewer = Viewer::open(&server.url(), &udp());
    let frames = clip.md5s.len();
    // all that came before the end is shown, and the camera is asked again
    viewer.watch_frames(frames + 1, LIMIT);
    assert_eq!(viewer.md5s()[..frames], clip.md5s);
    assert_eq!(viewer.lost, BTreeMap::from([("connection_lost", 1)]));
    let state = viewer.states.iter().find(|(_, s)| s.state == CameraState::Connecting && !s.last_error.is_empty());
    assert_eq!(state.unwrap().1.last_error, "the camera ended the stream");
}
