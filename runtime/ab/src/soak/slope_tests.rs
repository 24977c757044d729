#![allow(clippy::unwrap_used)]
use super::*;

/// Samples every so many seconds.
fn life(begin_s: f64, seconds: f64, values: impl IntoIterator<Item = f64>) -> Vec<Point> {
    let point = |(n, value): (usize, f64)| Point { at_s: begin_s + seconds * (n as f64 + 1.0), seconds, value };
    values.into_iter().enumerate().map(point).collect()
}

/// Noise in which each value hangs on the one before.
fn noise(random: &mut fastrand::Rng, n: usize, tau: f64) -> Vec<f64> {
    let rho = (-1.0 / tau).exp();
    let mut value = 0.0;
    let gauss = |random: &mut fastrand::Rng| (0..12).map(|_| random.f64()).sum::<f64>() - 6.0;
    let mut step = || {
        value = rho * value + (1.0 - rho * rho).sqrt() * gauss(random);
        value
    };
    (0..n + 500).map(|_| step()).skip(500).collect()
}

#[test]
fn the_slope_and_its_interval_are_those_of_numpy_and_scipy() {
    // tests/soak_slope.py
    let expected = [54.565_939_159_904, 21.563_828_694_416, 87.568_049_625_393];
    let values = (0..320).map(|n| 100.0 + f64::from(n) / 50.0 + 3.0 * (f64::from(n) / 7.0).sin());
    let found = slope(&[life(0.0, 30.0, values)], 0.0, 0.99).unwrap();
    assert_eq!((found.blocks, found.lives), (12, 1));
    for (value, expected) in [found.per_day, found.low, found.high].into_iter().zip(expected) {
        assert!((value - expected).abs() < 1e-6, "{found:?}: {expected}");
    }
}

#[test]
fn processes_have_levels_of_their_own() {
    // the second one begins far lower: as one line it would fall
    let first = life(0.0, 30.0, (0..160).map(|n| 500.0 + f64::from(n) * 0.01));
    let second = life(4_800.0, 30.0, (0..160).map(|n| 20.0 + f64::from(n) * 0.01));
    let found = slope(&[first, second], 0.0, 0.99).unwrap();
    assert!((found.per_day - 0.01 * DAY_S / 30.0).abs() < 1e-6, "{found:?}");
    assert_eq!((found.lives, trend(found)), (2, Trend::Grows));
}

#[test]
fn what_does_not_move_is_flat_once_a_step_would_have_been_seen() {
    // one descriptor more in an hour would be 24 a day; in three hours it is 8
    for (samples, expected) in [(120, Trend::NotShown), (360, Trend::Flat)] {
        let found = slope(&[life(0.0, 30.0, vec![31.0; samples])], 1.0, 0.999).unwrap();
        assert_eq!((found.per_day, trend(found)), (0.0, expected), "{found:?}");
    }
}

#[test]
fn what_levels_off_does_not_grow_and_what_leaks_does() {
    let mut random = fastrand::Rng::with_seed(5);
    let noisy = |random: &mut fastrand::Rng, of: &dyn Fn(f64) -> f64| {
        let noise = noise(random, 400, 4.0);
        slope(&[life(0.0, 30.0, noise.iter().enumerate().map(|(n, e)| of(n as f64) + 0.2 * e))], PAGE_MIB, 0.999)
            .unwrap()
    };
    for _ in 0..50 {
        let saturates = noisy(&mut random, &|n| 80.0 - 40.0 * (-n / 60.0).exp());
        assert_ne!(trend(saturates), Trend::Grows, "{saturates:?}");
        // 86 MiB a day
        let leaks = noisy(&mut random, &|n| 40.0 + n * 0.03);
        assert_eq!(trend(leaks), Trend::Grows, "{leaks:?}");
    }
}

#[test]
fn noise_that_hangs_together_is_rarely_taken_for_growth() {
    let mut random = fastrand::Rng::with_seed(7);
    // a memory of up to a tenth of the whole time, where numpy has half a percent (tests/soak_coverage.py, at this level); an
    // ordinary regression of all samples would say so in a third
    for tau in [1.0, 5.0, 40.0] {
        let mut grows = 0;
        for _ in 0..400 {
            let values: Vec<f64> = noise(&mut random, 400, tau).iter().map(|e| 100.0 + 20.0 * e).collect();
            grows += usize::from(trend(slope(&[life(0.0, 30.0, values)], PAGE_MIB, 0.999).unwrap()) == Trend::Grows);
        }
        assert!(grows <= 8, "tau {tau}: {grows} of 400");
    }
}

#[test]
fn too_little_is_not_judged() {
    assert_eq!(slope(&[], 1.0, 0.99), None);
    assert_eq!(slope(&[life(0.0, 100.0, [1.0; 9])], 1.0, 0.99), None, "7 that have settled");
    // processes that end before they have reached their level, and grow as new ones do
    let new = |begin_s| life(begin_s, 10.0, (0..70).map(f64::from));
    assert_eq!(slope(&[new(0.0), new(800.0), new(1_600.0)], 1.0, 0.99), None);
    assert!(trends(&Rows::default()).is_empty());
}
