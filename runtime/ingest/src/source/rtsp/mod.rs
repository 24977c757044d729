//! RTSP cameras. All cameras of a process are received by one network runtime; each has a task that connects, receives
//! and connects again, and a bounded queue to the thread that decodes it.

mod assembler;
mod camera;
mod clock;
mod connection;
mod control;
mod depacketizer;
#[cfg(fuzzing)]
pub mod fuzzing;
mod sdp;
mod sorter;
mod stranger;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod udp;

use super::{Source, SourceEvent, network};
use crate::source::address::{Address, BadUrl};
use crate::source::queue::{Bounds, Queue};
use crate::{IngestError, IngestOptions};
use camera::{Camera, Limits};
use connection::Sessions;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a call waits for a picture before it lets the node look after other things.
const PATIENCE: Duration = Duration::from_millis(20);

/// Whether `text` is an RTSP URL, or what is wrong with it.
pub(super) fn check_url(text: &str) -> Result<(), String> {
    Address::parse(text, "rtsp").map(|_| ()).map_err(|BadUrl { reason, fix }| format!("{reason}; {fix}"))
}

pub(crate) struct Rtsp {
    queue: Arc<Queue>,
    stop: Arc<Notify>,
    /// Ends with the camera's task.
    task: Receiver<()>,
}

impl Rtsp {
    pub(crate) fn open(url: &str, options: &IngestOptions) -> Result<Self, IngestError> {
        let defaults = Limits::default();
        let limits = Limits { stall: options.stall_timeout.unwrap_or(defaults.stall), ..defaults };
        Self::open_with(url, options, limits, Bounds::default())
    }

    fn open_with(url: &str, options: &IngestOptions, limits: Limits, bounds: Bounds) -> Result<Self, IngestError> {
        let fault = |reason: String, fix| IngestError::Camera { url: crate::redact_url(url), reason, fix };
        let address = Address::parse(url, "rtsp").map_err(|BadUrl { reason, fix }| fault(reason, fix))?;
        let runtime = network::handle().map_err(|e| {
            fault(format!("cannot start the network runtime: {e}"), "raise the limits on threads and open files")
        })?;
        let queue = Arc::new(Queue::new(bounds));
        let stop = Arc::new(Notify::new());
        let (ended, task) = sync_channel(1);
        let sessions = Sessions::default();
        let mut camera = Camera::new(address, options.rtsp_transport, limits, queue.clone(), sessions.clone());
        let stopped = stop.clone();
        runtime.spawn(async move {
            tokio::select! {
                () = stopped.notified() => {}
                () = camera.keep_playing() => {}
            }
            camera.finish();
            // The session is told to end when it is dropped. A camera that is not told goes on sending datagrams.
            let _ = tokio::time::timeout(network::FAREWELL, sessions.have_ended()).await;
            drop(ended);
        });
        Ok(Self { queue, stop, task })
    }
}

impl Source for Rtsp {
    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        Ok(self.queue.next(PATIENCE).unwrap_or(SourceEvent::Wait(Duration::ZERO)))
    }

    /// The task puts what it had begun into the queue first, and says farewell to the camera then.
    fn close(&mut self) -> Vec<SourceEvent> {
        self.stop.notify_one();
        network::farewell(|allowed| match self.task.recv_timeout(allowed) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => tracing::debug!("a camera does not answer to the end of its session"),
        });
        std::iter::from_fn(|| self.queue.next(Duration::ZERO)).collect()
    }
}

impl Drop for Rtsp {
    fn drop(&mut self) {
        self.close();
    }
}
