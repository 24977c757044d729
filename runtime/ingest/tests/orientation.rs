//! Pictures that are stored turned or mirrored are shown upright, as FFmpeg shows them.
#![allow(clippy::unwrap_used)]

mod common;

use common::mp4_writer::{Movie, boxed, coded, tkhd};
use common::{Scratch, decode, own_data, reference, shared_data};
use millrace_frame::Orientation;
use millrace_ingest::{Event, Ingest, IngestOptions};
use std::path::Path;

fn by_setting(orientation: Orientation) -> IngestOptions {
    IngestOptions { orientation: Some(orientation), ..IngestOptions::default() }
}

#[test]
fn the_display_matrix_of_a_file_is_applied() {
    let mut files = vec![(own_data("turned/turned.mp4"), own_data("turned/turned.mp4.framemd5"))];
    if let Some(data) = shared_data() {
        let case = data.join("../cases/03-rotated-display-matrix");
        files.push((case.join("rot90.mp4"), case.join("rot90.mp4.shown.framemd5")));
        let stored = decode(&case.join("rot90.mp4"), &by_setting(Orientation::Upright)).unwrap();
        let (_, want) = reference(&case.join("rot90.mp4.stored.framemd5"));
        assert_eq!(stored.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "ORIENTATION: none");
    }
    for (file, framemd5) in files {
        let run = decode(&file, &IngestOptions::default()).unwrap();
        let (_, want) = reference(&framemd5);
        assert_eq!(run.md5s(), want.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{}", file.display());
        let (width, height) = run.frames[0].size;
        assert!(width < height, "{}: {width}x{height}", file.display());
        assert_eq!(run.lost_in_all(), 0);
    }
}

/// Of both kinds of decoder: one gives bytes, the other one words.
#[test]
fn every_orientation_is_what_ffmpeg_makes_of_it() {
    for name in ["cavlc_b.264", "closed_gop.265"] {
        for &orientation in Orientation::ALL {
            let run = decode(&own_data(name), &by_setting(orientation)).unwrap();
            let framemd5 = match orientation {
                Orientation::Upright => format!("{name}.framemd5"),
                _ => format!("turned/{name}.{orientation}.framemd5"),
            };
            let (_, want) = reference(&own_data(&framemd5));
            for (n, (got, want)) in run.frames.iter().zip(&want).enumerate() {
                assert_eq!(got.md5, want.md5, "{name}, {orientation}: frame {n}");
            }
            assert!(run.frames.len() >= want.len() && want.len() >= 6, "{name}, {orientation}");
        }
    }
}

/// A movie whose track has this matrix.
fn with_matrix(matrix: [i32; 9]) -> Scratch {
    let mut body = tkhd(1, true);
    for (n, value) in matrix.iter().enumerate() {
        body[40 + 4 * n..][..4].copy_from_slice(&value.to_be_bytes());
    }
    Scratch::new("matrix.mp4", &Movie::of(&coded("cavlc_b.264").0, false).put(b"tkhd", body).file())
}

fn orientation_of(path: &Path, options: &IngestOptions) -> Result<Orientation, String> {
    let mut ingest = Ingest::open(path, options).map_err(|e| e.to_string())?;
    match ingest.next_event().unwrap() {
        Event::Unit(unit) => Ok(unit.info.orientation),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_matrix_that_turns_by_other_angles_is_refused_and_can_be_overridden() {
    const ONE: i32 = 0x10000;
    let skewed = with_matrix([ONE, ONE / 2, 0, -ONE / 2, ONE, 0, 0, 0, 0x4000_0000]);
    let error = orientation_of(&skewed.0, &IngestOptions::default()).unwrap_err();
    assert!(error.contains("matrix.mp4': its display matrix (1.000 0.500, -0.500 1.000) turns"), "{error}");
    assert!(error.contains("say by ORIENTATION how they are shown: none, 90"), "{error}");
    assert_eq!(orientation_of(&skewed.0, &by_setting(Orientation::Turn90)), Ok(Orientation::Turn90));
    let perspective = with_matrix([ONE, 0, 5, 0, ONE, 0, 0, 0, 0x4000_0000]);
    assert!(orientation_of(&perspective.0, &IngestOptions::default()).unwrap_err().contains("in perspective"));
    // off by what sines and cosines are rounded to; a scale and a shift are none of a turn
    let rounded = with_matrix([3, 2 * ONE, 0, -2 * ONE, 3, 0, 7 * ONE, 0, 0x4000_0000]);
    assert_eq!(orientation_of(&rounded.0, &IngestOptions::default()), Ok(Orientation::Turn90));
    let unstated = with_matrix([0; 9]);
    assert_eq!(orientation_of(&unstated.0, &IngestOptions::default()), Ok(Orientation::Upright));
}

#[test]
fn pictures_of_a_sphere_are_refused_as_those_of_a_matroska_file_are() {
    let movie = Movie::of(&coded("cavlc_b.264").0, false);
    let plain = movie.descriptions[0][8..].to_vec();
    let proj = [boxed(b"prhd", &[0; 16]), boxed(b"equi", &[0; 20])].concat();
    let sv3d = boxed(b"sv3d", &[boxed(b"svhd", &[0; 5]), boxed(b"proj", &proj)].concat());
    let sphere = Movie { descriptions: vec![boxed(b"avc1", &[plain, sv3d].concat())], ..movie };
    let sphere = Scratch::new("sphere.mp4", &sphere.file());
    let error = orientation_of(&sphere.0, &IngestOptions::default()).unwrap_err();
    assert!(
        error.contains("sphere.mp4': its pictures are not flat (projection 'equi'); say by ORIENTATION"),
        "{error}"
    );
    assert_eq!(orientation_of(&sphere.0, &by_setting(Orientation::Upright)), Ok(Orientation::Upright));
}
