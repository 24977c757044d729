//! Every intact stream against FFmpeg's checksum of each frame, and its times.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Run, decode, own_data, reference, shared_data, to_ns};
use millrace_ingest::Options;
use std::path::Path;

/// Fails with the first frame that differs.
fn assert_exact(path: &Path, framemd5: &Path) -> Run {
    let name = path.display();
    let run = decode(path, &Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let (timebase, want) = reference(framemd5);
    for (n, (got, want)) in run.frames.iter().zip(&want).enumerate() {
        assert_eq!(got.md5, want.md5, "{name}: pixels of frame {n}");
        let (w, h) = got.size;
        assert_eq!(u64::from(w * h + 2 * w.div_ceil(2) * h.div_ceil(2)), want.size_bytes, "{name}: size of frame {n}");
        assert_eq!(got.pts_ns, to_ns(want.pts, timebase), "{name}: time of frame {n}");
    }
    assert_eq!(run.frames.len(), want.len(), "{name}: number of frames; lost {:?}", run.lost);
    assert_eq!(run.lost_in_all(), 0, "{name}: {:?}", run.lost);
    run
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
