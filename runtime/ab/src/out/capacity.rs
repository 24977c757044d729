//! The page of a search for the most cameras.

use super::html::{document, figure, table};
use super::plots::{Drawing, WIDTH, escape};
use super::scale::Scale;
use super::tables;
use crate::capacity::{Asked, Capacity, Step, StepFigures, cameras};
use crate::model::Side;

/// A figure over the number of cameras.
struct Curve {
    title: &'static str,
    caption: &'static str,
    of: fn(&StepFigures) -> Option<f64>,
    /// What it is measured by, where there is such a thing: a line.
    bound: fn(&Asked, &StepFigures) -> Option<f64>,
}

const CURVES: [Curve; 5] = [
    Curve {
        title: "frames a second with results",
        caption: "The line is what the cameras give together.",
        of: |f| Some(f.fps),
        bound: |_, f| Some(f.fps_of_cameras),
    },
    Curve {
        title: "age of a result, p95, ms",
        caption: "Of the camera that is worst, in the last 5 to 10 s of the step. The line is the bound.",
        of: |f| f.p95_ms,
        bound: |asked, _| Some(asked.p95_ms),
    },
    Curve {
        title: "GPU busy, %",
        caption: "Share of the time in which a kernel ran, of any program.",
        of: |f| f.gpu_percent,
        bound: |_, _| None,
    },
    Curve {
        title: "NVDEC busy, %",
        caption: "Use of the decoder engines, by any program.",
        of: |f| f.nvdec_percent,
        bound: |_, _| None,
    },
    Curve {
        title: "processor time of all nodes, cores",
        caption: "dora itself is not in it.",
        of: |f| Some(f.cpu_cores),
        bound: |_, _| None,
    },
];

/// Heads of the steps' table.
const HEADS: [&str; 9] = ["cameras", "fps", "of", "p95 ms", "GPU %", "NVDEC %", "CPU cores", "batch", "held"];

/// A step as its row in the tables has it.
fn row(step: &Step) -> [String; 9] {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"));
    let of = |f: fn(&StepFigures) -> Option<f64>| number(step.figures.as_ref().and_then(f));
    [
        step.cameras.to_string(),
        of(|f| Some(f.fps)),
        of(|f| Some(f.fps_of_cameras)),
        of(|f| f.p95_ms),
        of(|f| f.gpu_percent),
        of(|f| f.nvdec_percent),
        step.figures.as_ref().map_or_else(|| "-".to_owned(), |f| format!("{:.2}", f.cpu_cores)),
        of(|f| f.batch),
        if step.held() { "yes".to_owned() } else { format!("no: {}", faults(step)) },
    ]
}

/// What did not hold, of each the first line: one that ended a run has lines of its log behind it.
fn faults(step: &Step) -> String {
    step.faults.iter().filter_map(|fault| fault.lines().next()).collect::<Vec<_>>().join("; ")
}

/// A line of the table on a terminal; without a step, that of the heads.
#[must_use]
pub fn capacity_row(step: Option<&Step>) -> String {
    let cells = step.map_or_else(|| HEADS.map(str::to_owned), row);
    let [numbers @ .., held] = cells;
    let numbers: Vec<String> = numbers.iter().map(|cell| format!("{cell:>9}")).collect();
    format!("{}  {held}", numbers.join(" "))
}

/// The search as one self-contained page.
#[must_use]
pub fn capacity_html(capacity: &Capacity) -> String {
    let title = format!("Capacity of {}", capacity.graph);
    let held = capacity.held();
    let word = held.map_or_else(|| "no step held".to_owned(), cameras);
    let class = if held.is_some() { "faster" } else { "failed" };
    let mut steps: Vec<&Step> = capacity.steps.iter().collect();
    steps.sort_by_key(|step| step.cameras);
    let mut main = format!(
        "<h1>{}</h1>\n<p class=\"soft\">{} · {}</p>\n<section class=\"verdict {class}\"><strong>{word}</strong>{}</section>\n",
        escape(&title),
        escape(&capacity.date),
        escape(&capacity.machine.cpu),
        escape(&capacity.outcome()),
    );
    let rows: Vec<Vec<String>> = steps.iter().map(|step| row(step).to_vec()).collect();
    main += &table(&asked(capacity), &HEADS, &rows, true);
    main += "<div class=\"plots\">\n";
    for curve in &CURVES {
        main += &figure(plot(curve, &steps, &capacity.asked), curve.caption);
    }
    main += "</div>\n";
    let mut conditions = tables::machine(&capacity.date, &capacity.machine);
    conditions.push(("each camera plays".to_owned(), capacity.clip.clone()));
    conditions.extend(capacity.sets.iter().map(|set| ("--set".to_owned(), set.clone())));
    let conditions: Vec<Vec<String>> = conditions.into_iter().map(|(what, value)| vec![what, value]).collect();
    main += "<section><h2>Conditions</h2>\n";
    main += &table("Where and with what", &["", ""], &conditions, false);
    main += "<p>The cameras are copies of one clip, at its own speed, that begin at nearly the same moment: their frames come \
             in bursts, which cameras of the field do not do.</p>\n";
    main += &format!("<h3>To repeat it</h3>\n<pre><code>{}</code></pre>\n</section>\n", escape(&capacity.command));
    document(&title, &main)
}

/// What was asked, in a sentence.
fn asked(capacity: &Capacity) -> String {
    let Asked { p95_ms, rate_percent, seconds, left_out_s, .. } = capacity.asked;
    format!(
        "A step holds when over {seconds} s each camera has {rate_percent} % of its rate or more at every node, no frame is lost, \
         and the p95 of the results' age is {p95_ms} ms at most. The start, and {left_out_s} s after the last camera came, are \
         left out."
    )
}

/// A curve over the cameras; nothing where no step has the figure.
fn plot(curve: &Curve, steps: &[&Step], asked: &Asked) -> Option<String> {
    type Point = (f64, f64, Option<f64>, bool);
    let point = |step: &&Step| -> Option<Point> {
        let figures = step.figures.as_ref()?;
        Some((f64::from(step.cameras), (curve.of)(figures)?, (curve.bound)(asked, figures), step.held()))
    };
    let points: Vec<Point> = steps.iter().filter_map(point).collect();
    let last = points.last()?.0;
    let mut d = Drawing::new(&format!("{} over the number of cameras", curve.title), 214.0);
    let x = Scale { from: 0.0, to: last * 1.04, start_px: 50.0, end_px: WIDTH - 10.0 };
    let y = Scale::around(points.iter().flat_map(|p| [Some(p.1), p.2]).flatten().chain([0.0]), 176.0, 28.0);
    for v in y.ticks() {
        d.line("grid", [46.0, y.pixel(v), WIDTH - 8.0, y.pixel(v)]);
        d.text("e", 42.0, y.pixel(v) + 4.0, &y.label(v));
    }
    for v in x.ticks().into_iter().filter(|v| v.fract() == 0.0) {
        d.text("m", x.pixel(v), 194.0, &format!("{v:.0}"));
    }
    for pair in points.windows(2) {
        d.line("pair", [x.pixel(pair[0].0), y.pixel(pair[0].1), x.pixel(pair[1].0), y.pixel(pair[1].1)]);
        if let (Some(from), Some(to)) = (pair[0].2, pair[1].2) {
            d.line("one", [x.pixel(pair[0].0), y.pixel(from), x.pixel(pair[1].0), y.pixel(to)]);
        }
    }
    for (cameras, value, _, held) in points {
        let side = if held { Side::A } else { Side::B };
        let word = if held { "held" } else { "did not hold" };
        d.mark(
            side,
            x.pixel(cameras),
            y.pixel(value),
            &format!("cameras: {cameras}, {}, {word}", tables::number(value)),
        );
    }
    d.text("", 8.0, 14.0, curve.title);
    d.mark(Side::A, WIDTH - 128.0, 10.0, "held");
    d.text("", WIDTH - 120.0, 14.0, "held");
    d.mark(Side::B, WIDTH - 82.0, 10.0, "did not hold");
    d.text("", WIDTH - 74.0, 14.0, "did not");
    d.text("m", WIDTH / 2.0, 210.0, "cameras");
    Some(d.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capacity::tests::{capacity, step};

    #[test]
    fn the_page_has_each_step_and_a_plot_of_each_figure_that_was_measured() {
        let mut capacity = capacity(1, 8);
        capacity.steps = vec![step(1, true), step(2, true), step(4, false), step(3, true)];
        capacity.steps.push(Step { cameras: 8, faults: vec!["it <died>\nits log".into()], figures: None });
        let page = capacity_html(&capacity);
        assert!(page.contains("<strong>3 cameras</strong>3 cameras held; 4 did not: detect lost 7 frames"), "{page}");
        // frames, ages and processor time; no GPU was looked at
        assert_eq!(page.matches("<svg").count(), 3, "{page}");
        assert_eq!(page.matches("cameras: ").count(), 3 * 4, "a mark for each step that has figures: {page}");
        assert!(page.contains("it &lt;died&gt;<") && page.contains("clip&lt;1&gt;.mp4"), "{page}");
        for outside in ["http://", "https://", "<script", "src="] {
            let own = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!own.contains(outside), "the page needs {outside}");
        }
    }

    #[test]
    fn a_page_of_nothing_is_a_page() {
        let page = capacity_html(&capacity(1, 8));
        assert!(
            page.contains("<strong>no step held</strong>") && page.contains("nothing ran") && !page.contains("<svg"),
            "{page}"
        );
    }

    #[test]
    fn rows_line_up() {
        let heads = capacity_row(None);
        let row = capacity_row(Some(&step(12, false)));
        assert_eq!(heads.find("held"), row.find("no: detect lost 7 frames (overtaken)"));
        assert!(row.starts_with("       12     300.0     300.0      40.0         -         -      0.50         -  no"));
    }
}
