//! Tables for a terminal.

use super::{Report, tables};
use crate::gate::Outcome;
use crate::verdict::Word;
use std::fmt::Write;

/// The report as text; `colour` where it goes to a terminal.
#[must_use]
pub fn terminal(report: &Report, colour: bool) -> String {
    let paint = |code: &str, text: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let (e, a) = (&report.experiment, &report.analysis);
    let mut out = String::new();
    // writing to a String cannot fail
    let mut line = |text: &str| {
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(&format!("A: {}", e.arms[0].name));
    line(&format!("B: {}", e.arms[1].name));
    for d in &e.differences {
        let side = |v: &Option<String>| v.clone().unwrap_or_else(|| "-".to_owned());
        line(&format!("   {}: {} -> {}", d.what, side(&d.a), side(&d.b)));
    }
    for (load, runs) in a.loads.iter().zip(&e.loads) {
        line("");
        line(&format!("{} ({})", paint("1", &load.title()), tables::conditions(runs)));
        let rows = tables::rows(load);
        let mut table = vec![tables::Row::HEADS.map(str::to_owned).to_vec()];
        table.extend(rows.iter().map(|r| {
            let title = format!("{}{}", r.title, if r.primary { " *" } else { "" });
            std::iter::once(title).chain(r.cells().map(str::to_owned)).collect()
        }));
        aligned(&table).iter().for_each(|l| line(&format!("  {l}")));
        if let Some(text) = tables::bottleneck(load, &e.differences) {
            line(&format!("  {text}"));
        }
        for (what, lost_a, lost_b) in tables::drops(runs) {
            line(&format!("  lost at {what}: A {lost_a}, B {lost_b}"));
        }
    }
    for (title, rows) in [("tensors", tables::tensor_rows(report)), ("detections", tables::detection_rows(report))] {
        if !rows.is_empty() {
            line("");
            line(&paint("1", title));
            let table: Vec<Vec<String>> = rows.into_iter().map(|(k, v)| vec![k.to_owned(), v]).collect();
            aligned(&table).iter().for_each(|l| line(&format!("  {l}")));
        }
    }
    if !report.requirements.is_empty() {
        line("");
        let width = report.requirements.iter().map(|r| r.requirement.chars().count()).max().unwrap_or(0);
        for r in &report.requirements {
            let code = if r.outcome == Outcome::Met { "32" } else { "31" };
            let outcome = paint(code, &format!("{:<12}", r.outcome.to_string()));
            line(&format!("{outcome} {:<width$}  {}", r.requirement, r.figures));
        }
    }
    line("");
    let code = match a.verdict.word {
        Word::Faster => "1;32",
        Word::NoDifferenceShown => "1",
        Word::Slower | Word::QualityChanged | Word::Failed => "1;31",
    };
    line(&format!("{}: {}", paint(code, &a.verdict.word.to_string()), a.verdict.reason));
    out
}

/// Columns of equal width: the first to the left, the others to the right.
fn aligned(table: &[Vec<String>]) -> Vec<String> {
    let columns = table.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| table.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let cell = |(i, c): (usize, &String)| match i {
        0 => format!("{c:<0$}", widths[0]),
        _ => format!("  {c:>0$}", widths[i]),
    };
    table.iter().map(|row| row.iter().enumerate().map(cell).collect()).collect()
}
