//! The first of a camera's threads: it reads the source and feeds the decoder.
//!
//! It has a thread because the decoder makes it wait: for room in its queue, and, where it wants to use a surface again,
//! for the picture on it. The waits for decoded pictures are a second thread's ([`mapping`](crate::mapping)).

use crate::backend::{Decoder, Output, Sink};
use crate::mapping::ToEventLoop;
use crate::queue::Room;
use crate::shared::{Shared, contained, lock};
use crate::timeline::{Spacing, Timeline};
use crate::{Backend, Shown};
use millrace_frame::{CameraState, monotonic_ns};
use millrace_ingest::{AccessUnit, Feed, FeedStep, Loss, Next, SourceState};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// From the decoder to the event loop.
pub(crate) enum ToMap<P> {
    /// `ready`: when it was decoded, or when it is to be shown, whichever is later.
    Picture {
        shown: Shown,
        ready: Instant,
        picture: P,
    },
    End {
        failed: Option<String>,
    },
}

/// What the decoder's sink and the thread around it share; both run on that thread.
#[derive(Default)]
struct Book {
    /// When the pictures in the decoder are to be shown, where the source is paced.
    due: BTreeMap<i64, Instant>,
    /// Of a camera at a URL: when the unit that the decoder was given last had arrived, by `CLOCK_MONOTONIC`.
    arrived_ns: Option<i64>,
    /// Units that the decoder got, of which it has given neither a picture nor a loss.
    in_flight: u64,
    pictures: u64,
    losses: Vec<Loss>,
    /// A picture is on its way that wakes the event loop now.
    wakes: bool,
    /// The stream has stopped, and what the decoder holds comes out with no regard to its order.
    flushing: bool,
    /// How long the sink waited to pass its pictures on.
    waited: Duration,
}

/// How a source ended.
enum Ended {
    /// The camera's password is another one now: the source is opened again, with it.
    OtherPassword,
    /// It is over, or nobody wants it any more.
    Over,
    /// It cannot go on.
    Failed(String),
}

/// What became of one step of the source.
enum Step {
    Done,
    /// The source is over.
    Last,
    /// The camera is not connected, and its password is another one than the source was opened with.
    OtherPassword,
}

/// How often the password of a camera that is not connected is read again.
const READ_PASSWORD: Duration = Duration::from_secs(1);

/// Pauses between the tries of a camera whose source has failed.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

pub(crate) struct Feeding<B: Backend> {
    camera: Arc<Shared<B>>,
    /// A source that was opened before the threads were started.
    opened: Option<Feed>,
    book: Arc<Mutex<Book>>,
    decoder: Option<B::Decoder>,
    /// The decoder may hold something.
    fed: bool,
    /// What is added to the times of the source as it is open now.
    offset_ns: Option<i64>,
    spacing: Spacing,
    to_loop: ToEventLoop<B>,
    tries: u32,
    /// The address that the source was opened with, with its password.
    address: OsString,
    /// When the password was last read, while the camera is not connected.
    password_read: Option<Instant>,
}

impl<B: Backend> Feeding<B> {
    pub(crate) fn new(camera: Arc<Shared<B>>, opened: Option<Feed>, to_loop: ToEventLoop<B>) -> Self {
        let book = Arc::default();
        let spacing = Spacing::default();
        let (decoder, fed, offset_ns, tries) = (None, false, None, 0);
        let (address, password_read) = (OsString::new(), None);
        Self { camera, opened, book, decoder, fed, offset_ns, spacing, to_loop, tries, address, password_read }
    }

    /// The thread's whole life. A file has one try; a camera on the network is tried again.
    pub(crate) fn run(mut self) {
        let again = self.camera.config.is_url();
        let mut wait = BACK_OFF.0;
        let failed = loop {
            let began = Instant::now();
            let mut feed = None;
            let ended = contained(|| self.play(&mut feed)).unwrap_or_else(|panic| {
                self.camera.losses.metrics.count("reader_panics", &self.camera.config.id, 1);
                Ended::Failed(format!("the reader of the source panicked: {panic}"))
            });
            self.close(feed, &ended);
            match ended {
                Ended::Over => break None,
                Ended::OtherPassword => {
                    tracing::info!(
                        camera = self.camera.config.id,
                        "the password has changed; connecting with the new one"
                    );
                }
                Ended::Failed(_) if self.camera.is_over() => break None,
                Ended::Failed(why) if !again => break Some(why),
                Ended::Failed(why) => {
                    self.tries += 1;
                    self.state(CameraState::Refused, &why);
                    wait = if began.elapsed() > BACK_OFF.1 { BACK_OFF.0 } else { wait };
                    self.camera.sleep(wait);
                    wait = (wait * 2).min(BACK_OFF.1);
                }
            }
        };
        // pictures first, then the end: the process may end with it, and nothing of the decoder is left by then
        self.to_loop.send(ToMap::End { failed });
    }

    fn state(&self, state: CameraState, last_error: &str) {
        self.camera.queue.state(SourceState { state, last_error: last_error.to_owned(), tries: self.tries });
    }

    /// Lets go of the source and the decoder. What is left in them is lost.
    fn close(&mut self, feed: Option<Feed>, ended: &Ended) {
        let losses = &self.camera.losses;
        std::mem::take(&mut lock(&self.book).losses).iter().for_each(|loss| losses.report(loss));
        feed.map(Feed::close).unwrap_or_default().iter().for_each(|loss| losses.of_source(loss));
        let left = std::mem::take(&mut lock(&self.book).in_flight);
        match ended {
            Ended::Failed(why) if !self.camera.is_over() && left > 0 => {
                losses.add("source_failed", left, &format!("pictures on their way when the source failed: {why}"));
            }
            _ => losses.stopped(left),
        }
        self.let_go_of_decoder();
    }

    /// Opens the source and plays it to its end.
    fn play(&mut self, open: &mut Option<Feed>) -> Ended {
        let camera = self.camera.clone();
        let opened = match self.opened.take() {
            Some(feed) => Ok(feed),
            None => camera.config.is_within_reach().and_then(|()| camera.config.address()).and_then(|address| {
                self.address.clone_from(&address);
                camera.config.open_at(&address, &camera.settings.feed)
            }),
        };
        let feed = match opened {
            Ok(feed) => open.insert(feed),
            Err(why) => return Ended::Failed(why),
        };
        self.offset_ns = None;
        self.password_read = None;
        while !camera.is_over() {
            match self.step(feed) {
                Ok(Step::Done) => {}
                Ok(Step::Last) => return Ended::Over,
                Ok(Step::OtherPassword) => return Ended::OtherPassword,
                Err(why) => return Ended::Failed(why),
            }
        }
        Ended::Over
    }

    /// One step of the source.
    fn step(&mut self, feed: &mut Feed) -> Result<Step, String> {
        match feed.step().map_err(|e| e.to_string())? {
            FeedStep::Unit(unit) => self.unit(feed, unit)?,
            FeedStep::Loss(loss) => self.camera.losses.of_source(&loss),
            FeedStep::Counted(counted) => self.camera.losses.counted(&counted),
            // a file's is known by its frames, which come later than its units
            FeedStep::State(state) if self.camera.config.is_url() => {
                self.tries = state.tries;
                let failed = state.state != CameraState::Live && state.tries > 0;
                self.password_read = failed.then(|| self.password_read.unwrap_or_else(Instant::now));
                self.camera.queue.state(state);
            }
            FeedStep::State(_) => {}
            FeedStep::Flush => self.flush(feed),
            FeedStep::Wait(wait) => {
                self.camera.sleep(wait);
                if self.has_other_password()? {
                    return Ok(Step::OtherPassword);
                }
            }
            FeedStep::End => {
                self.flush(feed);
                let next = feed.end().map_err(|e| e.to_string())?;
                return Ok(if next == Next::Again { Step::Done } else { Step::Last });
            }
        }
        Ok(Step::Done)
    }

    /// Reads the password of a camera that is not connected again, once in a while: whoever corrects it expects the next
    /// attempt to use it. This thread is the camera's own, so that a file on a network that hangs holds up no other.
    fn has_other_password(&mut self) -> Result<bool, String> {
        let config = &self.camera.config;
        let Some(read) = self.password_read.filter(|_| config.password.is_some()) else { return Ok(false) };
        if read.elapsed() < READ_PASSWORD {
            return Ok(false);
        }
        self.password_read = Some(Instant::now());
        Ok(config.address()? != self.address)
    }

    fn unit(&mut self, feed: &mut Feed, unit: Arc<AccessUnit>) -> Result<(), String> {
        self.camera.losses.received(1);
        if !unit.shown {
            self.camera.losses.metrics.count("not_shown", &self.camera.config.id, 1);
        }
        let due = feed.due(unit.timing.pts_ns);
        if !self.camera.config.is_url()
            && unit.shown
            && let Some(period_ns) = self.spacing.add(unit.dts_ns)
        {
            // the rate that the camera is to have, whatever comes through
            self.camera.losses.metrics.gauge("frame_period_ns", &self.camera.config.id, period_ns);
        }
        let unit = moved(unit, &mut self.offset_ns, &self.camera.timeline);
        if !self.camera.config.is_url() {
            self.camera.losses.reached(unit.timing.pts_ns);
        }
        lock(&self.book).in_flight += u64::from(unit.shown);
        if self.camera.packets {
            let losses = &self.camera.losses;
            match self.camera.queue.packet(unit.clone()) {
                Room::Made(dropped) => {
                    let detail = "encoded pictures that the event loop was too slow for";
                    losses.packets("packet_loop_behind", dropped, detail);
                }
                Room::Closed => losses.stopped_packets(1),
            }
        }
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            None => {
                let sink = self.sink();
                self.decoder.insert(self.camera.backend.decoder(&self.camera.config.id, sink)?)
            }
        };
        {
            let mut book = lock(&self.book);
            book.due.extend(due.filter(|_| unit.shown).map(|due| (unit.timing.pts_ns, due)));
            book.wakes = false;
            book.arrived_ns = self.camera.config.is_url().then_some(unit.timing.arrival_ns);
        }
        self.fed = true;
        let began = Instant::now();
        self.camera.decoding.enter();
        let pushed = contained(|| decoder.push(&unit));
        self.camera.decoding.leave();
        let took = began.elapsed().saturating_sub(std::mem::take(&mut lock(&self.book).waited));
        if B::DECODES_IN_PUSH {
            self.camera.losses.metrics.observe_ns("decode", &self.camera.config.id, took.as_nanos() as u64);
        }
        match pushed {
            Ok(result) => result.map_err(|why| format!("'{}': {why}", self.camera.config.shown()))?,
            Err(panic) => self.panicked(&panic),
        }
        self.settle(feed);
        if self.camera.packets && !lock(&self.book).wakes {
            self.camera.queue.wake();
        }
        Ok(())
    }

    /// The decoder's sink. It runs within `push` and `flush`, so the book is not locked then.
    fn sink(&self) -> Sink<B::Picture> {
        let (book, to_loop, camera) = (self.book.clone(), self.to_loop.clone(), self.camera.clone());
        Box::new(move |output| {
            let mut book = lock(&book);
            match output {
                Output::Loss(loss) => {
                    book.in_flight = book.in_flight.saturating_sub(loss.count);
                    book.losses.push(loss);
                }
                Output::Picture { mut shown, picture } => {
                    book.in_flight = book.in_flight.saturating_sub(1);
                    book.pictures += 1;
                    let now = Instant::now();
                    let ready = book.due.remove(&shown.timing.pts_ns).map_or(now, |due| due.max(now));
                    // what a stall kept waiting is as old as it is; and a camera's picture is under way from the arrival of
                    // the one that it waited for, so that it grows old in a decoder that is slow, or whose process is stopped
                    if !book.flushing {
                        let decoded_ns = || monotonic_ns() + (ready - now).as_nanos() as i64;
                        shown.timing.ready_ns = book.arrived_ns.unwrap_or_else(decoded_ns);
                    }
                    book.wakes |= ready == now;
                    // this wait is for the event loop, not for the decoder
                    camera.decoding.leave();
                    to_loop.send(ToMap::Picture { shown, ready, picture });
                    camera.decoding.enter();
                    book.waited += now.elapsed();
                }
            }
        })
    }

    /// Empties the decoder.
    fn flush(&mut self, feed: &mut Feed) {
        if std::mem::take(&mut self.fed)
            && let Some(decoder) = &mut self.decoder
        {
            lock(&self.book).flushing = true;
            self.camera.decoding.enter();
            let flushed = contained(|| decoder.flush());
            self.camera.decoding.leave();
            lock(&self.book).flushing = false;
            if let Err(panic) = flushed {
                self.panicked(&panic);
            }
        }
        self.settle(feed);
        let left = {
            let mut book = lock(&self.book);
            book.due.clear();
            std::mem::take(&mut book.in_flight)
        };
        if left > 0 {
            self.camera.losses.add("decode_error", left, "the decoder gave neither a picture nor a loss");
        }
    }

    /// The decoder panicked: it goes, and another one begins at the next key picture.
    fn panicked(&mut self, panic: &str) {
        let camera = &self.camera;
        let lost = std::mem::take(&mut lock(&self.book).in_flight);
        camera.losses.metrics.count("decoder_restarts", &camera.config.id, 1);
        camera.losses.add("decoder_panicked", lost, &format!("the decoder panicked ({panic}) and is started again"));
        self.let_go_of_decoder();
    }

    /// A decoder that panics while it is dropped ends nothing else.
    fn let_go_of_decoder(&mut self) {
        let decoder = self.decoder.take();
        self.camera.decoding.enter();
        let _ = contained(|| drop(decoder));
        self.camera.decoding.leave();
        let mut book = lock(&self.book);
        book.in_flight = 0;
        book.due.clear();
        self.fed = false;
    }

    /// Reports what was lost and shown meanwhile.
    fn settle(&self, feed: &mut Feed) {
        let (pictures, losses) = {
            let mut book = lock(&self.book);
            (std::mem::take(&mut book.pictures), std::mem::take(&mut book.losses))
        };
        feed.shown(pictures);
        for loss in losses {
            feed.lost(&loss);
            self.camera.losses.report(&loss);
        }
    }
}

/// The unit with its times on the camera's own line. `offset_ns` is that of the source as it is open now.
pub(crate) fn moved(mut unit: Arc<AccessUnit>, offset_ns: &mut Option<i64>, timeline: &Timeline) -> Arc<AccessUnit> {
    let offset_ns = *offset_ns.get_or_insert_with(|| timeline.offset_ns(unit.timing.pts_ns));
    if offset_ns != 0 {
        let unit = Arc::make_mut(&mut unit);
        unit.timing.pts_ns = unit.timing.pts_ns.saturating_add(offset_ns);
        unit.dts_ns = unit.dts_ns.saturating_add(offset_ns);
        // by this the decoder knows which pictures can go
        unit.earliest_next_pts_ns = unit.earliest_next_pts_ns.map(|pts_ns| pts_ns.saturating_add(offset_ns));
    }
    timeline.reached(unit.timing.pts_ns);
    unit
}
