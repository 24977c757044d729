//! Frames on a GPU: what a node queues its work in, and how the harness orders that work with other processes'.
//!
//! No thread waits for the GPU. A publication carries an event; the consumer's stream waits for it. What a node must keep
//! until its work is done (leases, surfaces) it hands to [`Outputs::hold`](crate::Outputs::hold).

use crate::{Context, NodeError};
use millrace_cuda::{CudaError, Event, Gpu, Stream, Waker};
use millrace_pool::{Bell, MemorySpec, Share};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Settings of every node that works on a GPU, to be flattened into its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub struct GpuSettings {
    /// When a frame is published: with its work queued and an event to wait for (`device`), or after this process has
    /// waited for the work (`host`, the slower arm of a comparison).
    #[serde(default)]
    #[schemars(extend("x-millrace-live" = true))]
    pub sync: SyncMode,
    /// How other processes open this node's frames on a GPU: by IPC handles, or by file descriptors on systems without
    /// IPC handles (`millrace doctor` shows which a system has).
    #[serde(default)]
    pub share: ShareSetting,
}

/// Who waits for the GPU work that produces a frame: the setting `SYNC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// The consumer's stream.
    #[default]
    Device,
    /// This process, before it publishes.
    Host,
}

/// How a GPU's memory is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShareSetting {
    /// Legacy CUDA IPC.
    #[default]
    Ipc,
    /// Descriptors of the driver's virtual memory management.
    Descriptor,
}

/// A stream of a node's own on a GPU. A node has one for each independent sequence of work.
#[derive(Debug)]
pub struct Queue {
    stream: Stream,
    share: ShareSetting,
    /// `SYNC: host`, while it is so.
    sync: Arc<AtomicBool>,
}

impl Queue {
    /// A queue on `gpu`.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn new(gpu: &Gpu, settings: GpuSettings, cx: &Context) -> Result<Self, NodeError> {
        cx.set_sync(settings.sync);
        Self::synced_by(gpu, settings.share, cx.sync.clone())
    }

    pub(crate) fn synced_by(gpu: &Gpu, share: ShareSetting, sync: Arc<AtomicBool>) -> Result<Self, NodeError> {
        Ok(Self { stream: Stream::new(gpu).map_err(NodeError::fatal)?, share, sync })
    }

    /// Its stream.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Its device.
    pub fn gpu(&self) -> &Gpu {
        self.stream.gpu()
    }

    pub(crate) fn memory(&self) -> MemorySpec {
        let share = match self.share {
            ShareSetting::Ipc => Share::Ipc,
            ShareSetting::Descriptor => Share::Descriptor,
        };
        MemorySpec::Cuda(self.gpu().clone(), share)
    }

    pub(crate) fn sync(&self) -> SyncMode {
        if self.sync.load(Ordering::Relaxed) { SyncMode::Host } else { SyncMode::Device }
    }
}

/// How often the event loop checks whether the GPU work is done. A copy or a kernel is shorter than this.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// Objects that have to stay alive until the GPU work that uses them is done, such as leases and mapped surfaces.
#[derive(Default)]
pub(crate) struct GpuKeepAlive {
    entries: Vec<(Event, Instant, Box<dyn Send>)>,
    spare: Vec<Event>,
}

impl GpuKeepAlive {
    pub(crate) fn hold(&mut self, keep: Box<dyn Send>, queue: &Queue) -> Result<(), CudaError> {
        let event = match self.spare.pop() {
            Some(event) => event,
            None => Event::new(queue.gpu())?,
        };
        queue.stream.record(&event)?;
        self.entries.push((event, Instant::now(), keep));
        Ok(())
    }

    /// Since when the oldest object is kept.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.entries.first().map(|(_, since, _)| *since)
    }

    /// How long the event loop may sleep. A call back by the driver would cost the host more than a look from time to time:
    /// the driver's own thread would be woken first, for each frame.
    pub(crate) fn next_look(&self) -> Duration {
        if self.entries.is_empty() { Duration::MAX } else { LOOK_AGAIN }
    }

    /// Lets go of what is done. Each look costs a call of the driver, so it ends after some events that are not done: what
    /// was queued behind them is hardly done earlier.
    pub(crate) fn settle(&mut self) -> Result<(), CudaError> {
        const MISSES: usize = 8;
        let mut at = 0;
        while at < self.entries.len().min(MISSES) {
            if self.entries[at].0.is_done()? {
                self.spare.push(self.entries.remove(at).0);
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// Waits until everything is done, and lets go of it.
    pub(crate) fn finish(&mut self) -> Result<(), CudaError> {
        for (event, _, keep) in self.entries.drain(..) {
            event.synchronize()?;
            drop(keep);
        }
        Ok(())
    }
}

impl Drop for GpuKeepAlive {
    /// A lease must not go back while the GPU still reads its slot.
    fn drop(&mut self) {
        if let Err(e) = self.finish() {
            tracing::debug!("{e}");
        }
    }
}

/// Wakes the loop that sleeps on `bell`, in this thread.
pub(crate) fn waker(bell: &Bell, thread: Thread) -> Waker {
    let bell = bell.clone();
    Waker::new(move || {
        bell.ring();
        thread.unpark();
    })
}
