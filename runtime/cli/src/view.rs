//! What the user sees while a graph runs and when it has ended.

use crate::status::State;
use crate::totals::Totals;
use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The live view: a table that is redrawn on a terminal, a line a second elsewhere.
pub(crate) struct View {
    quiet: bool,
    terminal: bool,
    /// Lines of the table now on the terminal.
    drawn: usize,
    last_draw: Option<Instant>,
    notes: BTreeSet<(String, String)>,
}

const REDRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(1);

impl View {
    /// A view on stdout.
    pub(crate) fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = std::io::stdout().is_terminal() && !dumb;
        Self { quiet, terminal, drawn: 0, last_draw: None, notes: BTreeSet::new() }
    }

    /// Prints a line above the table.
    pub(crate) fn say(&mut self, line: &str) {
        if !self.quiet {
            self.erase();
            print(&format!("{line}\n"));
        }
    }

    /// Prints the nodes' notes that are new, and the table when it is time.
    pub(crate) fn update(&mut self, nodes: &[Totals], elapsed: Duration, now: Instant) {
        for node in nodes {
            for note in node.last.iter().flat_map(|last| &last.notes) {
                if self.notes.insert((node.id.clone(), note.clone())) {
                    // Most say what they are: `page: http://…`.
                    let named = note.starts_with(&format!("{}: ", node.id));
                    let note = if named { note.clone() } else { format!("{}: {note}", node.id) };
                    self.say(&format!("\n  {note}\n"));
                }
            }
        }
        let pause = if self.terminal { REDRAW } else { LINE };
        if self.quiet || self.last_draw.is_some_and(|last| now - last < pause) {
            return;
        }
        self.last_draw = Some(now);
        if self.terminal {
            let lines = table(nodes, elapsed);
            self.erase();
            self.drawn = lines.len();
            print(&format!("{}\n", lines.join("\n")));
        } else {
            print(&format!("{}\n", line(nodes, elapsed)));
        }
    }

    /// Takes the table off the terminal.
    pub(crate) fn erase(&mut self) {
        if self.drawn > 0 {
            // Up, and clear from there to the end of the screen.
            print(&format!("\x1b[{}A\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    /// The last table and what was lost, with how each node ended.
    pub(crate) fn summary(&mut self, nodes: &[Totals], ends: &[String], elapsed: Duration) {
        self.erase();
        if self.quiet {
            return;
        }
        let mut rows =
            vec![["node", "in", "out", "fps", "dropped", "p50 ms", "p99 ms", "ended"].map(str::to_owned).to_vec()];
        for (node, end) in nodes.iter().zip(ends) {
            let up_s = node.last.as_ref().map_or(0.0, |last| last.uptime_ns as f64 / 1e9);
            let fps = if up_s > 0.0 && node.restarts == 0 {
                format!("{:.1}", node.frames() as f64 / up_s)
            } else {
                "-".into()
            };
            rows.push(row(node, fps, None, end.clone()));
        }
        let mut out = format!("\n{}\n", aligned(&rows).join("\n"));
        for node in nodes {
            for ((cause, port), lost) in node.losses() {
                let port = if port.is_empty() { String::new() } else { format!("/{port}") };
                out.push_str(&format!("dropped at {}{port}: {lost} ({cause})\n", node.id));
            }
            for (name, value) in node.own_counters() {
                out.push_str(&format!("{} {name}: {value}\n", node.id));
            }
        }
        let frames = nodes.iter().map(Totals::frames).max().unwrap_or(0);
        let seconds = elapsed.as_secs_f64();
        out.push_str(&format!("{frames} frames in {seconds:.1} s, start and end included\n"));
        print(&out);
    }
}

/// A reader of our output that has gone is no fault of the graph.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn count(items: Option<u64>) -> String {
    items.map_or("-".to_owned(), |items| items.to_string())
}

/// A node's row of a table; the last one of all has no `cpu`.
fn row(node: &Totals, fps: String, cpu: Option<String>, end: String) -> Vec<String> {
    let (p50, p99) = match node.latency_ms() {
        Some((p50, p99)) => (format!("{p50:.1}"), format!("{p99:.1}")),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let mut row = vec![node.id.clone(), count(node.items("in")), count(node.items("out")), fps];
    row.push(node.dropped().to_string());
    row.extend(cpu);
    row.extend([p50, p99, end]);
    row
}

fn state(node: &Totals) -> &'static str {
    match node.state() {
        None => "starting",
        Some(State::Opening) => "opening",
        Some(State::Stopped) => "stopped",
        Some(State::Running) => "",
        Some(State::Done) => "done",
        Some(State::Failed) => "failed",
    }
}

/// Where the node is in its life, or while it works its own counters: `11591 boxes`.
fn doing(node: &Totals) -> String {
    if !state(node).is_empty() {
        return state(node).to_owned();
    }
    let counters = node.own_counters().into_iter().filter(|(_, value)| *value > 0);
    counters.take(2).map(|(name, value)| format!("{value} {}", name.replace('_', " "))).collect::<Vec<_>>().join(", ")
}

fn table(nodes: &[Totals], elapsed: Duration) -> Vec<String> {
    let seconds = elapsed.as_secs();
    let clock = format!("{}:{:02}", seconds / 60, seconds % 60);
    let mut rows = vec![
        [clock.as_str(), "in", "out", "fps", "dropped", "cpu", "p50 ms", "p99 ms", ""].map(str::to_owned).to_vec(),
    ];
    for node in nodes {
        let (fps, cpu) = node.rates().map_or(("-".to_owned(), "-".to_owned()), |(fps, cpu)| {
            (format!("{fps:.1}"), format!("{:.0}%", cpu * 100.0))
        });
        rows.push(row(node, fps, Some(cpu), doing(node)));
    }
    aligned(&rows)
}

/// One line: `0:12 decode 300 25.0/s · detect 298 24.8/s 2 dropped`.
fn line(nodes: &[Totals], elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let mut parts = Vec::new();
    for node in nodes {
        let mut part = format!("{} {}", node.id, node.frames());
        if let Some((fps, _)) = node.rates() {
            part.push_str(&format!(" {fps:.1}/s"));
        }
        if node.dropped() > 0 {
            part.push_str(&format!(" {} dropped", node.dropped()));
        }
        let doing = doing(node);
        if !doing.is_empty() {
            part.push_str(&format!(" {doing}"));
        }
        parts.push(part);
    }
    format!("{}:{:02} {}", seconds / 60, seconds % 60, parts.join(" · "))
}

/// Columns side by side: the first and the last to the left, numbers to the right.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let draw = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = widths[column];
            if column == 0 || column + 1 == columns { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows =
            [vec!["a", "in", "x"], vec!["decode", "7", ""]].map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(aligned(&rows), ["a       in  x", "decode   7"]);
    }

    #[test]
    fn a_line_names_every_node() {
        let nodes = [Totals::new("decode"), Totals::new("page")];
        assert_eq!(line(&nodes, Duration::from_secs(75)), "1:15 decode 0 starting · page 0 starting");
    }
}
