//! A camera's task: connects, receives, and begins again whenever that fails.

use super::address::Address;
use super::assembler::{Assembler, Packet};
use super::clock::MediaClock;
use super::connection::{Connection, Failure, Item, Sessions, connect};
use super::queue::Queue;
use crate::source::SourceEvent;
use crate::{Loss, RtspTransport, SourceState};
use futures::FutureExt;
use millrace_frame::CameraState;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
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
            stall: Duration::from_secs(3),
            back_off: (Duration::from_millis(500), Duration::from_secs(8)),
        }
    }
}

/// A camera that sends pictures and no parameter sets is waited for: they come with its next key picture.
const LONGEST_GROUP: Duration = Duration::from_secs(20);

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
    /// Since when no picture comes, and whether one ever came.
    down_since: Instant,
    has_been_live: bool,
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
            down_since: Instant::now(),
            has_been_live: false,
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
            // a connection that held for a while earns a quick second try
            if attempt.was_live && began.elapsed() > wait {
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
        let mut assembler = connection.assembler();
        let mut was_live = false;
        let received = contained(self.receive(connection, &mut assembler, &mut was_live)).await;
        let failure = received.unwrap_or_else(panicked);
        assembler.end(&mut self.clock);
        self.hand_over(&mut assembler, &mut was_live);
        if was_live {
            self.queue.push(SourceEvent::Flush);
            let detail = format!("{}: {}", self.address.shown, failure.reason);
            self.queue.push(SourceEvent::Loss(Loss::new("connection_lost", 1, detail)));
        }
        Attempt { failure, was_live }
    }

    async fn receive(&mut self, mut connection: Connection, assembler: &mut Assembler, was_live: &mut bool) -> Failure {
        let stall = self.limits.stall;
        let began = tokio::time::Instant::now();
        let mut stalls_at = began + stall;
        let mut packets_in_vain = 0u64;
        loop {
            let item = match timeout_at(stalls_at, connection.next(&self.address)).await {
                Err(_) => {
                    let mut reason = format!("no picture for {} ms", stall.as_millis());
                    if packets_in_vain > 0 {
                        reason += ", though packets come";
                    }
                    return Failure::new(CameraState::Stalled, reason);
                }
                Ok(Err(failure)) => return failure,
                Ok(Ok(item)) => item,
            };
            match item {
                Item::Packet { ticks, marker, lost, payload, arrived } => {
                    let packet = Packet { ticks, marker, lost, payload: &payload, arrived };
                    assembler.packet(&packet, &mut self.clock);
                    packets_in_vain += 1;
                }
                Item::Report { ticks, ntp } => assembler.sender_report(ticks, ntp),
                Item::Counted(counted) => self.queue.push(SourceEvent::Counted(counted)),
                Item::Restart => {
                    assembler.end(&mut self.clock);
                    self.hand_over(assembler, was_live);
                    self.queue.push(SourceEvent::Flush);
                    self.clock.reconnected();
                    *assembler = connection.assembler();
                }
            }
            let progress = self.hand_over(assembler, was_live);
            let now = tokio::time::Instant::now();
            if progress == Progress::Pictures || progress == Progress::Waiting && now - began < LONGEST_GROUP {
                stalls_at = now + stall;
            }
            if progress == Progress::Pictures {
                packets_in_vain = 0;
            }
        }
    }

    /// Passes on what came of the packets.
    fn hand_over(&mut self, assembler: &mut Assembler, was_live: &mut bool) -> Progress {
        let mut progress = Progress::Nothing;
        for event in assembler.take() {
            match &event {
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

    fn live(&mut self) {
        let url = &self.address.shown;
        if self.has_been_live {
            let outage_ms = self.down_since.elapsed().as_millis() as u64;
            tracing::info!(url, outage_ms, tries = self.state.tries, "the camera is live again");
        } else {
            tracing::info!(url, tries = self.state.tries, "the camera is live");
        }
        self.has_been_live = true;
        self.state.state = CameraState::Live;
        self.state.tries = 0;
        self.queue.push(SourceEvent::State(self.state.clone()));
    }

    fn failed(&mut self, failure: Failure) {
        let Failure { state, reason, .. } = failure;
        if self.state.state == CameraState::Live {
            self.down_since = Instant::now();
        }
        let first = self.state.last_error.is_empty();
        if state != self.state.state || first {
            tracing::warn!(url = self.address.shown, state = state.as_str(), "{reason}; the connection is tried again");
        } else {
            tracing::debug!(url = self.address.shown, state = state.as_str(), tries = self.state.tries, "{reason}");
        }
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
