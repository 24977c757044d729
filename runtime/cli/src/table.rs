//! Columns side by side, in the width that there is.

use crate::out::{cut, shortened, width, wrapped};

/// Between two columns.
const GAP: usize = 2;
/// Names are shortened to so many characters before a column is left out, and to fewer after that.
const NAME: (usize, usize) = (16, 6);
/// Room is made beside the other columns for a last cell of so many characters; a longer one may get its own line.
const BESIDE: usize = 16;
/// How such a line begins.
const BELOW: &str = "    ";

/// The rows as lines of at most so many columns: the first cell and the last to the left, numbers to the right.
///
/// Where they do not fit, a long last cell gets a line of its own below its row, then names are shortened, and then
/// the columns `spare` are left out, in this order. The last cell is text, such as a reason, and is never cut.
pub(crate) fn lines(rows: &[Vec<String>], columns: usize, spare: &[usize]) -> Vec<String> {
    let mut rows = rows.to_vec();
    let last = rows.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(1);
    if last == 0 || total(&widths(&rows)) <= columns {
        return rows.iter().map(|row| drawn(row, &widths(&rows))).collect();
    }
    let take = |row: &mut Vec<String>| row.get_mut(last).map(std::mem::take).unwrap_or_default();
    let texts: Vec<String> = rows.iter_mut().map(take).collect();
    let short = texts.iter().map(|text| width(text)).filter(|&wide| wide <= BESIDE).max().unwrap_or(0);
    narrow(&mut rows, columns.saturating_sub(GAP + short), spare);
    let widths = widths(&rows);
    let beside = total(&widths) + GAP;
    let mut lines = Vec::new();
    for (n, (row, text)) in rows.iter().zip(&texts).enumerate() {
        let line = cut(&drawn(row, &widths), columns);
        if text.is_empty() || beside + width(text) <= columns {
            let pad = " ".repeat(beside.saturating_sub(width(&line)));
            lines.push(format!("{line}{pad}{text}").trim_end().to_owned());
        } else {
            lines.push(line);
            // a heading says nothing on a line of its own
            lines.extend((n > 0).then(|| wrapped(&format!("{BELOW}{text}"), columns, BELOW)).into_iter().flatten());
        }
    }
    lines
}

/// Shortens names and leaves columns out until a row fits.
fn narrow(rows: &mut [Vec<String>], columns: usize, spare: &[usize]) {
    let shorten = |rows: &mut [Vec<String>], least: usize| {
        let excess = total(&widths(rows)).saturating_sub(columns);
        let name = widths(rows).first().map_or(0, |name| name.saturating_sub(excess).max(least));
        rows.iter_mut().filter_map(|row| row.first_mut()).for_each(|cell| *cell = shortened(cell, name));
    };
    shorten(rows, NAME.0);
    for &column in spare {
        if total(&widths(rows)) <= columns {
            return;
        }
        rows.iter_mut().filter_map(|row| row.get_mut(column)).for_each(String::clear);
    }
    shorten(rows, NAME.1);
}

/// The width of each column; 0 of one without text.
fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let of = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max().unwrap_or(0);
    (0..columns).map(of).collect()
}

fn total(widths: &[usize]) -> usize {
    let shown = widths.iter().filter(|width| **width > 0);
    shown.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
}

fn drawn(row: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (column, (cell, &wide)) in row.iter().zip(widths).enumerate().filter(|(_, (_, wide))| **wide > 0) {
        let pad = " ".repeat(wide.saturating_sub(width(cell)));
        let gap = if line.is_empty() && column == 0 { "" } else { "  " };
        let (before, after) =
            if column == 0 || column + 1 == widths.len() { ("", pad.as_str()) } else { (pad.as_str(), "") };
        line.push_str(&format!("{gap}{before}{cell}{after}"));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&[&str]]) -> Vec<Vec<String>> {
        texts.iter().map(|row| row.iter().map(|&cell| cell.to_owned()).collect()).collect()
    }

    #[test]
    fn columns_line_up() {
        let rows = rows(&[&["a", "in", "x"], &["decode", "7", ""]]);
        assert_eq!(lines(&rows, 80, &[]), ["a       in  x", "decode   7"]);
        assert_eq!(lines(&[], 80, &[]), [""; 0]);
    }

    #[test]
    fn a_reason_that_has_no_room_gets_a_line_of_its_own_and_is_whole() {
        let why = "the model models/people.onnx is not there; set MODEL";
        let rows =
            rows(&[&["node", "in", "fps", "ended"], &["detect", "123", "25.0", why], &["page", "9", "1.0", "done"]]);
        let shown = lines(&rows, 40, &[]);
        assert_eq!(shown[0], "node     in   fps  ended");
        assert_eq!(shown[1], "detect  123  25.0");
        assert_eq!(shown[2..4].iter().map(|line| line.trim()).collect::<Vec<_>>().join(" "), why);
        assert_eq!(shown[4], "page      9   1.0  done");
        assert!(shown.iter().all(|line| width(line) <= 40), "{shown:?}");
    }

    #[test]
    fn names_are_shortened_before_columns_are_left_out() {
        let rows = rows(&[
            &["node", "in", "dropped", "p95", "ended"],
            &["parking.entrance.detect-people", "12345678", "12", "21.0", "done"],
        ]);
        let all = lines(&rows, 50, &[3]);
        assert!(all[1].starts_with("parking.e") && all[1].contains('…') && all[1].contains("21.0"), "{all:?}");
        let fewer = lines(&rows, 36, &[3]);
        assert!(!fewer[0].contains("p95") && fewer[1].contains("12345678") && fewer[1].contains(" 12"), "{fewer:?}");
        for columns in 10..120 {
            let shown = lines(&rows, columns, &[3]);
            assert!(shown.iter().all(|line| width(line) <= columns.max(12)), "{columns}: {shown:?}");
            assert!(shown.iter().any(|line| line.contains("done")), "{columns}: {shown:?}");
        }
    }
}
