//! MP4 and QuickTime files as recorders and phones write them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{decode, decode_with, reference, shared_data};
use millrace_ingest::{Options, ReorderPolicy};
use std::path::Path;

fn pts_ns(path: &Path) -> Vec<i64> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| (line.parse::<f64>().unwrap() * 1e6).round() as i64).collect()
}

/// Each frame of each case, as FFmpeg has it, and its time where the case states it.
#[test]
fn the_shared_cases_are_exact() {
    let Some(data) = shared_data() else { return };
    for name in [
        "01-mov-audio-description-v2/aac96k_v2.mov",
        "02-mov-without-ftyp/mdat_first_no_ftyp.mov",
        "04-two-sample-entries/same_size.mp4",
        "05-parameter-sets-in-band-only/avc3_empty_avcC.mp4",
        "08-fragment-decode-times/gap_of_two_seconds.mp4",
        "09-edit-lists/two_cuts.mp4",
        "10-sample-tables-of-recorders/media_duration_0.mp4",
        "10-sample-tables-of-recorders/one_sample_of_no_bytes.mp4",
    ] {
        let path = data.join("../cases").join(name);
        let beside = |end: &str| path.with_file_name(format!("{}.{end}", path.file_name().unwrap().to_str().unwrap()));
        let want = reference(&beside("framemd5")).1;
        for policy in [ReorderPolicy::Lossless, ReorderPolicy::Live] {
            let run = decode_with(&path, &Options::default(), policy, |_| {}).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(run.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{name}: {:?}", run.lost);
            assert_eq!(run.lost_in_all(), 0, "{name}: {:?}", run.lost);
            let stated = beside("pts_ms");
            if stated.exists() {
                let got: Vec<i64> = run.frames.iter().map(|frame| frame.pts_ns).collect();
                assert_eq!(got, pts_ns(&stated), "{name}");
            }
        }
    }
    let _ = decode;
}
