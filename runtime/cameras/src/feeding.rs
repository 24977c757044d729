//! The first of a camera's threads: it reads the source and feeds the decoder.
//!
//! It has a thread because the decoder makes it wait: for room in its queue, and, where it wants to use a surface again,
//! for the picture on it. The waits for decoded pictures are a second thread's ([`mapping`](crate::mapping)).

use crate::backend::{Decoder, Output, Sink};
use crate::camera_run::{CameraRun, contained, lock};
use crate::mapping::ToEventLoop;
use crate::queue::Room;
use crate::timeline::{Spacing, Timeline};
use crate::{Backend, PictureInfo};
use millrace_frame::{CameraState, monotonic_ns};
use millrace_ingest::{AccessUnit, AfterEnd, Loss, PacedSource, PacedStep, SourceState};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// From the decoder to the event loop.
pub(crate) enum ToMap<P> {
    /// `ready`: when it was decoded, or when it is to be shown, whichever is later.
    Picture {
        picture_info: PictureInfo,
        ready: Instant,
        picture: P,
    },
    End {
        failed: Option<String>,
    },
}

/// What the decoder's sink and the code that feeds the decoder share. Both run on the same thread.
#[derive(Default)]
struct SinkState {
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
    camera: Arc<CameraRun<B>>,
    /// A source that was opened before the threads were started.
    opened: Option<PacedSource>,
    sink_state: Arc<Mutex<SinkState>>,
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
    pub(crate) fn new(camera: Arc<CameraRun<B>>, opened: Option<PacedSource>, to_loop: ToEventLoop<B>) -> Self {
        let sink_state = Arc::default();
        let spacing = Spacing::default();
        let (decoder, fed, offset_ns, tries) = (None, false, None, 0);
        let (address, password_read) = (OsString::new(), None);
        Self { camera, opened, sink_state, decoder, fed, offset_ns, spacing, to_loop, tries, address, password_read }
    }

    /// The thread's whole life. A file has one try; a camera on the network is tried again.
    pub(crate) fn run(mut self) {
        let again = self.camera.config.is_url();
        let mut wait = BACK_OFF.0;
        let failed = loop {
            let began = Instant::now();
            let mut source = None;
            let ended = contained(|| self.play(&mut source)).unwrap_or_else(|panic| {
                self.camera.counters.metrics.count("reader_panics", &self.camera.config.id, 1);
                Ended::Failed(format!("the reader of the source panicked: {panic}"))
            });
            self.close(source, &ended);
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
    fn close(&mut self, source: Option<PacedSource>, ended: &Ended) {
        let counters = &self.camera.counters;
        std::mem::take(&mut lock(&self.sink_state).losses).iter().for_each(|loss| counters.report(loss));
        source.map(PacedSource::close).unwrap_or_default().iter().for_each(|loss| counters.of_source(loss));
        let left = std::mem::take(&mut lock(&self.sink_state).in_flight);
        match ended {
            Ended::Failed(why) if !self.camera.is_over() && left > 0 => {
                counters.add("source_failed", left, &format!("pictures on their way when the source failed: {why}"));
            }
            _ => counters.stopped(left),
        }
        self.let_go_of_decoder();
    }

    /// Opens the source and plays it to its end.
    fn play(&mut self, open: &mut Option<PacedSource>) -> Ended {
        let camera = self.camera.clone();
        let opened = match self.opened.take() {
            Some(source) => Ok(source),
            None => camera.config.is_within_reach().and_then(|()| camera.config.address()).and_then(|address| {
                self.address.clone_from(&address);
                camera.config.open_at(&address, &camera.settings.source_settings)
            }),
        };
        let source = match opened {
            Ok(source) => open.insert(source),
            Err(why) => return Ended::Failed(why),
        };
        self.offset_ns = None;
        self.password_read = None;
        while !camera.is_over() {
            match self.step(source) {
                Ok(Step::Done) => {}
                Ok(Step::Last) => return Ended::Over,
                Ok(Step::OtherPassword) => return Ended::OtherPassword,
                Err(why) => return Ended::Failed(why),
            }
        }
        Ended::Over
    }

    /// One step of the source.
    fn step(&mut self, source: &mut PacedSource) -> Result<Step, String> {
        match source.step().map_err(|e| e.to_string())? {
            PacedStep::Unit(unit) => self.unit(source, unit)?,
            PacedStep::Loss(loss) => self.camera.counters.of_source(&loss),
            PacedStep::Counted(counted) => self.camera.counters.counted(&counted),
            // a file's is known by its frames, which come later than its units
            PacedStep::State(state) if self.camera.config.is_url() => {
                self.tries = state.tries;
                let failed = state.state != CameraState::Live && state.tries > 0;
                self.password_read = failed.then(|| self.password_read.unwrap_or_else(Instant::now));
                self.camera.queue.state(state);
            }
            PacedStep::State(_) => {}
            PacedStep::Flush => self.flush(source),
            PacedStep::Wait(wait) => {
                self.camera.sleep(wait);
                if self.has_other_password()? {
                    return Ok(Step::OtherPassword);
                }
            }
            PacedStep::End => {
                self.flush(source);
                let next = source.end().map_err(|e| e.to_string())?;
                return Ok(if next == AfterEnd::Again { Step::Done } else { Step::Last });
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

    fn unit(&mut self, source: &mut PacedSource, unit: Arc<AccessUnit>) -> Result<(), String> {
        self.camera.counters.received(1);
        if !unit.shown {
            self.camera.counters.metrics.count("not_shown", &self.camera.config.id, 1);
        }
        let due = source.due(unit.timing.pts_ns);
        if !self.camera.config.is_url()
            && unit.shown
            && let Some(period_ns) = self.spacing.add(unit.dts_ns)
        {
            // the rate that the camera is to have, whatever comes through
            self.camera.counters.metrics.gauge("frame_period_ns", &self.camera.config.id, period_ns);
        }
        let unit = moved(unit, &mut self.offset_ns, &self.camera.timeline);
        if !self.camera.config.is_url() {
            self.camera.counters.reached(unit.timing.pts_ns);
        }
        lock(&self.sink_state).in_flight += u64::from(unit.shown);
        if self.camera.packets {
            let counters = &self.camera.counters;
            match self.camera.queue.packet(unit.clone()) {
                Room::Made(dropped) => {
                    let detail = "encoded pictures that the event loop was too slow for";
                    counters.packets("packet_loop_behind", dropped, detail);
                }
                Room::Closed => counters.stopped_packets(1),
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
            let mut sink_state = lock(&self.sink_state);
            sink_state.due.extend(due.filter(|_| unit.shown).map(|due| (unit.timing.pts_ns, due)));
            sink_state.wakes = false;
            sink_state.arrived_ns = self.camera.config.is_url().then_some(unit.timing.arrival_ns);
        }
        self.fed = true;
        let began = Instant::now();
        self.camera.decoding.enter();
        let pushed = contained(|| decoder.push(&unit));
        self.camera.decoding.leave();
        let took = began.elapsed().saturating_sub(std::mem::take(&mut lock(&self.sink_state).waited));
        if B::DECODES_IN_PUSH {
            self.camera.counters.metrics.observe_ns("decode", &self.camera.config.id, took.as_nanos() as u64);
        }
        match pushed {
            Ok(result) => result.map_err(|why| format!("'{}': {why}", self.camera.config.redacted_source()))?,
            Err(panic) => self.panicked(&panic),
        }
        self.settle(source);
        if self.camera.packets && !lock(&self.sink_state).wakes {
            self.camera.queue.wake();
        }
        Ok(())
    }

    /// The decoder's sink. It runs within `push` and `flush`, so the sink's state is not locked then.
    fn sink(&self) -> Sink<B::Picture> {
        let (sink_state, to_loop, camera) = (self.sink_state.clone(), self.to_loop.clone(), self.camera.clone());
        Box::new(move |output| {
            let mut sink_state = lock(&sink_state);
            match output {
                Output::Loss(loss) => {
                    sink_state.in_flight = sink_state.in_flight.saturating_sub(loss.count);
                    sink_state.losses.push(loss);
                }
                Output::Picture { mut picture_info, picture } => {
                    sink_state.in_flight = sink_state.in_flight.saturating_sub(1);
                    sink_state.pictures += 1;
                    let now = Instant::now();
                    let ready = sink_state.due.remove(&picture_info.timing.pts_ns).map_or(now, |due| due.max(now));
                    // what a stall kept waiting is as old as it is; and a camera's picture is under way from the arrival of
                    // the one that it waited for, so that it grows old in a decoder that is slow, or whose process is stopped
                    if !sink_state.flushing {
                        let decoded_ns = || monotonic_ns() + (ready - now).as_nanos() as i64;
                        picture_info.timing.ready_ns = sink_state.arrived_ns.unwrap_or_else(decoded_ns);
                    }
                    sink_state.wakes |= ready == now;
                    // this wait is for the event loop, not for the decoder
                    camera.decoding.leave();
                    to_loop.send(ToMap::Picture { picture_info, ready, picture });
                    camera.decoding.enter();
                    sink_state.waited += now.elapsed();
                }
            }
        })
    }

    /// Empties the decoder.
    fn flush(&mut self, source: &mut PacedSource) {
        if std::mem::take(&mut self.fed)
            && let Some(decoder) = &mut self.decoder
        {
            lock(&self.sink_state).flushing = true;
            self.camera.decoding.enter();
            let flushed = contained(|| decoder.flush());
            self.camera.decoding.leave();
            lock(&self.sink_state).flushing = false;
            if let Err(panic) = flushed {
                self.panicked(&panic);
            }
        }
        self.settle(source);
        let left = {
            let mut sink_state = lock(&self.sink_state);
            sink_state.due.clear();
            std::mem::take(&mut sink_state.in_flight)
        };
        if left > 0 {
            self.camera.counters.add("decode_error", left, "the decoder gave neither a picture nor a loss");
        }
    }

    /// The decoder panicked: it goes, and another one begins at the next key picture.
    fn panicked(&mut self, panic: &str) {
        let camera = &self.camera;
        let lost = std::mem::take(&mut lock(&self.sink_state).in_flight);
        camera.counters.metrics.count("decoder_restarts", &camera.config.id, 1);
        camera.counters.add("decoder_panicked", lost, &format!("the decoder panicked ({panic}) and is started again"));
        self.let_go_of_decoder();
    }

    /// A decoder that panics while it is dropped ends nothing else.
    fn let_go_of_decoder(&mut self) {
        let decoder = self.decoder.take();
        self.camera.decoding.enter();
        let _ = contained(|| drop(decoder));
        self.camera.decoding.leave();
        let mut sink_state = lock(&self.sink_state);
        sink_state.in_flight = 0;
        sink_state.due.clear();
        self.fed = false;
    }

    /// Reports what was lost and shown meanwhile.
    fn settle(&self, source: &mut PacedSource) {
        let (pictures, losses) = {
            let mut sink_state = lock(&self.sink_state);
            (std::mem::take(&mut sink_state.pictures), std::mem::take(&mut sink_state.losses))
        };
        source.count_shown(pictures);
        for loss in losses {
            source.lost(&loss);
            self.camera.counters.report(&loss);
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
