//! No picture waits in the decoder longer than its stream's own reordering needs, whatever is known of the stream.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Run, decode_with, own_data, reference, shared_data};
use millrace_ingest::{AccessUnit, BoundOrigin, Decoded, Event, Ingest, IngestOptions, ReorderPolicy, SoftwareDecoder};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a camera's stream tells that states its bound: no times of pictures that are still to come.
fn as_camera(unit: &mut AccessUnit) {
    unit.earliest_next_pts_ns = None;
}

/// The same of a camera that states no bound.
fn as_camera_without_bound(unit: &mut AccessUnit) {
    as_camera(unit);
    if unit.info.max_reorder_origin == BoundOrigin::Stated {
        let info = Arc::make_mut(&mut unit.info);
        (info.max_reorder, info.max_reorder_origin) = (16, BoundOrigin::Assumed);
    }
}

fn live(path: &Path, forget: impl Fn(&mut AccessUnit)) -> Run {
    decode_with(path, &IngestOptions::default(), ReorderPolicy::Live, forget).unwrap()
}

/// How many units each picture has to wait for, in presentation order: up to the last in decoding order of those that
/// are shown no later than it.
fn needed_waits(run: &Run) -> Vec<usize> {
    let pts: Vec<i64> = run.units.iter().map(|u| u.pts_ns).collect();
    let shown = run.frames.iter().map(|f| f.pts_ns);
    let at = |pts_ns: i64| pts.iter().position(|&p| p == pts_ns).unwrap();
    shown.map(|pts_ns| pts.iter().rposition(|&p| p <= pts_ns).unwrap() - at(pts_ns)).collect()
}

/// H.264 streams, with the most pictures that may be lost before an unstated bound is learned.
const OWN_H264: [(&str, usize); 9] = [
    ("crop_b.mp4", 0),
    ("fragmented.mp4", 0),
    ("pyramid.264", 0),
    ("open_gop.264", 0),
    ("baseline_slices.264", 0),
    ("cavlc_b.264", 0),
    ("fake_interlaced.264", 0),
    ("crop_left_top.264", 0),
    ("bt2020.264", 0),
];

#[test]
fn a_file_gives_each_picture_as_soon_as_all_before_it_are_decoded() {
    let mut paths: Vec<PathBuf> = OWN_H264.iter().map(|(name, _)| own_data(name)).collect();
    paths.extend(shared_data().map(|data| data.join("clips/one-by-one-person-detection.mp4")));
    for path in paths {
        let run = live(&path, |_| {});
        assert_eq!(run.waited_units, needed_waits(&run), "{}", path.display());
        assert_eq!(run.lost_in_all(), 0, "{}", path.display());
    }
}

/// Exact frames in order but for `most_late`, and no wait longer than the stream needs once the step of its counts is known.
fn assert_learned(path: &Path, framemd5: &Path, most_late: usize) {
    let name = path.display();
    let run = live(path, as_camera_without_bound);
    let (_, want) = reference(framemd5);
    let mut rest = want.iter();
    for (n, frame) in run.frames.iter().enumerate() {
        assert!(rest.any(|w| w.md5 == frame.md5), "{name}: frame {n} is out of order");
    }
    let late = run.lost.get("reordered_late").copied().unwrap_or(0) as usize;
    assert_eq!(run.lost_in_all() as usize, late, "{name}: {:?}", run.lost);
    assert_eq!(run.frames.len() + late, want.len(), "{name}");
    assert!(late <= most_late, "{name}: {late} late");
    let needed = needed_waits(&run);
    let settled = 20.min(run.frames.len());
    assert_eq!(run.waited_units[settled..], needed[settled..], "{name}");
    let most = needed.iter().max().unwrap();
    let worst = run.waited_units.iter().max().unwrap();
    assert!(*worst <= most + 2, "{name}: a picture waited for {worst} units, {most} are needed");
}

#[test]
fn a_camera_that_states_no_bound_is_held_back_as_far_as_it_needs() {
    for (name, most_late) in OWN_H264 {
        assert_learned(&own_data(name), &own_data(&format!("{name}.framemd5")), most_late);
    }
    let Some(data) = shared_data() else { return };
    let name = "one-by-one-person-detection.mp4";
    assert_learned(&data.join("clips").join(name), &data.join(format!("refs/framemd5/{name}.framemd5")), 0);
}

#[test]
fn a_camera_that_states_a_bound_is_never_late_and_never_over_it() {
    for (name, _) in OWN_H264 {
        let run = live(&own_data(name), as_camera);
        assert_eq!(run.lost_in_all(), 0, "{name}");
        let whole = reference(&own_data(&format!("{name}.framemd5"))).1;
        assert_eq!(run.md5s(), whole.iter().map(|w| &w.md5[..]).collect::<Vec<_>>(), "{name}");
        assert!(run.largest_hold <= 2, "{name}: {} held, the encoder was told 2 at most", run.largest_hold);
    }
}

/// Two key pictures, and then seven pictures that are shown before the second of them: nobody can know that they come.
#[test]
fn a_picture_that_comes_too_late_is_counted_by_its_name() {
    let Some(data) = shared_data() else { return };
    let run = live(&data.join("h264/Cisco_Men_whisper_640x320_CABAC_Bframe_9.264"), as_camera_without_bound);
    assert_eq!(run.lost, [("reordered_late", 7)].into());
    assert_eq!(run.frames.len(), 2);
}

#[test]
fn h265_is_held_back_by_its_stated_bound_alone() {
    // sps_max_num_reorder_pics, as ffprobe shows it (has_b_frames)
    for (name, stated) in [("open_gop.265", 2), ("closed_gop.265", 2), ("h265_crop.mp4", 2)] {
        let run = live(&own_data(name), as_camera);
        assert_eq!((run.lost_in_all(), run.largest_hold), (0, stated), "{name}");
    }
}

/// What a node does at `Flush`: what the decoder holds goes out at once, and the next connection begins with nothing of it.
#[test]
fn after_an_outage_nothing_from_before_it_is_shown() {
    for name in ["crop_b.mp4", "pyramid.264", "open_gop.264", "open_gop.265", "closed_gop.265", "cavlc_b.264"] {
        let mut ingest = Ingest::open(own_data(name).to_str().unwrap(), &IngestOptions::default()).unwrap();
        let mut units = Vec::new();
        while let Event::Unit(mut unit) = ingest.next_event().unwrap() {
            as_camera_without_bound(&mut unit);
            units.push(*unit);
        }
        let mut decoder = SoftwareDecoder::new(ReorderPolicy::Live);
        let pts_out = |decoder: &mut SoftwareDecoder| {
            let out = std::iter::from_fn(|| decoder.take());
            let pts = out.map(|out| match out {
                Decoded::Picture(picture) => picture.timing.pts_ns,
                Decoded::Loss(loss) => panic!("{name}: {loss:?}"),
            });
            pts.collect::<Vec<_>>()
        };
        for outage in 3..12 {
            for unit in &units[..outage] {
                decoder.push(unit).unwrap();
            }
            let before = pts_out(&mut decoder).len();
            decoder.flush();
            let flushed = pts_out(&mut decoder);
            assert_eq!(before + flushed.len(), outage, "{name}: everything is out when the connection has ended");
            // the camera is back an hour later
            for (n, unit) in units[..outage].iter().enumerate() {
                let mut unit = unit.clone();
                unit.timing.pts_ns += HOUR_NS;
                unit.after_loss = n == 0;
                decoder.push(&unit).unwrap();
            }
            let after = pts_out(&mut decoder);
            assert!(!after.is_empty() && after.iter().all(|&pts_ns| pts_ns >= HOUR_NS), "{name}: {after:?}");
            decoder.flush();
            pts_out(&mut decoder);
        }
    }
}
const HOUR_NS: i64 = 3_600_000_000_000;

/// `cargo test --release -p millrace-ingest --test order -- --ignored --nocapture holds_of` shows what each stream holds,
/// and of the folder `MILLRACE_STREAMS`, too.
#[test]
#[ignore = "prints a table"]
#[allow(clippy::print_stdout, reason = "it is what the test is for")]
fn holds_of_all_streams() {
    let Some(data) = shared_data() else { return };
    let mut folders = vec![data.join("clips"), data.join("h264"), own_data("")];
    folders.extend(std::env::var_os("MILLRACE_STREAMS").map(PathBuf::from));
    let paths = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|p| ["mp4", "264", "265"].map(|e| p.extension().is_some_and(|x| x == e)).contains(&true))
        .collect();
    paths.sort();
    println!("stream: frames; largest hold lossless, live file, live with bound, live without (late)");
    for path in paths {
        let run = |policy, forget: fn(&mut AccessUnit)| decode_with(&path, &IngestOptions::default(), policy, forget);
        let Ok(lossless) = run(ReorderPolicy::Lossless, |_| {}) else { continue };
        let [file, bound, without] =
            [|_: &mut AccessUnit| {}, as_camera, as_camera_without_bound].map(|f| run(ReorderPolicy::Live, f).unwrap());
        let late = without.lost.get("reordered_late").copied().unwrap_or(0);
        println!(
            "{}: {}; {} {} {} {} ({late})",
            path.file_name().unwrap().to_str().unwrap(),
            lossless.frames.len(),
            lossless.largest_hold,
            file.largest_hold,
            bound.largest_hold,
            without.largest_hold,
        );
    }
}
