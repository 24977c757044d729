//! What the user sees while a graph runs and when it has ended.

use crate::cameras::Cameras;
use crate::clock;
use crate::events;
use crate::out::{Size, cut, draws, errln, out, outln, size, width, wrapped};
use crate::status::State;
use crate::table;
use crate::totals::Totals;
use crate::vitals::Vital;
use millrace_frame::counted;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A table that is drawn again and again.
    Table,
    /// A line where something changes, and one a minute: a log that is kept.
    Lines,
    /// A JSON document a line.
    Json,
}

/// How a run ended.
pub(crate) struct End {
    /// How each node did.
    pub(crate) ends: Vec<String>,
    pub(crate) elapsed: Duration,
    /// The exit code, where it is known.
    pub(crate) code: Option<u8>,
    /// What else was found, such as how busy the machine was.
    pub(crate) more: Vec<String>,
}

/// The live view.
pub(crate) struct View {
    quiet: bool,
    form: Form,
    /// The width of each line of the table now on the terminal.
    drawn: Vec<usize>,
    last_draw: Option<Instant>,
    /// What the nodes and cameras did when that was last shown.
    states: String,
    notes: BTreeSet<(String, String)>,
}

const REDRAW: Duration = Duration::from_millis(500);
const LINE: Duration = Duration::from_secs(60);
/// States that change more often than this wait for the next line.
const CHANGED: Duration = Duration::from_secs(1);
/// Columns that are left out, in this order, where a terminal has no room for them.
const SPARE: [usize; 5] = [7, 6, 5, 2, 8];
/// The same of the last table, which has no `cpu`.
const SPARE_AT_END: [usize; 4] = [6, 5, 2, 7];
/// What a note of a node begins with that is a warning.
const WARNING: &str = "warning: ";

impl View {
    /// A view on stdout, as JSON lines where a program reads it.
    pub(crate) fn new(quiet: bool, json: bool) -> Self {
        let form = match json {
            true => Form::Json,
            false if draws(&std::io::stdout()) => Form::Table,
            false => Form::Lines,
        };
        let (drawn, last_draw) = (Vec::new(), None);
        Self { quiet, form, drawn, last_draw, states: String::new(), notes: BTreeSet::new() }
    }

    /// Prints a line above the table.
    pub(crate) fn say(&mut self, line: &str) {
        match self.form {
            _ if self.quiet => {}
            Form::Json => events::print("message", json!({ "text": line.trim() })),
            _ => {
                self.erase();
                outln!("{line}");
            }
        }
    }

    /// Says at once, and also where nothing else is said, what somebody has to look at.
    pub(crate) fn alarm(&mut self, line: &str) {
        if self.form == Form::Json {
            events::print("alarm", json!({ "text": line }));
        }
        self.erase();
        errln!("{line}");
    }

    /// Says why a node failed, or which of its frames are missing.
    pub(crate) fn failed(&mut self, node: &str, error: &str) {
        if self.form == Form::Json {
            events::print("failed", json!({ "node": node, "error": error }));
        }
        self.erase();
        errln!("{node}: {error}");
    }

    /// Says a camera's new state where no table has it.
    pub(crate) fn camera(&mut self, line: &str) {
        match self.form {
            Form::Table => {}
            Form::Json => events::print("camera", json!({ "text": line })),
            Form::Lines => self.say(line),
        }
    }

    /// Says what a node warns of in its log, once.
    pub(crate) fn warn(&mut self, node: &str, text: &str) {
        if self.quiet || !self.notes.insert((node.to_owned(), text.to_owned())) {
            return;
        }
        if self.form == Form::Json {
            events::print("warning", json!({ "node": node, "text": text }));
        } else {
            self.erase();
            errln!("{WARNING}{node}: {text}");
        }
    }

    /// Prints the nodes' notes that are new, such as the address of a page.
    pub(crate) fn note(&mut self, nodes: &[Totals]) {
        for node in nodes {
            for note in node.last.iter().flat_map(|last| &last.notes) {
                let known = note.strip_prefix(WARNING).unwrap_or(note);
                if !self.notes.insert((node.id.clone(), known.to_owned())) {
                    continue;
                }
                // Most say what they are: `page: http://…`.
                let named = note.starts_with(&format!("{}: ", node.id));
                let line = if named { note.clone() } else { format!("{}: {note}", node.id) };
                self.erase();
                match self.form {
                    Form::Json => events::print("note", json!({ "node": node.id, "text": note })),
                    _ if self.quiet => outln!("{line}"),
                    _ => outln!("\n  {line}\n"),
                }
            }
        }
    }

    /// Prints the nodes' notes that are new, and how they are when it is time.
    pub(crate) fn update(&mut self, nodes: &[Totals], cameras: &Cameras, elapsed: Duration, now: Instant) {
        self.note(nodes);
        if self.quiet || !self.is_due(nodes, cameras, now) {
            return;
        }
        self.last_draw = Some(now);
        match self.form {
            Form::Table => {
                let size = size(std::io::stdout());
                let lines = fitted(table(nodes, cameras, elapsed, now, size.columns), size);
                self.erase();
                self.drawn = lines.iter().map(|line| width(line)).collect();
                outln!("{}", lines.join("\n"));
            }
            Form::Lines => outln!("{}", line(nodes, cameras, elapsed, now)),
            Form::Json => events::nodes(nodes, elapsed, now),
        }
    }

    fn is_due(&mut self, nodes: &[Totals], cameras: &Cameras, now: Instant) -> bool {
        let Some(last) = self.last_draw else { return true };
        if self.form == Form::Table {
            return now - last >= REDRAW;
        }
        if now - last < CHANGED {
            return false;
        }
        let states = nodes.iter().map(|node| format!("{} {:?}\n", state(node), node.vital.kind()));
        let states = states.chain([cameras.counts()]).collect();
        let changed = std::mem::replace(&mut self.states, states) != self.states;
        changed || now - last >= LINE
    }

    /// Takes the table off the terminal. A window that was made narrower since has wrapped its lines.
    pub(crate) fn erase(&mut self) {
        if self.drawn.is_empty() {
            return;
        }
        let columns = size(std::io::stdout()).columns;
        let rows: usize = self.drawn.drain(..).map(|width| width.div_ceil(columns).max(1)).sum();
        // Up, and clear from there to the end of the screen.
        out!("\x1b[{rows}A\x1b[J");
    }

    /// The last table and what was lost, with how each node ended.
    pub(crate) fn summary(&mut self, nodes: &[Totals], cameras: &Cameras, end: &End) {
        let End { ends, elapsed, more, .. } = end;
        self.erase();
        // those of a run that was over before the next table
        self.note(nodes);
        if self.form == Form::Json {
            events::end(nodes, end);
            return;
        }
        let frames = nodes.iter().map(Totals::frames).max().unwrap_or(0);
        let seconds = elapsed.as_secs_f64();
        let last = format!("{} in {seconds:.1} s, start and end included", counted(frames, "frame", "frames"));
        if self.quiet {
            let dropped: u64 = nodes.iter().map(Totals::dropped).sum();
            let dropped = if dropped > 0 { format!("; {dropped} dropped") } else { String::new() };
            outln!("{last}{dropped}");
            return;
        }
        let mut rows =
            vec![["node", "in", "out", "fps", "dropped", "p50 ms", "p95", "p99", "ended"].map(str::to_owned).to_vec()];
        for (node, end) in nodes.iter().zip(ends) {
            rows.push(row(node, fps_in_all(node), None, node.ages_since_start_ms(), end.clone()));
        }
        let mut out = format!("\n{}\n", table::lines(&rows, crate::out::columns(), &SPARE_AT_END).join("\n"));
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
        outln!("{out}{last}");
        more.iter().for_each(|line| outln!("{line}"));
    }
}

/// Frames a second since the start; none where that was not in one go.
fn fps_in_all(node: &Totals) -> String {
    let up_s = node.last.as_ref().map_or(0.0, |last| last.uptime_ns as f64 / 1e9);
    if up_s > 0.0 && node.restarts == 0 { format!("{:.1}", node.frames() as f64 / up_s) } else { "-".into() }
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

/// Where the node is in its life; empty while it works.
pub(crate) fn state(node: &Totals) -> &'static str {
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

fn table(nodes: &[Totals], cameras: &Cameras, elapsed: Duration, now: Instant, columns: usize) -> Vec<String> {
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
    let mut lines = table::lines(&rows, columns, &SPARE);
    let counts = cameras.counts();
    if !counts.is_empty() {
        lines.push(format!("cameras: {counts}"));
    }
    lines.extend(cameras.troubled().flat_map(|camera| wrapped(&format!("  {}", camera.line()), columns, "    ")));
    lines
}

/// Lines that fit a terminal: one that scrolls out at the top could not be taken off again. The first row stays free too,
/// since some terminals keep what is cleared from there on among the lines that have scrolled out.
fn fitted(mut lines: Vec<String>, size: Size) -> Vec<String> {
    let most = size.rows.saturating_sub(2).max(1);
    if lines.len() > most {
        let hidden = lines.len() - (most - 1);
        lines.truncate(most - 1);
        lines.push(format!("… {hidden} more lines, in a higher window"));
    }
    lines.into_iter().map(|line| cut(&line, size.columns)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Counter, Latency, NodeReport};
    use millrace_frame::{CameraState, CameraStatus};

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
        const NO: &str = "401 Unauthorized from rtsp://10.0.0.7/stream1; give user and password in cameras.yml";
        let start = Instant::now() - Duration::from_secs(10);
        let mut node = Totals::new("detect-people");
        for second in 0..=10u64 {
            let camera = |source: &str, state, last_error: &str| CameraStatus {
                state,
                last_error: last_error.into(),
                tries: 12,
                ..CameraStatus::new(source)
            };
            let cameras = vec![camera("door", CameraState::Refused, NO), camera("yard", CameraState::Live, "")];
            let report = report("detect-people", second, 12_345_678 + second * 2_500, cameras);
            node.take(report, start + Duration::from_secs(second));
        }
        let mut cameras = Cameras::default();
        cameras.update(std::slice::from_ref(&node));
        let now = start + Duration::from_secs(10);
        let table = table(std::slice::from_ref(&node), &cameras, Duration::from_secs(754), now, 90);
        assert_eq!(table[0], "12:34             in  out     fps  dropped  cpu  p50 ms   p95   p99");
        assert_eq!(table[1], "detect-people  12.4M    -  2500.0        0  12%     8.0  21.0  1234  123456 boxes");
        assert_eq!(table[2], "cameras: 1 live, 1 refused");
        assert!(table[3].starts_with("  door: refused since ") && table.len() == 5, "{table:?}");
        // the reason is whole, on as many lines as it needs
        let said = [&table[3], table[4].trim()].map(|line| line.trim_end().to_owned()).join(" ");
        assert!(said.ends_with(&format!("(attempt 12): {NO}")), "{said}");
        for columns in [40, 60, 80] {
            let narrow = super::table(std::slice::from_ref(&node), &cameras, Duration::from_secs(754), now, columns);
            assert!(narrow.iter().all(|line| width(line) <= columns), "{narrow:?}");
            assert!(narrow[0].contains("fps") && narrow[0].contains("dropped"), "{narrow:?}");
            assert!(narrow[1].contains("2500.0"), "{narrow:?}");
            let text = narrow.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            assert!(text.contains("give user and password in cameras.yml"), "{narrow:?}");
        }

        // it hangs: its rate is none, its ages say nothing of now, and the camera's state is not known
        let now = now + Duration::from_secs(12);
        node.vital = Vital::Silent(Duration::from_secs(12));
        let table = super::table(std::slice::from_ref(&node), &cameras, Duration::from_secs(766), now, 90);
        assert_eq!(table[1], "detect-people  12.4M    -  0.0        0   0%       -    -    -  HUNG for 12 s");
    }

    #[test]
    fn a_table_that_is_higher_than_the_window_is_cut() {
        let lines: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        let size = Size { columns: 80, rows: 24 };
        let cut = fitted(lines.clone(), size);
        assert_eq!((cut.len(), cut[20].as_str(), cut[21].as_str()), (22, "20", "… 9 more lines, in a higher window"));
        assert_eq!(fitted(lines, Size { columns: 80, rows: 32 }).len(), 30);
        assert_eq!(fitted(vec!["ab".into()], Size { columns: 1, rows: 0 }), ["…"]);
    }
}
