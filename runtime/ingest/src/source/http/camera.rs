//! A camera's task: connects, receives, and begins again whenever that fails.

use super::request::{Stream, chain, connect};
use crate::source::SourceEvent;
use crate::source::address::Address;
use crate::source::jpegs::{JpegSplitter, unreadable};
use crate::source::queue::Queue;
use crate::syntax::still::StillReader;
use crate::{Loss, LossOf, SourceState};
use http_body_util::BodyExt;
use millrace_frame::{CameraState, PacketCodec, Timebase, Timing, monotonic_ns, unix_ns};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

/// The limits on a camera's patience.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From the beginning of an attempt until the camera answers.
    pub(super) connect: Duration,
    /// Without a picture.
    pub(super) stall: Duration,
    /// Between the beginnings of two attempts: at first, and at most.
    pub(super) back_off: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        let back_off = (Duration::from_millis(500), Duration::from_secs(8));
        Self { connect: Duration::from_secs(5), stall: Duration::from_millis(2500), back_off }
    }
}

/// How often a task that receives looks at the time at least. One that finds that so much has passed had no processor: its
/// process was stopped, and what waits in the socket by then is too old to be shown.
const LOOK: Duration = Duration::from_millis(250);
const PAUSED: Duration = Duration::from_secs(1);

/// Why there is no connection, or no more.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the camera's state is by it.
    state: CameraState,
    /// For the user, without credentials.
    reason: String,
}

impl Failure {
    pub(super) fn new(state: CameraState, reason: impl Into<String>) -> Self {
        Self { state, reason: reason.into() }
    }
}

/// What came since the last picture.
#[derive(Default)]
struct InVain {
    bytes: usize,
    /// Its beginning, in which a part says of what type it is.
    head: Vec<u8>,
}

impl InVain {
    const HEAD_BYTES: usize = 1024;

    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        let room = Self::HEAD_BYTES - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn in_words(&self) -> String {
        if self.bytes == 0 {
            return String::new();
        }
        let lines = self.head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii().escape_ascii().to_string());
        let of_type = |line: String| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-type").then(|| format!(" of the type '{:.80}'", value.trim()))
        };
        format!(", though {} bytes{} came", self.bytes, lines.filter_map(of_type).next().unwrap_or_default())
    }
}

pub(super) struct Camera {
    address: Address,
    limits: Limits,
    queue: Arc<Queue>,
    state: SourceState,
    reader: StillReader,
    /// When the first picture arrived: times count from there, also over a lost connection.
    first_ns: Option<i64>,
}

impl Camera {
    pub(super) fn new(address: Address, limits: Limits, queue: Arc<Queue>) -> Self {
        let (state, reader) = (SourceState::default(), StillReader::default());
        Self { address, limits, queue, state, reader, first_ns: None }
    }

    /// Never ends by itself.
    pub(super) async fn keep_playing(&mut self) {
        self.queue.push(SourceEvent::State(self.state.clone()));
        let (first_wait, longest_wait) = self.limits.back_off;
        let mut wait = first_wait;
        loop {
            let began = Instant::now();
            self.state.tries = self.state.tries.saturating_add(1);
            let failure = self.attempt().await;
            if self.state.state == CameraState::Live {
                self.queue.push(SourceEvent::Flush);
                let detail = format!("{}: {}", self.address.shown, failure.reason);
                self.queue.push(SourceEvent::Loss(Loss::of(LossOf::Connections, "connection_lost", 1, detail)));
                // after a connection that gave pictures for a moment the next try comes soon
                if began.elapsed() > first_wait {
                    wait = first_wait;
                }
            }
            (self.state.state, self.state.last_error) = (failure.state, failure.reason);
            self.queue.push(SourceEvent::State(self.state.clone()));
            let least = wait.mul_f64(0.75 + fastrand::f64() / 4.0);
            sleep_until((began + least).max(Instant::now() + first_wait.min(least))).await;
            wait = (wait * 2).min(longest_wait);
        }
    }

    /// One connection from its beginning to its end.
    async fn attempt(&mut self) -> Failure {
        match timeout(self.limits.connect, connect(&self.address)).await {
            Ok(Ok(stream)) => self.receive(stream).await,
            Ok(Err(failure)) => failure,
            Err(_) => {
                let reason = format!("no answer within {} ms", self.limits.connect.as_millis());
                Failure::new(CameraState::Connecting, reason)
            }
        }
    }

    async fn receive(&mut self, mut stream: Stream) -> Failure {
        let mut splitter = JpegSplitter::default();
        let mut looked = Instant::now();
        let mut stalls_at = looked + self.limits.stall;
        let mut in_vain = InVain::default();
        loop {
            let got = timeout_at(stalls_at.min(looked + LOOK), stream.body.frame()).await;
            let now = Instant::now();
            let paused = now - std::mem::replace(&mut looked, now);
            if paused > PAUSED {
                let reason = format!("the decoder's process did not run for {} ms", paused.as_millis());
                return Failure::new(CameraState::Stalled, reason);
            }
            match got {
                Err(_) if now < stalls_at => continue,
                Err(_) => {
                    let stall_ms = self.limits.stall.as_millis();
                    let reason = format!("no picture for {stall_ms} ms{}", in_vain.in_words());
                    return Failure::new(CameraState::Stalled, reason);
                }
                Ok(None) => {
                    splitter.finish();
                    self.pass_on(&mut splitter);
                    let mut reason = "the camera has ended the stream".to_owned();
                    if self.state.state != CameraState::Live {
                        reason += &format!(" without a JPEG picture{}", in_vain.in_words());
                    }
                    return Failure::new(CameraState::Connecting, reason);
                }
                Ok(Some(Err(e))) => {
                    return Failure::new(CameraState::Connecting, self.address.scrubbed(&chain(&e)));
                }
                Ok(Some(Ok(frame))) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    in_vain.add(&bytes);
                    splitter.push(&bytes);
                    if self.pass_on(&mut splitter) {
                        stalls_at = now + self.limits.stall;
                        in_vain = InVain::default();
                    }
                }
            }
        }
    }

    /// Passes the pictures on that are whole. Tells whether there was one.
    fn pass_on(&mut self, splitter: &mut JpegSplitter) -> bool {
        let mut any = false;
        while let Some(picture) = splitter.next() {
            let unit =
                picture.and_then(|data| self.reader.unit(PacketCodec::Jpeg, data).map_err(|why| unreadable(&why)));
            let unit = match unit {
                Ok(unit) => unit,
                Err(loss) => {
                    self.queue.push(SourceEvent::Loss(loss));
                    continue;
                }
            };
            if !std::mem::replace(&mut any, true) && self.state.state != CameraState::Live {
                self.state = SourceState { state: CameraState::Live, ..SourceState::default() };
                self.queue.push(SourceEvent::State(self.state.clone()));
            }
            let arrival_ns = monotonic_ns();
            let pts_ns = arrival_ns - *self.first_ns.get_or_insert(arrival_ns);
            let timebase = Timebase::NANOSECONDS;
            let timing = Timing { pts_ns, timebase, capture_ns: unix_ns(), arrival_ns, ready_ns: 0, sender_ns: None };
            self.queue.push(SourceEvent::Arrived { unit, timing, after_loss: false });
        }
        any
    }
}
