//! Every intact stream against FFmpeg's checksum of each frame, and its times.
#![allow(clippy::unwrap_used)]

mod common;

use common::{decode, decode_with, own_data, reference, shared_data, to_ns};
use md5::{Digest, Md5};
use millrace_frame::{ChromaSiting, Matrix, Origin, Primaries, Range, Transfer};
use millrace_ingest::{
    Decoded, Event, Ingest, IngestOptions, Picture, ReorderPolicy, SoftwareDecoder, StreamInfo, annexb_nals,
};
use std::path::Path;
use std::sync::Arc;

/// Fails with the first frame that differs, whatever the policy.
fn assert_exact(path: &Path, framemd5: &Path) {
    for policy in [ReorderPolicy::Lossless, ReorderPolicy::Live] {
        assert_exact_with(path, framemd5, policy);
    }
}

fn assert_exact_with(path: &Path, framemd5: &Path, policy: ReorderPolicy) {
    let name = format!("{}, {policy:?}", path.display());
    let run = decode_with(path, &IngestOptions::default(), policy, |_| {}).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (timebase, want) = reference(framemd5);
    for (n, (got, want)) in run.frames.iter().zip(&want).enumerate() {
        assert_eq!(got.md5, want.md5, "{name}: pixels of frame {n}");
        let (w, h) = got.size;
        assert_eq!(u64::from(w * h + 2 * w.div_ceil(2) * h.div_ceil(2)), want.size_bytes, "{name}: size of frame {n}");
        assert_eq!(got.pts_ns, to_ns(want.pts, timebase), "{name}: time of frame {n}");
    }
    assert_eq!(run.frames.len(), want.len(), "{name}: number of frames; lost {:?}", run.lost);
    assert_eq!(run.lost_in_all(), 0, "{name}: {:?}", run.lost);
}

#[test]
fn real_streams_are_exact() {
    let Some(data) = shared_data() else { return };
    let mut seen = 0;
    for folder in ["h264", "clips"] {
        for entry in std::fs::read_dir(data.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let framemd5 = data.join("refs/framemd5").join(format!("{name}.framemd5"));
            // the one that is damaged on purpose has its own test
            if framemd5.exists() && name != "BA_MW_D_P_LOST.264" {
                assert_exact(&path, &framemd5);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, 14, "14 intact streams have checksums");
}

/// The streams that `data/make.sh` makes, each for the features in its name.
const OWN: [&str; 24] = [
    "crop_b.mp4",
    "edit_list.mp4",
    "fragmented.mp4",
    "stated_size.mp4",
    "stated_size.mkv",
    "pyramid.264",
    "open_gop.264",
    "baseline_slices.264",
    "cavlc_b.264",
    "fake_interlaced.264",
    "crop_left_top.264",
    "crop_left_top_baseline.264",
    "bt601_full.264",
    "bt2020.264",
    "open_gop.265",
    "h265_crop.mp4",
    "closed_gop.265",
    "flat.264",
    "pyramid.ts",
    "open_gop_265.ts",
    "two_programs.ts",
    "pyramid.mkv",
    "live.mkv",
    "open_gop_265.mkv",
];

#[test]
fn own_streams_are_exact() {
    for name in OWN {
        assert_exact(&own_data(name), &own_data(&format!("{name}.framemd5")));
    }
}

#[test]
fn streams_that_change_their_size_or_their_crop_are_exact() {
    assert_joined("resize.264", &[[(96, 64); 10], [(160, 90); 10]].concat());
    assert_joined("crop_changes.264", &[[(96, 60); 8], [(96, 58); 8], [(96, 62); 8]].concat());
}

/// Several streams one after the other. In the reference the times of each begin at 0; here they go on.
fn assert_joined(name: &str, sizes: &[(u32, u32)]) {
    let run = decode(&own_data(name), &IngestOptions::default()).unwrap();
    let (_, want) = reference(&own_data(&format!("{name}.framemd5")));
    assert_eq!(run.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{name}");
    assert_eq!(run.frames.iter().map(|f| f.size).collect::<Vec<_>>(), sizes, "{name}");
    let times = (0..sizes.len() as i64).map(|n| n * 40_000_000);
    assert_eq!(run.frames.iter().map(|f| f.pts_ns).collect::<Vec<_>>(), times.collect::<Vec<_>>(), "{name}");
    assert_eq!(run.lost_in_all(), 0, "{name}: {:?}", run.lost);
}

/// Macroblocks of raw samples (I_PCM) beside deblocked ones: the decoders filter their edges with the slice's quantizer
/// instead of 0. Such pictures are seen, and lost by name, up to the next key picture; none is wrong.
#[test]
fn no_picture_with_raw_macroblocks_is_wrong() {
    for (name, before) in [
        ("raw_blocks.264", 0),
        ("raw_blocks_late.264", 2),
        ("raw_blocks_b.264", 0),
        ("raw_blocks_cavlc.264", 0),
        ("raw_blocks_baseline.264", 0),
        ("raw_blocks_crop.264", 0),
    ] {
        let run = decode(&own_data(name), &IngestOptions::default()).unwrap();
        let (_, want) = reference(&own_data(&format!("{name}.framemd5")));
        for frame in &run.frames {
            assert!(want.iter().any(|w| w.md5 == frame.md5), "{name}: the picture at {} is wrong", frame.pts_ns);
        }
        assert!(run.frames.len() >= before, "{name}: {} pictures, {:?}", run.frames.len(), run.lost);
        assert_eq!(run.frames.len() as u64 + run.lost_in_all(), want.len() as u64, "{name}: {:?}", run.lost);
        assert!(run.lost.contains_key("raw_macroblocks"), "{name}: {:?}", run.lost);
        let others = run.lost.keys().filter(|cause| !["raw_macroblocks", "waiting_for_key"].contains(*cause)).count();
        assert_eq!(others, 0, "{name}: {:?}", run.lost);
    }
}

fn info_of(name: &str) -> Arc<StreamInfo> {
    let mut ingest = Ingest::open(own_data(name).to_str().unwrap(), &IngestOptions::default()).unwrap();
    loop {
        match ingest.next_event().unwrap() {
            Event::Unit(unit) => return unit.info,
            Event::End => panic!("{name} has no picture"),
            _ => {}
        }
    }
}

/// What the encoder was told in `data/make.sh` is what the parameter sets are read to say.
#[test]
fn parameter_sets_say_what_the_encoder_was_told() {
    use Origin::{Bitstream, Default};
    let colours = |name| {
        let c = info_of(name).colour;
        (
            (c.matrix.value, c.matrix.origin),
            (c.range.value, c.range.origin),
            (c.primaries.value, c.primaries.origin),
            (c.transfer.value, c.transfer.origin),
            (c.siting.value, c.siting.origin),
        )
    };
    assert_eq!(
        colours("bt601_full.264"),
        (
            (Matrix::Bt601, Bitstream),
            (Range::Full, Bitstream),
            (Primaries::Smpte170M, Bitstream),
            (Transfer::Smpte170M, Bitstream),
            (ChromaSiting::Left, Default),
        )
    );
    assert_eq!(
        colours("bt2020.264"),
        (
            (Matrix::Bt2020Ncl, Bitstream),
            (Range::Limited, Bitstream),
            (Primaries::Bt2020, Bitstream),
            (Transfer::Bt2020Ten, Bitstream),
            (ChromaSiting::TopLeft, Bitstream),
        )
    );
    let bt709_full = (
        (Matrix::Bt709, Bitstream),
        (Range::Full, Bitstream),
        (Primaries::Bt709, Bitstream),
        (Transfer::Bt709, Bitstream),
        (ChromaSiting::Left, Default),
    );
    assert_eq!(colours("crop_b.mp4"), bt709_full);
    assert_eq!(colours("h265_crop.mp4"), bt709_full);
    let unstated = info_of("pyramid.264").colour;
    assert_eq!(unstated, millrace_frame::Colour::assumed_for_height(96));

    let crop = info_of("crop_b.mp4");
    assert_eq!((crop.coded.to_string(), crop.display_size().to_string()), ("192x112".into(), "190x106".into()));
    let crop = info_of("h265_crop.mp4");
    assert_eq!((crop.coded.to_string(), crop.display_size().to_string()), ("192x112".into(), "190x106".into()));
    assert_eq!(info_of("pyramid.264").frame_rate.map(|(n, d)| n * 1001 == d * 30_000), Some(true));
    assert_eq!(info_of("closed_gop.265").frame_rate.map(|(n, d)| n == d * 30), Some(true));
    // as ffprobe shows it (has_b_frames)
    let reorder = |name| info_of(name).max_reorder;
    assert_eq!((reorder("pyramid.264"), reorder("crop_b.mp4"), reorder("baseline_slices.264")), (2, 2, 0));
    assert_eq!(info_of("baseline_slices.264").profile, "Constrained Baseline");
}

#[test]
fn a_byte_stream_runs_at_the_rate_of_its_vui_or_of_the_setting() {
    let times = |name: &str, rate| {
        let run = decode(&own_data(name), &IngestOptions { frame_rate: rate, ..IngestOptions::default() }).unwrap();
        run.frames.iter().take(4).map(|f| f.pts_ns).collect::<Vec<_>>()
    };
    assert_eq!(times("pyramid.264", None), [0, 33_366_667, 66_733_333, 100_100_000]);
    assert_eq!(times("pyramid.264", Some(12.5)), [0, 80_000_000, 160_000_000, 240_000_000]);
    assert_eq!(times("closed_gop.265", None), [0, 33_333_333, 66_666_667, 100_000_000]);
}

#[test]
fn packets_come_in_decoding_order_with_the_times_of_their_frames() {
    for name in OWN {
        let run = decode(&own_data(name), &IngestOptions::default()).unwrap();
        let mut packets: Vec<_> = run.units.iter().map(|u| u.pts_ns).collect();
        packets.sort();
        let frames: Vec<_> = run.frames.iter().map(|f| f.pts_ns).collect();
        if name == "edit_list.mp4" {
            assert!(packets.ends_with(&frames) && packets.len() > frames.len(), "{name}: some are only decoded");
        } else {
            assert_eq!(packets, frames, "{name}");
        }
        assert!(run.units.windows(2).all(|w| w[0].dts_ns < w[1].dts_ns), "{name}");
        assert!(run.units[0].key, "{name}");
    }
}

#[test]
fn what_cannot_be_decoded_is_refused_by_name() {
    for (name, what) in [
        ("interlaced.264", "h264 stream (High, 96x64, 8 bit) is interlaced"),
        ("chroma422.264", "h264 stream (High 4:2:2, 64x48, 8 bit) has 4:2:2 chroma"),
        ("lossless.264", "h264 stream (High 4:4:4 Predictive, 64x48, 8 bit) is coded without loss (transform bypass)"),
        ("ten_bit.264", "h264 stream (High 10, 64x48, 10 bit) has more than 8 bits a sample"),
        ("ten_bit.265", "h265 stream (Main 10, 64x48, 10 bit) has more than 8 bits a sample"),
    ] {
        let error = decode(&own_data(name), &IngestOptions::default()).err().expect(name).to_string();
        assert!(error.starts_with(what), "{name}: {error}");
        let fix = if name.starts_with("ten_bit") {
            "or use nvdec-nv12, where the GPU knows it"
        } else {
            "transcode the file so"
        };
        assert!(error.ends_with(fix), "{name}: {error}");
    }
}

/// The MD5 of each plane, as the encoder writes it behind a picture (H.265 D.3.19), in decoding order.
fn stated_hashes(stream: &[u8]) -> Vec<[String; 3]> {
    let hash = |nal: &[u8]| {
        // a suffix SEI message of type 132 and 49 bytes, of which the first says that these are MD5
        let coded = nal.strip_prefix(&[0x50, 0x01, 0x84, 0x31, 0x00])?;
        // a 3 behind two zeros is none of the message's bytes
        let mut bytes = Vec::new();
        let mut zeros = 0;
        for &byte in coded {
            if !(zeros >= 2 && byte == 3) {
                bytes.push(byte);
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
        }
        let of = |plane: usize| bytes[16 * plane..][..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Some([of(0), of(1), of(2)])
    };
    annexb_nals(stream).filter_map(hash).collect()
}

/// The same of a decoded picture.
fn hashes(picture: &Picture) -> [String; 3] {
    let (desc, bytes) = picture.info.nv12(1);
    let mut nv12 = vec![0; bytes as usize];
    picture.write_nv12(&desc, &mut nv12).unwrap();
    let (luma, chroma) = nv12.split_at(desc.planes[1].offset_bytes as usize);
    let part = |from: usize| chroma.iter().skip(from).step_by(2).copied().collect::<Vec<u8>>();
    [luma.to_vec(), part(0), part(1)].map(|plane| format!("{:x}", Md5::digest(plane)))
}

/// FFmpeg 5.1.9 decodes this stream to other samples than its encoder did, so the encoder's word is what counts.
#[test]
fn units_without_a_transform_have_the_samples_that_their_encoder_states() {
    let path = own_data("cu_lossless.265");
    let mut want = stated_hashes(&std::fs::read(&path).unwrap());
    assert_eq!(want.len(), 8);
    let mut ingest = Ingest::open(&path, &IngestOptions::default()).unwrap();
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Lossless);
    let mut got = Vec::new();
    loop {
        let event = ingest.next_event().unwrap();
        match &event {
            Event::Unit(unit) => decoder.push(unit).unwrap(),
            Event::End => decoder.flush(),
            other => panic!("{other:?}"),
        }
        while let Some(out) = decoder.take() {
            match out {
                Decoded::Picture(picture) => got.push(hashes(&picture)),
                Decoded::Loss(loss) => panic!("{loss:?}"),
            }
        }
        if matches!(event, Event::End) {
            break;
        }
    }
    // one list is in decoding order, the other one in presentation order
    want.sort();
    got.sort();
    assert_eq!(got, want);
}
