//! A camera: its source, its counts, and whether it goes on.

use crate::backend::Backend;
use crate::camera::Losses;
use crate::config::{Settings, Source};
use millrace_ingest::{Feed, redact_url};
use millrace_node::{Context, NodeError};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A camera as the node's loop sees it.
pub(crate) struct One<B: Backend> {
    pub(crate) name: String,
    pub(crate) lane: Arc<B::Lane>,
    pub(crate) losses: Arc<Losses>,
    /// Taken when it starts.
    pub(crate) feed: Option<Feed>,
    pub(crate) frames: u64,
    pub(crate) packets: u64,
    /// As many frames have come out as FRAMES asks for: its threads end.
    pub(crate) enough: Arc<AtomicBool>,
    pub(crate) ended: bool,
    pub(crate) failed: Option<String>,
}

impl<B: Backend> One<B> {
    /// Opens a camera's source. One that cannot be opened has failed, which is the others' business only when all have.
    pub(crate) fn open(source: &Source, settings: &Settings, backend: &B, cx: &Context) -> Result<Self, NodeError> {
        let name = source.camera.clone();
        let losses = Losses { camera: name.clone(), metrics: cx.metrics().clone(), told: Default::default() };
        let lane = backend.lane(cx)?;
        let losses = Arc::new(losses);
        let (frames, packets, feed, enough) = (0, 0, None, Arc::default());
        let mut one = Self { name, lane, losses, feed, frames, packets, enough, ended: false, failed: None };
        match Feed::open(&source.source, &settings.feed) {
            Ok(feed) => {
                tracing::info!(source = redact_url(&source.source), camera = one.name, "opened");
                one.feed = Some(feed);
            }
            Err(e) => one.fail(e.to_string()),
        }
        Ok(one)
    }

    /// Tells that the camera has ended for good, and why.
    pub(crate) fn fail(&mut self, why: String) {
        tracing::error!(camera = self.name, "the camera has ended: {why}");
        self.losses.metrics.drop("camera_failed", &self.name, 1);
        (self.ended, self.failed) = (true, Some(why));
    }
}
