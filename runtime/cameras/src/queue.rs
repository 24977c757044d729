//! The way from a camera's threads to the event loop: one bounded queue for each camera.
//!
//! In lossless flow a full queue makes the camera's thread wait. In live flow the thread waits for a moment, so that a
//! burst on an idle machine loses nothing; then the oldest picture is dropped.

use crate::PictureInfo;
use millrace_cuda::Waker;
use millrace_ingest::{AccessUnit, SourceState};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a camera has for the event loop.
pub(crate) enum Event<S> {
    /// An encoded picture, in decoding order.
    Packet(Arc<AccessUnit>),
    /// A decoded picture, in presentation order.
    Frame { picture_info: PictureInfo, surface: S },
    /// What the source is doing.
    State(SourceState),
    /// Nothing more comes: the source is over, or it failed.
    End { failed: Option<String> },
}

/// What became of a picture or packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// There was room, or there is now that so many of the oldest were dropped.
    Made(u64),
    /// The queue is closed.
    Closed,
}

/// Who waits when the event loop is slower than a camera; shared by all cameras of a node.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    lossless: AtomicBool,
}

impl Policy {
    pub(crate) fn set_lossless(&self, lossless: bool) {
        self.lossless.store(lossless, Ordering::Relaxed);
    }

    pub(crate) fn is_lossless(&self) -> bool {
        self.lossless.load(Ordering::Relaxed)
    }
}

/// Encoded pictures of a camera that may wait for the event loop: two seconds and more.
const PACKETS: usize = 64;
/// How long a wait lets a stop go unnoticed.
const LISTEN: Duration = Duration::from_millis(20);

pub(crate) struct Queue<S> {
    inner: Mutex<Inner<S>>,
    /// How many events are in it: the event loop looks at many queues in which there is nothing.
    waiting: AtomicUsize,
    room: Condvar,
    most_frames: usize,
    policy: Arc<Policy>,
    waker: Waker,
}

struct Inner<S> {
    events: VecDeque<Event<S>>,
    frames: usize,
    packets: usize,
    closed: bool,
}

impl<S> Queue<S> {
    pub(crate) fn new(most_frames: usize, policy: Arc<Policy>, waker: Waker) -> Self {
        let inner = Inner { events: VecDeque::new(), frames: 0, packets: 0, closed: false };
        Self {
            inner: Mutex::new(inner),
            waiting: AtomicUsize::new(0),
            room: Condvar::new(),
            most_frames,
            policy,
            waker,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one picture. In live flow that is done at `until` at the latest, at the cost of the oldest pictures.
    pub(crate) fn room_for_frame(&self, until: Instant) -> Room {
        let mut dropped = Vec::new();
        let mut inner = self.lock();
        loop {
            if inner.closed {
                return Room::Closed;
            }
            if inner.frames < self.most_frames {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() && !self.policy.is_lossless() {
                while inner.frames >= self.most_frames
                    && let Some(at) = inner.events.iter().position(|event| matches!(event, Event::Frame { .. }))
                {
                    dropped.extend(inner.events.remove(at));
                    inner.frames -= 1;
                }
                self.count(&inner);
                break;
            }
            let wait = if self.policy.is_lossless() { LISTEN } else { left.min(LISTEN) };
            inner = self.room.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        // a picture is given back to its decoder outside of the lock
        drop(inner);
        Room::Made(dropped.len() as u64)
    }

    /// Puts a picture into the room that was made for it; false where the queue is closed by now.
    pub(crate) fn frame(&self, picture_info: PictureInfo, surface: S) -> bool {
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        inner.frames += 1;
        inner.events.push_back(Event::Frame { picture_info, surface });
        self.count(&inner);
        drop(inner);
        self.waker.wake();
        true
    }

    /// Puts an encoded picture behind the others. The event loop is not woken for it: the decoded picture, which follows in
    /// a moment, wakes it for both, and where there is none, [`wake`](Self::wake) does.
    pub(crate) fn packet(&self, unit: Arc<AccessUnit>) -> Room {
        let mut dropped = 0;
        let mut inner = self.lock();
        while inner.packets >= PACKETS && !inner.closed {
            if self.policy.is_lossless() {
                inner = self.room.wait_timeout(inner, LISTEN).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let Some(at) = inner.events.iter().position(|event| matches!(event, Event::Packet(_))) else { break };
            inner.events.remove(at);
            inner.packets -= 1;
            dropped += 1;
        }
        if inner.closed {
            return Room::Closed;
        }
        inner.packets += 1;
        inner.events.push_back(Event::Packet(unit));
        self.count(&inner);
        Room::Made(dropped)
    }

    /// Wakes the event loop, where there is something for it.
    pub(crate) fn wake(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.waker.wake();
        }
    }

    fn count(&self, inner: &Inner<S>) {
        self.waiting.store(inner.events.len(), Ordering::Release);
    }

    /// The source does something else now.
    pub(crate) fn state(&self, state: SourceState) {
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        // what nobody has seen yet is replaced: the number of them is bounded by that of the pictures
        if let Some(Event::State(last)) = inner.events.back_mut() {
            *last = state;
        } else {
            inner.events.push_back(Event::State(state));
        }
        self.count(&inner);
        drop(inner);
        self.waker.wake();
    }

    /// Nothing more comes.
    pub(crate) fn end(&self, failed: Option<String>) {
        let mut inner = self.lock();
        if !inner.closed {
            inner.events.push_back(Event::End { failed });
        }
        self.count(&inner);
        drop(inner);
        self.waker.wake();
    }

    /// The next event, for the event loop.
    pub(crate) fn take(&self) -> Option<Event<S>> {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut inner = self.lock();
        let event = inner.events.pop_front()?;
        self.count(&inner);
        match &event {
            Event::Frame { .. } => inner.frames -= 1,
            Event::Packet(_) => inner.packets -= 1,
            Event::State(_) | Event::End { .. } => return Some(event),
        }
        drop(inner);
        self.room.notify_all();
        Some(event)
    }

    /// Takes nothing any more, and lets go of what is in it: so many frames and packets.
    pub(crate) fn close(&self) -> (u64, u64) {
        let mut inner = self.lock();
        inner.closed = true;
        let left = std::mem::take(&mut inner.events);
        let (frames, packets) = (std::mem::take(&mut inner.frames), std::mem::take(&mut inner.packets));
        self.count(&inner);
        drop(inner);
        self.room.notify_all();
        drop(left);
        (frames as u64, packets as u64)
    }
}
