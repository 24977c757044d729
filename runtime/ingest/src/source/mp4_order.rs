//! What the sample tables of an MP4 say of the order in which pictures are shown: all of it, before the first is decoded.

use super::mp4::Sample;

/// Of each sample: when the earliest picture behind it in decoding order is shown; `i64::MAX` where none is.
pub(super) fn earliest_next_pts_ns(samples: &[Sample]) -> Vec<i64> {
    let mut earliest_ns = vec![i64::MAX; samples.len()];
    let mut next_ns = i64::MAX;
    for (sample, earliest_ns) in samples.iter().zip(&mut earliest_ns).rev() {
        *earliest_ns = next_ns;
        if sample.times.shown {
            next_ns = next_ns.min(sample.times.pts_ns);
        }
    }
    earliest_ns
}

/// Moves all decoding times so that the picture with the least time left is decoded just when it is shown. Composition
/// offsets are often larger than the reordering needs, and some are smaller; a file at real speed would be shown late by
/// as much, or uneven.
pub(super) fn decode_as_late_as_possible(samples: &mut [Sample], earliest_next_pts_ns: &[i64]) {
    // shown, and decoded, of the pictures that wait for those before them
    let mut waiting = std::collections::BinaryHeap::new();
    let mut spare_ns: Option<i64> = None;
    for (sample, earliest_next_pts_ns) in samples.iter().zip(earliest_next_pts_ns) {
        if sample.times.shown {
            waiting.push(std::cmp::Reverse(sample.times.pts_ns));
        }
        while let Some(&std::cmp::Reverse(pts_ns)) = waiting.peek()
            && pts_ns < *earliest_next_pts_ns
        {
            waiting.pop();
            let left_ns = pts_ns.saturating_sub(sample.times.dts_ns);
            spare_ns = Some(spare_ns.map_or(left_ns, |spare_ns| spare_ns.min(left_ns)));
        }
    }
    let spare_ns = spare_ns.unwrap_or(0);
    for sample in samples {
        sample.times.dts_ns = sample.times.dts_ns.saturating_add(spare_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Times;
    use millrace_frame::Timebase;

    fn samples(times: &[(i64, i64)]) -> Vec<Sample> {
        let times = times.iter().map(|&(dts_ns, pts_ns)| Times {
            pts_ns,
            dts_ns,
            duration_ns: 1,
            timebase: Timebase::NANOSECONDS,
            // what is shown before 0 is cut away by the edit list
            shown: pts_ns >= 0,
        });
        times.map(Sample::for_test).collect()
    }

    #[test]
    fn the_earliest_time_behind_each_sample() {
        // I0 P4 B2 b1 b3 P5, and one that is not shown at all
        let s = samples(&[(0, 0), (1, 4), (2, 2), (3, 1), (4, -9), (5, 3), (6, 5)]);
        assert_eq!(earliest_next_pts_ns(&s), [1, 1, 1, 3, 3, 5, i64::MAX]);
        assert!(earliest_next_pts_ns(&[]).is_empty());
    }

    #[test]
    fn decoding_times_leave_no_picture_late_and_none_needlessly_early() {
        for shift in [-7, 0, 2, 50] {
            // depth 2: the picture that is shown second is the fourth to be decoded, so it has the least time left
            let times = [(0, 0), (1, 4), (2, 2), (3, 1), (4, 3)];
            let mut s = samples(&times.map(|(dts, pts)| (dts + shift, pts)));
            let earliest = earliest_next_pts_ns(&s);
            decode_as_late_as_possible(&mut s, &earliest);
            let dts: Vec<i64> = s.iter().map(|s| s.times.dts_ns).collect();
            assert_eq!(dts, [-2, -1, 0, 1, 2], "moved by {shift}");
        }
    }
}
