//! A camera's two threads: one reads its source and feeds the decoder, one waits for the decoded pictures. What they come
//! to goes to the node's loop through a bounded channel.
//!
//! Feeding has a thread because the decoder makes it wait: for room in its queue, and, where the parser wants to use a
//! surface again, for whoever still holds the picture on it. Mapping has another because it waits for the decoder itself.

use crate::backend::{Backend, DecodeError, Decoder};
use millrace_cuda::Waker;
use millrace_frame::PacketCodec;
use millrace_ingest::{AccessUnit, Admission, Admitted, Feed, FeedStep, Loss, Next, Shown};
use millrace_node::{Metrics, StopFlag};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a camera has for the node's loop; `camera` is its place among them.
pub(crate) enum Event<B: Backend> {
    /// An encoded picture, in decoding order.
    Packet { camera: usize, unit: Arc<AccessUnit> },
    /// A decoded one, in presentation order.
    Frame { camera: usize, shown: Shown, surface: B::Surface },
    /// No more comes: the source is over, or it failed.
    End { camera: usize, failed: Option<String> },
}

/// The way to the node's loop.
pub(crate) struct Events<B: Backend> {
    to_loop: SyncSender<Event<B>>,
    waker: Waker,
    /// The node has gone, or is about to.
    gone: Arc<AtomicBool>,
    /// As many frames of this camera have come as the node wants.
    enough: Arc<AtomicBool>,
}

impl<B: Backend> Clone for Events<B> {
    fn clone(&self) -> Self {
        self.of(self.enough.clone())
    }
}

impl<B: Backend> Events<B> {
    pub(crate) fn new(room: usize, waker: Waker) -> (Self, Receiver<Event<B>>) {
        let (to_loop, from_cameras) = sync_channel(room);
        (Self { to_loop, waker, gone: Arc::default(), enough: Arc::default() }, from_cameras)
    }

    /// The same way, for the camera that `enough` ends.
    pub(crate) fn of(&self, enough: Arc<AtomicBool>) -> Self {
        Self { to_loop: self.to_loop.clone(), waker: self.waker.clone(), gone: self.gone.clone(), enough }
    }

    /// Nobody wants what comes.
    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed) || self.enough.load(Ordering::Relaxed)
    }

    /// Waits for room. False when the node has gone.
    fn send(&self, event: Event<B>) -> bool {
        let sent = self.to_loop.send(event).is_ok();
        self.waker.wake();
        sent
    }
}

/// Counts what a camera loses; the counter tells how often, the log tells once what it looks like.
pub(crate) struct Losses {
    pub(crate) camera: String,
    pub(crate) metrics: Metrics,
    pub(crate) told: Mutex<BTreeSet<&'static str>>,
}

impl Losses {
    pub(crate) fn tell(&self, loss: &Loss) {
        let Loss { cause, count, detail } = loss;
        self.metrics.drop(cause, &self.camera, *count);
        if lock(&self.told).insert(cause) {
            tracing::warn!(camera = self.camera, cause, count, "{detail}");
        } else {
            tracing::debug!(camera = self.camera, cause, count, "{detail}");
        }
    }
}

/// The cameras' threads.
#[derive(Default)]
pub(crate) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Ends them, after the other end of `events` was dropped: the driver must not be taken down under their feet.
    pub(crate) fn end<B: Backend>(&mut self, events: &Events<B>) {
        events.gone.store(true, Ordering::Relaxed);
        let until = Instant::now() + LONGEST_END;
        while self.0.iter().any(|thread| !thread.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What the feeding thread and the decoder's sink share: both run on that thread.
#[derive(Default)]
struct Book {
    admission: Admission,
    /// When the pictures in the decoder are to be shown, where the source is paced.
    due: BTreeMap<i64, Instant>,
    shown: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum ToMap<B: Backend> {
    Picture { shown: Shown, due: Option<Instant>, picture: B::Picture },
    End(Option<String>),
}

/// More pictures than a decoder can hold.
const MAP_QUEUE: usize = 64;
/// A thread that has not ended by then is left to the process's end.
const LONGEST_END: Duration = Duration::from_secs(3);
/// How long a sleeping thread lets a stop wait.
const LISTEN: Duration = Duration::from_millis(50);

pub(crate) struct Camera<B: Backend> {
    pub(crate) index: usize,
    pub(crate) backend: Arc<B>,
    pub(crate) lane: Arc<B::Lane>,
    pub(crate) feed: Feed,
    /// Somebody reads the packets.
    pub(crate) packets: bool,
    pub(crate) losses: Arc<Losses>,
    pub(crate) events: Events<B>,
    pub(crate) stop: StopFlag,
}

impl<B: Backend> Camera<B> {
    /// Starts the camera's threads. They end with the source, a stop, or the node.
    pub(crate) fn start(self, threads: &mut Threads) -> std::io::Result<()> {
        let (to_map, from_feed) = sync_channel(MAP_QUEUE);
        let mapping = Mapping {
            index: self.index,
            backend: self.backend.clone(),
            lane: self.lane.clone(),
            losses: self.losses.clone(),
            events: self.events.clone(),
            stop: self.stop.clone(),
        };
        let named = |what: &str| std::thread::Builder::new().name(format!("{what} {}", self.losses.camera));
        threads.0.push(named("map").spawn(move || mapping.run(&from_feed))?);
        let thread = named("feed");
        let feeding = Feeding { camera: self, book: Arc::default(), decoder: None, fed: false, to_map };
        threads.0.push(thread.spawn(move || feeding.run())?);
        Ok(())
    }
}

struct Feeding<B: Backend> {
    camera: Camera<B>,
    book: Arc<Mutex<Book>>,
    decoder: Option<(PacketCodec, B::Decoder)>,
    /// The decoder holds something.
    fed: bool,
    to_map: SyncSender<ToMap<B>>,
}

impl<B: Backend> Feeding<B> {
    fn run(mut self) {
        let failed = loop {
            match self.step() {
                Ok(true) if self.camera.stop.is_set() || self.camera.events.is_gone() => break None,
                Ok(true) => {}
                Ok(false) => break None,
                Err(why) => break Some(why),
            }
        };
        // pictures first, then the end: the process may end with it, and nothing of the decoder is left by then
        self.decoder = None;
        let _ = self.to_map.send(ToMap::End(failed));
    }

    /// One step of the source; false at its end.
    fn step(&mut self) -> Result<bool, String> {
        match self.camera.feed.step().map_err(|e| e.to_string())? {
            FeedStep::Unit(unit) => self.unit(unit)?,
            FeedStep::Loss(loss) => self.camera.losses.tell(&loss),
            FeedStep::Flush => self.flush(),
            FeedStep::Wait(wait) => std::thread::sleep(wait.min(LISTEN)),
            FeedStep::End => {
                self.flush();
                lock(&self.book).admission.finish();
                self.settle();
                return Ok(self.camera.feed.end().map_err(|e| e.to_string())? == Next::Again);
            }
        }
        Ok(true)
    }

    fn unit(&mut self, unit: Arc<AccessUnit>) -> Result<(), String> {
        if self.camera.packets
            && !self.camera.events.send(Event::Packet { camera: self.camera.index, unit: unit.clone() })
        {
            return Ok(()); // the node has gone, and the stop with it is on its way
        }
        let admitted = lock(&self.book).admission.admit(&unit);
        let result = match admitted {
            Admitted::Decode(number) => self.decode(number, &unit),
            Admitted::Begin(number) => {
                self.flush();
                self.decode(number, &unit)
            }
            Admitted::Stop => {
                self.flush();
                Ok(())
            }
            Admitted::Leave => Ok(()),
        };
        self.settle();
        result
    }

    fn decode(&mut self, number: i64, unit: &AccessUnit) -> Result<(), String> {
        if self.decoder.as_ref().is_none_or(|(codec, _)| *codec != unit.info.codec) {
            self.decoder = None;
            match self.camera.backend.decoder(unit.info.codec, self.sink()) {
                Ok(decoder) => self.decoder = Some((unit.info.codec, decoder)),
                Err(DecodeError::Hopeless(why) | DecodeError::Lost(why)) => return Err(why),
            }
        }
        let Some((_, decoder)) = &mut self.decoder else { return Ok(()) };
        let due = self.camera.feed.due(unit.timing.pts_ns);
        {
            let mut book = lock(&self.book);
            book.admission.decoding(number, unit);
            book.due.extend(due.map(|due| (number, due)));
        }
        self.fed = true;
        match decoder.feed(unit, number) {
            Ok(()) => Ok(()),
            Err(DecodeError::Hopeless(why)) => Err(why),
            Err(DecodeError::Lost(why)) => {
                lock(&self.book).admission.failed(why);
                self.flush();
                Ok(())
            }
        }
    }

    /// The decoder's sink. It runs within `feed` and `flush`, so the book is not locked then.
    fn sink(&self) -> crate::backend::Sink<B::Picture> {
        let (book, to_map) = (self.book.clone(), self.to_map.clone());
        Box::new(move |number, picture| {
            let (shown, due) = {
                let mut book = lock(&book);
                let due = book.due.remove(&number);
                let shown = book.admission.came_out(number);
                book.shown += u64::from(shown.is_some());
                (shown, due)
            };
            if let Some(shown) = shown {
                // the other end is there until it has had an end
                let _ = to_map.send(ToMap::Picture { shown, due, picture });
            }
        })
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.fed)
            && let Some((_, decoder)) = &mut self.decoder
            && let Err(DecodeError::Hopeless(why) | DecodeError::Lost(why)) = decoder.flush()
        {
            tracing::debug!(camera = self.camera.losses.camera, "{why}");
            // made anew for the next key picture
            self.decoder = None;
        }
        let mut book = lock(&self.book);
        book.admission.ended();
        book.due.clear();
    }

    /// Tells what was lost and shown meanwhile.
    fn settle(&mut self) {
        let mut book = lock(&self.book);
        self.camera.feed.shown(std::mem::take(&mut book.shown));
        while let Some(loss) = book.admission.take_loss() {
            self.camera.feed.lost(&loss);
            self.camera.losses.tell(&loss);
        }
    }
}

struct Mapping<B: Backend> {
    index: usize,
    backend: Arc<B>,
    lane: Arc<B::Lane>,
    losses: Arc<Losses>,
    events: Events<B>,
    stop: StopFlag,
}

impl<B: Backend> Mapping<B> {
    /// Gives every picture to the loop, in order. Without a node it takes them all the same, so that none is held.
    fn run(&self, from_feed: &Receiver<ToMap<B>>) {
        while let Ok(next) = from_feed.recv() {
            match next {
                ToMap::Picture { shown, due, picture } => self.picture(shown, due, picture),
                ToMap::End(failed) => {
                    self.events.send(Event::End { camera: self.index, failed });
                    return;
                }
            }
        }
    }

    fn picture(&self, shown: Shown, due: Option<Instant>, picture: B::Picture) {
        while let Some(wait) = due.map(|due| due.saturating_duration_since(Instant::now()))
            && wait > Duration::ZERO
            && !self.is_over()
        {
            std::thread::sleep(wait.min(LISTEN));
        }
        if self.is_over() {
            return;
        }
        let began = Instant::now();
        match self.backend.map(&self.lane, picture) {
            Ok((surface, flaw)) => {
                self.losses.metrics.observe_ns("decode", &self.losses.camera, began.elapsed().as_nanos() as u64);
                match flaw {
                    None => {
                        self.events.send(Event::Frame { camera: self.index, shown, surface });
                    }
                    Some(cause) => self.lose(cause, "the GPU met errors in the picture's bitstream".to_owned()),
                }
            }
            Err(DecodeError::Hopeless(why) | DecodeError::Lost(why)) => self.lose("decode_error", why),
        }
    }

    fn is_over(&self) -> bool {
        self.stop.is_set() || self.events.is_gone()
    }

    fn lose(&self, cause: &'static str, detail: String) {
        self.losses.tell(&Loss { cause, count: 1, detail });
    }
}
