//! Cameras that send JPEG pictures over HTTP (`multipart/x-mixed-replace`). As with RTSP, each has a task on the network
//! runtime that connects, receives and connects again, and a bounded queue to the thread that decodes it.

mod camera;
mod request;

use super::address::{Address, BadUrl};
use super::queue::{Bounds, Queue};
use super::{Source, SourceEvent, network};
use crate::{IngestError, IngestOptions};
use camera::{Camera, Limits};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long a call waits for a picture before it lets the node look after other things.
const PATIENCE: Duration = Duration::from_millis(20);

/// Whether `text` is an HTTP URL, or what is wrong with it.
pub(super) fn check_url(text: &str) -> Result<(), String> {
    Address::parse(text, "http").map(|_| ()).map_err(|BadUrl { reason, fix }| format!("{reason}; {fix}"))
}

pub(super) struct Http {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

impl Http {
    pub(super) fn open(url: &str, options: &IngestOptions) -> Result<Self, IngestError> {
        let fault = |reason: String, fix| IngestError::Camera { url: crate::redact_url(url), reason, fix };
        let address = Address::parse(url, "http").map_err(|BadUrl { reason, fix }| fault(reason, fix))?;
        let runtime = network::handle().map_err(|e| {
            fault(format!("cannot start the network runtime: {e}"), "raise the limits on threads and open files")
        })?;
        let defaults = Limits::default();
        let limits = Limits { stall: options.stall_timeout.unwrap_or(defaults.stall), ..defaults };
        let queue = Arc::new(Queue::new(Bounds::default()));
        let mut camera = Camera::new(address, limits, queue.clone());
        let task = runtime.spawn(async move { camera.keep_playing().await });
        Ok(Self { queue, task })
    }
}

impl Source for Http {
    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        Ok(self.queue.next(PATIENCE).unwrap_or(SourceEvent::Wait(Duration::ZERO)))
    }

    fn close(&mut self) -> Vec<SourceEvent> {
        self.task.abort();
        std::iter::from_fn(|| self.queue.next(Duration::ZERO)).collect()
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.task.abort();
    }
}
