//! The verdict on experiments whose truth is known: how often it is wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "its shares are the figures of ADR 0014")]

mod simulator;

use fastrand::Rng;
use millrace_ab::model::{Metric, Pace};
use millrace_ab::{DEFAULT_ROUNDS, Word, analyse};
use simulator::{Noise, Truth, experiment, load};

const EXPERIMENTS: u32 = 1000;
const KINDS: [Noise; 4] = [Noise::Normal, Noise::HeavyTails, Noise::Bursts, Noise::SlowRuns];

/// Of `EXPERIMENTS` with this truth: how many say so, and in how many the 99 % and 95 % intervals hold the truth.
fn judge(truth: Truth, seed: u64, word: Word) -> (u32, u32, u32) {
    let mut random = Rng::with_seed(seed);
    let (mut said, mut held_99, mut held_95) = (0, 0, 0);
    for _ in 0..EXPERIMENTS {
        let mut load = load(truth, Pace::Saturated, &mut random);
        load.runs.iter_mut().for_each(|r| r.figures.retain(|m, _| *m == Metric::Fps));
        let analysis = analyse(&experiment(vec![load]));
        let fps = analysis.loads[0].metric(Metric::Fps).unwrap();
        let holds = |i: Option<millrace_ab::Interval>| i.is_some_and(|i| (i.low..=i.high).contains(&truth.ratio));
        said += u32::from(analysis.verdict.word == word);
        held_99 += u32::from(holds(fps.interval_99));
        held_95 += u32::from(holds(fps.interval_95));
    }
    (said, held_99, held_95)
}

#[test]
fn equal_arms_are_called_equal_with_few_rounds_drift_and_heavy_tails() {
    for rounds in [4, DEFAULT_ROUNDS, 8] {
        for (seed, kind) in (1..).zip(KINDS) {
            let truth = Truth { ratio: 1.0, noise: 0.02, kind, rounds };
            let (said, held_99, held_95) = judge(truth, seed, Word::NoDifferenceShown);
            println!(
                "A/A, {rounds} rounds, {kind:?}: no difference {said}, 99 % holds {held_99}, 95 % holds {held_95}"
            );
            // clearly more often than 19 in 20
            assert!(said >= EXPERIMENTS * 98 / 100, "{truth:?}: {said}");
            assert!(held_99 >= EXPERIMENTS * 98 / 100, "{truth:?}: {held_99}");
            assert!(held_95 >= EXPERIMENTS * 93 / 100, "{truth:?}: {held_95}");
        }
    }
}

#[test]
fn a_slowdown_of_5_percent_is_found_under_2_percent_of_noise() {
    for (seed, kind) in (21..).zip(KINDS) {
        let truth = Truth { ratio: 0.95, noise: 0.02, kind, rounds: DEFAULT_ROUNDS };
        let (said, held_99, _) = judge(truth, seed, Word::Slower);
        println!("5 % slower, {kind:?}: found {said}, 99 % holds {held_99}");
        assert!(said >= EXPERIMENTS * 9 / 10, "{truth:?}: {said}");
        assert!(held_99 >= EXPERIMENTS * 98 / 100, "{truth:?}: {held_99}");
    }
}

#[test]
fn a_gain_is_called_faster_and_a_tiny_one_no_difference() {
    let mut random = Rng::with_seed(3);
    let mut word = |ratio, noise| {
        let truth = Truth { ratio, noise, kind: Noise::Normal, rounds: DEFAULT_ROUNDS };
        analyse(&experiment(vec![load(truth, Pace::Saturated, &mut random)])).verdict
    };
    assert_eq!(word(1.3, 0.02).word, Word::Faster);
    // shown beyond doubt if the drift within a round did not widen it, and too small to matter
    let mut drift_free = load(
        Truth { ratio: 1.0, noise: 0.0, kind: Noise::Normal, rounds: DEFAULT_ROUNDS },
        Pace::Saturated,
        &mut Rng::with_seed(4),
    );
    for (i, run) in drift_free.runs.iter_mut().enumerate() {
        let b = run.place == 1 || run.place == 2;
        run.figures.insert(Metric::Fps, if b { 100.3 } else { 100.0 } + 0.01 * (i % 3) as f64);
    }
    let analysis = analyse(&experiment(vec![drift_free]));
    let interval = analysis.loads[0].metric(Metric::Fps).unwrap().interval_99.unwrap();
    assert!(interval.low > 1.0, "{interval:?}");
    assert_eq!(analysis.verdict.word, Word::NoDifferenceShown);
    assert!(analysis.verdict.reason.contains("too little to matter"), "{}", analysis.verdict.reason);
}

#[test]
fn equal_arms_stay_equal_though_three_figures_decide() {
    let mut random = Rng::with_seed(31);
    let truth = Truth { ratio: 1.0, noise: 0.02, kind: Noise::Bursts, rounds: DEFAULT_ROUNDS };
    let said = (0..EXPERIMENTS).filter(|_| {
        let mut loads = [Pace::Saturated, Pace::Cameras].map(|pace| load(truth, pace, &mut random));
        for run in loads.iter_mut().flat_map(|l| &mut l.runs) {
            run.figures.retain(|m, _| [Metric::Fps, Metric::LatencyP50Ms, Metric::CpuMsPerFrame].contains(m));
            // processor time has a noise of its own
            let own = (0.02 * simulator::normal(&mut random)).exp();
            run.figures.insert(Metric::CpuMsPerFrame, 15.0 * own);
        }
        analyse(&experiment(loads.into())).verdict.word == Word::NoDifferenceShown
    });
    let said = said.count();
    println!("A/A, three figures: no difference {said}");
    assert!(said >= EXPERIMENTS as usize * 96 / 100, "{said}");
}
