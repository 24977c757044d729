//! The one event loop, and a node's life around it.

use crate::batch::Batch;
use crate::context::{Context, StopFlag};
use crate::describe::describe;
use crate::error::{Kind, NodeError};
use crate::inputs::Inputs;
use crate::link::dora::DoraLink;
use crate::link::{Link, Signal, Topology};
use crate::metrics::Metrics;
use crate::node::{Node, Progress};
use crate::outputs::Outputs;
use crate::params;
use crate::seat::{self, Seat};
use crate::settings::{Common, Sheet, Unread};
use crate::status::{State, Status};
use millrace_pool::Bell;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A node's `main`: `--describe` prints its ports and settings, otherwise it runs as the node that dora started.
pub fn main<N: Node>() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("--describe") => {
            let text = serde_json::to_string_pretty(&describe::<N>()).expect("a description is plain JSON");
            // a reader that closes the pipe early has what it wanted
            let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{text}\n").as_bytes());
            return ExitCode::SUCCESS;
        }
        Some("--version") => {
            let text = format!("{} {}\n", N::NAME, env!("CARGO_PKG_VERSION"));
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    keep_freed_pages();
    let connected = Bell::create().map_err(|e| e.to_string()).and_then(|bell| {
        let (link, graph) = DoraLink::connect(bell.clone())?;
        Ok((Box::new(link) as Box<dyn Link>, graph, bell))
    });
    let (link, graph, bell) = match connected {
        Ok(connected) => connected,
        Err(e) => {
            crate::log::install("info");
            tracing::error!("{}: {e}", N::NAME);
            return ExitCode::FAILURE;
        }
    };
    match run::<N>(link, &graph, &bell, &Metrics::default()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// An inference engine frees its blocks after each frame and asks for the same ones at the next; glibc gives them back to
/// the kernel meanwhile, which clears each page anew. It stops doing so with blocks as big as the biggest that was ever
/// freed (mallopt(3), `M_MMAP_THRESHOLD`: at most 32 MiB, and twice as much for the top of a heap), so one is.
fn keep_freed_pages() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity((32 << 20) - (64 << 10))));
}

/// Runs a node to its end, asleep on `bell` where there is nothing to do. Everything that can go wrong has been logged
/// and reported when this returns.
pub(crate) fn run<N: Node>(
    link: Box<dyn Link>,
    graph: &Topology,
    bell: &Bell,
    metrics: &Metrics,
) -> Result<(), String> {
    let mut status = Status::new(graph, N::NAME);
    let sheet = Sheet::new::<N::Settings>(graph);
    let named = |e: Unread| {
        let lines: Vec<String> = e.to_string().lines().map(|line| format!("{}: {line}", graph.node)).collect();
        lines.join("\n")
    };
    let result = sheet.read::<N::Settings>().map_err(named).and_then(|settings| {
        crate::log::install(settings.1.log.as_str());
        status.send(State::Opening, metrics, None);
        let life = || live::<N>(link, graph, bell, sheet, settings, metrics, &mut status);
        // a node that panics has a last word, too
        catch_unwind(AssertUnwindSafe(life)).unwrap_or_else(|panic| Err(format!("panicked: {}", message(&*panic))))
    });
    match result {
        Ok(state) => {
            status.send(state, metrics, None);
            Ok(())
        }
        Err(e) => {
            crate::log::install("info");
            tracing::error!("{}: {e}", graph.node);
            status.send(State::Failed, metrics, Some(&e));
            Err(e)
        }
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

fn live<N: Node>(
    link: Box<dyn Link>,
    graph: &Topology,
    bell: &Bell,
    sheet: Sheet,
    (own, common): (N::Settings, Common),
    metrics: &Metrics,
    status: &mut Status,
) -> Result<State, String> {
    for required in N::PORTS.inputs.iter().filter(|p| p.required) {
        if !graph.inputs.iter().any(|name| name == required.name) {
            return Err(format!("input '{}' is not connected in the graph: {}", required.name, required.doc));
        }
    }
    let seat = Seat::take(graph, seat::PATIENCE);
    let stop = StopFlag::default();
    let cx = Context {
        node: graph.node.as_str().into(),
        metrics: metrics.clone(),
        stop: stop.clone(),
        connected: graph.inputs.clone().into(),
        flow: common.flow.into(),
        waker: crate::gpu::waker(bell),
        slots: common.slots,
        sync: Arc::default(),
    };
    let mut inputs = Inputs::new(&N::PORTS, graph, metrics.clone(), bell.clone(), common.exchange);
    let mut node = N::open(own, &cx).map_err(|e| e.to_string())?;
    let mut out = Outputs::new(link, &N::PORTS, graph, common, metrics.clone(), stop.clone());

    let ended = out.open_ports().and_then(|()| {
        let (node, inputs, out, stop) = (&mut node, &mut inputs, &mut out, &stop);
        Turn { node, inputs, out, sheet, bell, metrics, status, stop }.run()
    });
    // also after a fault: what the node holds is worth publishing, and its consumers see an end either way
    let drained = if stop.is_set() { Ok(()) } else { lost(node.drain(&mut out), metrics) };
    let finished = if ended.is_ok() { out.finish() } else { Ok(()) };
    // before the goodbye to dora, which may take long: a successor waits
    drop(node);
    drop(inputs);
    drop(seat);
    for result in [ended, drained, finished] {
        match result {
            Err(e) if !e.is_stopped() => return Err(e.to_string()),
            _ => {}
        }
    }
    Ok(if stop.is_set() { State::Stopped } else { State::Done })
}

/// How long the loop sleeps at most: a dead producer rings no bell.
const LOOK_AROUND: Duration = Duration::from_millis(100);

/// A node in its loop.
struct Turn<'a, N> {
    node: &'a mut N,
    inputs: &'a mut Inputs,
    out: &'a mut Outputs,
    sheet: Sheet,
    bell: &'a Bell,
    metrics: &'a Metrics,
    status: &'a mut Status,
    stop: &'a StopFlag,
}

impl<N: Node> Turn<'_, N> {
    /// Until the inputs or the source have ended, or a stop is asked for.
    fn run(mut self) -> Result<(), NodeError> {
        let mut batch = Batch::default();
        loop {
            self.status.tick(self.metrics);
            let heard = self.bell.heard(); // what comes from here on ends the sleep below
            self.out.settle()?;
            loop {
                let signal = self.out.signals.pop_front().unwrap_or_else(|| self.out.link.next());
                if !self.heed(signal) {
                    break;
                }
            }
            if self.stop.is_set() {
                return Ok(());
            }
            self.inputs.try_again();
            let most = self.node.batch();
            batch.fill(self.inputs, most);
            let wait = if batch.is_empty() {
                if self.inputs.finished() {
                    return Ok(());
                }
                match self.node.produce(self.out) {
                    Ok(Progress::Busy) => continue,
                    Ok(Progress::Idle(wait)) => wait,
                    Ok(Progress::End) => return Ok(()),
                    Ok(Progress::Passive) => LOOK_AROUND,
                    Err(e) => {
                        lost(Err(e), self.metrics)?;
                        continue;
                    }
                }
            } else {
                // nothing more comes of inputs that have ended
                let patience = batch.patience(self.node.batch_wait(), most).filter(|_| !self.inputs.finished());
                let Some(patience) = patience else {
                    self.step(&mut batch)?;
                    continue;
                };
                patience
            };
            if self.out.signals.is_empty() {
                self.bell.wait(heard, wait.min(LOOK_AROUND));
            }
        }
    }

    /// Gives the node what is gathered.
    fn step(&mut self, batch: &mut Batch) -> Result<(), NodeError> {
        let (items, gathered) = batch.take();
        let sources: Vec<String> = items.iter().map(|(_, input)| input.source().to_owned()).collect();
        if self.node.batch() > 1 {
            self.metrics.count("batches", "", 1);
        }
        if !self.node.batch_wait().is_zero() {
            self.metrics.observe_ns("batch_wait", "", gathered.as_nanos() as u64);
        }
        self.out.waited = Duration::ZERO;
        let began = Instant::now();
        let results = self.node.on_batch(items, self.out);
        let took = began.elapsed();
        // what the node itself needs for one item: who waits for its consumers has time, and a batch is shared
        let busy_ns = took.saturating_sub(self.out.waited).as_nanos() as u64 / sources.len() as u64;
        for source in &sources {
            self.metrics.observe_ns("on_input", source, took.as_nanos() as u64);
            self.metrics.observe_ns("busy", source, busy_ns);
        }
        results.into_iter().try_for_each(|result| lost(result, self.metrics))
    }

    /// Acts on a signal; `false` when there was none.
    fn heed(&mut self, signal: Signal) -> bool {
        match signal {
            Signal::Bell { port, at } => self.inputs.bell(&port, &at),
            Signal::Noise { port, why } => {
                self.metrics.drop("bad_doorbell", "", 1);
                tracing::debug!("input '{port}': {why}");
            }
            Signal::Closed { port } => self.inputs.close(&port),
            Signal::AllClosed => self.inputs.close_all(),
            Signal::Param { key, value } => {
                params::apply(&mut self.sheet, &key, value.as_ref(), self.node, self.out, self.metrics);
            }
            Signal::Stop => self.stop.set(),
            Signal::Nudge => {}
            Signal::Quiet => return false,
        }
        !self.stop.is_set()
    }
}

/// Counts an item's fault and lets the node go on; passes every other fault.
fn lost(result: Result<(), NodeError>, metrics: &Metrics) -> Result<(), NodeError> {
    match result {
        Err(e) => match &e.kind {
            Kind::Item { cause, source } => {
                metrics.drop(cause, source, 1);
                tracing::warn!("camera '{source}': {e}");
                Ok(())
            }
            Kind::Fatal | Kind::Stopped => Err(e),
        },
        Ok(()) => Ok(()),
    }
}
