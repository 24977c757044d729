//! The report's forms, of simulated experiments. The pages stay under the target folder's tmp, to be looked at.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "simulator/quality.rs"]
mod simulated_quality;
mod simulator;

use fastrand::Rng;
use millrace_ab::model::{Difference, Experiment, Machine, Metric, Pace, Side};
use millrace_ab::{Report, Requirements, Word, analyse, html, json, markdown, terminal};
use simulated_quality::{Planted, quality};
use simulator::{Noise, Truth, experiment, load, normal};

fn simulated(ratio: f64, planted: Option<Planted>) -> Experiment {
    let mut r = Rng::with_seed(11);
    let truth = Truth { ratio, noise: 0.02, kind: Noise::Normal, rounds: 6 };
    let mut e = experiment(vec![load(truth, Pace::Saturated, &mut r), load(truth, Pace::Cameras, &mut r)]);
    e.quality = planted.map(|p| quality(&p, &mut r));
    e.title = "Fused conversion against separate passes".into();
    e.differences = vec![Difference { what: "to-rgb.FUSED".into(), a: Some("false".into()), b: Some("true".into()) }];
    e.machine = Machine {
        cpu: "a simulated processor".into(),
        cores: 2,
        memory_bytes: 24 << 30,
        kernel: "6.1".into(),
        gpu: None,
        driver: None,
        versions: vec![("millrace".into(), "0.1.0".into()), ("dora".into(), "1.1.0".into())],
    };
    for run in &mut e.loads[1].runs {
        run.drops.insert("detect: late".into(), if run.side == Side::A { 3 } else { 0 });
        run.counters.insert("to-rgb.fused".into(), if run.side == Side::A { 0 } else { 1200 });
    }
    e
}

fn good() -> Option<Planted> {
    Some(Planted { tensor_error: 0.001, lose_every: 0, frames: 300 })
}

fn keep(name: &str, content: &str) {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("ab-report");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), content).unwrap();
}

fn word(e: &Experiment) -> (Word, String) {
    let v = analyse(e).verdict;
    (v.word, v.reason)
}

#[test]
fn quality_wins_over_speed_and_a_failed_run_over_both() {
    assert_eq!(word(&simulated(1.3, good())).0, Word::Faster);
    let lossy = simulated(1.3, Some(Planted { tensor_error: 0.001, lose_every: 30, frames: 300 }));
    let (said, reason) = word(&lossy);
    assert_eq!(said, Word::QualityChanged, "{reason}");
    assert!(reason.contains("10 lost"), "{reason}");
    // 20 log10(1 / 0.05) is 26 dB
    let (said, reason) = word(&simulated(1.3, Some(Planted { tensor_error: 0.05, lose_every: 0, frames: 50 })));
    assert_eq!(said, Word::QualityChanged);
    assert!(reason.contains("dB"), "{reason}");
    let mut broken = lossy.clone();
    broken.loads[0].runs[5].failure = Some("node detect ended".into());
    let (said, reason) = word(&broken);
    assert_eq!(said, Word::Failed);
    assert!(reason.contains("run 1 of round 1 (arm B)") && reason.contains("node detect ended"), "{reason}");
    let mut uneven = simulated(1.3, good());
    uneven.loads[0].runs[2].frames -= 1;
    assert_eq!(word(&uneven).0, Word::Failed);
}

#[test]
fn without_a_difference_in_throughput_the_cameras_load_decides() {
    let mut r = Rng::with_seed(2);
    let truth = |ratio| Truth { ratio, noise: 0.01, kind: Noise::Normal, rounds: 6 };
    let e = experiment(vec![load(truth(1.0), Pace::Saturated, &mut r), load(truth(1.2), Pace::Cameras, &mut r)]);
    let (said, reason) = word(&e);
    assert_eq!(said, Word::Faster);
    assert!(reason.starts_with("cameras: latency p50"), "{reason}");
}

#[test]
fn psnr_is_ten_log_of_the_peak_squared_over_the_error() {
    let mut r = Rng::with_seed(2);
    let mut e = simulated(1.0, None);
    let mut q = quality(&Planted { tensor_error: 0.0, lose_every: 0, frames: 3 }, &mut r);
    // range over the run: 4 to 12, so the peak is 8; an error of 0.08 everywhere is 40 dB, of 0.8 20 dB
    q.tensors[0].range_a = [4.0, 10.0];
    q.tensors[1].range_a = [5.0, 12.0];
    q.tensors[2].range_a = [5.0, 11.0];
    q.tensors[0].sum_squared = 0.0064 * q.tensors[0].elements as f64;
    q.tensors[1].sum_squared = 0.64 * q.tensors[1].elements as f64;
    e.quality = Some(q);
    let t = analyse(&e).tensors.unwrap();
    assert_eq!(t.peak, 8.0);
    assert!((t.psnr_db[0].unwrap() - 40.0).abs() < 1e-9 && (t.psnr_db[1].unwrap() - 20.0).abs() < 1e-9);
    assert_eq!(t.psnr_db[2], None, "identical");
    assert!((t.worst_db.unwrap() - 20.0).abs() < 1e-9 && (t.median_db.unwrap() - 40.0).abs() < 1e-9);
}

/// Equal, but for the last digit of a figure, which the parser of JSON may round otherwise.
fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value::{Array, Number, Object};
    match (a, b) {
        (Array(a), Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Object(a), Object(b)) => a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w))),
        (Number(a), Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-9 * a.abs().max(1e-3)
        }
        _ => a == b,
    }
}

#[test]
fn the_json_comes_back_as_it_went_even_with_figures_that_are_none() {
    let mut e = simulated(1.1, Some(Planted { tensor_error: 0.0, lose_every: 0, frames: 5 }));
    e.loads[0].runs[0].figures.insert(Metric::LatencyP50Ms, f64::NAN);
    e.quality.as_mut().unwrap().tensors[1].sum_squared = f64::INFINITY;
    e.quality.as_mut().unwrap().detections_a[0].boxes[0].score = f32::NAN;
    let report = Report::new(e, &Requirements::parse("fps >= 1x, psnr >= 40").unwrap());
    let text = json(&report).unwrap();
    let back = Report::read(&text).unwrap();
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert!(same(&value(&json(&back).unwrap()), &value(&text)));
    let other = text.replacen("\"schema\": 1", "\"schema\": 99", 1);
    assert!(Report::read(&other).unwrap_err().to_string().contains("schema 99"));
    assert!(Report::read("{").is_err());
}

#[test]
fn nothing_measured_and_odd_records_give_a_report_not_a_panic() {
    let mut none = experiment(vec![]);
    assert_eq!(word(&none).0, Word::Failed);
    none.quality = Some(Default::default());
    let mut odd = simulated(1.0, None);
    odd.loads[0].runs.truncate(3);
    odd.loads[1].runs.clear();
    let mut same = simulated(1.0, good());
    for run in same.loads.iter_mut().flat_map(|l| &mut l.runs) {
        run.figures.values_mut().for_each(|v| *v = 0.0);
        run.stages.iter_mut().for_each(|s| (s.work_p50_ns, s.work_p99_ns) = (0, 0));
        run.took_ns = 0;
    }
    let mut wild = simulated(1.0, good());
    for (i, run) in wild.loads.iter_mut().flat_map(|l| &mut l.runs).enumerate() {
        run.figures.values_mut().for_each(|v| *v = if i % 2 == 0 { 1e-300 } else { 1e300 });
    }
    for e in [none, odd, same, wild] {
        let report = Report::new(e, &Requirements::default());
        assert!(Report::read(&json(&report).unwrap()).is_ok());
        let _ = terminal(&report, true);
        let page = html(&report) + &markdown(&report, "x.svg").1;
        assert!(!page.contains("NaN") && !page.contains("inf\""), "no figure of a drawing is none");
    }
}

#[test]
fn the_page_is_whole_needs_nothing_and_escapes_everything() {
    let evil = "<script>alert('x')</script>\"&";
    let mut e = simulated(1.1, Some(Planted { tensor_error: 0.001, lose_every: 30, frames: 60 }));
    (e.title, e.command, e.date) = (evil.into(), evil.into(), evil.into());
    e.machine.cpu = evil.into();
    e.machine.gpu = Some(evil.into());
    e.machine.versions.push((evil.into(), evil.into()));
    for arm in &mut e.arms {
        (arm.name, arm.graph, arm.sets) = (evil.into(), evil.into(), vec![evil.into()]);
    }
    e.differences.push(Difference { what: evil.into(), a: Some(evil.into()), b: None });
    for l in &mut e.loads {
        l.until = Some(evil.into());
        for run in &mut l.runs {
            run.stages[0].node = evil.into();
            run.drops.insert(evil.into(), 1);
            run.counters.insert(evil.into(), run.place.into());
        }
    }
    let q = e.quality.as_mut().unwrap();
    for f in q.detections_a.iter_mut().chain(&mut q.detections_b) {
        f.source = evil.into();
        f.boxes.iter_mut().for_each(|b| b.label = evil.into());
    }
    q.pictures.iter_mut().for_each(|p| p.source = evil.into());
    q.pictures[0].jpeg_base64 = evil.into();
    let report = Report::new(e, &Requirements::parse("fps >= 1x").unwrap());
    let page = html(&report);
    assert!(!page.contains("<script") && !page.contains("alert('x')"));
    let (text, svg) = markdown(&report, "plot.svg");
    assert!(!svg.contains("<script"));
    assert!(!text.replace(&format!("```sh\n{evil}"), "").lines().any(|l| l.contains("<script") && !l.contains('`')));
    // the only addresses are the pictures' own data and the name of SVG
    for (at, _) in page.match_indices("http") {
        assert!(page[at..].starts_with("http://www.w3.org/2000/svg"), "{}", &page[at..at + 40]);
    }
    for (at, _) in page.match_indices("href=\"") {
        assert!(page[at..].starts_with("href=\"data:image/jpeg;base64,"));
    }
}

#[test]
fn the_forms_say_the_verdict_the_figures_and_what_was_not_measured() {
    let required = Requirements::parse("fps >= 1.1x, latency_p99@cameras <= 0.5x, gpu <= 90, boxes_lost <= 0").unwrap();
    let cases = [
        ("faster", simulated(1.3, good())),
        ("no-difference-shown", simulated(1.0, good())),
        ("quality-changed", simulated(1.3, Some(Planted { tensor_error: 0.01, lose_every: 30, frames: 300 }))),
    ];
    for (name, e) in cases {
        let report = Report::new(e, &required);
        let fps = report.analysis.loads[0].metric(Metric::Fps).unwrap();
        let ratio = format!("{:.3}", fps.change);
        let (text, svg) = markdown(&report, "plot.svg");
        let (page, plain, coloured) = (html(&report), terminal(&report, false), terminal(&report, true));
        keep(&format!("{name}.html"), &page);
        keep(&format!("{name}.md"), &text);
        keep("plot.svg", &svg);
        keep(&format!("{name}.txt"), &plain);
        for form in [&page, &text, &plain] {
            assert!(form.contains(&name.replace('-', " ")) && form.contains(&ratio), "{name}: {ratio}");
            assert!(form.contains("not measured"), "{name}");
        }
        assert!(page.contains("NVDEC") && text.contains("GPU memory"), "what was not measured is named");
        assert!(!plain.contains('\x1b') && coloured.contains('\x1b'));
        assert!(svg.contains("<style>") && text.contains("(plot.svg)"));
    }
    // the simulator is no constant
    assert!(normal(&mut Rng::with_seed(1)) != normal(&mut Rng::with_seed(2)));
}
