//! Files at real speed and repeated: when units and pictures are due, and what they carry as their times.
#![allow(clippy::unwrap_used)]

mod common;

use common::mp4_writer::{Fragment, Movie, coded, fragmented};
use common::{Scratch, own_data, shared_data};
use millrace_frame::monotonic_ns;
use millrace_ingest::{
    AfterEnd, Decoded, Pace, PacedSource, PacedStep, ReorderPolicy, SoftwareDecoder, SourceSettings,
};
use std::path::Path;
use std::time::Duration;

fn settings(pace: Pace, repeat: bool) -> SourceSettings {
    SourceSettings { pace, repeat, ..SourceSettings::default() }
}

/// Where the body of the first box of this kind begins.
fn body_of(bytes: &[u8], kind: &[u8; 4]) -> usize {
    bytes.windows(4).position(|w| w == kind).unwrap() + 4
}

/// Presentation times of the units that are shown, in order, from this many of them.
fn shown_times(path: &Path, count: usize) -> Vec<i64> {
    let mut source = PacedSource::open(path.to_str().unwrap(), &settings(Pace::Asfast, true)).unwrap();
    let mut times = Vec::new();
    while times.len() < count {
        match source.step().unwrap() {
            PacedStep::Unit(unit) if unit.shown => {
                source.count_shown(1);
                times.push(unit.timing.pts_ns);
            }
            // between two edits the decoder begins again
            PacedStep::Unit(_) | PacedStep::Flush => {}
            PacedStep::End => assert_eq!(source.end().unwrap(), AfterEnd::Again),
            PacedStep::State(_) => {}
            other => panic!("{other:?}"),
        }
    }
    times.sort();
    times
}

#[test]
fn a_repeated_file_goes_on_where_its_last_shown_picture_ends() {
    // the edit list cuts the beginning away; now it cuts the end away, too, after 400 ms
    let mut bytes = std::fs::read(own_data("edit_list.mp4")).unwrap();
    let elst = body_of(&bytes, b"elst");
    let mvhd = body_of(&bytes, b"mvhd");
    let timescale = u32::from_be_bytes(bytes[mvhd + 12..mvhd + 16].try_into().unwrap());
    assert_eq!((bytes[elst], bytes[mvhd], bytes[elst + 7]), (0, 0, 1), "versions 0, one edit");
    bytes[elst + 8..elst + 12].copy_from_slice(&(timescale * 2 / 5).to_be_bytes());
    let file = Scratch::new("cut.mp4", &bytes);
    let times = shown_times(&file.0, 30);
    assert_eq!(times, (0..30).map(|n| n * 40_000_000).collect::<Vec<_>>(), "ten pictures a round, three rounds");
}

#[test]
fn the_shared_file_with_two_edits_repeats_without_a_gap() {
    let Some(data) = shared_data() else { return };
    // twenty pictures a round
    let times = shown_times(&data.join("../cases/09-edit-lists/two_cuts.mp4"), 60);
    assert!(times.windows(2).all(|w| w[1] - w[0] == 40_000_000), "{times:?}");
}

#[test]
fn the_shared_file_without_a_duration_repeats_without_a_gap() {
    let Some(data) = shared_data() else { return };
    let times = shown_times(&data.join("../cases/10-sample-tables-of-recorders/media_duration_0.mp4"), 75);
    assert_eq!(times, (0..75).map(|n| n * 40_000_000).collect::<Vec<_>>());
}

#[test]
fn a_part_of_a_longer_recording_repeats_without_a_gap() {
    // fragments of a recording that began an hour before
    let (pictures, _) = coded("pyramid.264");
    let hour = |n: usize| Fragment { time: Some(3_600_000 + 480 * n as u64), ..Fragment::default() };
    let file = Scratch::new("hour.mp4", &fragmented(&Movie::of(&pictures, false), 12, hour));
    let times = shown_times(&file.0, 3 * pictures.len());
    assert_eq!(times[0], 3_600_000_000_000);
    let steps: Vec<i64> = times.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    assert!(steps.iter().all(|step| *step == 40), "{steps:?}");
}

#[test]
fn a_byte_stream_with_b_pictures_plays_evenly_though_it_has_no_times() {
    let played = play(&own_data("pyramid.264"), 40);
    // The first picture goes out before it is known how far the others are behind their times: two frames.
    for (n, shown) in played.iter().enumerate().skip(1) {
        let off_ns = shown.due_ns - played[0].due_ns - (shown.pts_ns + 66_733_333);
        assert!(off_ns.abs() <= 2, "picture {n} is due {off_ns} ns off, more than rounding");
        assert!(shown.complete_ns <= shown.due_ns, "picture {n} was decoded too late to be shown evenly");
    }
}

#[test]
fn a_units_arrival_is_when_it_was_due_not_when_it_was_read_or_taken() {
    let path = own_data("crop_b.mp4");
    let mut source = PacedSource::open(path.to_str().unwrap(), &settings(Pace::Realtime, false)).unwrap();
    let mut arrivals = Vec::new();
    while arrivals.len() < 8 {
        match source.step().unwrap() {
            PacedStep::Unit(unit) => {
                assert!(unit.timing.arrival_ns <= monotonic_ns());
                arrivals.push((unit.dts_ns, unit.timing.arrival_ns));
                if arrivals.len() == 3 {
                    // a decoder that is busy for longer than a frame lasts
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            PacedStep::Wait(wait) => std::thread::sleep(wait),
            PacedStep::State(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let (first_dts_ns, first_ns) = arrivals[0];
    for (dts_ns, arrival_ns) in arrivals {
        assert_eq!(arrival_ns - first_ns, dts_ns - first_dts_ns);
    }
}

#[test]
fn a_files_preroll_is_not_played_at_real_speed() {
    // the first shown picture needs those of 0.2 s before it
    let path = own_data("edit_list.mp4");
    let mut source = PacedSource::open(path.to_str().unwrap(), &settings(Pace::Realtime, false)).unwrap();
    let mut before = 0;
    loop {
        match source.step().unwrap() {
            PacedStep::Unit(unit) if unit.shown => break,
            PacedStep::Unit(_) => before += 1,
            PacedStep::State(_) => {}
            other => panic!("nothing is waited for: {other:?}"),
        }
    }
    assert!(before > 0, "the file has units that are not shown");
}

/// A picture that came out of the decoder, by the source's own schedule: nothing of it depends on how fast this machine is.
struct PlayedPicture {
    pts_ns: i64,
    /// Units that went in after its own before it came out.
    waited_units: usize,
    /// When it was due to be shown, its own unit to be decoded, and the unit with which it came out to be decoded.
    due_ns: i64,
    arrival_ns: i64,
    complete_ns: i64,
}

/// Plays so many pictures as a node does: each is shown when it is due.
fn play(path: &Path, pictures: usize) -> Vec<PlayedPicture> {
    let mut source = PacedSource::open(path.to_str().unwrap(), &settings(Pace::Realtime, false)).unwrap();
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Live);
    let mut units = Vec::new();
    let mut played = Vec::new();
    while played.len() < pictures {
        match source.step().unwrap() {
            PacedStep::Unit(unit) => {
                units.push((unit.timing.pts_ns, unit.timing.arrival_ns));
                decoder.push(&unit).unwrap();
            }
            PacedStep::Wait(wait) => std::thread::sleep(wait),
            PacedStep::State(_) => {}
            other => panic!("{other:?}"),
        }
        while let Some(out) = decoder.take() {
            let Decoded::Picture(picture) = out else { panic!("nothing is lost") };
            let pts_ns = picture.timing.pts_ns;
            let own = units.iter().position(|&(unit_pts_ns, _)| unit_pts_ns == pts_ns).unwrap();
            played.push(PlayedPicture {
                pts_ns,
                waited_units: units.len() - 1 - own,
                due_ns: source.due_ns(pts_ns).unwrap(),
                arrival_ns: picture.timing.arrival_ns,
                complete_ns: units[units.len() - 1].1,
            });
            std::thread::sleep(source.until_shown(pts_ns));
            assert!(monotonic_ns() >= source.due_ns(pts_ns).unwrap());
        }
    }
    played
}

/// The clip at another rate, by the timescale of its video track.
fn at_fps(clip: &[u8], from_fps: u32, fps: u32, name: &str) -> Scratch {
    let mut bytes = clip.to_vec();
    // the video track is the one with a `vmhd`; its `mdhd` is in front of it
    let vmhd = body_of(&bytes, b"vmhd");
    let mdhd = bytes[..vmhd].windows(4).rposition(|w| w == b"mdhd").unwrap() + 4;
    let at = mdhd + if bytes[mdhd] == 1 { 20 } else { 12 };
    let timescale = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(timescale * fps % from_fps, 0, "the timescale {timescale} can be changed exactly");
    bytes[at..at + 4].copy_from_slice(&(timescale * fps / from_fps).to_be_bytes());
    Scratch::new(name, &bytes)
}

/// The real clip states no bound on reordering, and its pictures once left the decoder ten at a time.
#[test]
fn the_clip_without_a_bound_plays_evenly_at_every_rate() {
    let Some(data) = shared_data() else { return };
    let clip = std::fs::read(data.join("clips/one-by-one-person-detection.mp4")).unwrap();
    let rates = [(1, 6), (10, 30), (25, 75)];
    let threads = rates.map(|(fps, pictures)| {
        let file = at_fps(&clip, 10, fps, &format!("{fps}.mp4"));
        std::thread::spawn(move || (fps, play(&file.0, pictures)))
    });
    for thread in threads {
        let (fps, played) = thread.join().unwrap();
        let frame_ns = 1_000_000_000 / i64::from(fps);
        for (n, shown) in played.iter().enumerate() {
            let at = format!("{fps} fps, picture {n}");
            assert!(shown.waited_units <= LONGEST_WAIT, "{at} waited for {} units", shown.waited_units);
            assert_eq!(shown.due_ns - played[0].due_ns, n as i64 * frame_ns, "{at}");
            assert!(shown.complete_ns <= shown.due_ns, "{at} was decoded too late to be shown evenly");
            // a picture that waits for three others is shown a frame time after the last of them
            let age_ns = shown.due_ns - shown.arrival_ns;
            assert!(age_ns <= (LONGEST_WAIT as i64 + 1) * frame_ns, "{at} is {age_ns} ns old");
        }
    }
}
/// Units that follow a picture of the clip in decoding order before all that precede it in presentation order are there:
/// by the sample tables, with another tool (ffprobe -show_packets).
const LONGEST_WAIT: usize = 3;
