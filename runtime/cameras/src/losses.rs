//! The losses of a camera: each is counted; the log has the first of each cause.

use millrace_ingest::{Counted, Loss};
use millrace_node::Metrics;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(crate) struct Losses {
    pub(crate) camera: String,
    pub(crate) metrics: Metrics,
    logged: Mutex<BTreeSet<&'static str>>,
    /// The presentation time that the decoder was last fed, of a file; `i64::MIN` before there is one.
    reached_ns: AtomicI64,
}

impl Losses {
    pub(crate) fn new(camera: &str, metrics: &Metrics) -> Self {
        Self {
            camera: camera.to_owned(),
            metrics: metrics.clone(),
            logged: Mutex::default(),
            reached_ns: AtomicI64::new(i64::MIN),
        }
    }

    /// The decoder is fed the picture of this time, of a file: what is lost from now on is lost near it.
    pub(crate) fn reached(&self, pts_ns: i64) {
        self.reached_ns.store(pts_ns, Ordering::Relaxed);
    }

    pub(crate) fn report(&self, loss: &Loss) {
        self.add(loss.cause, loss.count, &loss.detail);
    }

    /// Counts what is worth a counter and loses nothing.
    pub(crate) fn counted(&self, what: &Counted) {
        let Counted { name, count, detail } = what;
        self.metrics.count(name, &self.camera, *count);
        self.log(name, *count, detail);
    }

    pub(crate) fn add(&self, cause: &'static str, count: u64, detail: &str) {
        let why = match self.reached_ns.load(Ordering::Relaxed) {
            i64::MIN => detail.to_owned(),
            ns => format!("{detail}, near {:.2} s", ns as f64 / 1e9),
        };
        self.metrics.drop_because(cause, &self.camera, count, &why);
        self.log(cause, count, detail);
    }

    fn log(&self, cause: &'static str, count: u64, detail: &str) {
        if self.logged.lock().unwrap_or_else(PoisonError::into_inner).insert(cause) {
            tracing::warn!(camera = self.camera, cause, count, "{detail} (logged once; the counter has the rest)");
        } else {
            tracing::debug!(camera = self.camera, cause, count, "{detail}");
        }
    }
}
