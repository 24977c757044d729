//! What waits to be sent, and the thread that sends it. A put can take seconds when a subscriber stalls; the node's own
//! thread waits only where RELIABLE asks for it, and never without an end.

use millrace_frame::CameraStatus;
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest that RELIABLE waits for room. zenoh gives a stalled subscriber up sooner, so this is for what it overlooks.
const WAIT_MOST: Duration = Duration::from_secs(10);

/// How long the thread may take to close the session.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// One frame in its encodings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    /// Camera id.
    pub(crate) source: Arc<str>,
    /// `(encoding, bytes)`.
    pub(crate) payloads: Vec<(&'static str, Vec<u8>)>,
}

/// Where puts go.
pub(crate) trait Sink {
    /// Sends one frame; may block.
    fn put(&mut self, put: Put) -> Result<(), String>;

    /// Publishes a camera's state; may block.
    fn state(&mut self, status: &CameraStatus) -> Result<(), String>;
}

/// A frame that was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Its camera.
    pub(crate) source: Arc<str>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Put>,
    /// The newest state of each camera that has not been published: it goes before all frames.
    states: BTreeMap<String, CameraStatus>,
    closed: bool,
}

/// The queue that the node and the sending thread share.
#[derive(Debug)]
struct SharedQueue {
    state: Mutex<State>,
    changed: Condvar,
}

impl SharedQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queue and its thread.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Arc<SharedQueue>,
    capacity: usize,
    wait_most: Duration,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
}

impl Outbox {
    /// Starts the thread. `open` makes the sink on it; its failure is returned, and so is its taking longer than `within`.
    /// `failed` hears of each put that the sink refused.
    pub(crate) fn start<S: Sink>(
        capacity: usize,
        reliable: bool,
        within: Duration,
        open: impl FnOnce() -> Result<S, String> + Send + 'static,
        failed: impl Fn(&str, &str) + Send + 'static,
    ) -> Result<Self, String> {
        let queue = Arc::new(SharedQueue { state: Mutex::default(), changed: Condvar::new() });
        let (opened, is_open) = sync_channel(1);
        let (alive, ended) = sync_channel::<()>(1);
        let theirs = queue.clone();
        std::thread::Builder::new()
            .name("zenoh-out".into())
            .spawn(move || {
                let _alive = alive;
                match open() {
                    Ok(sink) => {
                        let _ = opened.send(Ok(()));
                        send_all(&theirs, sink, failed);
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
            })
            .map_err(|e| format!("cannot start the sending thread: {e}"))?;
        match is_open.recv_timeout(within) {
            Ok(result) => result?,
            Err(_) => return Err(format!("the session did not open within {} s", within.as_secs())),
        }
        let wait_most = if reliable { WAIT_MOST } else { Duration::ZERO };
        Ok(Self { queue, capacity: capacity.max(1), wait_most, ended })
    }

    /// Hands a frame over. Returns the frame that had to go for it: the oldest that waits, or with RELIABLE this one,
    /// when no room came in time or `stopping` says that nobody should wait any more.
    pub(crate) fn push(&self, put: Put, stopping: impl Fn() -> bool) -> Option<Lost> {
        let deadline = Instant::now() + self.wait_most;
        let mut state = self.queue.lock();
        let mut lost = None;
        while state.waiting.len() >= self.capacity {
            if self.wait_most.is_zero() {
                lost = state.waiting.pop_front().map(|old| Lost { source: old.source });
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stopping() {
                return Some(Lost { source: put.source });
            }
            // in steps, to see a stop
            let step = left.min(Duration::from_millis(100));
            state = self.queue.changed.wait_timeout(state, step).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting.push_back(put);
        self.queue.changed.notify_all();
        lost
    }

    /// Hands a camera's state over, in place of an older one that still waits.
    pub(crate) fn push_state(&self, status: &CameraStatus) {
        self.queue.lock().states.insert(status.source.clone(), status.clone());
        self.queue.changed.notify_all();
    }

    /// Sends what still waits, for `within` at most. Returns the cameras of the frames that were not sent.
    pub(crate) fn finish(&self, within: Duration) -> Vec<Lost> {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
        match self.ended.recv_timeout(within) {
            // a thread that is stuck in a put ends with the process
            Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.queue.lock().waiting.drain(..).map(|put| Lost { source: put.source }).collect()
    }
}

impl Drop for Outbox {
    /// A node that is asked to stop sends no more. The session is to be closed when the node is gone: its port is waited for.
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.waiting.clear();
        state.states.clear();
        drop(state);
        self.finish(LEAVE_WITHIN);
    }
}

#[cfg(test)]
impl Outbox {
    /// The thread has taken everything that was pushed.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.lock().waiting.is_empty()
    }
}

/// What the sending thread sends next.
enum QueuedItem {
    State(CameraStatus),
    Frame(Put),
}

fn send_all(queue: &SharedQueue, mut sink: impl Sink, failed: impl Fn(&str, &str)) {
    loop {
        let next = {
            let mut state = queue.lock();
            loop {
                if let Some((_, status)) = state.states.pop_first() {
                    break QueuedItem::State(status);
                }
                if let Some(put) = state.waiting.pop_front() {
                    break QueuedItem::Frame(put);
                }
                if state.closed {
                    return;
                }
                state = queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        };
        queue.changed.notify_all();
        match next {
            // a state is no frame: it is not counted as one that was lost
            QueuedItem::State(status) => {
                if let Err(error) = sink.state(&status) {
                    tracing::warn!("the state of camera '{}' could not be put: {error}", status.source);
                }
            }
            QueuedItem::Frame(put) => {
                let source = put.source.clone();
                if let Err(error) = sink.put(put) {
                    failed(&source, &error);
                }
            }
        }
    }
}
