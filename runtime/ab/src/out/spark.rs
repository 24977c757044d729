//! Tables with plots as small as a word.

use super::plots::escape;
use super::scale::Scale;
use super::tables;

const SPARK: (f64, f64) = (96.0, 22.0);

/// A line as small as a word.
pub(super) fn spark(values: &[Option<f64>]) -> String {
    let found = || values.iter().flatten().copied();
    let (low, high) = found().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return String::new();
    }
    let y = Scale::around([low, high].into_iter(), SPARK.1 - 2.0, 2.0);
    let step = SPARK.0 / values.len().max(1) as f64;
    let points: String = fewer(values)
        .into_iter()
        .map(|(n, value)| format!("{:.1},{:.1} ", step * (n as f64 + 0.5), y.pixel(value)))
        .collect();
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 {} {}\" xmlns=\"http://www.w3.org/2000/svg\"><title>{} to {}</title>\
         <polyline class=\"trace\" points=\"{points}\"/></svg>",
        SPARK.0,
        SPARK.1,
        tables::number(low),
        tables::number(high)
    )
}

/// The values that a line of this width can show, with their positions: in each column of pixels the smallest and the largest.
fn fewer(values: &[Option<f64>]) -> Vec<(usize, f64)> {
    let there: Vec<(usize, f64)> =
        values.iter().enumerate().filter_map(|(n, value)| value.map(|value| (n, value))).collect();
    let columns = SPARK.0 as usize;
    if there.len() <= 2 * columns {
        return there;
    }
    let ends = |column: &[(usize, f64)]| {
        let by_value = |a: &&(usize, f64), b: &&(usize, f64)| a.1.total_cmp(&b.1);
        let (low, high) = (column.iter().min_by(by_value), column.iter().max_by(by_value));
        let mut ends = [low, high].into_iter().flatten().copied().collect::<Vec<_>>();
        ends.sort_by_key(|(n, _)| *n);
        ends.dedup();
        ends
    };
    there.chunks(there.len().div_ceil(columns)).flat_map(ends).collect()
}

/// The states of a camera as a strip.
pub(super) fn strip(states: &[&str]) -> String {
    let step = SPARK.0 / states.len().max(1) as f64;
    let mut at = 0;
    let mut rects = String::new();
    while at < states.len() {
        let same = states[at..].iter().take_while(|state| **state == states[at]).count();
        let (x, width, state) = (step * at as f64, step * same as f64, escape(states[at]));
        if !state.is_empty() {
            rects += &format!(
                "<rect class=\"state-{state}\" x=\"{x:.1}\" y=\"6\" width=\"{width:.1}\" height=\"10\"><title>{state}</title></rect>"
            );
        }
        at += same;
    }
    format!(
        "<svg class=\"spark\" viewBox=\"0 0 {} {}\" preserveAspectRatio=\"none\" xmlns=\"http://www.w3.org/2000/svg\">{rects}</svg>",
        SPARK.0, SPARK.1
    )
}

/// A table whose cells are HTML.
pub(super) fn raw_table(caption: &str, heads: &[&str], rows: &[Vec<String>]) -> String {
    let head: String = heads.iter().map(|head| format!("<th scope=\"col\">{}</th>", escape(head))).collect();
    let row = |cells: &Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll sparks\"><table><caption>{}</caption><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n",
        escape(caption)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_keeps_its_peaks_and_has_two_points_a_column_at_most() {
        let mut values = vec![Some(1.0); 5_000];
        (values[1_234], values[4_321], values[7]) = (Some(9.0), Some(-3.0), None);
        let fewer = fewer(&values);
        assert!(fewer.len() <= 2 * SPARK.0 as usize, "{} points", fewer.len());
        assert!(fewer.contains(&(1_234, 9.0)) && fewer.contains(&(4_321, -3.0)));
        assert!(fewer.is_sorted_by_key(|(n, _)| *n));
        let short = [Some(2.0), None, Some(1.0)];
        assert_eq!(super::fewer(&short), [(0, 2.0), (2, 1.0)]);
    }
}
