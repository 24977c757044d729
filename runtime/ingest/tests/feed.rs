//! Files at real speed and repeated: when units and pictures are due, and what they carry as their times.
#![allow(clippy::unwrap_used)]

mod common;

use common::{own_data, shared_data};
use millrace_frame::monotonic_ns;
use millrace_ingest::{Decoded, Feed, FeedSettings, FeedStep, Next, Pace, ReorderPolicy, SoftwareDecoder};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn settings(pace: Pace, repeat: bool) -> FeedSettings {
    FeedSettings { pace, repeat, ..FeedSettings::default() }
}

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-feed-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where the body of the first box of this kind begins.
fn body_of(bytes: &[u8], kind: &[u8; 4]) -> usize {
    bytes.windows(4).position(|w| w == kind).unwrap() + 4
}

/// Presentation times of the units that are shown, in order, from this many of them.
fn shown_times(path: &Path, count: usize) -> Vec<i64> {
    let mut feed = Feed::open(path.to_str().unwrap(), &settings(Pace::Asfast, true)).unwrap();
    let mut times = Vec::new();
    while times.len() < count {
        match feed.step().unwrap() {
            FeedStep::Unit(unit) if unit.shown => {
                feed.shown(1);
                times.push(unit.timing.pts_ns);
            }
            FeedStep::Unit(_) => {}
            FeedStep::End => assert_eq!(feed.end().unwrap(), Next::Again),
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
    // of its edits the first is followed: ten pictures
    let times = shown_times(&data.join("../cases/09-edit-lists/two_cuts.mp4"), 30);
    assert!(times.windows(2).all(|w| w[1] - w[0] == 40_000_000), "{times:?}");
}

#[test]
fn a_byte_stream_with_b_pictures_plays_evenly_though_it_has_no_times() {
    let played = play(&own_data("pyramid.264"), 40);
    let frame_ns = 33_366_667;
    let gaps: Vec<i64> = played.shown_ns.windows(2).map(|w| w[1] - w[0]).collect();
    // The first picture goes out before it is known how far the others are behind their times.
    assert!((gaps[0] - 3 * frame_ns).abs() < frame_ns * 3 / 4, "{gaps:?}");
    assert!(gaps[1..].iter().all(|gap_ns| (gap_ns - frame_ns).abs() < frame_ns * 3 / 4), "{gaps:?}");
}

#[test]
fn a_units_arrival_is_when_it_was_due_not_when_it_was_read_or_taken() {
    let path = own_data("crop_b.mp4");
    let mut feed = Feed::open(path.to_str().unwrap(), &settings(Pace::Realtime, false)).unwrap();
    let mut arrivals = Vec::new();
    while arrivals.len() < 8 {
        match feed.step().unwrap() {
            FeedStep::Unit(unit) => {
                assert!(unit.timing.arrival_ns <= monotonic_ns());
                arrivals.push((unit.dts_ns, unit.timing.arrival_ns));
                if arrivals.len() == 3 {
                    // a decoder that is busy for longer than a frame lasts
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            FeedStep::Wait(wait) => std::thread::sleep(wait),
            other => panic!("{other:?}"),
        }
    }
    let (first_dts_ns, first_ns) = arrivals[0];
    for (dts_ns, arrival_ns) in arrivals {
        let off_ns = (arrival_ns - first_ns) - (dts_ns - first_dts_ns);
        assert!(off_ns.abs() < 2_000_000, "{off_ns} ns off");
    }
}

#[test]
fn a_files_preroll_is_not_played_at_real_speed() {
    // the first shown picture needs those of 0.2 s before it
    let path = own_data("edit_list.mp4");
    let mut feed = Feed::open(path.to_str().unwrap(), &settings(Pace::Realtime, false)).unwrap();
    let began = Instant::now();
    loop {
        match feed.step().unwrap() {
            FeedStep::Unit(unit) if unit.shown => break,
            FeedStep::Unit(_) => {}
            FeedStep::Wait(wait) => std::thread::sleep(wait),
            other => panic!("{other:?}"),
        }
    }
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
}

struct Played {
    /// Of each picture: when it came out and was due, after the first; and the units that went in after its own before it
    /// was out of the decoder.
    shown_ns: Vec<i64>,
    pts_ns: Vec<i64>,
    waited_units: Vec<usize>,
    /// From its arrival to when it was due.
    age_ns: Vec<i64>,
}

/// Plays so many pictures as a node does: each is shown when it is due.
fn play(path: &Path, pictures: usize) -> Played {
    let mut feed = Feed::open(path.to_str().unwrap(), &settings(Pace::Realtime, false)).unwrap();
    let mut decoder = SoftwareDecoder::new(ReorderPolicy::Live);
    let mut units = Vec::new();
    let mut played = Played { shown_ns: Vec::new(), pts_ns: Vec::new(), waited_units: Vec::new(), age_ns: Vec::new() };
    while played.pts_ns.len() < pictures {
        match feed.step().unwrap() {
            FeedStep::Unit(unit) => {
                units.push(unit.timing.pts_ns);
                decoder.push(&unit).unwrap();
            }
            FeedStep::Wait(wait) => std::thread::sleep(wait),
            other => panic!("{other:?}"),
        }
        while let Some(out) = decoder.take() {
            let Decoded::Picture(picture) = out else { panic!("nothing is lost") };
            let pts_ns = picture.timing.pts_ns;
            let own = units.iter().position(|&u| u == pts_ns).unwrap();
            std::thread::sleep(feed.until_shown(pts_ns));
            let now_ns = monotonic_ns();
            played.waited_units.push(units.len() - 1 - own);
            played.shown_ns.push(now_ns);
            played.pts_ns.push(pts_ns);
            played.age_ns.push(now_ns - picture.timing.arrival_ns);
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
        let most = *played.waited_units.iter().max().unwrap();
        assert!(most <= LONGEST_WAIT, "{fps} fps: a picture waited for {most} units");
        for (shown, pts) in played.shown_ns.windows(2).zip(played.pts_ns.windows(2)) {
            assert_eq!(pts[1] - pts[0], frame_ns, "{fps} fps");
            let off_ns = (shown[1] - shown[0]) - frame_ns;
            assert!(off_ns.abs() < frame_ns.min(40_000_000) * 3 / 4, "{fps} fps: {} ns between two", off_ns + frame_ns);
        }
        let oldest_ns = *played.age_ns.iter().max().unwrap();
        // a picture that waits for three others is shown a frame time after the last of them
        let allowed_ns = (LONGEST_WAIT as i64 + 1) * frame_ns + 30_000_000;
        assert!(oldest_ns <= allowed_ns, "{fps} fps: {oldest_ns} ns old, the stream's reordering needs {allowed_ns}");
    }
}
/// Units that follow a picture of the clip in decoding order before all that precede it in presentation order are there:
/// by the sample tables, with another tool (ffprobe -show_packets).
const LONGEST_WAIT: usize = 3;
