//! A camera's task: connects, receives, and begins again whenever that fails.

use super::assembler::{Assembler, Packet};
use super::clock::MediaClock;
use super::connection::{Connection, Failure, Item, Sessions, connect};
use crate::source::SourceEvent;
use crate::source::address::Address;
use crate::source::queue::Queue;
use crate::{Counted, Loss, LossOf, RtspTransport, SourceState};
use futures::FutureExt;
use millrace_frame::CameraState;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{timeout, timeout_at};

/// The limits on a camera's patience.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From the beginning of an attempt until the camera plays.
    pub(super) connect: Duration,
    /// Without a picture.
    pub(super) stall: Duration,
    /// Between the beginnings of two attempts: at first, and at most.
    pub(super) back_off: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            stall: Duration::from_millis(2500),
            back_off: (Duration::from_millis(500), Duration::from_secs(8)),
        }
    }
}

/// A camera that sends pictures and no parameter sets is waited for: they come with its next key picture.
const LONGEST_GROUP: Duration = Duration::from_secs(20);

/// How often a task that receives looks at the time at least. One that finds that so much has passed had no processor: its
/// process was stopped, and what waits in the socket by then is too old to be shown.
const LOOK: Duration = Duration::from_millis(250);
const PAUSED: Duration = Duration::from_secs(1);
/// What waits in the socket comes at once. It has been read when the next packet takes this long, and after a second at
/// the latest: what comes later is left unread.
const DRAINED: Duration = Duration::from_millis(20);
const LONGEST_DRAIN: Duration = Duration::from_secs(1);

/// What a camera's packets came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Nothing,
    /// Pictures that cannot be read before the stream's parameter sets.
    Waiting,
    Pictures,
}

/// What became of an attempt.
struct Attempt {
    failure: Failure,
    /// Pictures came.
    was_live: bool,
}

pub(super) struct Camera {
    address: Address,
    transport: RtspTransport,
    limits: Limits,
    queue: Arc<Queue>,
    sessions: Sessions,
    clock: MediaClock,
    state: SourceState,
    /// The picture that is being put together.
    assembler: Option<Assembler>,
    /// The process was stopped: pictures of this connection are too old from here on.
    was_paused: bool,
}

impl Camera {
    pub(super) fn new(
        address: Address,
        transport: RtspTransport,
        limits: Limits,
        queue: Arc<Queue>,
        sessions: Sessions,
    ) -> Self {
        Self {
            address,
            transport,
            limits,
            queue,
            sessions,
            clock: MediaClock::new(),
            state: SourceState::default(),
            assembler: None,
            was_paused: false,
        }
    }

    /// Puts what has arrived so far into the queue; the task ends.
    pub(super) fn finish(&mut self) {
        self.end_picture(&mut true);
    }

    fn end_picture(&mut self, was_live: &mut bool) {
        if let Some(mut assembler) = self.assembler.take() {
            assembler.end(&mut self.clock);
            self.hand_over(assembler.take(), was_live);
        }
    }

    /// Never ends by itself.
    pub(super) async fn keep_playing(&mut self) {
        self.queue.push(SourceEvent::State(self.state.clone()));
        let mut wait = self.limits.back_off.0;
        loop {
            let began = tokio::time::Instant::now();
            self.state.tries = self.state.tries.saturating_add(1);
            let attempt = self.attempt().await;
            // after a connection that gave pictures for a moment the next try comes soon
            if attempt.was_live && began.elapsed() > self.limits.back_off.0 {
                wait = self.limits.back_off.0;
            }
            let least = wait.mul_f64(0.75 + fastrand::f64() / 4.0).max(attempt.failure.least_wait);
            self.failed(attempt.failure);
            // An attempt that took long has waited already, but a server that is just starting gets a moment.
            let now = tokio::time::Instant::now();
            tokio::time::sleep_until((began + least).max(now + self.limits.back_off.0.min(least))).await;
            wait = (wait * 2).min(self.limits.back_off.1);
        }
    }

    /// One connection from its beginning to its end.
    async fn attempt(&mut self) -> Attempt {
        let connecting = connect(&self.address, self.transport, &self.sessions);
        let connected = timeout(self.limits.connect, contained(connecting)).await;
        let connection = match connected {
            Ok(Some(Ok(connection))) => connection,
            Ok(Some(Err(failure))) => return Attempt { failure, was_live: false },
            Ok(None) => return Attempt { failure: panicked(), was_live: false },
            Err(_) => {
                let reason = format!("no answer within {} ms", self.limits.connect.as_millis());
                return Attempt { failure: Failure::new(CameraState::Connecting, reason), was_live: false };
            }
        };
        self.clock.reconnected();
        self.assembler = Some(connection.assembler());
        let mut was_live = false;
        let received = contained(self.receive(connection, &mut was_live)).await;
        let failure = received.unwrap_or_else(panicked);
        self.end_picture(&mut was_live);
        self.was_paused = false;
        if was_live {
            self.queue.push(SourceEvent::Flush);
            let detail = format!("{}: {}", self.address.shown, failure.reason);
            self.queue.push(SourceEvent::Loss(Loss::of(LossOf::Connections, "connection_lost", 1, detail)));
        }
        Attempt { failure, was_live }
    }

    async fn receive(&mut self, mut connection: Connection, was_live: &mut bool) -> Failure {
        let stall = self.limits.stall;
        let began = tokio::time::Instant::now();
        let mut stalls_at = began + stall;
        let mut packets_in_vain = 0u64;
        let mut stray = None;
        let mut looked = began;
        loop {
            let got = timeout_at(stalls_at.min(looked + LOOK), connection.next(&self.address)).await;
            let now = tokio::time::Instant::now();
            let paused = now - std::mem::replace(&mut looked, now);
            if paused > PAUSED {
                self.was_paused = true;
                match got {
                    Ok(Ok(item)) => {
                        self.pass_on(item, &connection, &mut true);
                        self.drain(&mut connection, now + LONGEST_DRAIN).await;
                    }
                    Err(_) => self.drain(&mut connection, now + LONGEST_DRAIN).await,
                    Ok(Err(_)) => {} // the connection has ended
                }
                let reason = format!("the decoder's process did not run for {} ms", paused.as_millis());
                return Failure::new(CameraState::Stalled, reason);
            }
            let item = match got {
                Err(_) if now < stalls_at => continue,
                Err(_) => {
                    let mut reason = format!("no picture for {} ms", stall.as_millis());
                    if packets_in_vain > 0 {
                        reason += ", though packets come";
                    } else if let Some(stray) = stray {
                        let wanted = connection.payload_type;
                        reason +=
                            &format!(", though packets of payload type {stray} come; its description names {wanted}");
                    }
                    return Failure::new(CameraState::Stalled, reason);
                }
                Ok(Err(failure)) => return failure,
                Ok(Ok(item)) => item,
            };
            packets_in_vain += u64::from(matches!(item, Item::Packet { .. }));
            if let Item::Stray(payload_type) = item {
                stray = Some(payload_type);
            }
            let progress = self.pass_on(item, &connection, was_live);
            if progress == Progress::Pictures || progress == Progress::Waiting && now - began < LONGEST_GROUP {
                stalls_at = now + stall;
            }
            if progress == Progress::Pictures {
                (packets_in_vain, stray) = (0, None);
            }
        }
    }

    /// Takes in what the camera sent, and passes on what came of it.
    fn pass_on(&mut self, item: Item, connection: &Connection, was_live: &mut bool) -> Progress {
        let Some(assembler) = &mut self.assembler else { return Progress::Nothing };
        match item {
            Item::Packet { ticks, marker, lost, payload, arrived, .. } => {
                let packet = Packet { ticks, marker, lost, payload: &payload, arrived };
                assembler.packet(&packet, &mut self.clock);
            }
            Item::Report { ticks, ntp } => assembler.sender_report(ticks, ntp),
            Item::Counted(counted) => self.queue.push(SourceEvent::Counted(counted)),
            Item::Stray(payload_type) => {
                let wanted = connection.payload_type;
                let detail = format!("packets of payload type {payload_type}, and not of the video's, {wanted}");
                self.queue.push(SourceEvent::Counted(Counted { name: "rtp_stray", count: 1, detail }));
            }
            Item::Restart => {
                self.end_picture(was_live);
                self.queue.push(SourceEvent::Flush);
                self.clock.reconnected();
                self.assembler = Some(connection.assembler());
                return Progress::Nothing;
            }
        }
        let events = assembler.take();
        self.hand_over(events, was_live)
    }

    /// Reads what waits in the socket, to count it.
    async fn drain(&mut self, connection: &mut Connection, until: tokio::time::Instant) {
        loop {
            let soon = tokio::time::Instant::now() + DRAINED;
            let Ok(Ok(item)) = timeout_at(until.min(soon), connection.next(&self.address)).await else { return };
            self.pass_on(item, connection, &mut true);
        }
    }

    fn hand_over(&mut self, events: Vec<SourceEvent>, was_live: &mut bool) -> Progress {
        let mut progress = Progress::Nothing;
        for mut event in events {
            match &event {
                SourceEvent::Arrived { .. } if self.was_paused => {
                    let detail = "pictures that waited in the socket while the decoder's process was stopped";
                    event = SourceEvent::Loss(Loss::new("process_paused", 1, detail));
                }
                SourceEvent::Arrived { .. } => {
                    progress = Progress::Pictures;
                    if !std::mem::replace(was_live, true) {
                        self.live();
                    }
                }
                SourceEvent::Loss(loss) if loss.cause == "waiting_for_key" && progress == Progress::Nothing => {
                    progress = Progress::Waiting;
                }
                _ => {}
            }
            self.queue.push(event);
        }
        progress
    }

    // Each change of the state is logged by the node that is given it, once: here it is for those who look closer.

    fn live(&mut self) {
        tracing::debug!(url = self.address.shown, tries = self.state.tries, "the camera is live");
        self.state = SourceState { state: CameraState::Live, ..SourceState::default() };
        self.queue.push(SourceEvent::State(self.state.clone()));
    }

    fn failed(&mut self, failure: Failure) {
        let Failure { state, reason, .. } = failure;
        tracing::debug!(url = self.address.shown, state = state.as_str(), tries = self.state.tries, "{reason}");
        self.state.state = state;
        self.state.last_error = reason;
        self.queue.push(SourceEvent::State(self.state.clone()));
    }
}

/// Runs code from elsewhere so that a panic in it ends no more than a connection.
async fn contained<T>(work: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
}

fn panicked() -> Failure {
    Failure::new(CameraState::Connecting, "the RTSP client panicked on what the camera sent; please report it")
}
