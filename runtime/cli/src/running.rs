//! The graphs that run on this machine: `millrace list`, `millrace stop` and `millrace logs`.
//!
//! `dora list` has only what `dora start` started. A graph of `millrace run`, `supervise` or `soak` leaves a record of
//! itself in its temporary folder, which is locked while it runs.

use crate::out::{errln, out, outln, reader_has_gone};
use crate::scratch::{Scratch, folders, lasts};
use crate::switch::control::{Control, Dataflow};
use crate::{clock, logs, out, table};
use anyhow::{Context, bail};
use millrace_frame::unix_ns;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// A graph ends within 12 s of a request to stop, whatever its nodes do.
const ENDED: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);
const FILE: &str = "graph.json";

#[derive(clap::Args)]
pub(crate) struct ListArgs {
    /// Print the list as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct StopArgs {
    /// The graph, by its file's name (`demo`), its path or its process; may be left out where only one runs.
    graph: Option<String>,
}

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millrace logs --node detect
  millrace logs demo --follow")]
pub(crate) struct LogsArgs {
    /// The graph, by its file's name (`demo`), its path or its process; otherwise the one that runs, or the last that ran.
    graph: Option<String>,
    /// Print only the lines of this node.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    /// Go on with new lines until the graph ends.
    #[arg(long, short)]
    follow: bool,
}

/// A graph that a command of ours runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of this form: 1.
    v: u32,
    /// The graph file's name, without its ending.
    name: String,
    /// The command: `run`, `supervise` or `soak`.
    by: String,
    pid: u32,
    graph: PathBuf,
    log: PathBuf,
    since_ns: i64,
}

impl Record {
    /// Of this process.
    pub(crate) fn new(by: &str, graph: &Path, log: &Path) -> Self {
        let name = graph.file_stem().map_or_else(|| "graph".into(), |stem| stem.to_string_lossy().into_owned());
        let graph = std::path::absolute(graph).unwrap_or_else(|_| graph.to_path_buf());
        let (by, log, pid) = (by.to_owned(), log.to_path_buf(), std::process::id());
        Self { v: 1, name, by, pid, graph, log, since_ns: unix_ns() }
    }

    /// Puts it where others find it.
    pub(crate) fn write(&self, scratch: &Scratch) -> anyhow::Result<()> {
        let path = scratch.path(FILE);
        std::fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Of all graphs of this user that run now, the oldest first.
    fn all() -> Vec<Self> {
        let mut all: Vec<Self> = folders().iter().filter_map(|folder| Self::of(folder)).collect();
        all.sort_by_key(|record| record.since_ns);
        all
    }

    /// Of a folder, where its graph runs.
    fn of(folder: &Path) -> Option<Self> {
        lasts(folder).filter(|lasts| *lasts)?;
        serde_json::from_slice(&std::fs::read(folder.join(FILE)).ok()?).ok()
    }

    fn is(&self, wanted: &str) -> bool {
        let path = || Path::new(wanted).canonicalize().ok().zip(self.graph.canonicalize().ok());
        self.name == wanted || self.pid.to_string() == wanted || path().is_some_and(|(a, b)| a == b)
    }

    fn runs(&self) -> bool {
        Self::all().iter().any(|other| other.pid == self.pid)
    }
}

/// What runs, started by us or by dora.
enum Found {
    Ours(Record),
    OfDora(Dataflow),
}

/// All that runs; dora's own is left out where dora is not there or no coordinator answers.
fn all() -> Vec<Found> {
    let of_dora = Control::found().and_then(|control| control.running().ok()).unwrap_or_default();
    Record::all().into_iter().map(Found::Ours).chain(of_dora.into_iter().map(Found::OfDora)).collect()
}

impl Found {
    fn is(&self, wanted: &str) -> bool {
        match self {
            Self::Ours(record) => record.is(wanted),
            Self::OfDora(flow) => flow.name == wanted || flow.uuid == wanted,
        }
    }

    /// Its name, and what tells it from another of this name.
    fn called(&self) -> String {
        match self {
            Self::Ours(record) => format!("{} ({} {})", record.name, record.by, record.pid),
            Self::OfDora(flow) => format!("{} (dora {})", flow.called(), flow.uuid),
        }
    }
}

/// The one that is wanted; the only one where none is named. `None` where nothing fits.
fn choose(all: Vec<Found>, wanted: Option<&str>) -> anyhow::Result<Option<Found>> {
    let mut fitting: Vec<Found> =
        all.into_iter().filter(|found| wanted.is_none_or(|wanted| found.is(wanted))).collect();
    if fitting.len() > 1 {
        let names = fitting.iter().map(Found::called).collect::<Vec<_>>().join(", ");
        bail!("several graphs run: {names}; name one, by its process where the names are the same");
    }
    Ok(fitting.pop())
}

/// Prints what runs.
pub(crate) fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let all = all();
    if args.json {
        let of = |found: &Found| match found {
            Found::Ours(record) => json!(record),
            Found::OfDora(flow) => json!({ "v": 1, "name": flow.called(), "by": "dora", "uuid": flow.uuid }),
        };
        outln!("{:#}", json!(all.iter().map(of).collect::<Vec<_>>()));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["graph", "by", "process", "since", "file"].map(str::to_owned).to_vec()];
    rows.extend(all.iter().map(|found| match found {
        Found::Ours(Record { name, by, pid, since_ns, graph, .. }) => {
            vec![name.clone(), by.clone(), pid.to_string(), clock::time_of_day(*since_ns), graph.display().to_string()]
        }
        Found::OfDora(flow) => {
            vec![flow.called().to_owned(), "dora".into(), "-".into(), "-".into(), format!("dataflow {}", flow.uuid)]
        }
    }));
    if all.is_empty() {
        errln!("no graph of this user runs on this machine");
    } else {
        table::lines(&rows, out::columns(), &[3]).iter().for_each(|line| outln!("{line}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks a graph to end, and waits until it has.
pub(crate) fn stop(args: &StopArgs) -> anyhow::Result<ExitCode> {
    let found = choose(all(), args.graph.as_deref())?;
    let Some(found) = found else {
        match &args.graph {
            Some(wanted) => bail!("no graph called '{wanted}' runs; 'millrace list' shows what does"),
            None => bail!("no graph runs"),
        }
    };
    match &found {
        Found::Ours(record) => {
            let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw).context("its record has no process")?;
            kill_process(pid, Signal::TERM).with_context(|| format!("process {} cannot be asked", record.pid))?;
            let start = Instant::now();
            while record.runs() {
                if start.elapsed() > ENDED {
                    bail!(
                        "process {} was asked to stop {} s ago and still runs; 'kill -9 {}' ends it, and dora then ends \
                         its nodes",
                        record.pid,
                        ENDED.as_secs(),
                        record.pid
                    );
                }
                std::thread::sleep(LOOK);
            }
        }
        Found::OfDora(flow) => Control::new()?.stop(&flow.uuid)?,
    }
    outln!("stopped: {}", found.called());
    Ok(ExitCode::SUCCESS)
}

/// Prints a graph's log.
pub(crate) fn logs(args: &LogsArgs) -> anyhow::Result<ExitCode> {
    match choose(all(), args.graph.as_deref())? {
        Some(Found::OfDora(flow)) => of_dora(args, &flow),
        Some(Found::Ours(record)) => print(args, &record.log, Some(&record)),
        None => {
            let wanted = args.graph.as_deref();
            let stem = wanted.map(|wanted| Path::new(wanted).file_stem().unwrap_or_default().to_string_lossy());
            let Some(log) = logs::newest(&logs::folder(), stem.as_deref()) else {
                let of = wanted.map(|wanted| format!(" of '{wanted}'")).unwrap_or_default();
                bail!("nothing{of} runs, and {} has no log of it", logs::folder().display());
            };
            errln!("ended; its log is {}", log.display());
            print(args, &log, None)
        }
    }
}

/// Prints a log without dora's own lines; with `--follow` on and on, while its graph runs.
fn print(args: &LogsArgs, log: &Path, record: Option<&Record>) -> anyhow::Result<ExitCode> {
    let mut file = File::open(log).with_context(|| format!("the log {} cannot be read", log.display()))?;
    let mut kept = Vec::new();
    loop {
        // what it wrote last comes after the last look at it
        let goes_on = args.follow && record.is_some_and(Record::runs) && !reader_has_gone();
        if file.metadata()?.len() < file.stream_position()? {
            file.seek(SeekFrom::Start(0))?; // it was cut off at its greatest length
        }
        file.read_to_end(&mut kept)?;
        let whole = if goes_on { kept.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1) } else { kept.len() };
        let text: Vec<u8> = kept.drain(..whole).collect();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|line| match &args.node {
            Some(node) => of_node(line, node),
            None => !logs::is_noise(line),
        });
        out!("{}", lines.map(|line| format!("{line}\n")).collect::<String>());
        if !goes_on {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(LOOK);
    }
}

fn of_node(line: &str, node: &str) -> bool {
    logs::origin(line).is_some_and(|(_, of)| of == node) && !logs::is_noise(line)
}

fn of_dora(args: &LogsArgs, flow: &Dataflow) -> anyhow::Result<ExitCode> {
    let mut command = Command::new(Control::new()?.program());
    command.args(["logs", &flow.uuid]);
    match &args.node {
        Some(node) => command.args(["--node", node]),
        None => command.arg("--all-nodes"),
    };
    command.args(args.follow.then_some("--follow"));
    let status = command.status().context("dora cannot be started")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::scratch::LOCK;

    #[test]
    fn a_graph_is_found_while_it_runs_and_by_all_its_names() {
        let scratch = Scratch::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let graph = folder.path().join("cameras.yml");
        std::fs::write(&graph, "").unwrap();
        Record::new("run", &graph, Path::new("/logs/cameras-1.log")).write(&scratch).unwrap();
        let record = Record::of(&scratch.path("")).unwrap();
        for wanted in ["cameras", graph.to_str().unwrap(), &std::process::id().to_string()] {
            assert!(record.is(wanted), "{wanted}");
        }
        assert!(!record.is("camera") && !record.is("/none/cameras.yml"));
        let again = |n: u32| Found::Ours(Record { pid: n, ..record.clone() });
        let several = choose(vec![again(1), again(2)], Some("cameras")).err().unwrap().to_string();
        assert!(several.contains("cameras (run 1), cameras (run 2)"), "{several}");
        assert!(choose(vec![again(1), again(2)], Some("2")).unwrap().is_some());
        assert!(
            choose(vec![again(1)], None).unwrap().is_some() && choose(vec![again(1)], Some("x")).unwrap().is_none()
        );
        // what a run that was killed left behind is no graph that runs
        let dead = folder.path().join("millrace-1");
        std::fs::create_dir(&dead).unwrap();
        File::create(dead.join(LOCK)).unwrap();
        std::fs::copy(scratch.path(FILE), dead.join(FILE)).unwrap();
        assert!(Record::of(&dead).is_none());
    }

    #[test]
    fn the_lines_of_a_node_are_its_own() {
        assert!(of_node("14:02:11 stdout detect:  INFO ort_infer: ready", "detect"));
        assert!(of_node("14:02:11 DEBUG  detect: daemon handling node stop", "detect"));
        assert!(!of_node("14:02:11 stdout detect-2:  INFO ort_infer: detect: ready", "detect"));
        assert!(!of_node("14:02:11 stdout detect:  WARN dora_node_api: (dora-rs/dora#2742 diagnostic)", "detect"));
    }
}
