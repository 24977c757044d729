//! Which interval to use: how often each wrongly finds a difference between equal arms, and how often it finds 5 %.
//!
//! `cargo run --release -p millrace-ab --example intervals`: the table of ADR 0014.
#![allow(clippy::print_stdout, reason = "its output is the table")]

use fastrand::Rng;

const EXPERIMENTS: usize = 4000;
const DRAWS: usize = 600;

fn normal(r: &mut Rng) -> f64 {
    (-2.0 * (1.0 - r.f64()).ln()).sqrt() * (std::f64::consts::TAU * r.f64()).cos()
}

/// A neighbour that comes and goes, over the runs of an experiment.
struct Noise {
    kind: &'static str,
    state: f64,
    slope: f64,
}

impl Noise {
    fn of_run(&mut self, r: &mut Rng, place: u32) -> f64 {
        if place == 0 {
            self.slope = 0.01 * normal(r);
        }
        match self.kind {
            "normal" => 0.02 * normal(r),
            // Student's t with 3 degrees, of the same spread
            "heavy tails" => {
                let chi: f64 = (0..3).map(|_| normal(r).powi(2)).sum();
                0.02 * normal(r) / (chi / 3.0).sqrt() / 3f64.sqrt()
            }
            "drift in the round" => 0.02 * normal(r) + self.slope * f64::from(place),
            "bursts" => {
                self.state = 0.7 * self.state + 0.02 * (1.0f64 - 0.49).sqrt() * normal(r);
                self.state
            }
            _ => 0.015 * normal(r) - if r.f64() < 0.1 { 0.08 * r.f64() } else { 0.0 },
        }
    }
}

fn mean(v: &[f64]) -> f64 {
    v.iter().sum::<f64>() / v.len() as f64
}

fn error(v: &[f64]) -> f64 {
    let (m, n) = (mean(v), v.len() as f64);
    (v.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt()
}

/// 99.5th percentile of Student's t, printed tables.
fn t995(freedom: usize) -> f64 {
    [63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012, 2.977, 2.947]
        [freedom - 1]
}

fn excludes_zero(method: &str, v: &[f64], r: &mut Rng) -> bool {
    let (m, n) = (mean(v), v.len());
    if method == "Student's t" {
        return m.abs() > t995(n - 1) * error(v);
    }
    let studentized = method != "percentile";
    let floor = if method == "both" { error(v) / 4.0 } else { 1e-12 };
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let sample: Vec<f64> = (0..n).map(|_| v[r.usize(0..n)]).collect();
            if studentized { ((mean(&sample) - m) / error(&sample).max(floor)).abs() } else { mean(&sample) }
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    if studentized {
        let t = if method == "both" { t995(n - 1) } else { 0.0 };
        m.abs() > draws[DRAWS * 99 / 100].max(t) * error(v)
    } else {
        draws[DRAWS / 200] > 0.0 || draws[DRAWS - 1 - DRAWS / 200] < 0.0
    }
}

fn main() {
    println!("| noise | rounds | unit | interval | A/A: difference found | 5 % found |\n|---|---|---|---|---|---|");
    for kind in ["normal", "heavy tails", "drift in the round", "bursts", "slow runs"] {
        for rounds in [4u32, 6] {
            for unit in ["pair", "round"] {
                for method in ["percentile", "studentized", "Student's t", "both"] {
                    let share = |effect: f64| {
                        let mut r = Rng::with_seed(7);
                        let found = (0..EXPERIMENTS).filter(|_| {
                            let mut noise = Noise { kind, state: 0.02 * normal(&mut r), slope: 0.0 };
                            let mut pairs = Vec::new();
                            for _ in 0..rounds {
                                let v = [0, 1, 2, 3].map(|p| noise.of_run(&mut r, p));
                                pairs.push([v[1] - v[0] + effect, v[2] - v[3] + effect]);
                            }
                            let values: Vec<f64> = match unit {
                                "pair" => pairs.concat(),
                                _ => pairs.iter().map(|p| mean(p)).collect(),
                            };
                            excludes_zero(method, &values, &mut r)
                        });
                        100.0 * found.count() as f64 / EXPERIMENTS as f64
                    };
                    println!(
                        "| {kind} | {rounds} | {unit} | {method} | {:.1} % | {:.1} % |",
                        share(0.0),
                        share(0.95f64.ln())
                    );
                }
            }
        }
    }
}
