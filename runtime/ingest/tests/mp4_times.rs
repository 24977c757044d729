//! MP4 and QuickTime files as recorders and phones write them: edit lists and fragments.
#![allow(clippy::unwrap_used)]

mod common;

use common::mp4_writer::{
    Base, Coded, Fragment, Movie, Sample, boxed, coded, fragment, fragmented, other_track, table, words,
};
use common::{Run, Scratch, decode, decode_with};
use millrace_ingest::{IngestOptions, ReorderPolicy};

/// One tick of the movie is 1/600 s, of the track 1/1000 s: 24 and 40 of them are a frame.
const FRAME: u32 = 24;
const SPEED: u32 = 0x10000;

fn runs(name: &str, bytes: &[u8]) -> [Run; 2] {
    let file = Scratch::new(name, bytes);
    [ReorderPolicy::Lossless, ReorderPolicy::Live].map(|policy| {
        decode_with(&file.0, &IngestOptions::default(), policy, |_| {}).unwrap_or_else(|e| panic!("{name}: {e}"))
    })
}

/// The pictures of these numbers in presentation order, each with its time in ms.
fn assert_shows(name: &str, bytes: &[u8], md5s: &[String], want: &[(usize, i64)]) {
    for run in runs("times.mp4", bytes) {
        let got: Vec<(usize, i64)> = run
            .frames
            .iter()
            .map(|frame| (md5s.iter().position(|md5| *md5 == frame.md5).unwrap(), frame.pts_ns / 1_000_000))
            .collect();
        assert_eq!(got, want, "{name}: {:?}", run.lost);
        assert_eq!(run.lost_in_all(), 0, "{name}: {:?}", run.lost);
        assert!(run.units.windows(2).all(|w| w[0].dts_ns <= w[1].dts_ns), "{name}: decoding times go back");
    }
}

/// Frames of a range from a time on, 40 ms apart.
fn part(frames: std::ops::Range<usize>, from_ms: i64) -> Vec<(usize, i64)> {
    frames.zip((0..).map(|n| from_ms + 40 * n)).collect()
}

#[test]
fn every_edit_is_followed() {
    for name in ["pyramid.264", "open_gop.264", "closed_gop.265", "open_gop.265"] {
        let (pictures, md5s) = coded(name);
        let movie = Movie::of(&pictures, name.ends_with("265"));
        let count = md5s.len();
        let of = |frames: usize| frames as u32 * FRAME;
        let at = |frame: usize| frame as i32 * 40;
        let shows = |what: &str, edits: &[(u32, i32, u32)], want: &[(usize, i64)]| {
            assert_shows(&format!("{name}: {what}"), &movie.clone().edits(edits).file(), &md5s, want);
        };
        shows("all", &[(of(count), 0, SPEED)], &part(0..count, 0));
        shows("from the middle of a group", &[(of(count - 7), at(7), SPEED)], &part(7..count, 0));
        shows("one frame", &[(of(1), at(13), SPEED)], &part(13..14, 0));
        shows("the end cut", &[(of(9), 0, SPEED)], &part(0..9, 0));
        shows(
            "two parts",
            &[(of(7), at(2), SPEED), (of(5), at(22), SPEED)],
            &[part(2..9, 0), part(22..27, 280)].concat(),
        );
        shows("two parts that follow each other", &[(of(7), 0, SPEED), (of(8), at(7), SPEED)], &part(0..15, 0));
        shows(
            "a delay, and a pause between",
            &[(of(3), -1, SPEED), (of(4), at(5), SPEED), (of(2), -1, SPEED), (of(4), at(9), SPEED)],
            &[part(5..9, 120), part(9..13, 360)].concat(),
        );
        shows("a delay alone", &[(of(3), -1, SPEED)], &part(0..count, 120));
        shows(
            "a part again, and one from before it",
            &[(of(6), at(12), SPEED), (of(6), at(12), SPEED), (of(6), at(3), SPEED), (of(2), at(20), SPEED)],
            &[part(12..18, 0), part(12..18, 240), part(3..9, 480), part(20..22, 720)].concat(),
        );
        shows("without a duration", &[(0, at(4), SPEED)], &part(4..count, 0));
        shows("nothing but what it has", &[(of(count + 100), at(1), SPEED)], &part(1..count, 0));
        let far = [(of(5), at(count + 50), SPEED), (of(3), 0, SPEED)];
        shows("a part behind the end", &far, &part(0..3, 200));
    }
}

#[test]
fn what_no_edit_shows_is_not_decoded_beyond_its_group() {
    // groups of 12 pictures
    let (pictures, _) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    for (edits, most) in [(vec![(FRAME, 13 * 40, SPEED)], 12), (vec![(FRAME, 0, SPEED), (FRAME, 37 * 40, SPEED)], 13)] {
        for run in runs("part.mp4", &movie.clone().edits(&edits).file()) {
            assert!(run.units.len() <= most, "{edits:?}: {} units", run.units.len());
            assert_eq!(run.frames.len(), edits.len());
        }
        // a file that claims that each picture is a key picture is decoded whole
        for run in runs("part.mp4", &movie.clone().edits(&edits).without(b"stss").file()) {
            assert_eq!((run.frames.len(), run.lost_in_all()), (edits.len(), 0), "{edits:?}: {:?}", run.lost);
        }
    }
}

#[test]
fn an_edit_list_begins_where_the_composition_offsets_do() {
    // as x264 writes it: offsets of 0 and more, an edit that begins at the first picture's
    let (pictures, md5s) = coded("pyramid.264");
    let mut movie = Movie::of(&pictures, false);
    movie.samples.iter_mut().for_each(|sample| sample.offset += 80);
    assert!(movie.samples.iter().all(|sample| sample.offset >= 0));
    let count = md5s.len();
    let shifted = movie.clone().edits(&[(count as u32 * FRAME, 80, SPEED)]);
    assert_shows("shifted", &shifted.file(), &md5s, &part(0..count, 0));
    assert_shows("no edit list", &movie.file(), &md5s, &part(0..count, 80));
    // 64-bit edits: a delay of 2 s, then everything from the third picture on
    let rows = [0, 1200, u32::MAX, u32::MAX, SPEED, 0, count as u32 * FRAME, 0, 160, SPEED];
    let movie = movie.put(b"edts", boxed(b"elst", &table(1, 2, rows)));
    assert_shows("64-bit", &movie.file(), &md5s, &part(2..count, 2000));
}

#[test]
fn edits_that_are_not_read_are_refused_by_name() {
    let (pictures, _) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    let refused = |movie: Movie| {
        let file = Scratch::new("edits.mp4", &movie.file());
        decode(&file.0, &IngestOptions::default()).err().expect("it is refused").to_string()
    };
    for (rate, what) in [(SPEED / 2, "0.5"), (2 * SPEED, "2"), (0, "0"), (0xffff_0000, "-1")] {
        let error = refused(movie.clone().edits(&[(FRAME, 0, SPEED), (FRAME, 40, rate)]));
        let want = format!("edit 2 of its edit list plays at {what} times the speed; only parts at their own speed");
        assert!(error.contains(&want) && error.contains("edits.mp4"), "{error}");
    }
    let error = refused(movie.clone().edits(&[(FRAME, -2, SPEED)]));
    assert!(error.contains("its edit list cannot be read"), "{error}");
    let error = refused(movie.clone().put(b"edts", boxed(b"elst", &table(0, 9, [1, 2, 3]))));
    assert!(error.contains("its edit list cannot be read"), "{error}");
    let never = table(1, 2, [u32::MAX, 0, 0, 0, SPEED, 0, FRAME, 0, 0, SPEED]);
    let error = refused(movie.clone().put(b"edts", boxed(b"elst", &never)));
    assert!(error.contains("edit 2 of its edit list is shown later than any recording is"), "{error}");
    let error = refused(movie.edits(&[(FRAME, 0, SPEED); 4097]));
    assert!(error.contains("its edit list has 4097 edits, more than 4096"), "{error}");
}

#[test]
fn a_time_scale_of_0_costs_no_picture_in_silence() {
    let (pictures, md5s) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    let count = md5s.len();
    // version and flags, two dates, time scale, duration
    let mvhd = |scale: u32, duration: u32| {
        let head = words([0, 0, 0, scale, duration, SPEED, 0x0100_0000, 0, 0]);
        [head, words([SPEED, 0, 0, 0, SPEED, 0, 0, 0, 0x4000_0000]), words([0, 0, 0, 0, 0, 0, 99])].concat()
    };
    let whole = [(count as u32 * FRAME, 0, SPEED)];
    for (what, scale, duration) in [("scale 0", 0, 600), ("duration 0", 600, 0), ("duration unknown", 600, u32::MAX)] {
        let movie = movie.clone().put(b"mvhd", mvhd(scale, duration));
        assert_shows(what, &movie.clone().edits(&whole).file(), &md5s, &part(0..count, 0));
        assert_shows(what, &movie.file(), &md5s, &part(0..count, 0));
    }
    let without_scale = movie.clone().put(b"mvhd", mvhd(0, 600));
    let late = [(3 * FRAME, -1, SPEED), (FRAME, 5 * 40, SPEED)];
    assert_shows("a delay", &without_scale.clone().edits(&late).file(), &md5s, &part(5..count, 0));
    let refused = |movie: Movie| {
        let file = Scratch::new("scale.mp4", &movie.file());
        decode(&file.0, &IngestOptions::default()).err().expect("it is refused").to_string()
    };
    let error = refused(without_scale.edits(&[(FRAME, 0, SPEED), (FRAME, 40, SPEED)]));
    assert!(error.contains("its edit list has 2 parts, and the movie's time scale"), "{error}");
    let error = refused(Movie { timescale: 0, ..movie.clone() });
    assert!(error.contains("its video track has a time scale of 0"), "{error}");
    let error = refused(movie.edits(&[(FRAME, 12_000, SPEED)]));
    let want = "its edit list shows none of its pictures: it begins at 12.000 s, and its last picture is at 1.640 s";
    assert!(error.contains(want), "{error}");
}

#[test]
fn an_initialization_segment_that_is_repeated_is_no_other_recording() {
    let (pictures, md5s) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    let init = fragmented(&Movie { samples: Vec::new(), ..movie.clone() }, 5, |_| Fragment::default());
    let mut file = Vec::new();
    for (n, samples) in movie.samples.chunks(10).enumerate() {
        file.extend_from_slice(&init);
        let how = Fragment { time: Some(400 * n as u64), ..Fragment::default() };
        file.extend(fragment(samples, file.len(), how));
    }
    assert_shows("with each fragment", &file, &md5s, &part(0..md5s.len(), 0));
}

#[test]
fn fragments_of_every_kind() {
    let (pictures, md5s) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    let movie = Movie { tracks: vec![other_track(2, b"soun", b"")], ..movie };
    let whole = part(0..md5s.len(), 0);
    for base in [Base::Moof, Base::Stated, Base::Implied] {
        for other_bytes in [None, Some(50)] {
            for runs in [false, true] {
                for time in [false, true] {
                    let how = |n| Fragment {
                        time: time.then_some(n as u64 * 280),
                        base,
                        other_bytes,
                        runs,
                        ..Default::default()
                    };
                    let name = format!("other {other_bytes:?}, runs {runs}, time {time}");
                    assert_shows(&name, &fragmented(&movie, 7, how), &md5s, &whole);
                }
            }
        }
    }
    // boxes between the fragments, which are of no matter
    let mut file = fragmented(&movie, 7, |_| Fragment::default());
    file.extend(boxed(b"sidx", &[0xff; 40]));
    file.extend(boxed(b"mfra", &[0xff; 40]));
    assert_shows("sidx, mfra", &file, &md5s, &whole);
}

#[test]
fn a_fragment_is_shown_at_its_own_time() {
    let (pictures, md5s) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    let count = md5s.len();
    // groups of 12; the recorder paused for 2 s before the second, and for an hour before the third
    let time = |n: usize| [0, 480 + 2000, 960 + 3_600_000, 1440 + 3_600_000][n];
    let file = fragmented(&movie, 12, |n| Fragment { time: Some(time(n)), ..Default::default() });
    let want = (0..count).map(|n| (n, time(n / 12) as i64 + (n % 12) as i64 * 40)).collect::<Vec<_>>();
    assert_shows("pauses", &file, &md5s, &want);
    // a time in one fragment alone: those behind it follow it
    let file = fragmented(&movie, 12, |n| Fragment { time: (n == 1).then_some(5000), ..Default::default() });
    let want = [part(0..12, 0), part(12..count, 5000)].concat();
    assert_shows("no times behind", &file, &md5s, &want);
    // a recorder that begins again at 0: time goes on, and that is counted
    let file = fragmented(&movie, 12, |_| Fragment { time: Some(0), ..Default::default() });
    assert_shows("times that have passed", &file, &md5s, &part(0..count, 0));
    let never = fragmented(&movie, 12, |n| Fragment { time: (n == 2).then_some(u64::MAX), ..Default::default() });
    assert_shows("a time that is none", &never, &md5s, &part(0..count, 0));
    let file = Scratch::new("back.mp4", &file);
    let mut ingest = millrace_ingest::Ingest::open(file.0.to_str().unwrap(), &IngestOptions::default()).unwrap();
    let millrace_ingest::Event::Counted(counted) = ingest.next_event().unwrap() else { panic!("nothing is counted") };
    assert_eq!((counted.name, counted.count), ("fragment_time_ignored", 3));
}

#[test]
fn the_index_and_the_fragments_may_both_have_samples() {
    let (pictures, md5s) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    let count = md5s.len();
    let (first, rest) = movie.samples.split_at(12);
    for edits in [None, Some(vec![(0, 0, SPEED)]), Some(vec![(12 * FRAME, 0, SPEED)])] {
        let mut index = Movie { samples: first.to_vec(), ..movie.clone() };
        if let Some(edits) = edits {
            index = index.edits(&edits);
        }
        let mut file = index.file();
        file.extend(fragment(rest, file.len(), Fragment::default()));
        assert_shows("both", &file, &md5s, &part(0..count, 0));
    }
    // an edit list without a duration covers all fragments, one with a duration what it says
    let with = |edits: &[(u32, i32, u32)]| fragmented(&movie.clone().edits(edits), 12, |_| Fragment::default());
    assert_shows("delay", &with(&[(600, -1, SPEED), (0, 80, SPEED)]), &md5s, &part(2..count, 1000));
    assert_shows("cut", &with(&[(10 * FRAME, 80, SPEED)]), &md5s, &part(2..12, 0));
}

#[test]
fn fragments_choose_their_sample_description() {
    let [(a, a_md5s), (b, b_md5s)] = [coded("pyramid.264"), coded("baseline_slices.264")];
    let both = |pictures: &[Coded]| Movie::of(pictures, false);
    let mut movie = both(&a);
    movie.descriptions.extend(both(&b).descriptions);
    let md5s = [a_md5s, b_md5s].concat();
    let index = Movie { samples: Vec::new(), ..movie.clone() };
    let mut file = index.file();
    for (description, samples) in [(None, &movie.samples), (Some(2), &both(&b).samples)] {
        file.extend(fragment(samples, file.len(), Fragment { description, ..Default::default() }));
    }
    assert_shows("stated", &file, &md5s, &part(0..md5s.len(), 0));
    // the default of the track
    let trex = boxed(b"trex", &words([0, 1, 2, 0, 0, 0]));
    let mut file = index.put(b"mvex", trex).file();
    for (description, samples) in [(Some(1), &movie.samples), (None, &both(&b).samples)] {
        file.extend(fragment(samples, file.len(), Fragment { description, ..Default::default() }));
    }
    assert_shows("default", &file, &md5s, &part(0..md5s.len(), 0));
}

#[test]
fn the_defaults_of_the_track_and_of_the_fragment() {
    // pictures of one size, so that it can be a default: filled up with a filler unit
    let (pictures, md5s) = coded("baseline_slices.264");
    let mut movie = Movie::of(&pictures, false);
    let size = movie.samples.iter().map(|sample| sample.bytes.len()).max().unwrap() + 16;
    for sample in &mut movie.samples {
        let filler = size - sample.bytes.len() - 4;
        sample.bytes.extend((filler as u32).to_be_bytes());
        sample.bytes.extend([12].into_iter().chain(std::iter::repeat_n(0xff, filler - 2)).chain([0x80]));
    }
    let (count, size) = (md5s.len() as u32, size as u32);
    let file = |trex: &[u32], tfhd: &[u32], trun: &[u32]| {
        let index = Movie { samples: Vec::new(), ..movie.clone() }.put(b"mvex", boxed(b"trex", &words(trex.to_vec())));
        let mut file = index.file();
        let trun = |at: u32| boxed(b"trun", &words([trun[0], trun[1], at].into_iter().chain(trun[2..].to_vec())));
        let moof = |at: u32| {
            let traf = [boxed(b"tfhd", &words(tfhd.to_vec())), trun(at)].concat();
            boxed(b"moof", &[boxed(b"mfhd", &words([0, 1])), boxed(b"traf", &traf)].concat())
        };
        file.extend(moof(moof(0).len() as u32 + 8));
        file.extend(boxed(b"mdat", &movie.samples.iter().flat_map(|s| s.bytes.clone()).collect::<Vec<_>>()));
        file
    };
    let whole = part(0..md5s.len(), 0);
    let trex = [0, 1, 1, 40, size, 0x1_0000];
    assert_shows("trex", &file(&trex, &[0x2_0000, 1], &[1, count]), &md5s, &whole);
    let none = [0, 1, 1, 9, 3, 0];
    let tfhd = [0x2_0038, 1, 40, size, 0x1_0000];
    assert_shows("tfhd", &file(&none, &tfhd, &[1, count]), &md5s, &whole);
    assert_shows("first flags", &file(&trex, &[0x2_0000, 1], &[5, count, 0x200_0000]), &md5s, &whole);
    let durations = [0x101, count].into_iter().chain(std::iter::repeat_n(40, count as usize)).collect::<Vec<_>>();
    assert_shows("trun", &file(&[0, 1, 1, 7, size, 0], &[0x2_0000, 1], &durations), &md5s, &whole);
    // no samples for a second
    let paused = file(&trex, &[0x3_0008, 1, 1000], &[1, 0]);
    // and none of their data
    let data = paused.windows(4).rposition(|window| window == b"mdat").unwrap() - 4;
    let mut both = paused[..data].to_vec();
    both.extend(fragment(&movie.samples, both.len(), Fragment::default()));
    assert_shows("an empty duration", &both, &md5s, &part(0..md5s.len(), 1000));
}

#[test]
fn a_fragment_that_is_damaged_costs_itself_under_a_name() {
    let (pictures, md5s) = coded("pyramid.264");
    let movie = Movie::of(&pictures, false);
    let whole = fragmented(&movie, 12, |n| Fragment { time: Some(n as u64 * 480), ..Default::default() });
    let second = whole.windows(4).enumerate().filter(|(_, w)| *w == b"moof").nth(1).unwrap().0;
    for kind in [b"tfhd", b"trun"] {
        let mut file = whole.clone();
        let at = second + file[second..].windows(4).position(|w| w == kind).unwrap();
        // a version that is not known
        file[at + 4] = 9;
        for run in runs("damaged.mp4", &file) {
            assert_eq!(run.lost.get("damaged_fragment"), Some(&1), "{:?}", run.lost);
            let got: Vec<&str> = run.md5s();
            let want: Vec<&str> = md5s.iter().take(12).chain(&md5s[24..]).map(|s| &s[..]).collect();
            assert_eq!(got, want);
        }
    }
    // cut off: what is whole is read, the rest has a name
    let third = whole.windows(4).enumerate().filter(|(_, w)| *w == b"moof").nth(2).unwrap().0;
    for (keep, lost) in [(third + 30, ("damaged_fragment", 1)), (third - 4 - 10, ("truncated", 1))] {
        let [run, _] = runs("cut.mp4", &whole[..keep]);
        assert_eq!(run.lost.get(lost.0), Some(&lost.1), "{:?}", run.lost);
        assert!(run.frames.len() >= 23, "{}", run.frames.len());
    }
    let _: Vec<Sample> = movie.samples;
}
