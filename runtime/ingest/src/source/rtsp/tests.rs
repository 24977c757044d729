//! Packets that are lost in any places: what was received is what comes out and what is named, to the picture.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/common/odd_server.rs"]
mod odd_server;

use super::assembler::{Arrived, Assembler, Packet};
use super::clock::MediaClock;
use crate::source::SourceEvent;
use crate::{AccessUnit, Event, Ingest, IngestOptions, annexb_nals};
use millrace_frame::{PacketCodec, Timebase};
use odd_server::{Marking, Packetizer};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

const CLIPS: [&str; 4] = ["baseline_slices.264", "open_gop.264", "pyramid.264", "closed_gop.265"];
const RTP_HEADER_BYTES: usize = 12;

fn units(name: &str) -> Vec<AccessUnit> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    let mut ingest = Ingest::open(path.to_str().unwrap(), &IngestOptions::default()).unwrap();
    let mut units = Vec::new();
    loop {
        match ingest.next_event().unwrap() {
            Event::Unit(unit) => units.push(*unit),
            Event::End => return units,
            other => panic!("{other:?}"),
        }
    }
}

/// A packet as it was sent, and the number of the picture of which it carries a part (RFC 6184 5.2, RFC 7798 4.4).
struct Sent {
    picture: Option<usize>,
    ticks: i64,
    bytes: Vec<u8>,
}

fn sent(name: &str, marking: Marking, largest: usize, sets: bool, delimiters: bool) -> Vec<Sent> {
    let h265 = name.ends_with(".265");
    let mut packetizer = Packetizer { marking, largest, ..Packetizer::new(h265) };
    let mut sent = Vec::new();
    for (n, unit) in units(name).iter().enumerate() {
        let is_slice = |nal: &[u8]| if h265 { nal[0] >> 1 & 63 < 32 } else { matches!(nal[0] & 31, 1..=5) };
        let is_set = |nal: &[u8]| if h265 { matches!(nal[0] >> 1 & 63, 32..=34) } else { matches!(nal[0] & 31, 7 | 8) };
        let delimiter: &[u8] = if h265 { &[0x46, 1, 0x50] } else { &[9, 0xF0] };
        let is_delimiter = |nal: &[u8]| if h265 { nal[0] >> 1 & 63 == 35 } else { nal[0] & 31 == 9 };
        let of_unit = annexb_nals(&unit.data).filter(|nal| (sets || !is_set(nal)) && !is_delimiter(nal));
        let nals: Vec<&[u8]> = delimiters.then_some(delimiter).into_iter().chain(of_unit).collect();
        let ticks = n as u32 * 3600;
        for bytes in packetizer.picture(&nals, ticks) {
            let payload = &bytes[RTP_HEADER_BYTES..];
            let of_picture = match (h265, payload[0] & 31, payload[0] >> 1 & 63) {
                (false, 28, _) => is_slice(&payload[1..]),
                (true, _, 49) => payload[2] & 63 < 32,
                _ => is_slice(payload) || is_delimiter(payload),
            };
            sent.push(Sent { picture: of_picture.then_some(n), ticks: i64::from(ticks), bytes });
        }
    }
    sent
}

/// Pictures that came out, and losses by cause.
#[derive(Debug, Default)]
struct Got {
    pictures: u64,
    lost: BTreeMap<&'static str, u64>,
    others: BTreeMap<&'static str, u64>,
}

/// Feeds those packets that arrive, and ends the connection.
fn assemble(name: &str, sent: &[Sent], arrives: impl Fn(usize) -> bool, sets: &[Vec<u8>]) -> Got {
    let codec = if name.ends_with(".265") { PacketCodec::H265 } else { PacketCodec::H264 };
    let mut assembler = Assembler::new(codec, Timebase { num: 1, den: 90_000 }, sets);
    let mut clock = MediaClock::new();
    let (mut lost, mut begun) = (0, false);
    let mut events = Vec::new();
    for (n, Sent { ticks, bytes, .. }) in sent.iter().enumerate() {
        if !arrives(n) {
            lost += u16::from(begun); // nobody knows of what came before the first packet
            continue;
        }
        begun = true;
        let arrived = Arrived { unix_ns: ticks * 11_111, monotonic_ns: ticks * 11_111 };
        let payload = &bytes[RTP_HEADER_BYTES..];
        let packet =
            Packet { ticks: *ticks, marker: bytes[1] & 0x80 != 0, lost: std::mem::take(&mut lost), payload, arrived };
        assembler.packet(&packet, &mut clock);
        events.append(&mut assembler.take());
    }
    assembler.end(&mut clock);
    events.append(&mut assembler.take());
    let mut got = Got::default();
    for event in events {
        match event {
            SourceEvent::Arrived { .. } => got.pictures += 1,
            SourceEvent::Loss(loss) if loss.pictures() > 0 => *got.lost.entry(loss.cause).or_default() += loss.count,
            SourceEvent::Loss(loss) => *got.others.entry(loss.cause).or_default() += loss.count,
            _ => {}
        }
    }
    got
}

/// How many pictures there are of which a part arrives.
fn received(sent: &[Sent], arrives: impl Fn(usize) -> bool) -> u64 {
    let pictures = sent.iter().enumerate().filter(|(n, _)| arrives(*n)).filter_map(|(_, packet)| packet.picture);
    pictures.collect::<std::collections::BTreeSet<_>>().len() as u64
}

fn sets_of(name: &str) -> Vec<Vec<u8>> {
    let h265 = name.ends_with(".265");
    let is_set = |nal: &&[u8]| if h265 { matches!(nal[0] >> 1 & 63, 32..=34) } else { matches!(nal[0] & 31, 7 | 8) };
    annexb_nals(&units(name)[0].data).filter(is_set).map(<[u8]>::to_vec).collect()
}

#[test]
fn a_picture_without_its_end_its_beginning_or_its_middle_is_one_that_is_incomplete() {
    for name in ["open_gop.264", "closed_gop.265"] {
        let packets = sent(name, Marking::Pictures, 40, true, false);
        let of =
            |picture| -> Vec<usize> { (0..packets.len()).filter(|n| packets[*n].picture == Some(picture)).collect() };
        let its_packets = (3..).map(of).find(|of| of.len() > 2).unwrap();
        let all = received(&packets, |_| true);
        for gone in [its_packets[0], its_packets[1], its_packets[its_packets.len() - 1]] {
            let got = assemble(name, &packets, |n| n != gone, &[]);
            assert_eq!(got.lost, BTreeMap::from([("incomplete_picture", 1)]), "{name}, without packet {gone}");
            assert_eq!(
                (got.pictures, got.others.get("rtp_loss")),
                (all - 1, Some(&1)),
                "{name}, without packet {gone}"
            );
        }
        // of a picture of which nothing arrived there is nothing to count but its packets
        let got = assemble(name, &packets, |n| !its_packets.contains(&n), &[]);
        assert_eq!((got.pictures, got.lost.len()), (all - 1, 0), "{name}: {got:?}");
        assert_eq!(got.others, BTreeMap::from([("rtp_loss", its_packets.len() as u64)]), "{name}");
    }
}

/// Of two key pictures in a row the headers differ, by the standard; not so of two between which pictures were lost.
#[test]
fn a_key_picture_that_looks_like_the_last_one_is_another() {
    for name in CLIPS {
        let of_first = sent(name, Marking::Pictures, 200, true, false).into_iter().filter(|packet| packet.ticks == 0);
        let first: Vec<Sent> = of_first.collect();
        let again = |n: i64| {
            let packets = first.iter();
            packets.map(move |p| Sent { picture: Some(n as usize), ticks: n * 90_000, bytes: p.bytes.clone() })
        };
        let all: Vec<Sent> = (0..3).flat_map(again).collect();
        let got = assemble(name, &all, |_| true, &[]);
        assert_eq!((got.pictures, got.lost.len(), got.others.len()), (3, 0, 0), "{name}: {got:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn received_is_what_comes_out_and_what_is_named(
        clip in 0..CLIPS.len(), marking in prop::sample::select(vec![Marking::Pictures, Marking::EveryNal, Marking::Never]),
        largest in prop::sample::select(vec![30usize, 100, 400, 1200]), stated: bool, sets: bool, delimiters: bool, seed: u64,
        per_mille in prop::sample::select(vec![0u64, 5, 20, 100, 500, 950]), from in 0usize..60, to in 0usize..60,
    ) {
        let name = CLIPS[clip];
        let packets = sent(name, marking, largest, sets, delimiters);
        let (from, to) = (from.min(packets.len() - 1), packets.len() - to.min(packets.len() - 1));
        let chance = |n: usize| {
            let mut x = seed ^ (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            x ^= x >> 30;
            x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
            x ^= x >> 27;
            x = x.wrapping_mul(0x94D0_49BB_1331_11EB);
            (x ^ x >> 31) % 1000
        };
        let arrives = |n: usize| (from..to).contains(&n) && chance(n) >= per_mille;
        let stated = if stated { sets_of(name) } else { Vec::new() };
        let got = assemble(name, &packets, arrives, &stated);
        prop_assert_eq!(got.pictures + got.lost.values().sum::<u64>(), received(&packets, arrives), "{}: {:?}", name, got);
    }
}
