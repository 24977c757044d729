//! RTSP cameras that answer wrongly, late or not at all, played by a small server of the tests' own.
#![allow(clippy::unwrap_used)]

#[path = "common/clip.rs"]
mod clip;
mod common;
#[path = "common/odd_server.rs"]
mod odd_server;

use clip::{Clip, TICKS};
use common::viewer::Viewer;
use millrace_frame::{CameraState, monotonic_ns, unix_ns};
use millrace_ingest::{Event, Ingest, IngestOptions, annexb_nals};
use odd_server::{Answer, Marking, OddServer, Packetizer, Sent, Show, Speaks, Then, sdp, sender_report};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Losses of packets and of connections.
const NOT_PICTURES: [&str; 2] = ["rtp_loss", "connection_lost"];
const LIMIT: Duration = Duration::from_secs(60);
fn quick() -> IngestOptions {
    IngestOptions { stall_timeout: Some(Duration::from_millis(700)), ..IngestOptions::default() }
}

fn is_rising(times: &[i64]) -> bool {
    times.windows(2).all(|t| t[0] < t[1])
}

#[test]
fn every_frame_is_exact_whatever_the_markers_say() {
    for name in ["baseline_slices.264", "open_gop.264", "pyramid.264", "closed_gop.265", "open_gop.265"] {
        let clip = Clip::read(name);
        for marking in [Marking::Pictures, Marking::EveryNal, Marking::Never] {
            for sets in [true, false] {
                let sent = clip.sent(0, sets, marking, 8);
                let answer = clip.show(sent, Then::Silence);
                let server = OddServer::start(move |_| answer.clone());
                let mut viewer = Viewer::open(&server.url(), &quick());
                viewer.watch_state(CameraState::Live, LIMIT);
                viewer.watch_state(CameraState::Stalled, LIMIT);
                let what = format!("{name}, {marking:?}, sets {sets}: lost {:?}", viewer.lost);
                // where markers say nothing, nothing says that the last picture is whole
                let cut = usize::from(viewer.lost.remove("cut_off").is_some());
                assert!(cut == 0 || marking != Marking::Pictures, "{what}");
                let want = clip.md5s.len() - cut;
                assert_eq!(viewer.seen.len(), want, "{what}");
                let missing = clip.md5s.iter().filter(|md5| !viewer.md5s().contains(&&md5[..])).count();
                assert_eq!(missing, cut, "{what}");
                assert!(is_rising(&viewer.pts_ns()), "{what}: {:?}", viewer.pts_ns());
                assert_eq!(viewer.lost.remove("connection_lost"), Some(1), "{what}");
                assert!(viewer.lost.is_empty() && viewer.counted.is_empty(), "{what} {:?}", viewer.counted);
            }
        }
    }
}

#[test]
fn a_picture_is_given_out_with_its_last_packet_and_not_with_the_next_one() {
    let clip = Clip::read("baseline_slices.264");
    let server = OddServer::start({
        let answer = clip.show(clip.sent(0, true, Marking::Pictures, 1), Then::Silence);
        move |_| answer.clone()
    });
    let mut viewer = Viewer::open(&server.url(), &IngestOptions::default());
    viewer.watch_frames(20, LIMIT);
    let mut ages_ms: Vec<i64> =
        viewer.seen[2..].iter().map(|seen| (seen.at_ns - seen.timing.arrival_ns) / 1_000_000).collect();
    ages_ms.sort_unstable();
    // the median: this machine may be busy for a while
    assert!(ages_ms[ages_ms.len() / 2] < 20, "{ages_ms:?}");
    let apart_ms: Vec<i64> = viewer.seen[2..].windows(2).map(|w| (w[1].at_ns - w[0].at_ns) / 1_000_000).collect();
    assert!(apart_ms.iter().sum::<i64>() > 500, "they come at their pace: {apart_ms:?}");
}

#[test]
fn a_frame_is_stamped_when_it_arrives_and_not_when_it_is_fetched() {
    let clip = Clip::read("baseline_slices.264");
    let server = OddServer::start({
        let answer = clip.show(clip.sent(0, true, Marking::Pictures, 1), Then::Silence);
        move |_| answer.clone()
    });
    let mut ingest = Ingest::open(&server.url(), &IngestOptions::default()).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let (fetched_unix, fetched) = (unix_ns(), monotonic_ns());
    let mut ages_ms = Vec::new();
    while ages_ms.len() < 8 {
        if let Event::Unit(unit) = ingest.next_event().unwrap() {
            ages_ms.push((fetched - unit.timing.arrival_ns) / 1_000_000);
            let by_unix = (fetched_unix - unit.timing.capture_ns) / 1_000_000;
            assert!((by_unix - ages_ms[ages_ms.len() - 1]).abs() < 50, "{by_unix} {ages_ms:?}");
        }
    }
    let span = ages_ms[0] - ages_ms[7];
    assert!((200..400).contains(&span), "40 ms apart, as they were sent: {ages_ms:?}");
    assert!(ages_ms[0] > 300, "{ages_ms:?}");
}

#[test]
fn joining_amid_a_group_is_waiting_and_no_damage() {
    for name in ["open_gop.264", "pyramid.264", "closed_gop.265"] {
        let clip = Clip::read(name);
        let (first, key) = (3, clip.units.iter().skip(1).position(|(u, _)| u.key).unwrap() + 1);
        assert!(key > first, "{name}");
        for stated in [true, false] {
            // the parameter sets come with the session description, or with the key pictures alone
            let show =
                Show { sdp: clip.sdp(stated), sent: clip.sent(first, true, Marking::Pictures, 8), then: Then::Silence };
            let answer = Answer::Play(Arc::new(show));
            let server = OddServer::start(move |_| answer.clone());
            let mut viewer = Viewer::open(&server.url(), &quick());
            viewer.watch_state(CameraState::Stalled, LIMIT);
            assert_eq!(viewer.lost.remove("connection_lost"), Some(1), "{name}");
            let waited = viewer.lost.remove("waiting_for_key").unwrap_or_default();
            assert!(viewer.lost.is_empty(), "{name}, stated {stated}: {:?}", viewer.lost);
            assert_eq!(waited as usize + viewer.seen.len(), clip.units.len() - first, "{name}, stated {stated}");
            assert!(waited as usize >= key - first, "{name}: {waited}");
            let tail = &clip.md5s[clip.md5s.len() - viewer.seen.len()..];
            assert_eq!(viewer.md5s(), tail, "{name}");
        }
    }
}

#[test]
fn a_camera_whose_parameter_sets_are_late_has_not_stalled() {
    let clip = Clip::read("open_gop.264");
    // nine pictures in a second, then the first parameter sets; a stall is found after half of it
    let mut sent = clip.sent(1, true, Marking::Pictures, 1);
    sent.iter_mut().filter(|s| !s.after.is_zero()).for_each(|s| s.after = Duration::from_millis(110));
    let answer = Answer::Play(Arc::new(Show { sdp: clip.sdp(false), sent, then: Then::Silence }));
    let server = OddServer::start(move |_| answer.clone());
    let options = IngestOptions { stall_timeout: Some(Duration::from_millis(500)), ..IngestOptions::default() };
    let mut viewer = Viewer::open(&server.url(), &options);
    viewer.watch_state(CameraState::Live, LIMIT);
    assert_eq!(server.accepted.load(Ordering::Relaxed), 1, "{:?}", viewer.states);
    viewer.watch_frames(5, LIMIT);
}

#[test]
fn packets_without_a_readable_picture_are_a_stall_that_says_so() {
    let clip = Clip::read("baseline_slices.264");
    let mut packetizer = Packetizer::new(false);
    // a slice of a parameter set that nobody knows
    let packet = |n: u32| Sent {
        after: Duration::from_millis(40),
        channel: 0,
        bytes: packetizer.packet(&[0x65, 0x80, 0x01, 0x01], n * TICKS, true),
    };
    let sent = (0..40).map(packet).collect();
    let answer = clip.show(sent, Then::Silence);
    let server = OddServer::start(move |_| answer.clone());
    let mut viewer = Viewer::open(&server.url(), &quick());
    viewer.watch_state(CameraState::Stalled, LIMIT);
    assert_eq!(viewer.state().last_error, "no picture for 700 ms, though packets come");
    let lost: Vec<_> = viewer.lost.keys().copied().collect();
    assert_eq!(lost, ["damaged_sample"], "no connection was lost that had given pictures");
}

#[test]
fn a_marker_behind_an_sei_is_no_damage() {
    for name in ["closed_gop.265", "baseline_slices.264"] {
        let clip = Clip::read(name);
        let sei: &[u8] = if clip.h265 { &[78, 1, 5, 1, 7, 0x80] } else { &[6, 5, 1, 7, 0x80] };
        let mut packetizer = Packetizer::new(clip.h265);
        let mut sent = Vec::new();
        for (unit, place) in &clip.units {
            let ticks = 90_000 + place * TICKS;
            let mut packets = vec![packetizer.packet(sei, ticks, true)];
            let nals: Vec<&[u8]> = annexb_nals(&unit.data).collect();
            packets.extend(packetizer.picture(&nals, ticks));
            // an empty fragment, as some senders pad with
            packets.push(packetizer.packet(if clip.h265 { &[98, 1, 1] } else { &[28, 1] }, ticks, false));
            sent.extend(packets.into_iter().map(|bytes| Sent { after: Duration::from_millis(1), channel: 0, bytes }));
        }
        let answer = clip.show(sent, Then::Silence);
        let server = OddServer::start(move |_| answer.clone());
        let mut viewer = Viewer::open(&server.url(), &quick());
        viewer.watch_state(CameraState::Stalled, LIMIT);
        viewer.lost.remove("connection_lost");
        assert!(viewer.lost.is_empty(), "{name}: {:?}", viewer.lost);
        assert_eq!(viewer.md5s(), clip.md5s, "{name}");
    }
}

#[test]
fn packets_that_are_missing_are_counted_and_nothing_wrong_is_shown() {
    for (name, gone) in [("baseline_slices.264", 21), ("open_gop.264", 9), ("closed_gop.265", 12)] {
        let clip = Clip::read(name);
        let mut sent = clip.sent(0, true, Marking::Pictures, 8);
        sent.remove(gone);
        // one picture may have gone as a whole: nobody can know of it as a picture
        let received = sent.iter().map(|sent| &sent.bytes[4..8]).collect::<std::collections::BTreeSet<_>>().len();
        let answer = clip.show(sent, Then::Silence);
        let server = OddServer::start(move |_| answer.clone());
        let mut viewer = Viewer::open(&server.url(), &quick());
        viewer.watch_state(CameraState::Stalled, LIMIT);
        assert_eq!(viewer.lost.get("rtp_loss"), Some(&1), "{name}");
        let pictures: u64 = viewer.lost.iter().filter(|(cause, _)| !NOT_PICTURES.contains(cause)).map(|(_, n)| n).sum();
        assert_eq!(viewer.seen.len() as u64 + pictures, received as u64, "{name}: {:?}", viewer.lost);
        assert!(viewer.md5s().iter().all(|md5| clip.md5s.iter().any(|m| m == md5)), "{name}");
        assert!(viewer.seen.len() < clip.md5s.len() && !viewer.seen.is_empty(), "{name}");
        let causes: Vec<_> = viewer.lost.keys().copied().collect();
        assert!(!causes.contains(&"damaged_sample"), "{name}: {causes:?}");
    }
}

#[test]
fn a_camera_that_says_no_is_refused_with_its_reason_and_comes_back() {
    let clip = Clip::read("baseline_slices.264");
    let cases: [(Answer, &str); 6] = [
        (
            Answer::Status(401, "Unauthorized"),
            "401 Unauthorized: write user and password into the URL or the cameras file",
        ),
        (Answer::Status(403, "Forbidden"), "403 Forbidden: write user and password into the URL or the cameras file"),
        (Answer::Status(404, "Not Found"), "404 Not Found: check the path in the URL"),
        (Answer::Status(503, "Service Unavailable"), "503 Service Unavailable"),
        (
            Answer::Play(Arc::new(Show { sdp: sdp("JPEG", "x=1"), sent: vec![], then: Then::Silence })),
            "the camera offers jpeg; set it to H.264 or H.265",
        ),
        (
            Answer::Play(Arc::new(Show {
                sdp: sdp("H264", "x=1").replace("m=video", "m=audio"),
                sent: vec![],
                then: Then::Silence,
            })),
            "the camera offers no video; set it to H.264 or H.265",
        ),
    ];
    // all at the same time, each its own camera
    let threads: Vec<_> = cases
        .into_iter()
        .map(|(no, reason)| {
            let yes = clip.show(clip.sent(0, true, Marking::Pictures, 1), Then::Silence);
            let answers = no.clone();
            std::thread::spawn(move || {
                let server = OddServer::start(move |n| if n < 1 { answers.clone() } else { yes.clone() });
                let mut viewer = Viewer::open(&server.url(), &IngestOptions::default());
                assert_eq!(viewer.state().state, CameraState::Connecting);
                viewer.watch_state(CameraState::Refused, LIMIT);
                let state = viewer.state();
                assert!(state.last_error.starts_with(reason), "{state:?}");
                assert_eq!(state.tries, 1, "{state:?}");
                let refused_at = Instant::now();
                viewer.watch_state(CameraState::Live, Duration::from_secs(10));
                if matches!(no, Answer::Status(401 | 403, _)) {
                    assert!(refused_at.elapsed() > Duration::from_secs(4), "{:?}", refused_at.elapsed());
                }
                viewer.watch_frames(10, LIMIT);
                assert!(viewer.lost.is_empty(), "{reason}: {:?}", viewer.lost);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_server_that_is_mute_closes_or_babbles_is_tried_again() {
    let clip = Clip::read("baseline_slices.264");
    let yes = clip.show(clip.sent(0, true, Marking::Pictures, 1), Then::Silence);
    let server = OddServer::start(move |n| match n {
        0 => Answer::Close,
        1 => Answer::Says(Speaks::Server, b"\x16\x03\x01\0\x7F\r\n\r\n"),
        2 => Answer::Silence,
        _ => yes.clone(),
    });
    let mut viewer = Viewer::open(&server.url(), &IngestOptions::default());
    viewer.watch_frames(10, LIMIT);
    let errors: Vec<&str> = viewer.states.iter().map(|(_, s)| &s.last_error[..]).collect();
    assert!(errors.contains(&"no answer within 5000 ms"), "{errors:?}");
    assert!(viewer.states.iter().all(|(_, s)| matches!(s.state, CameraState::Connecting | CameraState::Live)));
    assert!(viewer.lost.is_empty(), "nothing had come: {:?}", viewer.lost);
}

#[test]
fn another_kind_of_server_is_named_in_words() {
    let http = b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nConnection: close\r\n\r\n<html></html>";
    let cases: [(Speaks, &'static [u8], &str); 7] = [
        (Speaks::Client, http, "the server answers with HTTP, not RTSP: check the port in the URL"),
        (
            Speaks::Client,
            b"HTTP/1.0 404 Not Found\r\n\r\n",
            "the server answers with HTTP, not RTSP: check the port in the URL",
        ),
        // an alert: unexpected message
        (
            Speaks::Client,
            b"\x15\x03\x03\x00\x02\x02\x0a",
            "the server answers with TLS, not RTSP: RTSP over TLS is not supported; choose the camera's port without it",
        ),
        (
            Speaks::Server,
            b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
            "the server answers with SSH, not RTSP: check the port in the URL",
        ),
        (
            Speaks::Server,
            b"220 mail.example.org ESMTP\r\n",
            "the server answers with something else than RTSP, which begins with '220 mail.example.org ESMTP': check the port in the URL",
        ),
        (
            Speaks::Client,
            b"\0\x01\xffab\x07",
            "the server answers with something else than RTSP, which begins with '...ab.': check the port in the URL",
        ),
        (Speaks::Client, b"", "the server closes the connection without an answer"),
    ];
    for (speaks, bytes, words) in cases {
        let server = OddServer::start(move |_| Answer::Says(speaks, bytes));
        let mut viewer = Viewer::open(&server.url(), &IngestOptions::default());
        viewer.watch(LIMIT, |v| !v.state().last_error.is_empty());
        let state = viewer.state();
        assert_eq!(state.last_error, words, "{state:?}");
        assert_eq!(state.state, CameraState::Connecting);
    }
}

#[test]
fn a_stall_is_seen_in_time_and_nothing_from_before_it_is_shown_after_it() {
    // pictures are held back by this stream's decoder: two before the end of the first connection
    let clip = Clip::read("pyramid.264");
    let sent: Vec<Sent> = clip.sent(0, true, Marking::Pictures, 2);
    let stalls = clip.show(sent[..15].to_vec(), Then::Silence);
    let yes = clip.show(sent, Then::Silence);
    let server = OddServer::start(move |n| if n == 0 { stalls.clone() } else { yes.clone() });
    let mut viewer = Viewer::open(&server.url(), &IngestOptions::default());
    viewer.watch_state(CameraState::Live, LIMIT);
    viewer.watch_state(CameraState::Stalled, LIMIT);
    let stalled_at = monotonic_ns();
    assert_eq!(viewer.state().last_error, "no picture for 2500 ms");
    let last_arrival = viewer.seen.iter().map(|s| s.timing.arrival_ns).max().unwrap();
    let after_ms = (stalled_at - last_arrival) / 1_000_000;
    assert!((2400..3400).contains(&after_ms), "{after_ms}");
    let before = viewer.seen.len();
    assert_eq!(viewer.flushes, [before], "all that was held came out at the stall");
    viewer.watch_state(CameraState::Live, LIMIT);
    viewer.watch_frames(before + 20, LIMIT);
    for seen in &viewer.seen[before..] {
        assert!(seen.timing.arrival_ns > stalled_at, "a picture from before the outage");
    }
    assert_eq!(viewer.seen[before].frame.md5, clip.md5s[0], "the camera began again");
    assert!(is_rising(&viewer.pts_ns()));
}

#[test]
fn a_connection_that_breaks_amid_a_packet_is_lost_and_comes_back() {
    let clip = Clip::read("pyramid.264");
    let sent: Vec<Sent> = clip.sent(0, true, Marking::Pictures, 4);
    let breaks = clip.show(sent[..15].to_vec(), Then::CloseAmidPacket);
    let yes = clip.show(sent, Then::Silence);
    let server = OddServer::start(move |n| if n == 0 { breaks.clone() } else { yes.clone() });
    let mut viewer = Viewer::open(&server.url(), &IngestOptions::default());
    assert!(viewer.watch(LIMIT, |v| v.lost.contains_key("connection_lost")));
    let before = viewer.seen.len();
    let states: Vec<CameraState> = viewer.states.iter().map(|(_, s)| s.state).collect();
    assert_eq!(states[..2], [CameraState::Connecting, CameraState::Live]);
    viewer.watch_frames(before + clip.md5s.len(), LIMIT);
    assert_eq!(viewer.md5s()[before..], clip.md5s);
    assert_eq!(viewer.state().state, CameraState::Live);
    assert_eq!(viewer.state().last_error, "", "a camera that is live has no error");
    assert_eq!(viewer.lost.get("connection_lost"), Some(&1));
}

#[test]
fn another_size_and_codec_at_each_connection() {
    let clips: Vec<Clip> =
        ["baseline_slices.264", "closed_gop.265", "cavlc_b.264", "open_gop.265"].map(Clip::read).into();
    let answers: Vec<Answer> =
        clips.iter().map(|c| c.show(c.sent(0, true, Marking::Pictures, 8), Then::Close)).collect();
    let server = OddServer::start(move |n| answers.get(n).cloned().unwrap_or(Answer::Silence));
    let mut viewer = Viewer::open(&server.url(), &IngestOptions::default());
    let want: Vec<&str> = clips.iter().flat_map(|c| c.md5s.iter().map(|m| &m[..])).collect();
    viewer.watch(LIMIT, |v| v.lost.get("connection_lost") == Some(&4));
    assert_eq!(viewer.md5s(), want, "lost {:?}", viewer.lost);
    assert!(is_rising(&viewer.pts_ns()));
}

#[test]
fn a_clock_that_is_set_is_counted_and_moves_no_time() {
    let clip = Clip::read("baseline_slices.264");
    // +3600 s, and -4.96 s
    for jump in [324_000_000u32, 446_400u32.wrapping_neg()] {
        let mut sent = clip.sent(0, true, Marking::Pictures, 1);
        let half = sent.len() / 2;
        for packet in &mut sent[half..] {
            let ticks = u32::from_be_bytes(packet.bytes[4..8].try_into().unwrap());
            packet.bytes[4..8].copy_from_slice(&ticks.wrapping_add(jump).to_be_bytes());
        }
        let answer = clip.show(sent, Then::Silence);
        let server = OddServer::start(move |_| answer.clone());
        let mut viewer = Viewer::open(&server.url(), &IngestOptions::default());
        viewer.watch_frames(clip.md5s.len(), LIMIT);
        assert_eq!(viewer.md5s(), clip.md5s);
        assert_eq!(viewer.counted.get("clock_jump"), Some(&1), "{jump}");
        assert!(viewer.lost.is_empty(), "{:?}", viewer.lost);
        let steps: Vec<i64> = viewer.pts_ns().windows(2).map(|t| (t[1] - t[0]) / 1_000_000).collect();
        assert!(steps.iter().all(|ms| (0..500).contains(ms)), "{jump}: {steps:?}");
    }
}

#[test]
fn the_cameras_own_clock_comes_with_the_pictures_after_a_report() {
    let clip = Clip::read("baseline_slices.264");
    let mut sent = clip.sent(0, true, Marking::Pictures, 2);
    let at = sent.len() / 2;
    let ticks = u32::from_be_bytes(sent[at].bytes[4..8].try_into().unwrap());
    // 2026-11-29 00:00:00.25 UTC, a second before this packet's picture
    let report = sender_report(ticks.wrapping_sub(90_000), 4_004_899_200 << 32 | 1 << 30);
    sent.insert(at, Sent { after: Duration::ZERO, channel: 1, bytes: report });
    let answer = clip.show(sent, Then::Silence);
    let server = OddServer::start(move |_| answer.clone());
    let mut viewer = Viewer::open(&server.url(), &IngestOptions::default());
    viewer.watch_frames(clip.md5s.len(), LIMIT);
    let stated: Vec<i64> = viewer.seen.iter().filter_map(|s| s.timing.sender_ns).collect();
    assert!(stated.len() > 5 && stated.len() < clip.md5s.len(), "{}", stated.len());
    assert!(viewer.seen[0].timing.sender_ns.is_none());
    let first_ms = stated[0] / 1_000_000 - 1_795_910_401_250;
    assert!((0..=40).contains(&first_ms), "{first_ms}");
    assert!(stated.windows(2).all(|w| (w[1] - w[0] - 40_000_000).abs() < 20_000), "{stated:?}");
}

#[test]
fn an_unknown_host_is_a_state_and_no_end() {
    let mut viewer = Viewer::open("rtsp://no-such-camera.invalid/1", &IngestOptions::default());
    assert!(viewer.watch(LIMIT, |v| v.state().tries >= 2), "{:?}", viewer.states);
    assert_eq!(viewer.state().state, CameraState::Connecting);
    assert!(viewer.state().last_error.starts_with("Unable to connect"), "{:?}", viewer.state());
}

#[test]
fn what_cannot_be_opened_is_refused_at_once_without_showing_it() {
    for (url, wanted) in [
        ("rtsp://user:hidden1@", "camera rtsp://…@: not a URL (empty host); rtsp://[user:password@]host"),
        (
            "rtsps://user:hidden1@cam/1",
            "camera rtsps://…@cam/1: RTSP over TLS is not supported; use the scheme without TLS",
        ),
    ] {
        let error = Ingest::open(url, &IngestOptions::default()).err().unwrap().to_string();
        assert!(error.starts_with(wanted), "{error}");
        assert!(!error.contains("hidden1"));
        let checked = millrace_ingest::check_source(url).unwrap_err();
        assert!(error.ends_with(&checked), "{error} / {checked}");
    }
}

#[test]
fn a_viewer_ends_quickly_whatever_the_camera_does() {
    // somebody listens and never answers
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("rtsp://{}/camera", silent.local_addr().unwrap());
    let mut viewer = Viewer::open(&url, &IngestOptions::default());
    viewer.watch_for(Duration::from_millis(300));
    assert!(viewer.seen.is_empty());
    let began = Instant::now();
    drop(viewer);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
