//! What a camera sends, without a network: for the fuzz targets of `tests/fuzz`.

use super::assembler::{Arrived, Assembler, Packet};
use super::clock::MediaClock;
use super::sdp;
use millrace_frame::{PacketCodec, Timebase};

/// Longest payload of a packet.
const MOST_BYTES: usize = 2048;

/// RTP packets of one connection: of the first byte the lowest bit says the codec; then for each packet a byte with its marker,
/// whether its time is another one, and how many are missing before it, two bytes with its length, and its payload.
pub fn rtp(bytes: &[u8]) {
    let Some((&first, mut rest)) = bytes.split_first() else { return };
    let codec = if first & 1 == 0 { PacketCodec::H264 } else { PacketCodec::H265 };
    let mut clock = MediaClock::new();
    let mut assembler = Assembler::new(codec, Timebase { num: 1, den: 90_000 }, &[]);
    let (mut ticks, mut ns) = (0, 0);
    while let [flags, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low])) % MOST_BYTES;
        let (payload, behind) = tail.split_at(length.min(tail.len()));
        rest = behind;
        ticks += if flags & 2 == 0 { 0 } else { 3600 };
        ns += 1_000_000;
        let arrived = Arrived { unix_ns: ns, monotonic_ns: ns };
        let packet = Packet { ticks, marker: flags & 1 != 0, lost: u16::from(flags >> 5), payload, arrived };
        assembler.packet(&packet, &mut clock);
        let _ = assembler.take();
    }
    assembler.end(&mut clock);
    let _ = assembler.take();
}

/// A session description.
pub fn sdp(bytes: &[u8]) {
    let videos = sdp::videos(bytes);
    let _ = sdp::session_control(bytes);
    for payload_type in [96, 97] {
        for encoding in ["h264", "h265"] {
            let sets = sdp::parameter_sets(bytes, payload_type, encoding);
            let codec = if encoding == "h264" { PacketCodec::H264 } else { PacketCodec::H265 };
            let _ = Assembler::new(codec, Timebase { num: 1, den: 90_000 }, &sets);
        }
    }
    drop(videos);
}
