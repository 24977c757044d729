//! The workers of a detector node. A worker is a copy of the detector on two threads: one opens the engine and gives it
//! batches, the other waits for the results and makes boxes. The caller waits for neither.

use crate::detector::{ComputedBatch, Feeder, Found, InWork, Reader};
use crate::order::BatchId;
use crate::{DetectError, Detector, Engine};
use millrace_cuda::Waker;
use millrace_detect::Model;
use millrace_detect::model::Thresholds;
use millrace_frame::Timing;
use millrace_node::{FrameLease, logging_here};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// An engine is opened on the thread that uses it, and some builders of engines need a deep stack.
const STACK_BYTES: usize = 16 << 20;

/// All workers of a detector node.
pub(crate) struct Workers {
    workers: Vec<Worker>,
    events: Receiver<Event>,
    /// The most batches that each worker has in flight.
    in_flight: usize,
    batch: usize,
    next: BatchId,
}

/// A copy of the detector, by the channel to its threads.
struct Worker {
    work: Sender<Work>,
    in_work: usize,
}

/// What a worker is given. It handles this in order.
enum Work {
    Frames(BatchId, Vec<FrameLease>),
    Thresholds(Thresholds),
}

/// What the thread with the engine passes on.
enum Queued<F> {
    Frames(BatchId, InWork<F>, Instant),
    Thresholds(Thresholds),
}

/// What comes back.
pub(crate) enum Event {
    /// A batch is answered, frame by frame, by this worker.
    Answered(usize, BatchId, Vec<Answer>, Option<EngineTime>),
    /// A thread has panicked: what it had in work is not answered.
    Panicked,
}

/// What became of a frame.
pub(crate) struct Answer {
    pub(crate) timing: Timing,
    pub(crate) found: Result<Found, DetectError>,
    /// From its acceptance by the engine's thread on.
    pub(crate) took_ns: u64,
    /// Its share of the time in which the engine was busy with its batch and no other.
    pub(crate) busy_ns: u64,
}

/// What the engine needed for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EngineTime {
    /// From when it had the batch and no earlier one in work, to when its outputs were in host memory.
    pub(crate) ns: u64,
    pub(crate) frames: u64,
}

/// What an opened detector says of itself.
pub(crate) struct Opened {
    pub(crate) model: Arc<Model>,
    pub(crate) notes: Vec<String>,
    batch: usize,
}

/// Where the threads of a worker report. One that panics says so when it unwinds.
struct Reporter {
    events: Sender<Event>,
    waker: Waker,
}

impl Reporter {
    fn send(&self, event: Event) {
        // a node that has given up waits for nothing
        let _ = self.events.send(event);
        self.waker.wake();
    }

    fn twin(&self) -> Self {
        Self { events: self.events.clone(), waker: self.waker.clone() }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.send(Event::Panicked);
        }
    }
}

impl Workers {
    /// Opens so many copies, one after the other. `waker` is called when something has come back.
    ///
    /// # Errors
    /// Those of [`Detector::open`], or no thread can be started, as text.
    pub(crate) fn open<E: Engine>(
        settings: E::Settings,
        copies: usize,
        threads: usize,
        waker: &Waker,
    ) -> Result<(Self, Opened), String> {
        let in_flight = E::in_flight(&settings);
        let settings = Arc::new(settings);
        let (events_in, events) = channel();
        let mut workers = Vec::with_capacity(copies);
        let mut first = None;
        for n in 0..copies {
            let (work, to_do) = channel();
            let reporter = Reporter { events: events_in.clone(), waker: waker.clone() };
            let opened = start::<E>(n, settings.clone(), threads, to_do, reporter)?;
            first.get_or_insert(opened);
            workers.push(Worker { work, in_work: 0 });
        }
        let opened = first.ok_or("a detector has at least one copy of its model")?;
        Ok((Self { workers, events, in_flight, batch: opened.batch, next: 0 }, opened))
    }

    /// Frames that go through the model together.
    pub(crate) fn batch(&self) -> usize {
        self.batch
    }

    /// Copies of the detector, which compute at the same time.
    pub(crate) fn copies(&self) -> usize {
        self.workers.len()
    }

    /// Whether one more batch can be in work.
    pub(crate) fn have_room(&self) -> bool {
        self.workers.iter().any(|worker| worker.in_work < self.in_flight)
    }

    /// Gives a batch to the worker that has the least work.
    pub(crate) fn submit(&mut self, leases: Vec<FrameLease>) -> BatchId {
        let id = self.next;
        self.next += 1;
        if let Some(worker) = self.workers.iter_mut().min_by_key(|worker| worker.in_work) {
            worker.in_work += 1;
            // one that has panicked takes nothing, and has said so
            let _ = worker.work.send(Work::Frames(id, leases));
        }
        id
    }

    /// What counts as found in the batches that are submitted from here on.
    pub(crate) fn set_thresholds(&self, thresholds: Thresholds) {
        for worker in &self.workers {
            let _ = worker.work.send(Work::Thresholds(thresholds));
        }
    }

    /// What has come back next; nothing where nothing has.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let event = self.events.try_recv().ok()?;
        if let Event::Answered(worker, ..) = &event {
            self.workers[*worker].in_work -= 1;
        }
        Some(event)
    }

    /// Ends the threads, and waits for their end no longer than this; `false` where one is left in its work.
    pub(crate) fn close(&mut self, patience: Duration) -> bool {
        self.workers.clear();
        let until = Instant::now() + patience;
        loop {
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }
}

/// Starts the threads of a worker, and waits until the first has opened the engine.
fn start<E: Engine>(
    n: usize,
    settings: Arc<E::Settings>,
    threads: usize,
    to_do: Receiver<Work>,
    reporter: Reporter,
) -> Result<Opened, String> {
    let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
        let builder = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
        builder.spawn(logging_here(run)).map(drop).map_err(|e| format!("no thread for a copy of the model: {e}"))
    };
    let (tell, opened) = channel();
    let (to_boxes, queued) = channel();
    let boxes = reporter.twin();
    let engine = move || {
        let _says_a_panic = reporter;
        let opened = Detector::<E>::open(&settings, threads).map(|detector| {
            let (model, notes, batch) = (detector.shared_model(), detector.notes(), detector.batch());
            let (feeder, reader) = detector.split();
            (feeder, (reader, Opened { model, notes, batch }))
        });
        match opened {
            Ok((feeder, opened)) => {
                // whoever waits for it is there until it comes
                let _ = tell.send(Ok(opened));
                feed(feeder, &to_do, &to_boxes);
            }
            Err(e) => {
                let _ = tell.send(Err(e.to_string()));
            }
        }
    };
    spawn(format!("engine-{n}"), Box::new(engine))?;
    let said = opened.recv().map_err(|_| "opening the model has panicked; its message is above".to_owned());
    let (mut reader, opened): (Reader, Opened) = said??;
    let complete = move || {
        let mut free_since = Instant::now();
        let mut computed_until = free_since;
        while let Ok(queued) = queued.recv() {
            match queued {
                Queued::Thresholds(thresholds) => reader.set_thresholds(thresholds),
                Queued::Frames(id, work, begun) => {
                    let (found, computed) = reader.complete(work);
                    let engine = computed.map(|ComputedBatch { at, frames }| {
                        let since = begun.max(std::mem::replace(&mut computed_until, at));
                        EngineTime { ns: ns(at.saturating_duration_since(since)), frames: frames as u64 }
                    });
                    let now = Instant::now();
                    let busy = now.saturating_duration_since(begun.max(free_since));
                    free_since = now;
                    let (took_ns, frames) = (ns(now - begun), found.len().max(1) as u64);
                    let answer = |(timing, found)| Answer { timing, found, took_ns, busy_ns: ns(busy) / frames };
                    boxes.send(Event::Answered(n, id, found.into_iter().map(answer).collect(), engine));
                }
            }
        }
    };
    spawn(format!("boxes-{n}"), Box::new(complete))?;
    Ok(opened)
}

/// Gives the engine its batches until there are no more, or nobody waits for them.
fn feed<E: Engine>(mut feeder: Feeder<E>, to_do: &Receiver<Work>, to_boxes: &Sender<Queued<E::Flight>>) {
    while let Ok(work) = to_do.recv() {
        let queued = match work {
            Work::Thresholds(thresholds) => {
                feeder.set_thresholds(thresholds);
                Queued::Thresholds(thresholds)
            }
            Work::Frames(id, leases) => {
                let begun = Instant::now();
                Queued::Frames(id, feeder.accept(leases), begun)
            }
        };
        if to_boxes.send(queued).is_err() {
            return;
        }
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
