//! `millrace run`: build, check, hand to dora, watch, end.

use crate::RunArgs;
use crate::cameras::Cameras;
use crate::efficiency::Meter;
use crate::life::comes_back_within;
use crate::load::{Loaded, absolute_sets, load};
use crate::procs::Family;
use crate::scratch::Scratch;
use crate::status::{Inbox, NodeReport, State, VARIABLE};
use crate::totals::{LOOK, Totals};
use crate::trial::gpu::Probe;
use crate::view::View;
use crate::vitals::{Vital, Vitals};
use crate::{dora, make};
use anyhow::{Context, bail};
use millrace_graph::check::Checked;
use millrace_graph::describe::{Blind, Programs};
use millrace_graph::fault::Report;
use millrace_graph::model::{Graph, Origin};
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// After the user asked to stop: when dora is asked to hurry, and when all that is left is killed.
pub(crate) const HURRY: (Duration, Duration) = (Duration::from_millis(1_800), Duration::from_millis(2_500));
/// The same for a stop that nobody sits and waits for: dora's own patience with its nodes is 10 s.
pub(crate) const PATIENT: (Duration, Duration) = (Duration::from_secs(11), Duration::from_secs(12));

pub(crate) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut view = View::new(args.quiet);
    // What is wrong with the file itself need not wait for a build.
    let first = load(&args.graph, &args.sets, &Blind)?;
    let Some(graph) = first.checked.graph.as_ref().filter(|_| first.checked.report.is_ok()) else {
        return Ok(refuse(&first.checked.report));
    };
    refuse_what_dora_must_fetch(graph, &args.graph)?;
    let program = dora::ensure(&mut |line| view.say(line))?;
    if !args.no_build {
        make::make(graph, &first.folder, args.quiet, &mut |line| view.say(line))?;
    }
    let Loaded { checked, folder, .. } = load(&args.graph, &args.sets, &Programs::default())?;
    let Some(graph) = checked.graph.as_ref().filter(|_| checked.report.is_ok()) else {
        return Ok(refuse(&checked.report));
    };
    if !args.quiet {
        eprint!("{}", checked.report.warnings());
    }
    dora::has_room(graph.nodes.len())?;
    let sets = absolute_sets(&checked)?;
    let scratch = Scratch::new()?;
    let stem = args.graph.file_stem().and_then(|stem| stem.to_str()).unwrap_or("graph");
    let file = scratch.write_graph(graph, stem, &folder, &sets)?;
    let inbox = Inbox::new(scratch.status_socket()?);
    let log = log_file(stem)?;
    view.say(&format!("running {}; dora's log is {}", args.graph.display(), log.display()));
    let signals = Signals::listen()?;
    let child = start(&program, &file, &scratch.status_path(), &log)?;
    let mut running = Running::new(&checked, graph, (child, log), inbox, view, signals, args.stop_after);
    let status = running.watch()?;
    Ok(running.end(status))
}

fn refuse(report: &Report) -> ExitCode {
    eprint!("{}", report.text(false));
    ExitCode::FAILURE
}

/// dora fetches or hosts these by the graph file's place; a copy of the file would miss them.
pub(crate) fn refuse_what_dora_must_fetch(graph: &Graph, file: &Path) -> anyhow::Result<()> {
    if graph.is_module {
        bail!("{} is a module, a part of graphs: name a graph that uses it", file.display());
    }
    for node in &graph.nodes {
        let what = match node.origin {
            Origin::Program => continue,
            Origin::Module => "is a module",
            Origin::Dynamic => "is started by hand",
            Origin::ByDora => "is fetched or hosted by dora",
        };
        let file = file.display();
        bail!(
            "node '{}' {what}, which 'millrace run' does not do; run the graph by dora itself: \
             dora build {file} && dora run {file}",
            node.id.value
        );
    }
    Ok(())
}

/// A log of this run, beside the last ones. Logs of runs that go on are left alone, however many came later.
pub(crate) fn log_file(stem: &str) -> anyhow::Result<PathBuf> {
    let base = dora::target_folder().unwrap_or_else(std::env::temp_dir);
    let folder = base.join("millrace-logs");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    remove_old_logs(&folder);
    Ok(folder.join(format!("{stem}-{}.log", std::process::id())))
}

/// Keeps the last logs, and those of runs that go on: dora and its nodes hold a lock on theirs.
fn remove_old_logs(folder: &Path) {
    const KEPT: usize = 20;
    let mut old: Vec<_> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    old.sort();
    for (_, path) in old.iter().take(old.len().saturating_sub(KEPT - 1)) {
        let Ok(log) = File::open(path) else { continue };
        if log.try_lock().is_ok() {
            // Another run may have removed it.
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(crate) fn start(program: &Path, graph: &Path, status: &Path, log: &Path) -> anyhow::Result<Child> {
    let open = || File::options().create(true).append(true).open(log);
    let file = open().with_context(|| format!("the log {} cannot be written", log.display()))?;
    // Until the last process that writes there has ended: later runs look for it before they remove an old log. A file
    // system without locks keeps the log as long as any other.
    let _ = file.try_lock_shared();
    let mut command = Command::new(program);
    make::outside_cargo(&mut command);
    command
        .arg("run")
        .arg(graph)
        .env(VARIABLE, status)
        .env("MILLRACE_CHILD", "1")
        .env("NO_COLOR", "1")
        .env(dora::POOL_SIZE.0, std::env::var_os(dora::POOL_SIZE.0).unwrap_or_else(|| dora::POOL_SIZE.1.into()))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        // Ctrl-C reaches this process alone, which passes it on in its own way.
        .process_group(0);
    command.spawn().with_context(|| format!("dora ({}) cannot be started", program.display()))
}

/// Requests to stop, counted.
pub(crate) struct Signals {
    count: Arc<AtomicUsize>,
}

impl Signals {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let count = Arc::new(AtomicUsize::new(0));
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let counter = Arc::clone(&count);
        std::thread::spawn(move || {
            for _ in signals.forever() {
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(Self { count })
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Why the graph was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// `--stop-after`.
    Time,
    /// Ctrl-C, or a signal like it.
    User,
    /// A node failed and stays down.
    Failure,
}

struct Running {
    nodes: Vec<Totals>,
    /// How long each may take to come back.
    comes_back: Vec<Duration>,
    /// Millrace nodes, which report.
    reports: Vec<bool>,
    child: Child,
    family: Family,
    inbox: Inbox,
    cameras: Cameras,
    vitals: Vitals,
    meter: Meter,
    view: View,
    signals: Signals,
    stop_after: Option<Duration>,
    start: Instant,
    stopping: Option<(Instant, Cause)>,
    hurried: bool,
    killed: bool,
    shown_errors: Vec<(String, String)>,
    log: PathBuf,
    /// When the nodes were last looked at.
    looked: Instant,
}

impl Running {
    fn new(
        checked: &Checked,
        graph: &Graph,
        (child, log): (Child, PathBuf),
        inbox: Inbox,
        view: View,
        signals: Signals,
        stop_after: Option<Duration>,
    ) -> Self {
        Self {
            nodes: graph.nodes.iter().map(|node| Totals::new(&node.id.value)).collect(),
            comes_back: graph.nodes.iter().map(comes_back_within).collect(),
            reports: checked.nodes.iter().map(|node| node.description.is_some()).collect(),
            family: Family::of(child.id()),
            child,
            inbox,
            cameras: Cameras::default(),
            vitals: Vitals::default(),
            meter: Meter::new(Probe::of_checked(&checked.nodes)),
            view,
            signals,
            stop_after,
            start: Instant::now(),
            stopping: None,
            hurried: false,
            killed: false,
            shown_errors: Vec::new(),
            log,
            looked: Instant::now(),
        }
    }

    /// Runs until dora and all nodes are gone.
    fn watch(&mut self) -> anyhow::Result<ExitStatus> {
        let mut last_look = None;
        loop {
            // However much the nodes have to say, the rest of the loop gets its turn.
            let turn = Instant::now() + Duration::from_millis(50);
            while let Some(left) = turn.checked_duration_since(Instant::now()) {
                let Some(status) = self.inbox.next(left) else { break };
                self.take(status);
            }
            let now = Instant::now();
            if last_look.is_none_or(|last| now - last >= Duration::from_millis(500)) {
                self.family.look();
                if self.stopping.is_none() {
                    self.meter.look(&self.nodes, now);
                }
                last_look = Some(now);
            }
            if now - self.looked >= LOOK {
                self.look_at_nodes(now);
                self.looked = now;
            }
            if let Some(status) = self.child.try_wait()? {
                // The last reports of nodes may still be in the socket.
                while let Some(status) = self.inbox.next(Duration::from_millis(1)) {
                    self.take(status);
                }
                return Ok(status);
            }
            self.view.update(&self.nodes, &self.cameras, now - self.start, now);
            self.consider_stopping(now);
        }
    }

    fn take(&mut self, status: NodeReport) {
        let now = Instant::now();
        if let Some(error) = status.error.clone().filter(|_| matches!(status.state, State::Failed | State::Incomplete))
        {
            let line = (status.node.clone(), error);
            if !self.shown_errors.contains(&line) {
                self.view.erase();
                eprintln!("{}: {}", line.0, line.1);
                self.shown_errors.push(line);
            }
        }
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == status.node) else { return };
        if let Some(restart) = node.take(status, now) {
            let line = self.vitals.restarted(&node.id, restart, &self.log);
            self.view.alarm(&line);
        }
    }

    /// Says which nodes hang or are gone, and what cameras do, where that is news. Once the graph ends, nothing of it is.
    fn look_at_nodes(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        for (node, within) in self.nodes.iter_mut().zip(&self.comes_back) {
            let process = self.family.process(node.last.as_ref().map_or(0, NodeReport::works_in));
            if let Some(line) = self.vitals.look(node, process, *within, now) {
                self.view.alarm(&line);
            }
        }
        for line in self.cameras.update(&self.nodes) {
            self.view.camera(&line);
        }
    }

    fn consider_stopping(&mut self, now: Instant) {
        let asked = self.signals.count();
        match self.stopping {
            None => {
                let cause = if asked > 0 {
                    Cause::User
                } else if self.stop_after.is_some_and(|after| now - self.start >= after) {
                    Cause::Time
                } else if self.is_lost(now) {
                    Cause::Failure
                } else {
                    return;
                };
                self.family.look();
                self.family.signal_root(Signal::INT);
                self.stopping = Some((now, cause));
            }
            Some((since, cause)) => {
                let again = asked > usize::from(cause == Cause::User);
                let (hurry, kill) = if cause == Cause::User { HURRY } else { PATIENT };
                if (again || now - since >= kill) && !self.killed {
                    self.family.kill();
                    self.killed = true;
                } else if now - since >= hurry && !self.hurried {
                    // dora then kills its nodes and cleans up after itself.
                    self.family.signal_root(Signal::INT);
                    self.hurried = true;
                }
            }
        }
    }

    /// A node has failed and does not come back. What keeps a node from working at all (a setting, a port in use, a missing
    /// model) is not tried again: the user who started the graph looks at it now.
    fn is_lost(&self, now: Instant) -> bool {
        self.nodes.iter().zip(&self.comes_back).any(|(node, within)| {
            let patience = if node.ran { *within } else { Duration::ZERO };
            node.state() == Some(State::Failed)
                && node.last_report_at.is_some_and(|last_report_at| now - last_report_at >= patience)
        })
    }

    /// Cleans up, says how it went, and gives the exit code.
    fn end(mut self, status: ExitStatus) -> ExitCode {
        let elapsed = self.start.elapsed();
        // Nodes end when dora does; who lingers is killed.
        if !self.family.gone_within(Duration::from_millis(300)) {
            self.family.kill();
            self.family.gone_within(Duration::from_millis(500));
        }
        self.family.sweep();
        let cause = self.stopping.map(|(_, cause)| cause);
        let ends: Vec<String> = self.nodes.iter().map(|node| end_of(node, self.killed || self.hurried)).collect();
        self.view.summary(&self.nodes, &ends, &self.cameras, elapsed);
        self.meter.lines().iter().for_each(|line| self.view.say(line));
        let mut troubled: Vec<&str> = Vec::new();
        let mut incomplete: Vec<&str> = Vec::new();
        for (node, reports) in self.nodes.iter().zip(&self.reports) {
            match node.state() {
                Some(State::Done | State::Stopped) => {}
                Some(State::Incomplete) => incomplete.push(&node.id),
                // It was asked to stop before it could say a word.
                None if !reports || cause.is_some() => {}
                _ => troubled.push(&node.id),
            }
        }
        let code = match cause {
            // What shells give for an interrupted program.
            Some(Cause::User) => 130,
            _ if !incomplete.is_empty() => 1,
            Some(Cause::Time) if troubled.is_empty() && !self.killed => 0,
            None if troubled.is_empty() && status.success() => 0,
            _ => 1,
        };
        if code == 1 {
            if !incomplete.is_empty() {
                eprintln!("millrace: frames are missing, as said above: {}", incomplete.join(", "));
            }
            if incomplete.is_empty() || !troubled.is_empty() {
                self.explain_failure(status, &troubled, &self.log);
            }
        }
        ExitCode::from(code)
    }

    fn explain_failure(&self, status: ExitStatus, troubled: &[&str], log: &Path) {
        if !troubled.is_empty() {
            eprintln!("millrace: not ended as they should: {}", troubled.join(", "));
        }
        // 1 is what dora gives when a node failed.
        if troubled.is_empty() || status.code() != Some(1) && self.stopping.is_none() {
            eprintln!("millrace: dora ended with {status}");
        }
        // Their own words were shown; dora's are wanted where there were none.
        if self.shown_errors.is_empty() {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().filter(|line| !is_noise(line)).collect();
            eprintln!("the last lines of dora's log ({}):", log.display());
            for line in &lines[lines.len().saturating_sub(20)..] {
                eprintln!("  {line}");
            }
        } else {
            eprintln!("dora's log: {}", log.display());
        }
    }
}

/// Blank lines, stack traces without names, and what dora 1.1 logs of its own workings.
pub(crate) fn is_noise(line: &str) -> bool {
    let line = line.trim_start();
    let number = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_frame = number.len() < line.len() && number.starts_with(": ");
    line.is_empty()
        || is_frame
        || line.starts_with("at ")
        || line.starts_with("Stack backtrace")
        || line.contains("diagnostic)")
}

pub(crate) fn end_of(node: &Totals, killed: bool) -> String {
    let end = match node.state() {
        Some(State::Opening | State::Running) if matches!(node.vital, Vital::Gone(_)) => "GONE, without a word",
        Some(State::Done) => "done",
        Some(State::Stopped) => "stopped",
        Some(State::Incomplete) => "frames missing",
        Some(State::Failed) => "failed",
        Some(State::Opening | State::Running) if killed => "killed",
        Some(State::Opening | State::Running) => "without a word",
        None => "(no report)",
    };
    match node.restarts {
        0 => end.to_owned(),
        1 => format!("{end}, 1 restart"),
        n => format!("{end}, {n} restarts"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    #[test]
    fn the_log_of_a_run_that_goes_on_is_kept_however_many_come_later() {
        let folder = tempfile::tempdir().unwrap();
        let aged = |path: &Path, age_s: u64| {
            let file = File::options().create(true).append(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
        };
        // the oldest of all, and what dora started still runs; a script stands in for dora
        let elsewhere = tempfile::tempdir().unwrap();
        let dora = elsewhere.path().join("dora");
        std::fs::write(&dora, "#!/bin/sh\nsleep 600 &\nwait\n").unwrap();
        std::fs::set_permissions(&dora, std::fs::Permissions::from_mode(0o700)).unwrap();
        let log = folder.path().join("long-1.log");
        let mut child = start(&dora, Path::new("graph.yml"), Path::new("/none"), &log).unwrap();
        aged(&log, 5_000);
        let later: Vec<PathBuf> = (0..30).map(|n| folder.path().join(format!("g-{n}.log"))).collect();
        for (n, path) in later.iter().enumerate() {
            aged(path, 1_000 - n as u64);
        }
        remove_old_logs(folder.path());
        let kept = later.iter().filter(|path| path.exists()).count();
        assert!(log.exists() && child.try_wait().unwrap().is_none());
        assert_eq!(kept, 19, "the newest of those that have ended");
        let mut family = Family::of(child.id());
        family.kill();
        child.wait().unwrap();
        assert!(family.gone_within(Duration::from_secs(10)));
        aged(&log, 5_000);
        // a process that was not seen yet may take a moment to die
        let start = Instant::now();
        while log.exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "nobody writes there any more");
            remove_old_logs(folder.path());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
