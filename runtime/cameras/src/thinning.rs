//! `target_fps`: which pictures of a camera go on, so that they are evenly spaced in time.

/// Lets a picture through when the next one is due by its presentation time.
#[derive(Debug, Default)]
pub(crate) struct Thinning {
    next_ns: Option<i64>,
    last_ns: Option<i64>,
}

impl Thinning {
    /// Whether the picture with this time goes on at this rate.
    pub(crate) fn lets_through(&mut self, pts_ns: i64, target_fps: Option<f64>) -> bool {
        let last_ns = self.last_ns.replace(pts_ns).unwrap_or(pts_ns);
        let Some(fps) = target_fps else {
            self.next_ns = None;
            return true;
        };
        let interval_ns = (1e9 / fps) as i64;
        let next_ns = self.next_ns.unwrap_or(pts_ns);
        // the picture that is nearest to the grid goes on, also where it is early
        let tolerance_ns = pts_ns.saturating_sub(last_ns).clamp(0, interval_ns) / 2;
        let early_ns = next_ns.saturating_sub(pts_ns);
        let jumped_back = early_ns > interval_ns.saturating_mul(2);
        if early_ns > tolerance_ns && !jumped_back {
            return false;
        }
        // on a grid, so that the average is the rate; after a gap the grid begins again
        let on_grid = next_ns.saturating_add(interval_ns);
        let after_gap = on_grid <= pts_ns || jumped_back;
        self.next_ns = Some(if after_gap { pts_ns.saturating_add(interval_ns) } else { on_grid });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `seconds` of a camera go on, and the largest distance between two of them.
    fn thinned(camera_fps: f64, target_fps: f64, seconds: u32, jitter_ns: i64) -> (usize, i64) {
        let mut thinning = Thinning::default();
        let frames = (camera_fps * f64::from(seconds)) as i64;
        let times = (0..frames).map(|n| (n as f64 * 1e9 / camera_fps) as i64 + jitter_ns * (n * 7 % 3 - 1));
        let kept: Vec<i64> = times.filter(|&pts_ns| thinning.lets_through(pts_ns, Some(target_fps))).collect();
        let gap_ns = kept.windows(2).map(|pair| pair[1] - pair[0]).max();
        (kept.len(), gap_ns.unwrap_or_default())
    }

    #[test]
    fn the_rate_is_the_target_and_the_pictures_are_evenly_spaced() {
        for (camera_fps, target_fps) in
            [(25.0, 10.0), (30.0, 15.0), (25.0, 24.0), (30.0, 7.0), (60.0, 25.0), (25.0, 1.0)]
        {
            let (kept, gap_ns) = thinned(camera_fps, target_fps, 20, 2_000_000);
            let wanted = target_fps * 20.0;
            assert!((kept as f64 - wanted).abs() <= wanted * 0.02 + 1.0, "{camera_fps} to {target_fps}: {kept}");
            let most_ns = 1e9 / target_fps + 1e9 / camera_fps + 8e6;
            assert!(gap_ns as f64 <= most_ns, "{camera_fps} to {target_fps}: a gap of {gap_ns} ns");
        }
    }

    #[test]
    fn a_target_at_or_over_the_rate_of_the_camera_keeps_every_picture() {
        assert_eq!(thinned(25.0, 25.0, 20, 8_000_000).0, 500);
        assert_eq!(thinned(25.0, 60.0, 20, 8_000_000).0, 500);
    }

    #[test]
    fn times_that_jump_hold_nothing_up() {
        let mut thinning = Thinning::default();
        for pts_ns in [0, 3_600_000_000_000, 3_600_100_000_000, 5_000_000_000, 5_100_000_000] {
            assert!(thinning.lets_through(pts_ns, Some(10.0)), "{pts_ns}");
        }
        assert!(!thinning.lets_through(5_150_000_000, Some(10.0)));
        assert!(thinning.lets_through(5_160_000_000, None), "no target");
    }
}
