//! Pictures from decoded frames, encoded by a thread of their own: that needs longer than the node's thread may be held up.

use crate::config::Settings;
use crate::hub::Hub;
use crate::jpeg;
use millrace_frame::Payload;
use millrace_node::{FrameLease, Metrics, NodeError};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Chooses the frames that become pictures, and hands them to the thread.
pub(crate) struct Pictures {
    frames: SyncSender<FrameLease>,
    /// `None`: there are none.
    every: Option<Duration>,
    /// The thread reads it before each picture.
    quality: Arc<AtomicU8>,
    /// When each camera's next picture may be.
    due: HashMap<String, Instant>,
    metrics: Metrics,
}

impl Pictures {
    /// Starts the thread, which ends when this is dropped.
    pub(crate) fn start(settings: &Settings, hub: Arc<Hub>, metrics: Metrics) -> Result<Self, NodeError> {
        let quality = Arc::new(AtomicU8::new(settings.jpeg_quality));
        let (frames, from) = sync_channel(1);
        let (counts, of_thread) = (metrics.clone(), quality.clone());
        std::thread::Builder::new()
            .name("jpeg".into())
            .spawn(move || encode_all(&from, &hub, &counts, &of_thread))
            .map_err(|e| NodeError::fatal(format!("cannot start the JPEG thread: {e}")))?;
        Ok(Self { frames, every: settings.jpeg_every(), quality, due: HashMap::new(), metrics })
    }

    /// From the next frame of each camera on, these settings count.
    pub(crate) fn change(&mut self, settings: &Settings) {
        self.every = settings.jpeg_every();
        // what is due follows from the rate before
        self.due.clear();
        self.quality.store(settings.jpeg_quality, Ordering::Relaxed);
    }

    /// Hands a frame to the thread, where somebody wants it, the rate allows it and the thread is free.
    pub(crate) fn offer(&mut self, lease: FrameLease, hub: &Hub) {
        let Some(every) = self.every else { return };
        let (source, now) = (&lease.item().source, Instant::now());
        if !hub.jpeg_wanted(source) || self.due.get(source).is_some_and(|&due| now < due) {
            return;
        }
        self.due.insert(source.clone(), now + every);
        if let Err(TrySendError::Full(lease)) = self.frames.try_send(lease) {
            self.metrics.count("jpeg_busy", &lease.item().source, 1);
        }
    }
}

fn encode_all(frames: &Receiver<FrameLease>, hub: &Hub, metrics: &Metrics, quality: &AtomicU8) {
    for lease in frames {
        let item = lease.item();
        let Payload::Image(image) = &item.payload else { continue };
        let quality = quality.load(Ordering::Relaxed);
        let sent = jpeg::encode(image, lease.bytes(), quality).map_err(|e| e.to_string()).and_then(|data| {
            hub.jpeg(&item.source, item.timing.pts_ns, image.display_size(), &data).map_err(|e| e.to_string())
        });
        match sent {
            Ok(_) => metrics.count("jpegs", &item.source, 1),
            Err(error) => {
                tracing::debug!(source = item.source, error, "no JPEG of a frame");
                metrics.drop("jpeg_failed", &item.source, 1);
            }
        }
    }
}
