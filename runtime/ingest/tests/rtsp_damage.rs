//! RTSP cameras whose descriptions, answers and packets are damaged: each has its words or its count, and no other camera
//! loses a frame by it.
#![allow(clippy::unwrap_used)]

#[path = "common/clip.rs"]
mod clip;
mod common;
#[path = "common/odd_server.rs"]
mod odd_server;

use clip::{Clip, TICKS};
use common::viewer::Viewer;
use millrace_frame::CameraState;
use millrace_ingest::{IngestOptions, RtspTransport, annexb_nals};
use odd_server::{Answer, Instead, OddServer, Packetizer, Sent, Show, Then};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
const HEADER_BYTES: usize = 12;

/// What comes of a camera.
enum Comes {
    /// All frames of a connection but those that are lost under these names, and these counters.
    Frames { lost: &'static [&'static str], counted: &'static [(&'static str, u64)] },
    /// This state, and an error that has these words.
    Error(CameraState, &'static str),
}

const WHOLE: Comes = Comes::Frames { lost: &[], counted: &[] };
/// Packets of another payload type than the description has.
const OTHER_TYPE: Comes = Comes::Error(
    CameraState::Stalled,
    "no picture for 900 ms, though packets of payload type 97 come; its description names 96",
);

struct Case {
    name: &'static str,
    answer: Answer,
    transport: RtspTransport,
    comes: Comes,
}

fn by_tcp(name: &'static str, answer: Answer, comes: Comes) -> Case {
    Case { name, answer, transport: RtspTransport::Tcp, comes }
}

fn by_udp(name: &'static str, answer: Answer, comes: Comes) -> Case {
    Case { name, answer, transport: RtspTransport::Udp, comes }
}

/// The pictures of a clip several times over, as one stream without end or gap.
fn rounds(clip: &Clip, times: u32) -> Vec<Sent> {
    let mut packetizer = Packetizer::new(clip.h265);
    let mut sent = Vec::new();
    for (round, (unit, place)) in (0..times).flat_map(|round| clip.units.iter().map(move |unit| (round, unit))) {
        let nals: Vec<&[u8]> = annexb_nals(&unit.data).collect();
        let ticks = (round * clip.units.len() as u32 + place) * TICKS;
        for (n, bytes) in packetizer.picture(&nals, ticks).into_iter().enumerate() {
            let after = if n == 0 { Duration::from_millis(40) } else { Duration::ZERO };
            sent.push(Sent { after, channel: 0, bytes });
        }
    }
    sent
}

/// The pictures of the clip, each four times as fast as they are shown, the packets changed by `change`, which gets the
/// number of the packet and may add others. Sequence numbers are without gaps.
fn changed(clip: &Clip, mut change: impl FnMut(usize, &[u8]) -> Vec<Vec<u8>>) -> Vec<Sent> {
    let packets = clip.sent(0, true, odd_server::Marking::Pictures, 4);
    let mut sequence = 100u16;
    let mut sent = Vec::new();
    for (n, Sent { mut after, channel, bytes }) in packets.into_iter().enumerate() {
        for mut bytes in change(n, &bytes) {
            if let Some(place) = bytes.get_mut(2..4) {
                place.copy_from_slice(&sequence.to_be_bytes());
                sequence = sequence.wrapping_add(1);
            }
            sent.push(Sent { after: std::mem::take(&mut after), channel, bytes });
        }
    }
    sent
}

/// As they are, with one more packet of this payload in front of the tenth: of its picture.
fn added(clip: &Clip, payload: &[u8]) -> Vec<Sent> {
    changed(clip, |n, packet| {
        let mut before = packet[..HEADER_BYTES].to_vec();
        before[1] &= 0x7F;
        before.extend_from_slice(payload);
        if n == 10 { vec![before, packet.to_vec()] } else { vec![packet.to_vec()] }
    })
}

/// As they are, but for the bytes of the tenth packet.
fn broken(clip: &Clip, bytes: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Sent> {
    let mut sent = changed(clip, |_, packet| vec![packet.to_vec()]);
    sent[10].bytes = bytes(&sent[10].bytes);
    sent
}

fn with_type(packet: &[u8], payload_type: u8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[1] = packet[1] & 0x80 | payload_type;
    packet
}

/// The clip, by another session description.
fn described(clip: &Clip, sdp: String) -> Answer {
    let sent = clip.sent(0, true, odd_server::Marking::Pictures, 4);
    Answer::Play(Arc::new(Show { sdp, sent, then: Then::Silence }))
}

/// The clip, with another answer to one request.
fn answered(clip: &Clip, method: &'static str, text: impl Into<String>, endless: &[u8]) -> Answer {
    let show = Show { sdp: clip.sdp(true), sent: vec![], then: Then::Silence };
    Answer::But(Arc::new(Instead { method, text: text.into(), endless: endless.to_vec() }), Arc::new(show))
}

/// What ends a connection in words: `lost` are counts beside pictures.
const BESIDE: [&str; 2] = ["rtp_loss", "connection_lost"];

fn judge(clip: &Clip, case: Case) {
    let Case { name, answer, transport, comes } = case;
    let server = OddServer::start(move |_| answer.clone());
    let stall_timeout = Some(Duration::from_millis(900));
    let mut viewer = Viewer::open(
        &server.url(),
        &IngestOptions { rtsp_transport: transport, stall_timeout, ..IngestOptions::default() },
    );
    match comes {
        Comes::Error(state, words) => {
            let done = viewer.watch(LIMIT, |v| v.state().state == state && v.state().last_error.contains(words));
            assert!(done, "{name}: {:?}", viewer.states);
        }
        Comes::Frames { lost, counted } => {
            let ended =
                viewer.watch(LIMIT, |v| v.lost.contains_key("connection_lost") || v.seen.len() > clip.md5s.len());
            let what = format!("{name}: lost {:?}, counted {:?}, {:?}", viewer.lost, viewer.counted, viewer.state());
            assert!(ended, "{what}");
            assert!(
                viewer.md5s().iter().all(|md5| clip.md5s.iter().any(|whole| whole == md5)),
                "a wrong picture: {what}"
            );
            let pictures: u64 =
                viewer.lost.iter().filter(|(cause, _)| !BESIDE.contains(cause)).map(|(_, count)| count).sum();
            assert_eq!(viewer.seen.len() as u64 + pictures, clip.md5s.len() as u64, "{what}");
            let names: Vec<&str> = viewer.lost.keys().copied().filter(|cause| *cause != "connection_lost").collect();
            assert_eq!(names, lost, "{what}");
            assert_eq!(viewer.counted, counted.iter().copied().collect::<BTreeMap<_, _>>(), "{what}");
        }
    }
}

#[test]
fn each_damage_has_its_words_or_its_count_and_costs_no_other_camera_a_frame() {
    let clip = &Clip::read("baseline_slices.264");
    let calm = {
        let sent = rounds(clip, 8);
        let answer = clip.show(sent, Then::Silence);
        OddServer::start(move |_| answer.clone())
    };
    std::thread::scope(|threads| {
        let beside = threads.spawn(|| {
            let mut viewer = Viewer::open(&calm.url(), &IngestOptions::default());
            viewer.watch_frames(8 * clip.md5s.len(), LIMIT);
            (viewer.md5s().into_iter().map(str::to_owned).collect::<Vec<_>>(), viewer.lost)
        });
        let judged: Vec<_> = cases(clip).into_iter().map(|case| threads.spawn(move || judge(clip, case))).collect();
        let failed: Vec<_> = judged.into_iter().filter_map(|thread| thread.join().err()).collect();
        let (seen, lost) = beside.join().unwrap();
        assert_eq!(seen, (0..8).flat_map(|_| clip.md5s.iter().cloned()).collect::<Vec<_>>());
        assert!(lost.is_empty(), "{lost:?}");
        assert!(failed.is_empty(), "{} cases", failed.len());
    });
}

fn cases(clip: &Clip) -> Vec<Case> {
    let lines = |sdp: String, from: &str, to: &str| {
        assert!(sdp.contains(from), "{sdp}");
        sdp.replace(from, to)
    };
    let sdp_with = |from: &str, to: &str| described(clip, lines(clip.sdp(true), from, to));
    let show = |sent| clip.show(sent, Then::Silence);
    let ok = "RTSP/1.0 200 OK\r\nCSeq: @\r\n";
    let two_videos = lines(clip.sdp(true), "m=video", "m=video 0 RTP/AVP 26\r\na=control:track9\r\nm=video");
    let long = clip.sdp(true) + &"a=x-long:0123456789\r\n".repeat(5_000);
    let header = vec![b'x'; 64 << 10];
    let line = b"X-Filler: and so on\r\n".repeat(2_000);
    vec![
        // descriptions
        by_tcp("no description", described(clip, String::new()), Comes::Error(CameraState::Refused, "")),
        by_tcp("bytes", described(clip, "\u{1}\u{fffd}=\0\r\n".repeat(9)), Comes::Error(CameraState::Refused, "")),
        by_udp(
            "bytes, by UDP",
            described(clip, "\u{1}\u{fffd}=\0\r\n".repeat(9)),
            Comes::Error(CameraState::Refused, "the camera offers no video"),
        ),
        by_tcp("no encoding", sdp_with("a=rtpmap:96 H264/90000\r\n", ""), Comes::Error(CameraState::Refused, "")),
        by_udp(
            "no encoding, by UDP",
            sdp_with("a=rtpmap:96 H264/90000\r\n", ""),
            Comes::Error(CameraState::Refused, "the camera offers payload type 96"),
        ),
        by_udp("no clock, by UDP", sdp_with("H264/90000", "H264/0"), WHOLE),
        by_tcp("sets that are no base64", sdp_with("sprop-parameter-sets=", "sprop-parameter-sets=*,"), WHOLE),
        by_tcp("parameters of another type", sdp_with("a=fmtp:96 ", "a=fmtp:97 "), WHOLE),
        by_tcp("an unknown line", sdp_with("m=video", "y=?\r\nm=video"), WHOLE),
        by_udp("an unknown line, by UDP", sdp_with("m=video", "y=?\r\nm=video"), WHOLE),
        by_tcp("the second video", described(clip, two_videos.clone()), WHOLE),
        by_udp("the second video, by UDP", described(clip, two_videos), WHOLE),
        by_tcp("five thousand lines", described(clip, long.clone()), WHOLE),
        by_udp("five thousand lines, by UDP", described(clip, long), WHOLE),
        // answers
        by_tcp(
            "moved",
            answered(clip, "DESCRIBE", "RTSP/1.0 302 Found\r\nCSeq: @\r\nLocation: rtsp://other/1\r\n\r\n", b""),
            Comes::Error(
                CameraState::Refused,
                "302 Moved Temporarily: the stream is at another address; write that into the URL",
            ),
        ),
        by_udp(
            "moved, by UDP",
            answered(clip, "DESCRIBE", "RTSP/1.0 301 Gone\r\nCSeq: @\r\nLocation: rtsp://other/1\r\n\r\n", b""),
            Comes::Error(
                CameraState::Refused,
                "301 Moved Permanently: the stream is at another address; write that into the URL",
            ),
        ),
        by_tcp(
            "a gigabyte",
            answered(clip, "DESCRIBE", format!("{ok}Content-Length: 4000000000\r\n\r\n"), &header),
            Comes::Error(CameraState::Connecting, "no answer within 5000 ms"),
        ),
        by_udp(
            "a gigabyte, by UDP",
            answered(clip, "DESCRIBE", format!("{ok}Content-Length: 4000000000\r\n\r\n"), &header),
            Comes::Error(CameraState::Connecting, "the camera's answer is longer than 1 MiB"),
        ),
        by_tcp(
            "headers without end",
            answered(clip, "DESCRIBE", ok, &line),
            Comes::Error(CameraState::Connecting, "no answer within 5000 ms"),
        ),
        by_udp(
            "headers without end, by UDP",
            answered(clip, "DESCRIBE", ok, &line),
            Comes::Error(CameraState::Connecting, "the camera's answer is longer than 1 MiB"),
        ),
        by_tcp(
            "a length below nothing",
            answered(clip, "DESCRIBE", format!("{ok}Content-Length: -1\r\n\r\n"), b""),
            Comes::Error(CameraState::Connecting, ""),
        ),
        by_tcp(
            "a setup without a transport",
            answered(clip, "SETUP", format!("{ok}Session: 7\r\n\r\n"), b""),
            Comes::Error(CameraState::Refused, ""),
        ),
        by_udp(
            "a setup without a session",
            answered(clip, "SETUP", format!("{ok}\r\n"), b""),
            Comes::Error(CameraState::Refused, "the camera's answer to SETUP names no session"),
        ),
        // packets
        by_tcp("another payload type", show(changed(clip, |_, packet| vec![with_type(packet, 97)])), OTHER_TYPE),
        by_udp(
            "another payload type, by UDP",
            show(changed(clip, |_, packet| vec![with_type(packet, 97)])),
            OTHER_TYPE,
        ),
        by_tcp(
            "some of another payload type",
            show(changed(clip, |n, packet| {
                let other = with_type(packet, 97);
                if n % 10 == 0 && n < 50 { vec![other, packet.to_vec()] } else { vec![packet.to_vec()] }
            })),
            Comes::Frames { lost: &[], counted: &[("rtp_stray", 5)] },
        ),
        by_tcp(
            "a channel that was not set up",
            show({
                let mut sent = changed(clip, |_, packet| vec![packet.to_vec()]);
                sent.insert(10, Sent { after: Duration::ZERO, channel: 6, bytes: b"what is this".to_vec() });
                sent
            }),
            WHOLE,
        ),
        by_tcp("nothing in a packet", show(added(clip, b"")), WHOLE),
        by_tcp("an aggregate of nothing", show(added(clip, &[24, 0, 0, 0, 0])), WHOLE),
        by_tcp(
            "an aggregate that is longer than its packet",
            show(added(clip, &[24, 200, 0, 6])),
            Comes::Frames { lost: &["decode_error", "waiting_for_key"], counted: &[] },
        ),
        by_tcp(
            "a fragment without a start",
            show(added(clip, &[0x7C, 0x45, 1, 2, 3])),
            Comes::Frames { lost: &["decode_error", "waiting_for_key"], counted: &[] },
        ),
        by_tcp(
            "a fragment of one byte",
            show(added(clip, &[0x7C])),
            Comes::Frames { lost: &["decode_error", "waiting_for_key"], counted: &[] },
        ),
        by_tcp(
            "an interleaved packet",
            show(added(clip, &[25, 0, 0, 0])),
            Comes::Frames { lost: &["decode_error", "waiting_for_key"], counted: &[] },
        ),
        by_tcp(
            "a jump ahead",
            show({
                let mut sent = changed(clip, |_, packet| vec![packet.to_vec()]);
                sent[10..].iter_mut().for_each(|sent| sent.bytes[2] = sent.bytes[2].wrapping_add(4));
                sent
            }),
            Comes::Frames { lost: &["missing_reference", "rtp_loss", "waiting_for_key"], counted: &[] },
        ),
        by_tcp(
            "a jump back",
            show(broken(clip, |packet| [&packet[..2], &[0, 1], &packet[4..]].concat())),
            Comes::Error(CameraState::Connecting, "Out-of-order packet or large loss"),
        ),
        by_tcp(
            "another source",
            show(broken(clip, |packet| [&packet[..8], &[9; 4], &packet[12..]].concat())),
            Comes::Error(CameraState::Connecting, "wrong ssrc"),
        ),
        by_tcp(
            "half a header",
            show(broken(clip, |packet| packet[..5].to_vec())),
            Comes::Error(CameraState::Connecting, "corrupt RTP header"),
        ),
        by_tcp(
            "an unknown version",
            show(broken(clip, |packet| [&[0][..], &packet[1..]].concat())),
            Comes::Error(CameraState::Connecting, "corrupt RTP header"),
        ),
        by_tcp(
            "more padding than packet",
            show(broken(clip, |packet| [&[0xA0][..], &packet[1..20], &[255]].concat())),
            Comes::Error(CameraState::Connecting, "corrupt RTP header"),
        ),
        by_tcp(
            "a report that is none",
            show({
                let mut sent = changed(clip, |_, packet| vec![packet.to_vec()]);
                sent.insert(10, Sent { after: Duration::ZERO, channel: 1, bytes: vec![0x80, 200, 0, 99, 1] });
                sent
            }),
            Comes::Error(CameraState::Connecting, "RTCP"),
        ),
    ]
}
