//! Experiments that were never run: figures with a known truth under noise. It knows nothing of how they are judged.
#![allow(dead_code, reason = "each test uses a part")]

use fastrand::Rng;
use millrace_ab::model::{Arm, Experiment, LoadRuns, Machine, Metric, Pace, Run, SCHEMA, Side, Stage};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Noise {
    Normal,
    HeavyTails,
    Bursts,
    SlowRuns,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth {
    /// B's throughput over A's.
    pub(crate) ratio: f64,
    /// Standard deviation of a run, as a share.
    pub(crate) noise: f64,
    pub(crate) kind: Noise,
    pub(crate) rounds: u32,
}

pub(crate) fn normal(r: &mut Rng) -> f64 {
    (-2.0 * (1.0 - r.f64()).ln()).sqrt() * (std::f64::consts::TAU * r.f64()).cos()
}

fn run(side: Side, round: u32, place: u32, fps: f64, slower: f64) -> Run {
    let frames = 1200;
    let stage = |node: &str, work: f64, age: f64, cpu: f64| Stage {
        node: node.into(),
        work_p50_ns: (work * 1e6) as u64,
        work_p95_ns: (work * 1.3e6) as u64,
        work_p99_ns: (work * 1.7e6) as u64,
        age_p50_ns: (age * 1e6) as u64,
        age_p95_ns: (age * 1.2e6) as u64,
        age_p99_ns: (age * 1.5e6) as u64,
        cpu_ns_per_frame: (cpu * 1e6) as u64,
    };
    Run {
        side,
        round,
        place,
        frames,
        took_ns: (1e9 * frames as f64 / fps) as u64,
        figures: BTreeMap::from([
            (Metric::Fps, fps),
            (Metric::LatencyP50Ms, 2400.0 / fps),
            (Metric::LatencyP95Ms, 2900.0 / fps),
            (Metric::LatencyP99Ms, 3600.0 / fps),
            (Metric::CpuMsPerFrame, 1500.0 / fps),
            (Metric::MemoryMib, if side == Side::A { 412.0 } else { 367.0 }),
            (Metric::MovedMbPerFrame, if side == Side::A { 14.5 } else { 6.2 }),
            (Metric::DroppedPercent, 0.0),
        ]),
        stages: vec![
            stage("decode", 4.1, 0.0, 4.0),
            stage("to-rgb", 2.2 * slower, 4.9, 2.1 * slower),
            stage("detect", 7.4, 7.6, 9.0),
            stage("page", 0.2, 15.8, 0.2),
        ],
        drops: BTreeMap::new(),
        counters: BTreeMap::new(),
        failure: None,
    }
}

pub(crate) fn load(truth: Truth, pace: Pace, r: &mut Rng) -> LoadRuns {
    let mut runs = Vec::new();
    let (mut level, mut burst) = (0.0, normal(r));
    for round in 0..truth.rounds {
        // the machine is warmer in one round than in the last, and during a round it drifts
        level += 0.03 * normal(r);
        let slope = 0.005 * normal(r);
        for place in 0..4 {
            burst = 0.7 * burst + 0.51f64.sqrt() * normal(r);
            let noise = truth.noise
                * match truth.kind {
                    Noise::Normal => normal(r),
                    Noise::HeavyTails => {
                        let chi: f64 = (0..3).map(|_| normal(r).powi(2)).sum();
                        normal(r) / chi.sqrt()
                    }
                    Noise::Bursts => burst,
                    Noise::SlowRuns => 0.75 * normal(r) - if r.f64() < 0.1 { 4.0 * r.f64() } else { 0.0 },
                };
            let side = if place == 0 || place == 3 { Side::A } else { Side::B };
            let ratio = if side == Side::B { truth.ratio } else { 1.0 };
            let fps = 100.0 * ratio * (level + slope * f64::from(place) + noise).exp();
            runs.push(run(side, round, place, fps, 1.0 / ratio));
        }
    }
    LoadRuns { pace, until: None, cameras: 1, warm_up_frames: 100, together: false, runs }
}

pub(crate) fn experiment(loads: Vec<LoadRuns>) -> Experiment {
    let arm = |name: &str| Arm { name: name.into(), graph: format!("graphs/{name}.yml"), sets: vec![] };
    Experiment {
        schema: SCHEMA,
        title: "simulated".into(),
        date: "2026-11-24".into(),
        command: "millrace ab graphs/a.yml graphs/b.yml".into(),
        machine: Machine::default(),
        arms: [arm("a"), arm("b")],
        differences: vec![],
        loads,
        quality: None,
    }
}
