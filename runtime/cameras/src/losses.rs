//! The losses of a camera: each is counted; the log has the first of each cause.

use millrace_ingest::Loss;
use millrace_node::Metrics;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(crate) struct Losses {
    pub(crate) camera: String,
    pub(crate) metrics: Metrics,
    logged: Mutex<BTreeSet<&'static str>>,
}

impl Losses {
    pub(crate) fn new(camera: &str, metrics: &Metrics) -> Self {
        Self { camera: camera.to_owned(), metrics: metrics.clone(), logged: Mutex::default() }
    }

    pub(crate) fn report(&self, loss: &Loss) {
        self.add(loss.cause, loss.count, &loss.detail);
    }

    pub(crate) fn add(&self, cause: &'static str, count: u64, detail: &str) {
        self.metrics.drop(cause, &self.camera, count);
        if self.logged.lock().unwrap_or_else(PoisonError::into_inner).insert(cause) {
            tracing::warn!(camera = self.camera, cause, count, "{detail}; further losses of this cause are counted only");
        } else {
            tracing::debug!(camera = self.camera, cause, count, "{detail}");
        }
    }
}
