//! The page of an experiment for docs/experiments/.

use super::{Report, plots, tables};
use millrace_frame::counted;
use std::fmt::Write;

/// The page, and the plot beside it, which has the name `svg_name`.
#[must_use]
pub fn markdown(report: &Report, svg_name: &str) -> (String, String) {
    let (e, a) = (&report.experiment, &report.analysis);
    let mut out = String::new();
    // writing to a String cannot fail
    macro_rules! line { ($($t:tt)*) => {{ let _ = writeln!(out, $($t)*); }} }
    line!("# {}\n", text(&e.title));
    line!("**{}**: {}\n", a.verdict.word, text(&a.verdict.reason));
    line!("## What is compared\n");
    for (letter, what, arm) in [("A", "the baseline", &e.arms[0]), ("B", "against it", &e.arms[1])] {
        let sets: String = arm.sets.iter().map(|s| format!(" `--set {}`", code(s))).collect();
        line!("- **{letter}**, {what}: {}, `{}`{sets}", text(&arm.name), code(&arm.graph));
    }
    line!("");
    if e.differences.is_empty() {
        line!("The arms do not differ: this is A against A.\n");
    } else {
        line!("| differs | A | B |\n|---|---|---|");
        for d in &e.differences {
            let side = |v: &Option<String>| v.as_ref().map_or_else(|| "not there".to_owned(), |v| text(v));
            line!("| {} | {} | {} |", text(&d.what), side(&d.a), side(&d.b));
        }
        line!("");
    }
    for (load, runs) in a.loads.iter().zip(&e.loads) {
        line!("## {}\n", text(&load.title()));
        line!("Measured {}.\n", tables::conditions(runs));
        line!("| {} |\n|---{}|", tables::Row::HEADS.join(" | "), "|--:".repeat(6));
        for row in tables::rows(load) {
            let mark = if row.primary { "**" } else { "" };
            line!("| {mark}{}{mark} | {} |", row.title, row.cells().join(" | "));
        }
        line!("");
        for (what, lost_a, lost_b) in tables::drops(runs) {
            line!(
                "Lost at {}, starts and warm-ups included: {} of A, {lost_b} of B.\n",
                text(what),
                counted(lost_a, "frame", "frames")
            );
        }
        if let Some(why) = tables::bottleneck(load, &e.differences) {
            line!("Why: {}\n", text(&why));
        }
    }
    let svg = a.loads.first().and_then(plots::forest).map(|svg| plots::alone(&svg)).unwrap_or_default();
    if !svg.is_empty() {
        line!("![B/A of each metric with its intervals]({})\n", svg_name.replace(' ', "%20"));
        line!(
            "The first table as a plot: thick lines are 95 % intervals, thin ones 99 %; the verdict needs the thin one.\n"
        );
    }
    let (tensors, detections) = (tables::tensor_rows(report), tables::detection_rows(report));
    if !tensors.is_empty() || !detections.is_empty() {
        line!("## Quality\n");
    }
    for (head, rows) in [("the model's input", tensors), ("detections", detections)] {
        if !rows.is_empty() {
            line!("| {head} | |\n|---|--:|");
            rows.iter().for_each(|(k, v)| line!("| {k} | {v} |"));
            line!("");
        }
    }
    if !report.requirements.is_empty() {
        line!("## Requirements\n\n| requirement | outcome | figures |\n|---|---|---|");
        for r in &report.requirements {
            line!("| `{}` | {} | {} |", code(&r.requirement), r.outcome, text(&r.figures));
        }
        line!("");
    }
    line!("## Conditions\n\n| | |\n|---|---|");
    tables::machine(&report.experiment.date, &report.experiment.machine)
        .iter()
        .for_each(|(k, v)| line!("| {} | {} |", text(k), text(v)));
    line!("\n```sh\n{}\n```\n", e.command.replace("```", ""));
    let missing = tables::not_measured(report);
    if !missing.is_empty() {
        line!("Not measured:");
        missing.iter().for_each(|m| line!("- {}", text(m)));
    }
    (out, svg)
}

/// Text that is no markup, also within a table.
fn text(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    for c in raw.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '|' | '*' | '`' | '[' | ']' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Text between backticks.
fn code(raw: &str) -> String {
    raw.replace('`', "'").replace('|', "\\|").replace(['\n', '\r'], " ")
}
