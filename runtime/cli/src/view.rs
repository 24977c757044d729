//! What the user sees while a graph runs and when it has ended.

use crate::cameras::Cameras;
use crate::clock;
use crate::status::State;
use crate::totals::Totals;
use crate::vitals::Vital;
use millrace_frame::counted;
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
/// What a terminal is taken to be that does not tell its size.
const USUAL: Size = Size { columns: 80, rows: 24 };

/// Of the terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    columns: usize,
    rows: usize,
}

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

    /// Says at once, and also where nothing else is said, what somebody has to look at.
    pub(crate) fn alarm(&mut self, line: &str) {
        self.erase();
        eprintln!("{line}");
    }

    /// Tells of a camera's new state where no table has it.
    pub(crate) fn camera(&mut self, line: &str) {
        if !self.terminal {
            self.say(line);
        }
    }

    /// Prints the nodes' notes that are new.
    pub(crate) fn note(&mut self, nodes: &[Totals]) {
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
    }

    /// Prints the nodes' notes that are new, and the table when it is time.
    pub(crate) fn update(&mut self, nodes: &[Totals], cameras: &Cameras, elapsed: Duration, now: Instant) {
        self.note(nodes);
        let pause = if self.terminal { REDRAW } else { LINE };
        if self.quiet || self.last_draw.is_some_and(|last| now - last < pause) {
            return;
        }
        self.last_draw = Some(now);
        if self.terminal {
            let lines = fitted(table(nodes, cameras, elapsed, now), size());
            self.erase();
            self.drawn = lines.len();
            print(&format!("{}\n", lines.join("\n")));
        } else {
            print(&format!("{}\n", line(nodes, cameras, elapsed, now)));
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
    pub(crate) fn summary(&mut self, nodes: &[Totals], ends: &[String], cameras: &Cameras, elapsed: Duration) {
        self.erase();
        // those of a run that was over before the next table
        self.note(nodes);
        if self.quiet {
            return;
        }
        let mut rows =
            vec![["node", "in", "out", "fps", "dropped", "p50 ms", "p95", "p99", "ended"].map(str::to_owned).to_vec()];
        for (node, end) in nodes.iter().zip(ends) {
            let up_s = node.last.as_ref().map_or(0.0, |last| last.uptime_ns as f64 / 1e9);
            let fps = if up_s > 0.0 && node.restarts == 0 {
                format!("{:.1}", node.frames() as f64 / up_s)
            } else {
                "-".into()
            };
            rows.push(row(node, fps, None, node.ages_since_start_ms(), end.clone()));
        }
        let mut out = format!("\n{}\n", aligned(&rows).join("\n"));
        for node in nodes {
            for ((cause, port), lost) in node.losses() {
                let why = node.reason(&cause, &port);
                let port = if port.is_empty() { String::new() } else { format!("/{port}") };
                out.push_str(&format!("dropped at {}{port}: {lost} ({cause}){why}\n", node.id));
            }
            for (name, value) in node.own_counters() {
                out.push_str(&format!("{} {name}: {value}\n", node.id));
            }
        }
        for line in cameras.summary() {
            out.push_str(&format!("{line}\n"));
        }
        for (node, last_report_at) in nodes.iter().filter_map(|node| Some((node, node.last_report_at?))) {
            if matches!(node.vital, Vital::Gone(_)) {
                let last = clock::span(Instant::now().saturating_duration_since(last_report_at).as_secs());
                out.push_str(&format!(
                    "node {} was GONE at the end: its last sign of life was {last} before\n",
                    node.id
                ));
            }
        }
        let frames = nodes.iter().map(Totals::frames).max().unwrap_or(0);
        let seconds = elapsed.as_secs_f64();
        out.push_str(&format!("{} in {seconds:.1} s, start and end included\n", counted(frames, "frame", "frames")));
        print(&out);
    }
}

/// A reader of our output that has gone is no fault of the graph.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn count(items: Option<u64>) -> String {
    match items {
        None => "-".to_owned(),
        Some(items @ 0..10_000_000) => items.to_string(),
        Some(items) => format!("{:.1}M", items as f64 / 1e6),
    }
}

fn milliseconds(ms: f64) -> String {
    if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

/// A node's row of a table, with the ages of its frames; the last one of all has no `cpu`.
fn row(node: &Totals, fps: String, cpu: Option<String>, ages_ms: Option<[f64; 3]>, end: String) -> Vec<String> {
    let mut row = vec![node.id.clone(), count(node.items("in")), count(node.items("out")), fps];
    row.push(count(Some(node.dropped())));
    row.extend(cpu);
    row.extend(ages_ms.map_or(["-", "-", "-"].map(str::to_owned), |ages| ages.map(milliseconds)));
    row.push(end);
    row
}

fn state(node: &Totals) -> &'static str {
    match node.state() {
        None => "starting",
        Some(State::Opening) => "opening",
        Some(State::Stopped) => "stopped",
        Some(State::Running) => "",
        Some(State::Done) => "done",
        Some(State::Incomplete) => "frames missing",
        Some(State::Failed) => "failed",
    }
}

/// Where the node is in its life, or while it works its own counters: `11591 boxes`.
fn doing(node: &Totals) -> String {
    let vital = node.vital.text();
    if !vital.is_empty() {
        return vital;
    }
    if !state(node).is_empty() {
        return state(node).to_owned();
    }
    let counters = node.own_counters().into_iter().filter(|(_, value)| *value > 0);
    counters.take(2).map(|(name, value)| format!("{value} {}", name.replace('_', " "))).collect::<Vec<_>>().join(", ")
}

fn table(nodes: &[Totals], cameras: &Cameras, elapsed: Duration, now: Instant) -> Vec<String> {
    let seconds = elapsed.as_secs();
    let clock = format!("{}:{:02}", seconds / 60, seconds % 60);
    let head = [clock.as_str(), "in", "out", "fps", "dropped", "cpu", "p50 ms", "p95", "p99", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for node in nodes {
        let (fps, cpu) = node.rates(now).map_or(("-".to_owned(), "-".to_owned()), |(fps, cpu)| {
            (format!("{fps:.1}"), format!("{:.0}%", cpu * 100.0))
        });
        rows.push(row(node, fps, Some(cpu), node.ages_ms(now), doing(node)));
    }
    let mut lines = aligned(&rows);
    let counts = cameras.counts();
    if !counts.is_empty() {
        lines.push(format!("cameras: {counts}"));
    }
    lines.extend(cameras.troubled().map(|camera| format!("  {}", camera.line())));
    lines
}

/// The terminal's size.
fn size() -> Size {
    rustix::termios::tcgetwinsize(std::io::stdout()).map_or(USUAL, |size| match (size.ws_col, size.ws_row) {
        (0, _) | (_, 0) => USUAL,
        (columns, rows) => Size { columns: columns.into(), rows: rows.into() },
    })
}

/// Lines that fit a terminal: one that wraps, or scrolls out at the top, could not be taken off again.
fn fitted(mut lines: Vec<String>, size: Size) -> Vec<String> {
    let most = size.rows.saturating_sub(1).max(1);
    if lines.len() > most {
        let hidden = lines.len() - (most - 1);
        lines.truncate(most - 1);
        lines.push(format!("… {hidden} more lines, in a higher window"));
    }
    lines.into_iter().map(|line| cut(line, size.columns)).collect()
}

/// A line of no more characters than that; none of ours is wider than one column.
fn cut(line: String, columns: usize) -> String {
    if line.chars().count() <= columns {
        return line;
    }
    line.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

/// One line: `0:12 decode 300 25.0/s · detect 298 24.8/s 2 dropped`.
fn line(nodes: &[Totals], cameras: &Cameras, elapsed: Duration, now: Instant) -> String {
    let seconds = elapsed.as_secs();
    let mut parts = Vec::new();
    for node in nodes {
        let mut part = format!("{} {}", node.id, node.frames());
        if let Some((fps, _)) = node.rates(now) {
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
    if cameras.troubled().next().is_some() {
        parts.push(format!("cameras: {}", cameras.counts()));
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
    use crate::status::{Counter, Latency, NodeReport};
    use millrace_frame::{CameraState, CameraStatus};

    #[test]
    fn columns_line_up() {
        let rows =
            [vec!["a", "in", "x"], vec!["decode", "7", ""]].map(|row| row.into_iter().map(str::to_owned).collect());
        assert_eq!(aligned(&rows), ["a       in  x", "decode   7"]);
    }

    #[test]
    fn a_line_names_every_node() {
        let nodes = [Totals::new("decode"), Totals::new("page")];
        let line = line(&nodes, &Cameras::default(), Duration::from_secs(75), Instant::now());
        assert_eq!(line, "1:15 decode 0 starting · page 0 starting");
    }

    fn report(id: &str, uptime_s: u64, frames: u64, cameras: Vec<CameraStatus>) -> NodeReport {
        let counter =
            |name: &str, value| Counter { name: name.into(), port: "frame".into(), value, ..Counter::default() };
        let age = |ms: u64| Some(ms * 1_000_000);
        let (recent_p50_ns, recent_p95_ns, recent_p99_ns) = (age(8), age(21), age(1_234));
        let age = Latency { name: "age".into(), recent_p50_ns, recent_p95_ns, recent_p99_ns, ..Latency::default() };
        NodeReport {
            node: id.into(),
            uptime_ns: uptime_s * 1_000_000_000,
            counters: vec![counter("in", frames), counter("boxes", 123_456)],
            latency: vec![age],
            cpu_ns: uptime_s * 123_000_000,
            cameras,
            ..NodeReport::default()
        }
    }

    #[test]
    fn a_table_fits_80_columns_and_names_the_cameras_that_are_not_live() {
        let start = Instant::now() - Duration::from_secs(10);
        let mut node = Totals::new("detect-people");
        for second in 0..=10u64 {
            let camera = |source: &str, state, last_error: &str| CameraStatus {
                state,
                last_error: last_error.into(),
                tries: 12,
                ..CameraStatus::new(source)
            };
            let no = "401 Unauthorized from rtsp://10.0.0.7/stream1; give user and password in cameras.yml";
            let cameras = vec![camera("door", CameraState::Refused, no), camera("yard", CameraState::Live, "")];
            let report = report("detect-people", second, 12_345_678 + second * 2_500, cameras);
            node.take(report, start + Duration::from_secs(second));
        }
        let mut cameras = Cameras::default();
        cameras.update(std::slice::from_ref(&node));
        let now = start + Duration::from_secs(10);
        let table = table(std::slice::from_ref(&node), &cameras, Duration::from_secs(754), now);
        assert_eq!(table[0], "12:34             in  out     fps  dropped  cpu  p50 ms   p95   p99");
        assert_eq!(table[1], "detect-people  12.4M    -  2500.0        0  12%     8.0  21.0  1234  123456 boxes");
        assert_eq!(table[2], "cameras: 1 live, 1 refused");
        assert!(table[3].starts_with("  door: refused since ") && table.len() == 4, "{table:?}");
        let fitted = fitted(table, USUAL);
        assert!(fitted.iter().all(|line| line.chars().count() <= 80), "{fitted:?}");
        assert!(fitted[3].contains("(attempt 12): 401 Unauthorized") && fitted[3].ends_with('…'), "{fitted:?}");

        // it hangs: its rate is none, its ages say nothing of now, and the camera's state is not known
        let now = now + Duration::from_secs(12);
        node.vital = Vital::Silent(Duration::from_secs(12));
        let table = super::table(std::slice::from_ref(&node), &cameras, Duration::from_secs(766), now);
        assert_eq!(table[1], "detect-people  12.4M    -  0.0        0   0%       -    -    -  HUNG for 12 s");
    }

    #[test]
    fn a_table_that_is_higher_than_the_window_is_cut() {
        let lines: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        let size = Size { columns: 80, rows: 24 };
        let cut = fitted(lines.clone(), size);
        assert_eq!((cut.len(), cut[21].as_str(), cut[22].as_str()), (23, "21", "… 8 more lines, in a higher window"));
        assert_eq!(fitted(lines, Size { columns: 80, rows: 31 }).len(), 30);
        assert_eq!(fitted(vec!["ab".into()], Size { columns: 0, rows: 0 }), ["…"]);
    }
}
