use super::*;
use proptest::prelude::*;

fn place(sequence: u64, poc: i32, max_reorder: u32, origin: BoundOrigin) -> PresentationOrder {
    PresentationOrder {
        order: Order { sequence, poc },
        first_shown: poc == 0,
        pts_ns: i64::from(poc),
        earliest_next_pts_ns: None,
        max_reorder,
        origin,
    }
}

fn stated(sequence: u64, poc: i32, max_reorder: u32) -> PresentationOrder {
    place(sequence, poc, max_reorder, BoundOrigin::Stated)
}

fn unknown(sequence: u64, poc: i32) -> PresentationOrder {
    place(sequence, poc, 16, BoundOrigin::Assumed)
}

#[test]
fn a_pyramid_of_b_pictures_comes_out_in_order_with_two_held_back() {
    let mut r = Reorder::new(ReorderPolicy::Lossless);
    let mut out = Vec::new();
    // I0 P8 B4 b2 b6, then an IDR: as x264 codes it
    for poc in [0, 8, 4, 2, 6] {
        out.extend(r.push(stated(1, poc, 2), poc).due);
    }
    assert_eq!(out, [0, 2, 4], "held back no longer than the bound needs");
    out.extend(r.push(stated(2, 0, 2), 100).due);
    assert_eq!(out, [0, 2, 4, 6, 8]);
    out.extend(r.flush());
    assert_eq!(out, [0, 2, 4, 6, 8, 100]);
}

#[test]
fn times_of_what_is_to_come_release_a_picture_at_once() {
    let mut r = Reorder::new(ReorderPolicy::Live);
    let decoded = [(0, 2), (8, 2), (4, 2), (2, 6), (6, 16), (16, 10)];
    let due = decoded.map(|(poc, next)| {
        let place = PresentationOrder { earliest_next_pts_ns: Some(next), ..unknown(1, poc) };
        r.push(place, poc).due
    });
    assert_eq!(due, [vec![0], vec![], vec![], vec![2, 4], vec![6, 8], vec![]]);
}

#[test]
fn a_file_whose_times_are_in_decoding_order_is_put_right_by_its_counts() {
    let gop = [0, 8, 4, 2, 6];
    let play = |policy| {
        let mut r = Reorder::new(policy);
        let (mut out, mut late) = (Vec::new(), 0);
        for (n, poc) in (0..20).flat_map(|gop_number| gop.map(|poc| (gop_number, poc))).enumerate() {
            let (n, (gop_number, poc)) = (n as i64, poc);
            let place =
                PresentationOrder { pts_ns: n, earliest_next_pts_ns: Some(n + 1), ..unknown(1, gop_number * 10 + poc) };
            let pushed = r.push(place, gop_number * 10 + poc);
            late += usize::from(pushed.late.is_some());
            out.extend(pushed.due);
        }
        out.extend(r.flush());
        assert!(out.is_sorted(), "{out:?}");
        assert_eq!(out.len() + late, 100);
        late
    };
    assert_eq!(play(ReorderPolicy::Lossless), 0, "the counts have the last word");
    let late = play(ReorderPolicy::Live);
    assert!((1..=6).contains(&late), "{late} late");
}

#[test]
fn a_broken_bound_costs_pictures_once() {
    for policy in [ReorderPolicy::Live, ReorderPolicy::Lossless] {
        let mut r = Reorder::new(policy);
        let (mut out, mut late) = (Vec::new(), Vec::new());
        for n in 0..20 {
            for poc in [8, 4, 2, 6] {
                let pushed = r.push(stated(1, n * 8 + poc, 0), n * 8 + poc);
                late.extend(pushed.late);
                out.extend(pushed.due);
            }
        }
        out.extend(r.flush());
        assert!(out.is_sorted());
        assert_eq!(late, [4, 2, 6], "{policy:?}: those of the first pyramid, and none after");
        assert_eq!(out.len() + late.len(), 80);
    }
}

#[test]
fn no_more_are_held_beyond_the_bound_than_there_is_room_for() {
    // nine B pictures, of which the parameter sets state none: the second number is what is held in the end
    for (most, holds) in [(16, 9), (4, 4)] {
        let mut r = Reorder::new(ReorderPolicy::Live).beyond_bound(most);
        let (mut out, mut late, mut held) = (Vec::new(), 0, 0);
        for n in 0..20 {
            for poc in [18, 16, 14, 12, 10, 8, 6, 4, 2, 0] {
                let pushed = r.push(stated(1, n * 20 + poc, 0), n * 20 + poc);
                late += usize::from(pushed.late.is_some());
                out.extend(pushed.due);
                held = held.max(r.held());
            }
        }
        out.extend(r.flush());
        assert!(out.is_sorted());
        assert_eq!(out.len() + late, 200);
        assert_eq!(held, holds, "with room for {most}");
    }
}

#[test]
fn a_camera_without_b_pictures_waits_for_nothing_once_its_step_is_known() {
    for step in [1, 2, 5] {
        let mut r = Reorder::new(ReorderPolicy::Live);
        for n in 0..200 {
            let pushed = r.push(unknown(1, n * step), n);
            assert!(pushed.late.is_none());
            assert!(pushed.due.len() + r.held() <= 2, "never more than one is held, for one unit");
            if n >= 9 {
                assert_eq!((pushed.due, r.held()), (vec![n], 0), "step {step}, picture {n}");
            }
        }
    }
}

#[test]
fn counts_with_gaps_hold_nothing_back_where_nothing_is_reordered() {
    // a camera that counts time, with a rate that wavers
    let mut r = Reorder::new(ReorderPolicy::Live);
    let mut poc = 0;
    let mut held = Vec::new();
    for n in 0..300 {
        poc += 33 + n * n % 7;
        let pushed = r.push(unknown(1, poc), n);
        assert!(pushed.late.is_none());
        held.push(r.held());
    }
    let waited = held[10..].iter().filter(|&&held| held > 0).count();
    assert!(waited <= 10 && *held.iter().max().unwrap_or(&0) <= 2, "{held:?}");
}

#[test]
fn one_skipped_picture_costs_one_unit_of_delay() {
    let mut r = Reorder::new(ReorderPolicy::Live);
    for n in 0..50 {
        r.push(unknown(1, 2 * n), n);
    }
    assert!(r.push(unknown(1, 102), 51).due.is_empty(), "number 50 may still come");
    assert_eq!(r.push(unknown(1, 104), 52).due, [51, 52], "it does not");
    assert_eq!(r.push(unknown(1, 106), 53).due, [53]);
}

#[test]
fn b_pictures_that_begin_late_are_waited_for() {
    let mut r = Reorder::new(ReorderPolicy::Live);
    let mut out = Vec::new();
    let plain = (0..100).map(|n| 2 * n);
    let pyramids = (0..50).flat_map(|n| [8, 4, 2, 6].map(|poc| 198 + 8 * n + poc));
    for poc in plain.chain(pyramids) {
        let pushed = r.push(unknown(1, poc), poc);
        assert_eq!(pushed.late, None, "at {poc}");
        out.extend(pushed.due);
        assert!(r.held() <= 2, "at {poc}: a pyramid of four needs two");
    }
    assert!(out.is_sorted());
}

#[test]
fn pictures_before_the_one_that_begins_a_sequence_are_waited_for_once_seen() {
    let mut r = Reorder::new(ReorderPolicy::Live);
    let mut late = 0;
    for sequence in 1..50 {
        for poc in [0, -4, -2, 2, 4, 6] {
            late += usize::from(r.push(unknown(sequence, poc), ()).late.is_some());
        }
    }
    assert!(late <= 3, "{late} late");
}

#[test]
fn after_a_flush_nothing_from_before_it_comes_out() {
    let mut r = Reorder::new(ReorderPolicy::Live);
    for poc in [0, 8, 4] {
        r.push(unknown(7, poc), poc);
    }
    assert_eq!(r.flush(), [4, 8]);
    assert_eq!(r.held(), 0);
    // the next connection counts its sequences from the beginning
    assert_eq!(r.push(unknown(1, 0), 100).due, [100]);
    assert!(r.flush().is_empty());
}

/// The places of one group of pictures in presentation order, in decoding order: a pyramid over `0..=size`, of which the
/// first is there already.
fn depth_first(size: i32, out: &mut Vec<i32>) {
    fn between(low: i32, high: i32, out: &mut Vec<i32>) {
        if high - low > 1 {
            let middle = low + (high - low) / 2;
            out.push(middle);
            between(low, middle, out);
            between(middle, high, out);
        }
    }
    out.push(size);
    between(0, size, out);
}

fn breadth_first(size: i32, out: &mut Vec<i32>) {
    out.push(size);
    let mut ranges = VecDeque::from([(0, size)]);
    while let Some((low, high)) = ranges.pop_front() {
        if high - low > 1 {
            let middle = low + (high - low) / 2;
            out.push(middle);
            ranges.extend([(low, middle), (middle, high)]);
        }
    }
}

/// As x264 does with `b-pyramid`: one B picture that others refer to, the rest in order.
fn one_middle(size: i32, out: &mut Vec<i32>) {
    let middle = (size > 1).then_some(size / 2);
    out.push(size);
    out.extend(middle);
    out.extend((1..size).filter(|&n| Some(n) != middle));
}

fn flat(size: i32, out: &mut Vec<i32>) {
    out.push(size);
    out.extend(1..size);
}

proptest! {
    /// Shuffle a row of pictures so that none is overtaken by more than `depth` others: it comes out sorted.
    #[test]
    fn any_stream_that_keeps_its_bound_comes_out_sorted(
        keys in prop::collection::vec(0u32..5, 1..60), depth in 0u32..5, step in 1i32..4, live: bool,
    ) {
        // picture i is sent after at most `depth` later ones
        let mut sent: Vec<(u32, i32)> =
            keys.iter().enumerate().map(|(i, k)| (i as u32 + k.min(&depth), i as i32)).collect();
        sent.sort();
        // the encoder's own words about its step and about the first picture have to be true
        prop_assume!(sent[0].1 == 0);
        let mut r = Reorder::new(if live { ReorderPolicy::Live } else { ReorderPolicy::Lossless });
        let mut out = Vec::new();
        for &(_, n) in &sent {
            let pushed = r.push(stated(0, n * step, depth), n);
            prop_assert!(r.held() <= depth as usize);
            prop_assert_eq!(pushed.late, None);
            out.extend(pushed.due);
        }
        out.extend(r.flush());
        prop_assert_eq!(out, (0..sent.len() as i32).collect::<Vec<_>>());
    }

    /// With no bound known, every usual pattern is learned: few pictures are late, none once the pattern has been seen,
    /// and none waits longer than the pattern needs.
    #[test]
    fn a_pattern_is_learned(
        shape in 0usize..4, sizes in prop::collection::vec(1i32..10, 1..4), step in 1i32..5,
        groups_of_a_sequence in 1usize..8,
    ) {
        let shape = [depth_first, breadth_first, one_middle, flat][shape];
        let mut r = Reorder::new(ReorderPolicy::Live);
        let (mut late_early, mut out) = (0, Vec::new());
        let mut number = 0;
        for sequence in 1..60u64 {
            let mut pictures = vec![0];
            for _ in 0..groups_of_a_sequence {
                let base = pictures.iter().max().copied().unwrap_or(0);
                let mut group = Vec::new();
                shape(sizes[number % sizes.len()], &mut group);
                pictures.extend(group.into_iter().map(|n| base + n));
                number += 1;
            }
            // after picture i is decoded, everything up to `complete[i]` can go out
            for (i, &n) in pictures.iter().enumerate() {
                let pushed = r.push(unknown(sequence, n * step), (sequence, n));
                if pushed.late.is_some() {
                    late_early += 1;
                    prop_assert!(sequence < 40, "still late in sequence {}", sequence);
                }
                out.extend(pushed.due);
                if sequence >= 40 {
                    let waiting_for = (0..).find(|n| !pictures[..=i].contains(n)).unwrap_or(0);
                    let most = pictures[..=i].iter().filter(|&&n| n > waiting_for).count();
                    prop_assert!(r.held() <= most, "{} held, {} are needed", r.held(), most);
                }
            }
        }
        out.extend(r.flush());
        prop_assert!(out.is_sorted());
        prop_assert!(late_early <= 16, "{} late", late_early);
    }

    /// Whatever comes: each picture comes out once, in order, or is late; and the buffer stays bounded.
    #[test]
    fn no_picture_is_lost_without_a_word(
        pocs in prop::collection::vec((0u64..3, -40i32..40, prop::option::of(-50i64..50)), 1..200),
        bound in 0u32..20, origin in 0usize..3, live: bool,
    ) {
        let origin = [BoundOrigin::Impossible, BoundOrigin::Stated, BoundOrigin::Assumed][origin];
        let mut r = Reorder::new(if live { ReorderPolicy::Live } else { ReorderPolicy::Lossless });
        let (mut out, mut late) = (Vec::new(), 0);
        let mut sequence = 0;
        let mut sequences = Vec::new();
        for (n, (jump, poc, next)) in pocs.iter().enumerate() {
            sequence += u64::from(*jump == 2);
            sequences.push((sequence, *poc, n));
            let pushed = r.push(PresentationOrder { earliest_next_pts_ns: *next, ..place(sequence, *poc, bound, origin) }, (sequence, *poc, n));
            late += usize::from(pushed.late.is_some());
            out.extend(pushed.due);
            prop_assert!(r.held() <= 16);
        }
        out.extend(r.flush());
        prop_assert!(out.is_sorted_by_key(|(sequence, poc, _)| (*sequence, *poc)), "{:?}", out);
        prop_assert_eq!(out.len() + late, pocs.len());
    }
}
