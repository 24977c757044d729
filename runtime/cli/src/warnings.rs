//! What nodes warn of in their logs, each kind once.
//!
//! dora collects what nodes print in the log of the run. What dora and zenoh warn of is about their own workings. The view
//! has the changes of cameras that nodes log from their reports.

use crate::logs::origin;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the log is read.
const LOOK: Duration = Duration::from_millis(500);
/// So much is read at a time.
const MOST_BYTES: u64 = 1 << 20;
/// More kinds of warnings than this are left to the log.
const MOST: usize = 20;
/// Whose warnings are not shown.
const LEFT_OUT: [&str; 4] = ["dora", "zenoh", "opentelemetry", "millrace_node::metrics::news"];
/// What a node adds that has said the same before.
const AGAIN: &str = " more like it since the last line)";

/// What a node adds to the first loss of a kind, and its fields behind it.
const ONCE: &str = " (logged once; the counter has the rest)";

/// The log of a run as far as it was read.
pub(crate) struct Warnings {
    log: PathBuf,
    read_bytes: u64,
    looked: Option<Instant>,
    /// Nodes and what they warned of, without the numbers.
    known: BTreeSet<(String, String)>,
}

impl Warnings {
    pub(crate) fn of(log: &Path) -> Self {
        Self { log: log.to_path_buf(), read_bytes: 0, looked: None, known: BTreeSet::new() }
    }

    /// Nodes and their warnings since the last look, where they are of a new kind.
    pub(crate) fn news(&mut self, now: Instant) -> Vec<(String, String)> {
        if self.looked.is_some_and(|last| now - last < LOOK) {
            return Vec::new();
        }
        self.looked = Some(now);
        let mut new = Vec::new();
        for (node, text) in self.lines().iter().filter_map(|line| warning(line)) {
            let kind = (node.to_owned(), text.replace(|c: char| c.is_ascii_digit(), ""));
            if self.known.len() < MOST && self.known.insert(kind) {
                new.push((node.to_owned(), text.to_owned()));
            }
        }
        new
    }

    /// The whole lines that the log has since it was last read. A log that cannot be read is one without warnings.
    fn lines(&mut self) -> Vec<String> {
        let new = read(&self.log, self.read_bytes).unwrap_or_default();
        let whole = new.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        // a line longer than all that is read at once is none of a node's
        let is_too_long = whole == 0 && new.len() as u64 == MOST_BYTES;
        self.read_bytes += if is_too_long { MOST_BYTES } else { whole as u64 };
        String::from_utf8_lossy(&new[..whole]).lines().map(str::to_owned).collect()
    }
}

/// What a file has from this byte on.
fn read(path: &Path, from_bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from_bytes))?;
    let mut new = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut new)?;
    Ok(new)
}

/// The node and the text of a warning that is worth a user's look.
fn warning(line: &str) -> Option<(&str, &str)> {
    let (head, rest) = line.split_once(" WARN ")?;
    let (stream, node) = origin(head)?;
    let (target, text) = rest.split_once(": ")?;
    if !matches!(stream, "stdout" | "stderr") || LEFT_OUT.iter().any(|other| target.starts_with(other)) {
        return None;
    }
    let text = text.strip_suffix(AGAIN).and_then(|text| Some(text.rsplit_once(" (")?.0)).unwrap_or(text);
    Some((node, text.split_once(ONCE).map_or(text, |(text, _fields)| text)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    /// As dora 1.1 writes it.
    const LOG: &str = "\
14:02:11 stdout decode:  WARN dora_node_api::node: output `frame`: entering control_channel.send_message (diagnostic)
14:02:11 stdout decode:  WARN zenoh_shm::watchdog::periodic_task: Some(\"Watchdog\"): error setting priority
14:02:11 stdout decode:  WARN millrace_node::metrics::news: camera 'door' is stalled: no picture for 900 ms
14:02:12 stdout detect:  WARN ort_infer::library: the model runs on the CPU
14:02:12 stdout detect:  WARN millrace_node::metrics: a picture is late (logged once; the counter has the rest) camera=\"door\" count=1
14:02:12 stdout detect:  INFO ort_infer::library: ready
14:02:13 stdout to-rgb:  WARN millrace_node::outputs: 3 frames waited 12 ms
14:02:23 stdout to-rgb:  WARN millrace_node::outputs: 4 frames waited 40 ms (7 more like it since the last line)
14:02:23 DEBUG  to-rgb: daemon handling node stop
";

    #[test]
    fn what_nodes_warn_of_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut warnings = Warnings::of(&path);
        let mut now = Instant::now();
        assert!(warnings.news(now).is_empty(), "there is no log yet");
        let mut log = File::create(&path).unwrap();
        let mut look = |part: &str| {
            log.write_all(part.as_bytes()).unwrap();
            now += LOOK;
            warnings.news(now)
        };
        // the log may end in the middle of a line
        let (begin, end) = LOG.split_at(LOG.find(" runs on the CPU").unwrap());
        assert!(look(begin).is_empty());
        let pair = |node: &str, text: &str| (node.to_owned(), text.to_owned());
        let found = [
            ("detect", "the model runs on the CPU"),
            ("detect", "a picture is late"),
            ("to-rgb", "3 frames waited 12 ms"),
        ];
        assert_eq!(look(end), found.map(|(node, text)| pair(node, text)));
        assert!(look(LOG).is_empty());
        let more: String = (0..100).map(|n| format!("14:02:11 stdout a:  WARN a: {}\n", "x".repeat(n + 1))).collect();
        assert_eq!(look(&more).len(), MOST - 3, "the rest is in the log");
    }
}
