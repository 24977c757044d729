//! One page that needs no other file, no script and no network.

use super::plots::{self, escape};
use super::{Report, pictures, tables};
use crate::analysis::LoadAnalysis;
use crate::gate::Outcome;
use crate::model::{LoadRuns, Metric};

/// The report as one self-contained page.
#[must_use]
pub fn html(report: &Report) -> String {
    let (e, a) = (&report.experiment, &report.analysis);
    let class = a.verdict.word.to_string().replace(' ', "-");
    let mut main = format!(
        "<h1>{}</h1>\n<p class=\"soft\">{} · {}</p>\n<section class=\"verdict {class}\"><strong>{}</strong>{}</section>\n",
        escape(&e.title),
        escape(&e.date),
        escape(&e.machine.cpu),
        a.verdict.word,
        escape(&a.verdict.reason)
    );
    main += &arms(report);
    main += &requirements(report);
    for (load, runs) in a.loads.iter().zip(&e.loads) {
        main += &load_section(report, load, runs);
    }
    main += &quality(report);
    main += &conditions(report);
    document(&format!("{}: {}", e.title, a.verdict.word), &main)
}

/// A whole page of this content.
pub(super) fn document(title: &str, main: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{}{}</style>\n</head>\n\
         <body>\n<main>\n{main}</main>\n</body>\n</html>\n",
        escape(title),
        include_str!("plots.css"),
        include_str!("page.css")
    )
}

/// A table; `numbers` are the columns after the first, set to the right.
pub(super) fn table(caption: &str, heads: &[&str], rows: &[Vec<String>], numbers: bool) -> String {
    let n = |i: usize| if numbers && i > 0 { " class=\"n\"" } else { "" };
    let head: String =
        heads.iter().enumerate().map(|(i, h)| format!("<th scope=\"col\"{}>{}</th>", n(i), escape(h))).collect();
    let body: String = rows
        .iter()
        .map(|row| {
            let primary = row[0].ends_with('*');
            let cells: String = row
                .iter()
                .enumerate()
                .map(|(i, c)| match i {
                    0 => format!("<th scope=\"row\">{}</th>", escape(c.trim_end_matches(" *"))),
                    _ => format!("<td{}>{}</td>", n(i), escape(c)),
                })
                .collect();
            format!("<tr{}>{cells}</tr>\n", if primary { " class=\"primary\"" } else { "" })
        })
        .collect();
    format!(
        "<div class=\"scroll\"><table><caption>{}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n",
        escape(caption)
    )
}

fn arms(report: &Report) -> String {
    let e = &report.experiment;
    let arm = |i: usize, letter: &str| {
        let sets: String = e.arms[i].sets.iter().map(|s| format!(" <code>--set {}</code>", escape(s))).collect();
        format!(
            "<p><span class=\"arm arm-{}\">{letter}</span> {}: <code>{}</code>{sets}</p>\n",
            letter.to_lowercase(),
            escape(&e.arms[i].name),
            escape(&e.arms[i].graph)
        )
    };
    let none = || "not there".to_owned();
    let rows: Vec<_> = e
        .differences
        .iter()
        .map(|d| vec![d.what.clone(), d.a.clone().unwrap_or_else(none), d.b.clone().unwrap_or_else(none)])
        .collect();
    let differences = if rows.is_empty() {
        "<p>The arms do not differ: this is A against A.</p>\n".to_owned()
    } else {
        table("What differs, and nothing else does", &["setting", "A", "B"], &rows, false)
    };
    format!("<section>{}{}{differences}</section>\n", arm(0, "A"), arm(1, "B"))
}

fn requirements(report: &Report) -> String {
    if report.requirements.is_empty() {
        return String::new();
    }
    let rows: String = report
        .requirements
        .iter()
        .map(|r| {
            let class = if r.outcome == Outcome::Met { "met" } else { "unmet" };
            format!(
                "<tr><th scope=\"row\"><code>{}</code></th><td class=\"{class}\">{}</td><td>{}</td></tr>\n",
                escape(&r.requirement),
                r.outcome,
                escape(&r.figures)
            )
        })
        .collect();
    format!(
        "<section><h2>Requirements</h2><div class=\"scroll\"><table><caption>Judged by the end of the 99 % interval that speaks \
         against them</caption><thead><tr><th scope=\"col\">requirement</th><th scope=\"col\">outcome</th>\
         <th scope=\"col\">figures</th></tr></thead><tbody>\n{rows}</tbody></table></div></section>\n"
    )
}

pub(super) fn figure(svg: Option<String>, caption: &str) -> String {
    svg.map_or_else(String::new, |svg| format!("<figure>{svg}<figcaption>{}</figcaption></figure>\n", escape(caption)))
}

fn load_section(report: &Report, load: &LoadAnalysis, runs: &LoadRuns) -> String {
    let rows: Vec<Vec<String>> = tables::rows(load)
        .iter()
        .map(|r| {
            let title = format!("{}{}", r.title, if r.primary { " *" } else { "" });
            std::iter::once(title).chain(r.cells().map(str::to_owned)).collect()
        })
        .collect();
    let caption = "Bold: the metric that decides first. Signed figures are differences B - A. 'A against A' is how far two runs of A \
                   in one round are apart.";
    let mut out = format!(
        "<section><h2>{}</h2>\n<p class=\"soft\">{}</p>\n",
        escape(&load.title()),
        escape(&tables::conditions(runs))
    );
    out += &table(caption, &tables::Row::HEADS, &rows, true);
    if let Some(text) = tables::bottleneck(load, &report.experiment.differences) {
        out += &format!("<p>{}</p>\n", escape(&text));
    }
    out += "<div class=\"plots\">\n";
    out += &figure(
        plots::forest(load),
        "Ratio B/A: the thick line is the 95 % interval, the thin one the 99 % that decides.",
    );
    out +=
        &figure(plots::strip(runs, load.primary), "The runs in the order in which they were made; lines join pairs.");
    if load.primary == Metric::LatencyP50Ms {
        out += &figure(plots::strip(runs, Metric::CpuMsPerFrame), "Processor time of the same runs.");
    }
    out += &figure(plots::bars(runs, plots::WORK), "Median over the runs.");
    out += &figure(plots::bars(runs, plots::AGE), "Time since the capture, when the frame reaches the node.");
    out += &figure(plots::bars(runs, plots::CPU), "Median over the runs.");
    out += "</div>\n";
    let count = |v: Option<u64>| v.map_or_else(|| "-".to_owned(), |v| v.to_string());
    let drops: Vec<_> =
        tables::drops(runs).into_iter().map(|(w, a, b)| vec![w.to_owned(), a.to_string(), b.to_string()]).collect();
    if drops.is_empty() {
        out += "<p>No frame was lost in any run.</p>\n";
    } else {
        out += &table("Frames lost, all runs together", &["where and why", "A", "B"], &drops, true);
    }
    let counters: Vec<_> =
        tables::counters(runs).into_iter().map(|(w, a, b)| vec![w.to_owned(), count(a), count(b)]).collect();
    if !counters.is_empty() {
        out += "<details><summary>Counters that differ: what ran, by the nodes' own count</summary>\n";
        out += &table("Of each arm's first run", &["counter", "A", "B"], &counters, true);
        out += "</details>\n";
    }
    out + "</section>\n"
}

fn quality(report: &Report) -> String {
    let a = &report.analysis;
    let mut out = "<section><h2>Quality</h2>\n".to_owned();
    let pairs =
        |rows: Vec<(&'static str, String)>| rows.into_iter().map(|(k, v)| vec![k.to_owned(), v]).collect::<Vec<_>>();
    if let Some(t) = &a.tensors {
        out += &table(
            "The model's input on identical frames",
            &["tensors", ""],
            &pairs(tables::tensor_rows(report)),
            true,
        );
        let plot = plots::psnr(t);
        if plot.is_some() {
            out += "<div class=\"plots\">\n";
            out += &figure(plot, "Higher is closer. The peak is the range of A's tensors.");
            out += "</div>\n";
        }
    } else {
        out += "<p>Tensors were not compared.</p>\n";
    }
    if let Some(d) = &a.detections {
        let caption =
            "A clear box scores at least 0.1 above the detector's threshold: it does not come and go by rounding.";
        out += &table(caption, &["detections", ""], &pairs(tables::detection_rows(report)), true);
        if !d.changed.is_empty() {
            let rows: Vec<_> = d
                .changed
                .iter()
                .take(10)
                .map(|c| {
                    let both = |all: u32, clear: u32| format!("{all} ({clear} clear)");
                    vec![
                        format!("{}, frame {}", c.source, c.seq),
                        both(c.gained, c.gained_clear),
                        both(c.lost, c.lost_clear),
                    ]
                })
                .collect();
            let caption = format!("The worst of {} frames with changes", d.changed.len());
            out += &table(&caption, &["frame", "gained by B", "lost by B"], &rows, true);
        }
        let shown = pictures::pictures(report);
        if !shown.is_empty() {
            out += &format!("<h3>Frames that differ most</h3>\n<div class=\"plots\">\n{shown}</div>\n");
        }
    } else {
        out += "<p>Detections were not compared.</p>\n";
    }
    out + "</section>\n"
}

fn conditions(report: &Report) -> String {
    let e = &report.experiment;
    let rows: Vec<_> = tables::machine(&e.date, &e.machine).into_iter().map(|(k, v)| vec![k, v]).collect();
    let mut out = "<section><h2>Conditions</h2>\n".to_owned();
    out += &table("Where and with what", &["", ""], &rows, false);
    out += &format!("<h3>To repeat it</h3>\n<pre><code>{}</code></pre>\n", escape(&e.command));
    let items: String = tables::not_measured(report).iter().map(|m| format!("<li>{}</li>\n", escape(m))).collect();
    if !items.is_empty() {
        out += &format!("<h3>Not measured</h3>\n<ul>\n{items}</ul>\n");
    }
    out + "</section>\n"
}
