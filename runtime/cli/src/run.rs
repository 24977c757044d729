//! `millrace run`: build, check, hand to dora, watch, end.

use crate::cameras::Cameras;
use crate::efficiency::Meter;
use crate::life::comes_back_within;
use crate::load::{Loaded, absolute_sets, load};
use crate::logs::{is_noise, log_file};
use crate::out::{err, errln, reader_has_gone};
use crate::procs::Family;
use crate::running::Record;
use crate::scratch::Scratch;
use crate::signals::Signals;
use crate::status::{Inbox, NodeReport, State, VARIABLE};
use crate::totals::{LOOK, Totals};
use crate::trial::gpu::Probe;
use crate::view::{End, View};
use crate::vitals::{Vital, Vitals};
use crate::warnings::Warnings;
use crate::{dora, events, make, set_parser};
use anyhow::{Context, bail};
use millrace_graph::check::{Checked, Set};
use millrace_graph::describe::{Blind, Programs};
use millrace_graph::fault::Report;
use millrace_graph::model::{Graph, Origin};
use millrace_graph::schedule::parse_duration;
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A graph, and how it is run.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millrace run graphs/demo.yml
  millrace run graphs/detect.yml --set decode.SOURCE=clip.mp4 --set write.PATH=out.jsonl
  millrace run graphs/cameras.yml --stop-after 10m --json

Exit codes: 0 all ended as they should, also where SIGTERM or 'millrace stop' asked for it; 130 after Ctrl-C; 141 where \
the reader of a pipe has gone; 1 otherwise.")]
pub(crate) struct Args {
    /// The graph file.
    graph: PathBuf,
    /// Give a setting of a node another value, over what the graph says; may be repeated.
    #[arg(long = "set", value_name = "NODE.KEY=VALUE", value_parser = set_parser())]
    sets: Vec<Set>,
    /// Don't run the graph's build commands.
    #[arg(long)]
    no_build: bool,
    /// Stop the graph after this time: 30, 500ms, 10s, 5m, 1h, 2d.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    stop_after: Option<Duration>,
    /// Print nothing but addresses, faults and the end.
    #[arg(long, short)]
    quiet: bool,
    /// Print what happens as JSON, a document a line.
    #[arg(long)]
    json: bool,
}

/// After the user asked to stop: when dora is asked to hurry, and when all that is left is killed.
pub(crate) const HURRY: (Duration, Duration) = (Duration::from_millis(1_800), Duration::from_millis(2_500));
/// The same for a stop that nobody sits and waits for: dora's own patience with its nodes is 10 s.
pub(crate) const PATIENT: (Duration, Duration) = (Duration::from_secs(11), Duration::from_secs(12));

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let ended = attempt(args);
    if args.json
        && let Err(error) = &ended
    {
        events::broken(error);
    }
    ended
}

fn attempt(args: &Args) -> anyhow::Result<ExitCode> {
    let mut view = View::new(args.quiet, args.json);
    // What is wrong with the file itself need not wait for a build.
    let first = load(&args.graph, &args.sets, &Blind)?;
    let Some(graph) = first.checked.graph.as_ref().filter(|_| first.checked.report.is_ok()) else {
        return Ok(refuse(&first.checked.report, args.json));
    };
    refuse_what_dora_must_fetch(graph, &args.graph)?;
    let program = dora::ensure(&mut |line| view.say(line))?;
    if !args.no_build {
        make::make(graph, &first.folder, args.quiet, &mut |line| view.say(line))?;
    }
    let Loaded { checked, folder, .. } = load(&args.graph, &args.sets, &Programs::default())?;
    let Some(graph) = checked.graph.as_ref().filter(|_| checked.report.is_ok()) else {
        return Ok(refuse(&checked.report, args.json));
    };
    if !args.quiet {
        err!("{}", checked.report.warnings());
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
    Record::new("run", &args.graph, &log).write(&scratch)?;
    let mut running = Running::new(&checked, graph, (child, log), inbox, view, signals, args.stop_after);
    let status = running.watch()?;
    Ok(running.end(status))
}

fn refuse(report: &Report, json: bool) -> ExitCode {
    if json {
        events::refused(report);
    }
    err!("{}", report.text(false));
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

/// Why the graph was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// `--stop-after`.
    Time,
    /// Ctrl-C, or a signal like it.
    User,
    /// SIGTERM: a service manager, or `millrace stop`.
    Manager,
    /// Nobody reads what is printed any more.
    Reader,
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
    /// What nodes said of their ends, as it was printed.
    shown_errors: Vec<(String, String)>,
    warnings: Warnings,
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
            warnings: Warnings::of(&log),
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
            self.warn(now);
            if now - self.looked >= LOOK {
                self.look_at_nodes(now);
                self.looked = now;
            }
            if let Some(status) = self.child.try_wait()? {
                // The last reports of nodes may still be in the socket.
                while let Some(status) = self.inbox.next(Duration::from_millis(1)) {
                    self.take(status);
                }
                self.warn(now + Duration::from_secs(1));
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
                self.view.failed(&line.0, &line.1);
                self.shown_errors.push(line);
            }
        }
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == status.node) else { return };
        if let Some(restart) = node.take(status, now) {
            let line = self.vitals.restarted(&node.id, restart, &self.log);
            self.view.alarm(&line);
        }
    }

    /// Says what nodes warn of in their logs.
    fn warn(&mut self, now: Instant) {
        for (node, text) in self.warnings.news(now) {
            self.view.warn(&node, &text);
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
                    if self.signals.is_term() { Cause::Manager } else { Cause::User }
                } else if reader_has_gone() {
                    Cause::Reader
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
                let by_signal = matches!(cause, Cause::User | Cause::Manager);
                let again = asked > usize::from(by_signal);
                let (hurry, kill) = if by_signal || cause == Cause::Reader { HURRY } else { PATIENT };
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
            // and for one whose reader has gone
            Some(Cause::Reader) => 141,
            _ if !incomplete.is_empty() => 1,
            Some(Cause::Time | Cause::Manager) if troubled.is_empty() && !self.killed => 0,
            None if troubled.is_empty() && status.success() => 0,
            _ => 1,
        };
        let end = End { ends, elapsed, code: Some(code), more: self.meter.lines() };
        self.view.summary(&self.nodes, &self.cameras, &end);
        if code == 1 {
            if !incomplete.is_empty() {
                errln!("millrace: frames are missing, as said above: {}", incomplete.join(", "));
            }
            if incomplete.is_empty() || !troubled.is_empty() {
                self.explain_failure(status, &troubled, &self.log);
            }
        }
        ExitCode::from(code)
    }

    fn explain_failure(&self, status: ExitStatus, troubled: &[&str], log: &Path) {
        if !troubled.is_empty() {
            errln!("millrace: not ended as they should: {}", troubled.join(", "));
        }
        // 1 is what dora gives when a node failed.
        if troubled.is_empty() || status.code() != Some(1) && self.stopping.is_none() {
            errln!("millrace: dora ended with {status}");
        }
        // Their own words were shown; dora's are wanted where there were none.
        if self.shown_errors.is_empty() {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().filter(|line| !is_noise(line)).collect();
            errln!("the last lines of dora's log ({}):", log.display());
            for line in &lines[lines.len().saturating_sub(20)..] {
                errln!("  {line}");
            }
        } else {
            errln!("dora's log: {}", log.display());
        }
    }
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
