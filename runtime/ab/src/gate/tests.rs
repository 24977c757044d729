//! What is read, what is refused and how, and what each outcome takes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::stats::{Comparison, Interval};
use crate::verdict::{Verdict, Word};
use crate::{LoadAnalysis, TensorResult};

fn comparison(metric: Metric, change: f64, low: f64, high: f64, by_difference: bool) -> Comparison {
    let interval = Some(Interval { low, high });
    Comparison {
        metric,
        rounds: 6,
        a: if by_difference { 1.0 } else { 100.0 },
        b: 100.0 * change,
        b_interval: Some(Interval { low: 100.0 * low, high: 100.0 * high }),
        change,
        by_difference,
        interval_95: interval,
        interval_99: interval,
        spread_a: None,
    }
}

fn load(pace: Pace, until: Option<&str>, metrics: Vec<Comparison>) -> LoadAnalysis {
    let primary = metrics[0].metric;
    LoadAnalysis { pace, until: until.map(Into::into), primary, metrics, bottleneck: [None, None] }
}

fn analysis(loads: Vec<LoadAnalysis>) -> Analysis {
    let verdict = Verdict { word: Word::NoDifferenceShown, reason: String::new() };
    Analysis { verdict, loads, tensors: None, detections: None }
}

fn outcome(text: &str, analysis: &Analysis) -> Outcome {
    let judged = Requirements::parse(text).unwrap().judge(analysis);
    assert_eq!(judged.len(), 1);
    judged[0].outcome
}

#[test]
fn the_documented_example_is_read() {
    let text = "fps >= 1.15x, map_drop <= 0.1, psnr >= 42, latency_p99 <= 1.05x, cpu <= 0.9x, memory <= 1x, \
                moved <= 0.5x, drops <= 0, boxes_lost <= 0, fps@saturated>=100";
    let judged = Requirements::parse(text).unwrap().judge(&analysis(vec![]));
    assert_eq!(judged.len(), 10);
    assert!(judged.iter().all(|j| j.outcome == Outcome::NotMeasured), "{judged:?}");
    for name in Requirements::names() {
        assert!(Requirements::parse(&format!("{name} <= 1")).is_ok(), "{name}");
    }
}

#[test]
fn the_unfavourable_end_of_the_interval_decides() {
    let a = analysis(vec![load(Pace::Saturated, None, vec![comparison(Metric::Fps, 1.2, 1.1, 1.3, false)])]);
    assert_eq!(outcome("fps >= 1.1x", &a), Outcome::Met);
    assert_eq!(outcome("fps >= 1.15x", &a), Outcome::NotShown);
    assert_eq!(outcome("fps >= 1.31x", &a), Outcome::NotMet);
    assert_eq!(outcome("fps <= 1.3x", &a), Outcome::Met);
    assert_eq!(outcome("fps <= 1.09x", &a), Outcome::NotMet);
    // B's own figure is 120, 110 to 130
    assert_eq!(outcome("fps >= 110", &a), Outcome::Met);
    assert_eq!(outcome("fps >= 125", &a), Outcome::NotShown);
    assert_eq!(outcome("cpu <= 1x", &a), Outcome::NotMeasured);
    let figures = Requirements::parse("fps >= 1.15x").unwrap().judge(&a).remove(0).figures;
    assert_eq!(figures, "saturated: 1.200x (1.100x to 1.300x)");
}

#[test]
fn a_requirement_holds_at_every_load_or_at_the_one_it_names() {
    let a = analysis(vec![
        load(Pace::Saturated, None, vec![comparison(Metric::Fps, 1.2, 1.15, 1.3, false)]),
        load(Pace::Cameras, None, vec![comparison(Metric::Fps, 1.0, 0.99, 1.01, false)]),
        load(Pace::Saturated, Some("to-rgb"), vec![comparison(Metric::Fps, 2.0, 1.9, 2.1, false)]),
    ]);
    assert_eq!(outcome("fps >= 1.1x", &a), Outcome::NotMet);
    assert_eq!(outcome("fps@saturated >= 1.1x", &a), Outcome::Met);
    assert_eq!(outcome("fps@cameras >= 1.1x", &a), Outcome::NotMet);
    assert_eq!(outcome("fps@until >= 1.9x", &a), Outcome::Met);
}

#[test]
fn without_an_interval_nothing_is_shown_and_identical_tensors_have_any_psnr() {
    let mut one_round = comparison(Metric::Fps, 9.0, 9.0, 9.0, false);
    one_round.interval_99 = None;
    let mut a = analysis(vec![load(Pace::Saturated, None, vec![one_round])]);
    assert_eq!(outcome("fps >= 1x", &a), Outcome::NotShown);
    a.tensors = Some(TensorResult {
        frames: 1,
        peak: 1.0,
        psnr_db: vec![None],
        worst_db: None,
        median_db: None,
        largest: 0.0,
        differing: 0.0,
    });
    assert_eq!(outcome("psnr >= 99", &a), Outcome::Met);
}

#[test]
fn all_faults_are_said_at_once_with_position_and_the_nearest_name() {
    let text = "fsp >= 1.15x, latency_p99@camera <= 1,, cpu = 3, psnr >= 42x, memory <= many, übel";
    let said: Vec<String> = Requirements::parse(text).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "--require, character 1: nothing is measured as 'fsp'; did you mean 'fps'?",
            "--require, character 27: 'camera' is no load; expected saturated, cameras or until",
            "--require, character 39: a requirement is missing; expected one as 'fps >= 1.15x'",
            "--require, character 45: '=' is no comparison; expected '>=' or '<='",
            "--require, character 58: 'psnr' has no ratio; write its figure without x",
            "--require, character 73: 'many' is no figure; expected one as 42, or 1.15x for the ratio B/A",
            "--require, character 79: 'übel' compares nothing; expected '>=' or '<=' and a figure, as 'übel >= 1'",
        ]
    );
    assert_eq!(Requirements::parse("").unwrap_err().len(), 1);
    assert!(Requirements::parse("fps >= inf").is_err() && Requirements::parse("fps >= NaN").is_err());
    assert!(Requirements::parse("fps >= -1x").is_err());
}
