//! One metric of two arms, compared pair by pair.

use crate::model::{LoadRuns, Metric, Run, Side};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rounds that find a slowdown of 5 % under a noise of 2 % a run (`tests/coverage.rs`).
pub const DEFAULT_ROUNDS: u32 = 6;
/// Resamplings of the pairs.
const DRAWS: usize = 4000;
const SEED: u64 = 0x6d69_6c6c_7261_6365;

/// From, to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// One metric of one load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// Which.
    pub metric: Metric,
    /// Rounds in which both arms have it.
    pub rounds: u32,
    /// Mean of arm A (geometric where arms are compared by ratio).
    pub a: f64,
    /// Mean of arm B.
    pub b: f64,
    /// Interval of B's own figure, 99 %; `None` where there is none.
    pub b_interval: Option<Interval>,
    /// B/A, or B - A where `by_difference`.
    pub change: f64,
    /// `change` is a difference: a share, or a figure that is 0 somewhere.
    pub by_difference: bool,
    /// Interval for the table, 95 %.
    pub interval_95: Option<Interval>,
    /// Interval for verdicts and requirements, 99 %.
    pub interval_99: Option<Interval>,
    /// Of two runs of arm A in one round, how far they are apart: standard deviation in percent of A, or in its unit where
    /// `by_difference`.
    pub spread_a: Option<f64>,
}

/// Compares one metric; `None` where no round has it in all of its runs.
pub(crate) fn compare(load: &LoadRuns, metric: Metric) -> Option<Comparison> {
    let mut rounds: BTreeMap<u32, BTreeMap<u32, (Side, f64)>> = BTreeMap::new();
    for run in &load.runs {
        if let Some(value) = figure(run, metric) {
            rounds.entry(run.round).or_default().insert(run.place, (run.side, value));
        }
    }
    // places 0 and 3 are A, 1 and 2 are B; a round that lacks a run says nothing
    let rounds: Vec<[f64; 4]> = rounds
        .values()
        .filter_map(|r| {
            let at = |place, side| r.get(&place).filter(|(s, _)| *s == side).map(|(_, v)| *v);
            Some([at(0, Side::A)?, at(1, Side::B)?, at(2, Side::B)?, at(3, Side::A)?])
        })
        .collect();
    if rounds.is_empty() {
        return None;
    }
    let by_difference = metric.by_difference() || rounds.iter().flatten().any(|v| *v <= 0.0);
    let to = |v: f64| if by_difference { v } else { v.ln() };
    let back = |v: f64| if by_difference { v } else { v.exp().min(f64::MAX) };
    // neighbours in time make a pair: A before B in the round's first half, after it in the second
    let pairs: Vec<(f64, f64)> = rounds.iter().flat_map(|r| [(to(r[0]), to(r[1])), (to(r[3]), to(r[2]))]).collect();
    let a: Vec<f64> = pairs.iter().map(|p| p.0).collect();
    let b: Vec<f64> = pairs.iter().map(|p| p.1).collect();
    let changes: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
    let span =
        |values: &[f64]| intervals(values).map(|both| both.map(|i| Interval { low: back(i.low), high: back(i.high) }));
    let of_change = span(&changes);
    let again: Vec<f64> = rounds.iter().map(|r| to(r[3]) - to(r[0])).collect();
    let spread = (again.iter().map(|d| d * d).sum::<f64>() / again.len() as f64).sqrt();
    Some(Comparison {
        metric,
        rounds: u32::try_from(rounds.len()).unwrap_or(u32::MAX),
        a: back(mean(&a)),
        b: back(mean(&b)),
        b_interval: span(&b).map(|i| i[1]),
        change: back(mean(&changes)),
        by_difference,
        interval_95: of_change.map(|i| i[0]),
        interval_99: of_change.map(|i| i[1]),
        spread_a: Some(if by_difference { spread } else { spread.exp_m1().min(1e15) * 100.0 }),
    })
}

fn figure(run: &Run, metric: Metric) -> Option<f64> {
    // what is larger was not measured, and its square might be no number
    run.figures.get(&metric).copied().filter(|v| v.abs() <= 1e15)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Intervals of the mean, 95 and 99 %: the studentized bootstrap, symmetric, and never narrower than Student's t. ADR 0014 has the
/// simulation that chose it.
fn intervals(values: &[f64]) -> Option<[Interval; 2]> {
    let n = values.len();
    if n < 2 {
        return None;
    }
    let (centre, error) = (mean(values), standard_error(values));
    if error == 0.0 {
        return Some([Interval { low: centre, high: centre }; 2]);
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut sample = vec![0.0; n];
    let mut sizes: Vec<f64> = (0..DRAWS)
        .map(|_| {
            sample.fill_with(|| values[random.usize(0..n)]);
            // a figure that hardly varies makes samples of one value only, which would divide by nothing
            (mean(&sample) - centre).abs() / standard_error(&sample).max(error / 4.0)
        })
        .collect();
    sizes.sort_by(f64::total_cmp);
    Some([0.95, 0.99].map(|level| {
        let rank = ((level * DRAWS as f64).ceil() as usize).clamp(1, DRAWS) - 1;
        let half = error * sizes[rank].max(student(level, n - 1));
        Interval { low: centre - half, high: centre + half }
    }))
}

fn standard_error(values: &[f64]) -> f64 {
    let (centre, n) = (mean(values), values.len() as f64);
    (values.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// The t below whose size a share `level` of Student's distribution lies.
pub(crate) fn student(level: f64, freedom: usize) -> f64 {
    let (mut low, mut high) = (0.0, 1000.0);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if within(middle, freedom) < level { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// P(|T| < t) of whole degrees of freedom, the finite series (Abramowitz and Stegun 26.7.3 and 26.7.4).
fn within(t: f64, freedom: usize) -> f64 {
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = if freedom == 1 { 0.0 } else { term };
    let mut k = if odd { 3 } else { 2 };
    while k + 1 < freedom {
        term *= cosine * cosine * (k - 1) as f64 / k as f64;
        sum += term;
        k += 2;
    }
    if odd { (angle + sine * sum) * std::f64::consts::FRAC_2_PI } else { sine * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn students_t_is_the_tables() {
        // two-sided, from printed tables
        for (level, freedom, t) in [
            (0.95, 1, 12.706),
            (0.99, 1, 63.657),
            (0.95, 2, 4.303),
            (0.99, 3, 5.841),
            (0.99, 4, 4.604),
            (0.99, 5, 4.032),
            (0.95, 6, 2.447),
            (0.99, 7, 3.499),
            (0.95, 30, 2.042),
        ] {
            assert!((student(level, freedom) - t).abs() < 6e-4, "{level} {freedom}: {}", student(level, freedom));
        }
    }
}
