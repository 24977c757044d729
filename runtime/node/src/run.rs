//! The one event loop, and a node's life around it.

use crate::batch::Pace;
use crate::context::{Context, StopFlag};
use crate::describe::describe;
use crate::error::{Kind, NodeError};
use crate::findings;
use crate::group::Group;
use crate::inputs::{Change, Inputs, port_of};
use crate::launch::Launch;
use crate::link::dora::DoraLink;
use crate::link::{Line, Link, Signal, Topology};
use crate::metrics::Metrics;
use crate::node::{Node, Progress};
use crate::node_lock::{self, NodeLock};
use crate::outputs::Outputs;
use crate::params;
use crate::sandbox;
use crate::settings::{CommonSettings, FlowSetting, RawSettings, Unread};
use crate::status::{State, StatusReporter};
use crate::stuck::{self, Unfinished};
use millrace_frame::{CameraStatus, Device, PayloadKind};
use millrace_pool::{Bell, Flow};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A node's `main`: `--describe` prints its ports and settings, `--check` says what it thinks of some; otherwise it runs as the node that dora started.
pub fn main<N: Node>() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--describe") => {
            let text = serde_json::to_string_pretty(&describe::<N>()).expect("a description is plain JSON");
            // a reader that closes the pipe early has what it wanted
            let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{text}\n").as_bytes());
            return ExitCode::SUCCESS;
        }
        Some("--check") => {
            return match findings::answer::<N>() {
                Ok(()) => ExitCode::SUCCESS,
                Err(why) => {
                    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{why}\n").as_bytes());
                    ExitCode::FAILURE
                }
            };
        }
        Some("--version") => {
            let text = format!("{} {}\n", N::NAME, env!("CARGO_PKG_VERSION"));
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    crate::log::of_nodes(std::iter::once(N::NAME));
    let launch = Launch::default();
    if let Some(group) = Group::asked(&launch, N::SHARES_PROCESS) {
        return group.join(N::NAME, &launch);
    }
    get_room();
    sandbox::enter::<N>(&launch);
    let ended = Line::new().and_then(|line| start::<N>(launch, line));
    ended.map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Prepares the process for frames.
pub(crate) fn get_room() {
    keep_freed_pages();
    allow_descriptors();
}

/// Connects a node that dora started, and runs it to its end: its exit code. Every error has been logged.
pub(crate) fn start<N: Node>(launch: Launch, line: Line) -> Result<u8, String> {
    let bell = line.bell.clone();
    let (link, graph) = DoraLink::connect(line, launch).inspect_err(|e| {
        crate::log::install("info");
        tracing::error!("{}: {e}", N::NAME);
    })?;
    run::<N>(Box::new(link), &graph, &bell, &Metrics::default())
}

/// An inference engine frees its blocks after each frame and asks for the same ones at the next; glibc gives them back to
/// the kernel meanwhile, which clears each page again. It stops doing so with blocks as big as the biggest that was ever
/// freed (mallopt(3), `M_MMAP_THRESHOLD`: at most 32 MiB, and twice as much for the top of a heap), so one is.
fn keep_freed_pages() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity((32 << 20) - (64 << 10))));
}

/// Each camera's pool has two descriptors, and a process may open 1024 unless it asks for more: it asks for all that it is
/// allowed.
fn allow_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // where it is refused, a pool that finds no descriptor says so
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// Runs a node to its end, asleep on `bell` where there is nothing to do, and gives its exit code. Everything that can go wrong has been logged
/// and reported when this returns.
pub(crate) fn run<N: Node>(
    link: Box<dyn Link>,
    graph: &Topology,
    bell: &Bell,
    metrics: &Metrics,
) -> Result<u8, String> {
    let mut status = StatusReporter::new(graph, N::NAME);
    let raw_settings = RawSettings::new::<N::Settings>(graph);
    let named = |e: Unread| {
        let lines: Vec<String> = e.to_string().lines().map(|line| format!("{}: {line}", graph.node)).collect();
        lines.join("\n")
    };
    let result = raw_settings.read::<N::Settings>().map_err(named).and_then(|settings| {
        crate::log::install(settings.1.log.as_str());
        status.send(State::Opening, metrics, None);
        let owes_all = settings.1.flow == FlowSetting::Lossless && !settings.1.allow_loss;
        let life = || live::<N>(link, graph, bell, raw_settings, settings, metrics, &mut status);
        // a node that panics has a last word, too
        let state = catch_unwind(AssertUnwindSafe(life))
            .unwrap_or_else(|panic| Err(format!("panicked: {}", message(&*panic))))?;
        Ok((state, metrics.missing().filter(|_| owes_all)))
    });
    match result {
        Ok((state, None)) => {
            status.send(state, metrics, None);
            Ok(0)
        }
        Ok((_, Some(missing))) => {
            let text = format!("{missing}. ALLOW_LOSS: true accepts losses");
            tracing::error!("{}: {text}", graph.node);
            status.send(State::Incomplete, metrics, Some(&text));
            // dora would start it again, and what was published would be published twice
            Ok(u8::from(!is_started_again(graph)))
        }
        Err(e) => {
            crate::log::install("info");
            tracing::error!("{}: {e}", graph.node);
            status.send(State::Failed, metrics, Some(&e));
            Err(e)
        }
    }
}

/// dora starts the node again when it ends with another exit code than 0.
fn is_started_again(graph: &Topology) -> bool {
    graph.definition["node"]["restart_policy"].as_str().is_some_and(|policy| policy != "never")
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

fn live<N: Node>(
    link: Box<dyn Link>,
    graph: &Topology,
    bell: &Bell,
    raw_settings: RawSettings,
    (own, common): (N::Settings, CommonSettings),
    metrics: &Metrics,
    status: &mut StatusReporter,
) -> Result<State, String> {
    for required in N::PORTS.inputs.iter().filter(|p| p.required) {
        if !graph.inputs.iter().any(|name| port_of(name) == required.name) {
            return Err(format!("input '{}' is not connected in the graph: {}", required.name, required.doc));
        }
    }
    findings::check::<N>(graph, &raw_settings, &own, &common)?;
    sandbox::check::<N>(&own, common.sandbox, graph)?;
    let node_lock = NodeLock::acquire(graph, node_lock::PATIENCE);
    let stop = StopFlag::default();
    let cx = Context {
        node: graph.node.as_str().into(),
        metrics: metrics.clone(),
        stop: stop.clone(),
        connected: graph.inputs.clone().into(),
        flow: common.flow.into(),
        waker: crate::gpu::waker(bell, std::thread::current()),
        slots: common.slots,
        restarts: graph.restarts,
        sync: Arc::default(),
        frames_on: Arc::default(),
    };
    let mut inputs = Inputs::new(&N::PORTS, graph, metrics.clone(), bell.clone(), &common);
    // the tensors of a batch are published together: half the slots, so that the other half can be read meanwhile
    let shared_out = N::PORTS.outputs.iter().any(|p| matches!(p.carries, PayloadKind::Image | PayloadKind::Tensor));
    let per_camera = if shared_out { (common.slots as usize / 2).max(1) } else { usize::MAX };
    let mut node = N::open(own, &cx).map_err(|e| e.to_string())?;
    let mut out = Outputs::new(link, &N::PORTS, graph, common, metrics.clone(), stop.clone());
    out.device = cx.frames_on.get().copied().map_or(Device::Host, Device::Cuda);

    let ended = out.open_ports().and_then(|()| {
        let (node, inputs, out, stop) = (&mut node, &mut inputs, &mut out, &stop);
        let pace = Pace::default();
        let woke = Instant::now();
        let (working_since, unfinished) = (None, Unfinished::default());
        EventLoop {
            node,
            inputs,
            out,
            raw_settings,
            bell,
            metrics,
            status,
            stop,
            per_camera,
            pace,
            woke,
            working_since,
            unfinished,
        }
        .run()
    });
    // what is in work at a stop, or at a fault, is most likely about to be done
    let completed = complete_all(&mut node, &mut out, bell, metrics);
    // also after a fault: what the node holds is worth publishing, and its consumers see an end either way
    let drained = if stop.is_set() { Ok(()) } else { lost(node.drain(&mut out), None, metrics) };
    let finished = if ended.is_ok() { out.finish() } else { Ok(()) };
    // before the goodbye to dora, which may take long: a successor waits
    drop(node);
    drop(inputs);
    drop(node_lock);
    for result in [ended, completed, drained, finished] {
        match result {
            Err(e) if !e.is_stopped() => return Err(e.to_string()),
            _ => {}
        }
    }
    Ok(if stop.is_set() { State::Stopped } else { State::Done })
}

/// How long what is in work at a stop or a fault may take to its end. A stop is over within 3 s.
const IN_WORK: Duration = Duration::from_secs(1);

/// Publishes what the node has in work, as far as it comes to its end soon. Where its inputs have ended, nothing is in work.
fn complete_all<N: Node>(node: &mut N, out: &mut Outputs, bell: &Bell, metrics: &Metrics) -> Result<(), NodeError> {
    let until = Instant::now() + IN_WORK;
    while node.in_work() > 0 && Instant::now() < until {
        let ring_count = bell.ring_count();
        let results = node.complete(out);
        if results.is_empty() {
            bell.wait(ring_count, LOOK_AROUND);
        }
        results.into_iter().try_for_each(|(seq, result)| lost(result, Some(seq), metrics))?;
    }
    Ok(())
}

/// How long the loop sleeps at most: a dead producer wakes nobody.
const LOOK_AROUND: Duration = Duration::from_millis(100);
/// In live flow the loop wakes once in this time at most: where many cameras' frames come, each is worth less than waking.
const REST: Duration = Duration::from_millis(1);
/// The pause after a source's fault, so that one that lasts does not take a processor.
const AFTER_FAULT: Duration = Duration::from_millis(20);

/// The event loop of a node, with what it works on.
struct EventLoop<'a, N> {
    node: &'a mut N,
    inputs: &'a mut Inputs,
    out: &'a mut Outputs,
    raw_settings: RawSettings,
    bell: &'a Bell,
    metrics: &'a Metrics,
    status: &'a mut StatusReporter,
    stop: &'a StopFlag,
    /// Frames of one camera in a batch, at most.
    per_camera: usize,
    pace: Pace,
    /// When the loop woke last.
    woke: Instant,
    /// Since when the node has something in work and has completed nothing.
    working_since: Option<Instant>,
    unfinished: Unfinished,
}

impl<N: Node> EventLoop<'_, N> {
    /// Runs until the inputs or the source have ended, or until a stop is requested.
    fn run(mut self) -> Result<(), NodeError> {
        loop {
            self.status.tick(self.metrics);
            let ring_count = self.bell.ring_count(); // what comes from here on ends the sleep below
            self.out.settle()?;
            self.complete()?;
            loop {
                let signal = self.out.signals.pop_front().unwrap_or_else(|| self.out.link.next());
                if !self.heed(signal) {
                    break;
                }
            }
            if self.stop.is_set() {
                return Ok(());
            }
            self.inputs.look();
            self.unfinished.since(self.out.held_since().into_iter().chain(self.working_since).min());
            if let Some(from) = self.inputs.died_on_gpu() {
                stuck::watch(from, self.unfinished.clone(), self.metrics.clone(), self.status.last_words(self.metrics));
            }
            self.pass_on_cameras();
            let most = self.node.batch().max(1);
            let waiting = self.inputs.waiting(most);
            if waiting > 0 {
                match self.patience(waiting, most) {
                    None if self.node.accepts(waiting) => self.step(most)?,
                    None => self.sleep(ring_count, LOOK_AROUND),
                    // not woken by each frame that joins: only the time counts here, and it is short or was asked for
                    Some(patience) if patience <= Duration::from_millis(5) && self.node.in_work() == 0 => {
                        std::thread::sleep(patience);
                    }
                    Some(patience) => self.sleep(ring_count, patience),
                }
                continue;
            }
            self.pace.idle();
            if self.inputs.finished() {
                if self.node.in_work() == 0 {
                    return Ok(());
                }
                self.sleep(ring_count, LOOK_AROUND);
                continue;
            }
            match self.node.produce(self.out) {
                Ok(Progress::Busy) => {}
                Ok(Progress::Idle(wait)) => self.sleep(ring_count, wait),
                Ok(Progress::End) => return Ok(()),
                Ok(Progress::Passive) => self.sleep(ring_count, LOOK_AROUND),
                Err(e) => {
                    lost(Err(e), None, self.metrics)?;
                    self.sleep(ring_count, AFTER_FAULT);
                }
            }
        }
    }

    fn sleep(&mut self, ring_count: u32, wait: Duration) {
        if !self.out.signals.is_empty() {
            return;
        }
        let wait = wait.min(LOOK_AROUND).min(self.out.next_look());
        let rest = match self.out.flow() {
            Flow::Live => REST.saturating_sub(self.woke.elapsed()).min(wait),
            Flow::Lossless => Duration::ZERO,
        };
        // not by the bell: a process that rings it meanwhile wakes nobody. What is in work ends the rest (`Context::waker`)
        if self.node.in_work() == 0 {
            std::thread::sleep(rest);
        } else if !rest.is_zero() {
            std::thread::park_timeout(rest);
        }
        self.bell.wait(ring_count, wait.saturating_sub(rest));
        self.woke = Instant::now();
    }

    /// How much longer the frames that wait are left to wait for more.
    fn patience(&mut self, waiting: usize, most: usize) -> Option<Duration> {
        if self.inputs.ending() {
            return None; // nothing more comes
        }
        // one camera's frames come apart: only what it sends itself would be waited for
        let wait = if self.inputs.cameras() > 1 {
            self.node.batch_wait()
        } else {
            self.node.batch_wait().or(Some(Duration::ZERO))
        };
        self.pace.patience(waiting, most, wait, Instant::now())
    }

    /// Lets the node publish what has come to its end.
    fn complete(&mut self) -> Result<(), NodeError> {
        let results = self.node.complete(self.out);
        let in_work = self.node.in_work() > 0;
        self.working_since = match self.working_since {
            Some(since) if in_work && results.is_empty() => Some(since),
            _ => in_work.then(Instant::now),
        };
        results.into_iter().try_for_each(|(seq, result)| lost(result, Some(seq), self.metrics))
    }

    /// Leases what waits, and gives it to the node.
    fn step(&mut self, most: usize) -> Result<(), NodeError> {
        let items = self.inputs.take(most, self.per_camera);
        let gathered = self.pace.launched(items.len(), Instant::now());
        if items.is_empty() {
            return Ok(()); // what waited was lost, and counted
        }
        let frames: Vec<(String, u64)> =
            items.iter().map(|(_, input)| (input.source().to_owned(), input.seq())).collect();
        if self.node.batch() > 1 {
            self.metrics.count("batches", "", 1);
        }
        if self.node.batch_wait() != Some(Duration::ZERO) {
            self.metrics.observe_ns("batch_wait", "", gathered.as_nanos() as u64);
        }
        self.out.waited = Duration::ZERO;
        let began = Instant::now();
        let results = self.node.on_batch(items, self.out);
        let took = began.elapsed();
        // what the node itself needs for one item: a node that waits for its consumers has time, and a batch is shared
        let busy_ns = took.saturating_sub(self.out.waited).as_nanos() as u64 / frames.len() as u64;
        // items that are in work have their times from the node
        for (source, _) in frames.iter().filter(|_| !results.is_empty()) {
            self.metrics.observe_ns("on_input", source, took.as_nanos() as u64);
            self.metrics.observe_ns("busy", source, busy_ns);
        }
        // a node gives one result for each item, in their order
        let numbers = frames.iter().map(|(_, seq)| Some(*seq)).chain(std::iter::repeat(None));
        results.into_iter().zip(numbers).try_for_each(|(result, seq)| lost(result, seq, self.metrics))
    }

    /// Gives the node, and those behind it, what has changed of cameras.
    fn pass_on_cameras(&mut self) {
        for change in self.inputs.changes() {
            match change {
                Change::Status(status) => {
                    self.node.on_camera(&status);
                    self.out.pass_on(status);
                }
                Change::Removed(source) => {
                    self.node.on_camera(&CameraStatus::removed(source.as_str()));
                    self.out.remove_camera(&source);
                }
            }
        }
    }

    /// Lets the node get ready before it has an input, and with it its producer, which waits for its consumers.
    fn expect_frames_on(&mut self, device: u32) {
        // it may take seconds, and nothing hangs meanwhile
        self.status.send(State::Opening, self.metrics, None);
        if let Err(e) = self.node.expect_frames_on(device) {
            // its first frame says so, too, unless its producer counts devices in another way
            tracing::warn!("not ready for frames on GPU {device} before they come: {e}");
        }
        self.status.send(State::Running, self.metrics, None);
        self.status.tick(self.metrics);
    }

    /// Acts on a signal; `false` when there was none.
    fn heed(&mut self, signal: Signal) -> bool {
        match signal {
            Signal::Announced { input, at, device } => {
                if let Device::Cuda(device) = device
                    && self.inputs.is_news_on_gpu(&input, &at)
                {
                    self.expect_frames_on(device);
                }
                self.inputs.announced(&input, &at);
            }
            Signal::Noise { input, why } => {
                self.metrics.drop("bad_doorbell", "", 1);
                self.metrics.warn_sometimes("bad_doorbell", &input, || format!("input '{input}': {why}"));
            }
            Signal::Closed { input } => self.inputs.close(&input),
            Signal::AllClosed => self.inputs.close_all(),
            Signal::Param { key, value } => {
                params::apply(
                    &mut self.raw_settings,
                    &key,
                    value.as_ref(),
                    self.node,
                    self.inputs,
                    self.out,
                    self.metrics,
                );
            }
            Signal::Stop => self.stop.set(),
            Signal::Nudge => {}
            Signal::Quiet => return false,
        }
        !self.stop.is_set()
    }
}

/// Counts the fault of an item, a frame of this number, and lets the node go on; passes every other fault.
fn lost(result: Result<(), NodeError>, seq: Option<u64>, metrics: &Metrics) -> Result<(), NodeError> {
    match result {
        Err(e) => match &e.kind {
            Kind::Item { cause, source } => {
                metrics.drop_frame(cause, source, seq, &e.to_string());
                metrics.warn_sometimes(cause, source, || format!("camera '{source}': {e}"));
                Ok(())
            }
            Kind::Fatal | Kind::Stopped => Err(e),
        },
        Ok(()) => Ok(()),
    }
}
