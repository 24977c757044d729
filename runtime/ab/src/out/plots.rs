//! Plots as SVG, drawn by hand: the page needs no script and no font.

use super::scale::Scale;
use super::tables::{self, Times};
use crate::analysis::LoadAnalysis;
use crate::model::{LoadRuns, Metric, Run, Side};
use crate::stats::Comparison;
use crate::tensors::TensorResult;
use std::fmt::Write;

/// Width of a plot's own coordinates: narrow, so that its text can be read on a phone.
pub(super) const WIDTH: f64 = 470.0;

/// Text for HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // characters that XML does not have
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A drawing that grows line by line.
pub(super) struct Drawing {
    title: String,
    height: f64,
    body: String,
}

impl Drawing {
    pub(super) fn new(title: &str, height: f64) -> Self {
        Self { title: escape(title), height, body: String::new() }
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // writing to a String cannot fail
        let _ = self.body.write_fmt(element);
        self.body.push('\n');
    }

    pub(super) fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        self.add(format_args!(r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#));
    }

    pub(super) fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escape(text);
        self.add(format_args!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#));
    }

    /// A line with words that show under the pointer.
    pub(super) fn hinted(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4], hint: &str) {
        let hint = escape(hint);
        self.add(format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"><title>{hint}</title></line>"#
        ));
    }

    /// A line through these points.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")));
    }

    /// A run's or an arm's mark: A is a circle, B a square, so that it does not hang on the colour.
    pub(super) fn mark(&mut self, side: Side, x: f64, y: f64, hint: &str) {
        let hint = escape(hint);
        match side {
            Side::A => self.add(format_args!(
                r#"<circle class="a" cx="{x:.1}" cy="{y:.1}" r="4.5"><title>{hint}</title></circle>"#
            )),
            Side::B => self.add(format_args!(
                r#"<rect class="b" x="{:.1}" y="{:.1}" width="8" height="8"><title>{hint}</title></rect>"#,
                x - 4.0,
                y - 4.0
            )),
        }
    }

    fn key(&mut self, y: f64) {
        self.mark(Side::A, WIDTH - 68.0, y, "A");
        self.text("", WIDTH - 60.0, y + 4.0, "A");
        self.mark(Side::B, WIDTH - 32.0, y, "B");
        self.text("", WIDTH - 24.0, y + 4.0, "B");
    }

    pub(super) fn finish(self) -> String {
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\"><title>{}</title>\n{}</svg>\n",
            self.height, self.title, self.body
        )
    }
}

/// Ratios of all metrics with their intervals: the thick line is 95 %, the thin one 99 %.
pub(super) fn forest(load: &LoadAnalysis) -> Option<String> {
    let rows: Vec<&Comparison> = load.metrics.iter().filter(|c| !c.by_difference).collect();
    if rows.is_empty() {
        return None;
    }
    let mut d = Drawing::new(&format!("B/A of each metric, {}", load.title()), 46.0 + 24.0 * rows.len() as f64);
    // a ratio of 2 is as far from 1 as one of 1/2
    let log = |v: f64| v.max(1e-3).log2().clamp(-4.0, 4.0);
    let ends = rows.iter().flat_map(|c| {
        let i = c.interval_99.map_or([c.change; 2], |i| [i.low, i.high]);
        [log(i[0]), log(i[1]), log(c.change)]
    });
    let scale = Scale::around(ends.chain([log(0.97), log(1.03)]), 190.0, WIDTH - 62.0);
    let bottom = d.height - 22.0;
    let ratios = [0.0625, 0.125, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 4.0, 8.0, 16.0];
    let mut last = f64::NEG_INFINITY;
    // 1 first: it always has its label
    let inside = |v: f64| (scale.from..=scale.to).contains(&log(v));
    let one = scale.pixel(0.0);
    for v in ratios.into_iter().filter(|v| inside(*v)) {
        let x = scale.pixel(log(v));
        let crowds_one = v != 1.0 && (x - one).abs() < 38.0;
        if x - last < 38.0 && v != 1.0 || crowds_one {
            continue;
        }
        last = x;
        d.line(if v == 1.0 { "one" } else { "grid" }, [x, 6.0, x, bottom]);
        d.text("m", x, bottom + 16.0, &format!("{v}"));
    }
    for (i, c) in rows.into_iter().enumerate() {
        let y = 20.0 + 24.0 * i as f64;
        let name = c.metric.title().split(',').next().unwrap_or_default();
        d.text(if c.metric == load.primary { "e strong" } else { "e" }, 180.0, y + 4.0, name);
        for (class, interval) in [("thin", c.interval_99), ("thick", c.interval_95)] {
            if let Some(i) = interval {
                d.line(class, [scale.pixel(log(i.low)), y, scale.pixel(log(i.high)), y]);
            }
        }
        // a stroke, not a mark: it must not hide a short interval
        let x = scale.pixel(log(c.change));
        d.line("centre", [x, y - 6.0, x, y + 6.0]);
        d.text("", WIDTH - 54.0, y + 4.0, &format!("{:.3}x", c.change));
    }
    Some(d.finish())
}

/// One metric of all runs in the order in which they were made; pairs are joined.
pub(super) fn strip(load: &LoadRuns, metric: Metric) -> Option<String> {
    let runs: Vec<(usize, &Run, f64)> =
        load.runs.iter().enumerate().filter_map(|(i, r)| Some((i, r, *r.figures.get(&metric)?))).collect();
    if runs.is_empty() {
        return None;
    }
    let mut d = Drawing::new(&format!("{} of each run, in order", metric.title()), 210.0);
    let y = Scale::around(runs.iter().map(|r| r.2), 174.0, 26.0);
    let step = (WIDTH - 66.0) / load.runs.len() as f64;
    let x = |i: usize| 52.0 + step * (i as f64 + 0.5);
    for v in y.ticks() {
        d.line("grid", [46.0, y.pixel(v), WIDTH - 8.0, y.pixel(v)]);
        d.text("e", 42.0, y.pixel(v) + 4.0, &y.label(v));
    }
    for (i, pair) in load.runs.windows(2).enumerate() {
        if pair[0].round != pair[1].round {
            d.line("dash", [x(i) + step / 2.0, 20.0, x(i) + step / 2.0, 178.0]);
        }
    }
    let find = |round, place| runs.iter().find(|(_, r, _)| r.round == round && r.place == place);
    for (i, run, v) in &runs {
        // the pairs of a round: places 0 and 1, 3 and 2
        if let (0 | 3, Some((j, _, w))) = (run.place, find(run.round, if run.place == 0 { 1 } else { 2 })) {
            d.line("pair", [x(*i), y.pixel(*v), x(*j), y.pixel(*w)]);
        }
    }
    for (i, run, v) in &runs {
        let hint = format!("round {}, run {}: {}", run.round + 1, run.place + 1, tables::number(*v));
        d.mark(run.side, x(*i), y.pixel(*v), &hint);
    }
    let rounds: std::collections::BTreeSet<u32> = runs.iter().map(|r| r.1.round).collect();
    for round in rounds {
        let of: Vec<f64> = runs.iter().filter(|r| r.1.round == round).map(|r| x(r.0)).collect();
        let label = if round == 0 { "round 1".to_owned() } else { (round + 1).to_string() };
        d.text("m", of.iter().sum::<f64>() / of.len() as f64, 194.0, &label);
    }
    d.text("", 8.0, 14.0, metric.title());
    d.key(10.0);
    Some(d.finish())
}

/// What a node's bars show: the bar, and how far its tail goes.
pub(super) type Bar = (&'static str, fn(&Times) -> (f64, Option<f64>));

/// A node's own work.
pub(super) const WORK: Bar = ("work at each node, ms a frame: p50, p99", |t| (t.work_p50, Some(t.work_p99)));
/// The age of frames when they arrive.
pub(super) const AGE: Bar = ("age of a frame at each node, ms: p50, p99", |t| (t.age_p50, Some(t.age_p99)));
/// Processor time.
pub(super) const CPU: Bar = ("processor time of each node, ms a frame", |t| (t.cpu, None));

/// A pair of bars a node.
pub(super) fn bars(load: &LoadRuns, (title, of): Bar) -> Option<String> {
    let rows = tables::stages(load);
    if rows.is_empty() {
        return None;
    }
    let mut d = Drawing::new(title, 58.0 + 36.0 * rows.len() as f64);
    let longest = rows.iter().flat_map(|r| r.1).flatten().map(|t| of(&t)).map(|(v, tail)| tail.unwrap_or(v).max(v));
    let longest = longest.fold(0.0, f64::max).max(1e-6);
    let x = Scale { from: 0.0, to: longest, start_px: 112.0, end_px: WIDTH - 76.0 };
    let bottom = d.height - 24.0;
    for v in x.ticks() {
        d.line("grid", [x.pixel(v), 24.0, x.pixel(v), bottom]);
        d.text("m", x.pixel(v), bottom + 16.0, &x.label(v));
    }
    for (i, (node, sides)) in rows.iter().enumerate() {
        let top = 30.0 + 36.0 * i as f64;
        let name: String =
            if node.chars().count() > 16 { node.chars().take(15).chain(['…']).collect() } else { (*node).to_owned() };
        d.text("e", 104.0, top + 17.0, &name);
        for (side, y, times) in [("a", top, sides[0]), ("b", top + 14.0, sides[1])] {
            let Some(times) = times else { continue };
            let (value, tail) = of(&times);
            let width = x.pixel(value) - 112.0;
            let hint = escape(&format!("{node}, {}: {} ms", side.to_uppercase(), tables::number(value)));
            d.add(format_args!(
                r#"<rect class="{side}" x="112" y="{y:.1}" width="{width:.1}" height="12"><title>{hint}</title></rect>"#
            ));
            let mut said = tables::number(value);
            let mut end = x.pixel(value);
            if let Some(tail) = tail.filter(|t| *t > value) {
                d.line("tail", [end, y + 6.0, x.pixel(tail), y + 6.0]);
                d.line("tail", [x.pixel(tail), y + 2.0, x.pixel(tail), y + 10.0]);
                end = x.pixel(tail);
                said = format!("{said}, {}", tables::number(tail));
            }
            d.text("small", end + 5.0, y + 10.0, &said);
        }
    }
    d.text("", 8.0, 14.0, title);
    d.key(10.0);
    Some(d.finish())
}

/// PSNR of the frames in order; of many frames the worst of each column.
pub(super) fn psnr(result: &TensorResult) -> Option<String> {
    let finite = result.psnr_db.iter().flatten().copied().filter(|v| *v > -1e3);
    let all_identical = finite.clone().next().is_none();
    if all_identical {
        return None;
    }
    let mut d = Drawing::new("PSNR of each frame's tensor, dB", 200.0);
    let y = Scale::around(finite, 164.0, 40.0);
    for v in y.ticks() {
        d.line("grid", [46.0, y.pixel(v), WIDTH - 8.0, y.pixel(v)]);
        d.text("e", 42.0, y.pixel(v) + 4.0, &y.label(v));
    }
    d.text("", 8.0, 14.0, "PSNR of each frame's tensor, dB (top line: identical)");
    d.line("grid", [46.0, 24.0, WIDTH - 8.0, 24.0]);
    let columns = result.psnr_db.len().min(380);
    for column in 0..columns {
        let part = column * result.psnr_db.len() / columns..(column + 1) * result.psnr_db.len() / columns;
        let worst =
            result.psnr_db[part.clone()].iter().map(|v| v.unwrap_or(f64::INFINITY)).fold(f64::INFINITY, f64::min);
        let x = 48.0 + (column as f64 + 0.5) * (WIDTH - 58.0) / columns as f64;
        let at = if worst.is_finite() { y.pixel(worst) } else { 24.0 };
        let said = if worst.is_finite() { format!("{worst:.1} dB") } else { "identical".to_owned() };
        d.add(format_args!(
            r#"<circle class="b" cx="{x:.1}" cy="{at:.1}" r="2"><title>frame {}: {said}</title></circle>"#,
            part.start + 1
        ));
    }
    d.text("", 46.0, 190.0, "frame 1");
    d.text("e", WIDTH - 8.0, 190.0, &format!("frame {}", result.psnr_db.len()));
    Some(d.finish())
}

/// A plot as a file of its own: with its styles, which a page has in its head.
pub(super) fn alone(svg: &str) -> String {
    let style = include_str!("plots.css");
    svg.replacen("</title>", &format!("</title>\n<style>{style}</style>"), 1)
}
