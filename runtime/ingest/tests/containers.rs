//! Transport streams and Matroska files as people have them: cut, joined, damaged, and written in each of the allowed ways.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Run, Scratch, decode, own_data, reference, to_ns};
use millrace_ingest::{AfterEnd, IngestOptions, PacedSource, PacedStep, SourceSettings};
use mkv_element::io::blocking_impl::{ReadFrom as _, WriteTo as _};
use mkv_element::prelude::*;
use mkv_element::{ClusterBlock, Lacer};

const PACKET: usize = 188;
/// FFmpeg's first video stream.
const VIDEO_PID: u16 = 0x100;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(own_data(name)).unwrap()
}

fn packets(name: &str) -> Vec<Vec<u8>> {
    read(name).chunks(PACKET).map(<[u8]>::to_vec).collect()
}

fn pid(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[1] & 0x1f, packet[2]])
}

fn begins_pes(packet: &[u8]) -> bool {
    pid(packet) == VIDEO_PID && packet[1] & 0x40 != 0
}

/// Where the payload of a packet begins.
fn payload_at(packet: &[u8]) -> usize {
    if packet[3] & 0x20 != 0 { 5 + usize::from(packet[4]) } else { 4 }
}

fn run(name: &str, bytes: &[u8]) -> Run {
    let file = Scratch::new(name, bytes);
    decode(&file.0, &IngestOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn refusal(name: &str, bytes: &[u8]) -> String {
    let file = Scratch::new(name, bytes);
    let error =
        decode(&file.0, &IngestOptions::default()).err().unwrap_or_else(|| panic!("{name} is not refused")).to_string();
    assert!(error.contains(&*file.0.to_string_lossy()), "it names the file: {error}");
    error
}

/// Checksum and time of each frame that FFmpeg has of one of our files.
fn wanted(name: &str) -> Vec<(String, i64)> {
    let (timebase, frames) = reference(&own_data(&format!("{name}.framemd5")));
    frames.into_iter().map(|f| (f.md5, to_ns(f.pts, timebase))).collect()
}

fn got(run: &Run) -> Vec<(String, i64)> {
    run.frames.iter().map(|f| (f.md5.clone(), f.pts_ns)).collect()
}

fn assert_whole(what: &str, run: &Run, like: &str) {
    assert_eq!(got(run), wanted(like), "{what}: lost {:?}", run.lost);
    assert_eq!(run.lost_in_all(), 0, "{what}: {:?}", run.lost);
}

/// Every frame is one of the whole stream's, at its own time, and in order. A transport stream's times count from its first
/// picture, also where that is another one now.
fn assert_part(what: &str, run: &Run, like: &str) {
    let wanted = wanted(like);
    let mut rest = wanted.iter();
    let of_whole = |md5: &str| wanted.iter().find(|(w, _)| w == md5).map_or(0, |w| w.1);
    let shift_ns = run.frames.first().map_or(0, |first| of_whole(&first.md5) - first.pts_ns);
    assert!(shift_ns == 0 || like.ends_with(".ts"), "{what}: moved by {shift_ns} ns");
    for (n, frame) in got(run).iter().enumerate() {
        let is_same = |w: &&(String, i64)| w.0 == frame.0 && (w.1 - frame.1 - shift_ns).abs() <= 1;
        assert!(
            rest.by_ref().find(is_same).is_some(),
            "{what}: frame {n} at {} ns is none of the stream's; {:?}",
            frame.1,
            run.lost
        );
    }
    assert!(run.lost_in_all() > 0 || run.frames.len() == wanted.len(), "{what}: something is missing without a word");
}

#[test]
fn times_go_on_where_they_wrap_round() {
    // the same pictures; the 33-bit times of the second half are smaller than those of the first
    let run = run("wrap.ts", &read("wrap.ts"));
    for (frame, (md5, pts_ns)) in run.frames.iter().zip(wanted("pyramid.ts")) {
        assert_eq!((&frame.md5, frame.pts_ns), (&md5, pts_ns));
    }
    assert_eq!(run.frames.len(), wanted("pyramid.ts").len());
    assert_eq!(run.lost_in_all(), 0, "{:?}", run.lost);
}

#[test]
fn packets_of_192_and_204_bytes_and_files_that_begin_within_one() {
    let m2ts: Vec<u8> = packets("pyramid.ts").iter().flat_map(|p| [&[0, 1, 2, 3][..], p].concat()).collect();
    let with_parity: Vec<u8> = packets("pyramid.ts").iter().flat_map(|p| [&p[..], &[0x74; 16]].concat()).collect();
    assert_whole("192", &run("a.m2ts", &m2ts), "pyramid.ts");
    assert_whole("204", &run("a.ts", &with_parity), "pyramid.ts");
    for (what, bytes) in [("188", read("pyramid.ts")), ("192", m2ts), ("204", with_parity)] {
        // the tables that begin the file are cut; they come again later, and so does the first picture's beginning
        let begun = run(&format!("cut-{what}.ts"), &bytes[100..]);
        assert_part(what, &begun, "pyramid.ts");
        assert!(begun.frames.len() >= 30, "{what}: {} frames, lost {:?}", begun.frames.len(), begun.lost);
    }
}

#[test]
fn each_lost_packet_is_counted_and_no_broken_picture_is_shown() {
    let whole = packets("pyramid.ts");
    let of_video: Vec<usize> = (0..whole.len()).filter(|&n| pid(&whole[n]) == VIDEO_PID).collect();
    for &lost in of_video.iter().skip(1).step_by(7) {
        let mut packets = whole.clone();
        packets.remove(lost);
        let run = run("lossy.ts", &packets.concat());
        assert_part(&format!("without packet {lost}"), &run, "pyramid.ts");
        assert_eq!(run.lost.get("ts_loss"), Some(&1), "without packet {lost}: {:?}", run.lost);
    }
}

#[test]
fn a_packet_that_is_sent_twice_is_taken_once() {
    let twice: Vec<u8> = packets("pyramid.ts").iter().flat_map(|p| [&p[..], p].concat()).collect();
    assert_whole("twice", &run("twice.ts", &twice), "pyramid.ts");
}

#[test]
fn scrambled_packets_are_counted_by_that_name() {
    let mut packets = packets("pyramid.ts");
    let key = (0..packets.len()).filter(|&n| begins_pes(&packets[n])).nth(20).unwrap();
    for packet in packets.iter_mut().skip(key).take(9).filter(|p| pid(p) == VIDEO_PID) {
        packet[3] |= 0x80;
    }
    let some = run("some.ts", &packets.concat());
    assert_part("some are scrambled", &some, "pyramid.ts");
    assert!(some.lost["scrambled"] > 0 && !some.lost.contains_key("ts_loss"), "{:?}", some.lost);
    packets.iter_mut().filter(|p| pid(p) == VIDEO_PID).for_each(|p| p[3] |= 0x80);
    let all = run("all.ts", &packets.concat());
    assert_eq!(all.frames.len(), 0);
    assert_eq!(all.lost.keys().collect::<Vec<_>>(), [&"scrambled"]);
}

#[test]
fn recordings_that_were_joined_play_one_after_the_other() {
    let twice = [read("pyramid.ts"), read("pyramid.ts")].concat();
    let run = run("joined.ts", &twice);
    let wanted = wanted("pyramid.ts");
    assert_eq!(run.lost_in_all(), 0, "{:?}", run.lost);
    assert_eq!(run.frames.len(), 2 * wanted.len());
    for (frame, (md5, _)) in run.frames.iter().zip(wanted.iter().chain(&wanted)) {
        assert_eq!(&frame.md5, md5);
    }
    let step_ns = 1_001_000_000 / 30;
    for pair in run.frames.windows(2) {
        assert!((pair[1].pts_ns - pair[0].pts_ns - step_ns).abs() < 20_000, "times go on: {pair:?}");
    }
}

#[test]
fn recordings_that_are_shorter_than_a_second_play_one_after_the_other() {
    let packets = packets("pyramid.ts");
    // a group of pictures, 0.4 s
    let second_key = packets.iter().enumerate().filter(|(_, p)| begins_pes(p)).nth(12).unwrap().0;
    let wanted = wanted("pyramid.ts");
    let wanted: Vec<_> = wanted[..12].iter().map(|(md5, _)| md5).collect();
    // their counters continue each other by chance, or not
    for counter in 0..3 {
        let mut joined = Vec::new();
        for part in 0..4 {
            for packet in &packets[..second_key] {
                let mut packet = packet.clone();
                packet[3] = packet[3] & 0xf0 | (packet[3] + counter * part) & 15;
                joined.extend(packet);
            }
        }
        let run = run("short.ts", &joined);
        assert_eq!(run.lost_in_all(), 0, "{counter}: {:?}", run.lost);
        assert_eq!(run.md5s(), wanted.iter().cycle().take(48).map(|md5| &md5[..]).collect::<Vec<_>>(), "{counter}");
        assert!(run.frames.windows(2).all(|pair| pair[0].pts_ns < pair[1].pts_ns), "{counter}: times go on");
    }
}

#[test]
fn pictures_without_times_of_their_own_are_placed_between_those_that_have_some() {
    let mut packets = packets("pyramid.ts");
    for (n, packet) in packets.iter_mut().filter(|p| begins_pes(p)).enumerate() {
        let flags = payload_at(packet) + 7;
        if n % 3 > 0 && n > 4 {
            packet[flags] &= 0x3f;
        }
    }
    let run = run("untimed.ts", &packets.concat());
    let want = wanted("pyramid.ts");
    assert_eq!(run.frames.len(), want.len());
    for (frame, (md5, pts_ns)) in run.frames.iter().zip(&want) {
        assert_eq!(&frame.md5, md5);
        assert!((frame.pts_ns - pts_ns).abs() < 100_000, "{} for {pts_ns}", frame.pts_ns);
    }
}

#[test]
fn pes_packets_that_say_how_long_they_are_and_headers_across_packets() {
    // the payloads of all packets of a PES packet, in packets that hold 20 bytes of it, so that its header is in two
    let (mut out, mut counter) = (Vec::new(), 0u8);
    let mut pes: Vec<Vec<u8>> = Vec::new();
    for packet in packets("pyramid.ts") {
        if pid(&packet) != VIDEO_PID {
            out.extend(packet);
            continue;
        }
        if begins_pes(&packet) {
            pes.push(Vec::new());
        }
        pes.last_mut().unwrap().extend_from_slice(&packet[payload_at(&packet)..]);
    }
    for mut pes in pes {
        let len = u16::try_from(pes.len() - 6).unwrap().to_be_bytes();
        pes[4..6].copy_from_slice(&len);
        pes.extend([0xaa; 7]); // behind its end
        for (n, piece) in pes.chunks(10).enumerate() {
            let stuffing = PACKET - 4 - piece.len();
            out.extend([0x47, 0x01 | if n == 0 { 0x40 } else { 0 }, 0x00, 0x30 | counter]);
            out.extend([stuffing as u8 - 1, 0]);
            out.extend(vec![0xff; stuffing - 2]);
            out.extend_from_slice(piece);
            counter = (counter + 1) & 15;
        }
    }
    assert_whole("lengths", &run("lengths.ts", &out), "pyramid.ts");
}

#[test]
fn a_stream_without_video_or_tables_is_refused_by_name() {
    let video: Vec<u8> = packets("pyramid.ts").into_iter().filter(|p| pid(p) == VIDEO_PID).flatten().collect();
    assert!(refusal("no-tables.ts", &video).contains("does not say which streams it carries"));
}

#[test]
fn files_that_are_cut_short_play_as_far_as_they_go() {
    for name in ["pyramid.ts", "pyramid.mkv", "live.mkv", "open_gop_265.mkv", "open_gop_265.ts"] {
        let whole = read(name);
        let mut most = 0;
        for len in (whole.len() / 3..whole.len()).step_by(331) {
            let run = run(name, &whole[..len]);
            let is_cut_between_packets = name.ends_with(".ts") && len % PACKET == 0; // which nothing tells
            if !is_cut_between_packets {
                assert_part(&format!("{len} bytes of {name}"), &run, name);
            }
            most = most.max(run.frames.len());
        }
        assert!(most * 2 > wanted(name).len(), "{name}: at most {most} frames");
    }
}

/// What is changed of a Matroska file.
fn changed(name: &str, change: impl Fn(&mut Segment)) -> Vec<u8> {
    let whole = read(name);
    let mut rest = &whole[..];
    let ebml = Ebml::read_from(&mut rest).unwrap();
    let mut segment = Segment::read_from(&mut rest).unwrap();
    segment.seek_head.clear();
    segment.cues = None;
    change(&mut segment);
    let mut out = Vec::new();
    ebml.write_to(&mut out).unwrap();
    segment.write_to(&mut out).unwrap();
    out
}

fn compressed(algo: u64, settings: &[u8]) -> ContentEncodings {
    let compression = ContentCompression {
        content_comp_algo: ContentCompAlgo(algo),
        content_comp_settings: Some(ContentCompSettings(settings.to_vec().into())),
        ..ContentCompression::default()
    };
    let encoding = ContentEncoding { content_compression: Some(compression), ..ContentEncoding::default() };
    ContentEncodings { content_encoding: vec![encoding], ..ContentEncodings::default() }
}

fn first_track(segment: &mut Segment) -> &mut TrackEntry {
    &mut segment.tracks.as_mut().unwrap().track_entry[0]
}

fn each_block(segment: &mut Segment, change: impl Fn(&SimpleBlock) -> ClusterBlock) {
    for block in segment.cluster.iter_mut().flat_map(|c| &mut c.blocks) {
        if let ClusterBlock::Simple(simple) = block {
            *block = change(simple);
        }
    }
}

#[test]
fn matroska_files_are_read_in_each_of_the_ways_in_which_they_are_written() {
    let name = "pyramid.mkv";
    assert_whole("as it is", &run("a.mkv", &changed(name, |_| {})), name);
    // the two upper bytes of each length are 0
    let stripped = changed(name, |segment| {
        first_track(segment).content_encodings = Some(compressed(3, &[0, 0]));
        each_block(segment, |block| {
            assert_eq!(block[4..6], [0, 0]);
            SimpleBlock([&block[..4], &block[6..]].concat().into()).into()
        });
    });
    assert_whole("header stripping", &run("stripped.mkv", &stripped), name);
    let groups = changed(name, |segment| {
        each_block(segment, |block| {
            let bytes = [&block[..3], &[0], &block[4..]].concat();
            BlockGroup { block: Block(bytes.into()), ..BlockGroup::default() }.into()
        });
    });
    assert_whole("block groups", &run("groups.mkv", &groups), name);
    for (what, flag, lacer) in
        [("Xiph", 0x02, Lacer::Xiph), ("EBML", 0x06, Lacer::Ebml), ("fixed-size", 0x04, Lacer::FixedSize)]
    {
        let laced = changed(name, |segment| {
            each_block(segment, |block| {
                let lace = lacer.lace(&[&block[4..]]);
                SimpleBlock([&block[..3], &[block[3] | flag], &lace[..]].concat().into()).into()
            });
        });
        assert_whole(&format!("{what} lacing"), &run("laced.mkv", &laced), name);
    }
    let padded = changed(name, |segment| {
        segment.void = Some(Void { size: 300 });
        for cluster in &mut segment.cluster {
            (cluster.crc32, cluster.void) = (Some(Crc32(7)), Some(Void { size: 20 }));
        }
        first_track(segment).void = Some(Void { size: 9 });
    });
    assert_whole("void elements and checksums", &run("padded.mkv", &padded), name);
    let start_codes = changed(name, |segment| {
        first_track(segment).codec_private = None;
        let config = read("pyramid.mkv");
        let avcc = config.windows(2).position(|w| w == [0x01, 0x64]).unwrap();
        let sps_len = usize::from(u16::from_be_bytes([config[avcc + 6], config[avcc + 7]]));
        let sps = config[avcc + 8..][..sps_len].to_vec();
        let pps_at = avcc + 8 + sps_len + 3;
        let pps = config[pps_at..][..usize::from(config[pps_at - 1])].to_vec();
        each_block(segment, move |block| {
            let mut bytes = block[..4].to_vec();
            let mut rest = &block[4..];
            for set in [&sps, &pps] {
                bytes.extend([&[0, 0, 0, 1], &set[..]].concat());
            }
            while let Some((len, tail)) = rest.split_at_checked(4) {
                let (nal, tail) = tail.split_at(u32::from_be_bytes(len.try_into().unwrap()) as usize);
                bytes.extend([&[0, 0, 0, 1], nal].concat());
                rest = tail;
            }
            SimpleBlock(bytes.into()).into()
        });
    });
    assert_whole("start codes", &run("codes.mkv", &start_codes), name);
}

#[test]
fn decoding_times_in_place_of_presentation_times_are_given_out_in_picture_order() {
    // as where an AVI file was copied: the times are those of the whole file, in the order of its blocks
    let by_block = changed("pyramid.mkv", |segment| {
        let time = |start: i64, block: &SimpleBlock| start + i64::from(i16::from_be_bytes([block[1], block[2]]));
        let clusters = segment.cluster.iter().map(|c| (*c.timestamp as i64, &c.blocks));
        let mut times: Vec<i64> = clusters
            .flat_map(|(start, blocks)| {
                blocks.iter().filter_map(move |block| match block {
                    ClusterBlock::Simple(block) => Some(time(start, block)),
                    ClusterBlock::Group(_) => None,
                })
            })
            .collect();
        times.sort_unstable();
        let mut times = times.into_iter();
        for cluster in &mut segment.cluster {
            let start = *cluster.timestamp as i64;
            for block in &mut cluster.blocks {
                let ClusterBlock::Simple(simple) = block else { continue };
                let relative = (times.next().unwrap() - start) as i16;
                let bytes = [&simple[..1], &relative.to_be_bytes(), &simple[3..]].concat();
                *block = SimpleBlock(bytes.into()).into();
            }
        }
    });
    assert_whole("by block", &run("by_block.mkv", &by_block), "pyramid.mkv");
}

#[test]
fn a_later_part_of_a_recording_begins_at_0() {
    let later = changed("pyramid.mkv", |segment| {
        segment.cluster.iter_mut().for_each(|c| c.timestamp = Timestamp(*c.timestamp + 3_600_000));
    });
    assert_whole("an hour later", &run("later.mkv", &later), "pyramid.mkv");
}

#[test]
fn matroska_files_that_are_not_read_say_why() {
    let refused = |change: fn(&mut Segment)| refusal("refused.mkv", &changed("pyramid.mkv", change));
    let zlib = refused(|segment| first_track(segment).content_encodings = Some(compressed(0, &[])));
    assert!(zlib.contains("its video track is compressed by zlib; remux it"), "{zlib}");
    let encrypted = refused(|segment| {
        let mut encodings = compressed(3, &[]);
        encodings.content_encoding[0].content_encoding_type = ContentEncodingType(1);
        first_track(segment).content_encodings = Some(encodings);
    });
    assert!(encrypted.contains("its video track is encrypted"), "{encrypted}");
    let vp9 = refused(|segment| first_track(segment).codec_id = CodecId("V_VP9".into()));
    assert!(vp9.contains("its video is 'V_VP9'") && vp9.contains("transcode"), "{vp9}");
    let sound = refused(|segment| {
        let track = first_track(segment);
        (track.track_type, track.codec_id) = (TrackType(2), CodecId("A_OPUS".into()));
    });
    assert!(sound.contains("it has no video, only 'A_OPUS'"), "{sound}");
    let none = refused(|segment| segment.tracks = None);
    assert!(none.contains("it has no whole list of tracks"), "{none}");
    let empty = refused(|segment| segment.cluster.clear());
    assert!(empty.contains("it has no pictures"), "{empty}");
}

#[test]
fn a_damaged_cluster_costs_its_own_pictures() {
    let whole = read("live.mkv");
    let clusters: Vec<usize> =
        (0..whole.len() - 4).filter(|&at| whole[at..at + 4] == [0x1f, 0x43, 0xb6, 0x75]).collect();
    assert!(clusters.len() > 2, "{clusters:?}");
    let mut damaged = whole.clone();
    damaged[clusters[1] + 20..clusters[1] + 60].fill(0);
    let run = run("damaged.mkv", &damaged);
    assert_part("a damaged cluster", &run, "live.mkv");
    assert!(run.lost["damaged_sample"] > 0, "{:?}", run.lost);
}

#[test]
fn files_in_containers_are_repeated_without_a_gap() {
    for name in ["pyramid.ts", "pyramid.mkv", "open_gop_265.ts", "live.mkv"] {
        let settings = SourceSettings { repeat: true, ..SourceSettings::default() };
        let mut source = PacedSource::open(own_data(name).to_str().unwrap(), &settings).unwrap();
        let (mut times, mut rounds) = (Vec::new(), 0);
        while rounds < 2 {
            match source.step().unwrap() {
                PacedStep::Unit(unit) => times.push(unit.timing.pts_ns),
                PacedStep::End => {
                    source.count_shown(1);
                    assert_eq!(source.end().unwrap(), AfterEnd::Again);
                    rounds += 1;
                }
                _ => {}
            }
        }
        times.sort_unstable();
        let steps: Vec<i64> = times.windows(2).map(|w| w[1] - w[0]).collect();
        let usual = steps[0];
        for (n, step) in steps.iter().enumerate() {
            // also where the pictures begin 11 ms after the sound
            assert!((step - usual).abs() <= 1_100_000, "{name}: step {n} is {step}, not {usual}");
        }
    }
}

/// Changed bytes and cut ends, by seed: whatever comes, it ends, and what is shown is of the stream.
#[test]
fn damaged_files_neither_hang_nor_panic() {
    for name in ["pyramid.ts", "two_programs.ts", "pyramid.mkv", "live.mkv", "open_gop_265.mkv"] {
        let whole = read(name);
        for seed in 0..60 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bytes = whole.clone();
            match seed % 3 {
                0 => bytes.truncate(random.usize(..whole.len())),
                1 => (0..random.usize(1..40)).for_each(|_| bytes[random.usize(..whole.len())] = random.u8(..)),
                // the header, where what is said of all the rest is
                _ => (0..random.usize(1..9)).for_each(|_| bytes[random.usize(..whole.len().min(600))] = random.u8(..)),
            }
            let file = Scratch::new(name, &bytes);
            match PacedSource::open(file.0.to_str().unwrap(), &SourceSettings::default()) {
                Err(refused) => assert!(refused.to_string().contains(&*file.0.to_string_lossy()), "{refused}"),
                Ok(mut source) => {
                    let mut steps = 0;
                    while !matches!(source.step().unwrap(), PacedStep::End) {
                        steps += 1;
                        assert!(steps < 10_000, "{name}, seed {seed}: it does not end");
                    }
                }
            }
        }
    }
}
