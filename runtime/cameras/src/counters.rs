//! The counters of a camera. The pictures received are the sum of those that were published, lost (by cause), left out on
//! purpose, and not through yet. Each of these is counted. The log has the first loss of each cause.

use millrace_ingest::{CAMERA_STOPPED, Counted, FRAME_RATE_IGNORED, Loss, LossOf};
use millrace_node::Metrics;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts the pictures of one camera, and logs the first loss of each cause.
#[derive(Debug)]
pub(crate) struct CameraCounters {
    pub(crate) camera: String,
    pub(crate) metrics: Metrics,
    logged: Mutex<BTreeSet<&'static str>>,
    /// The presentation time that the decoder was last fed, of a file; `i64::MIN` before there is one.
    reached_ns: AtomicI64,
}

impl CameraCounters {
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

    /// The source gave so many pictures, or had received them and lost them itself.
    pub(crate) fn received(&self, pictures: u64) {
        if pictures > 0 {
            self.metrics.count("received", &self.camera, pictures);
        }
    }

    /// A loss of the source: what it lost it had received.
    pub(crate) fn of_source(&self, loss: &Loss) {
        self.received(loss.pictures());
        self.report(loss);
    }

    /// Drops are pictures. What is lost of other things is a counter.
    pub(crate) fn report(&self, loss: &Loss) {
        match loss.of {
            LossOf::LeftOut => self.left_out(loss.cause, loss.count),
            LossOf::Pictures => self.add(loss.cause, loss.count, &loss.detail),
            LossOf::Parts | LossOf::Packets => {
                self.metrics.count_damage(loss.cause, &self.camera, loss.count, &loss.detail);
                self.log(loss.cause, loss.count, &loss.detail);
            }
            // the camera's state says so
            LossOf::Connections => self.metrics.count(loss.cause, &self.camera, loss.count),
        }
    }

    /// Pictures that were on their way when the camera, or the node, was stopped: they are left out, not lost.
    pub(crate) fn stopped(&self, pictures: u64) {
        self.left_out(CAMERA_STOPPED, pictures);
    }

    /// The same for encoded pictures on their way to the port `packet`.
    pub(crate) fn stopped_packets(&self, packets: u64) {
        self.left_out("camera_stopped_packets", packets);
    }

    fn left_out(&self, name: &'static str, count: u64) {
        if count > 0 {
            self.metrics.count(name, &self.camera, count);
        }
    }

    /// Encoded pictures that the port `packet` did not carry. They are in no sum of the pictures.
    pub(crate) fn packets(&self, cause: &'static str, count: u64, detail: &str) {
        if count > 0 {
            self.metrics.drop_port(cause, "packet", &self.camera, count);
            self.log(cause, count, detail);
        }
    }

    /// Counts what is worth a counter and loses nothing.
    pub(crate) fn counted(&self, what: &Counted) {
        let Counted { name, count, detail } = what;
        self.metrics.count(name, &self.camera, *count);
        self.log(name, *count, detail);
        // it concerns all cameras of the node alike
        if *name == FRAME_RATE_IGNORED {
            let text = format!("warning: {detail}");
            if !self.metrics.notes().contains(&text) {
                self.metrics.note(text);
            }
        }
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
        let first = self.logged.lock().unwrap_or_else(PoisonError::into_inner).insert(cause);
        if first {
            tracing::warn!(camera = self.camera, cause, count, "{detail} (logged once; the counter has the rest)");
        } else {
            tracing::debug!(camera = self.camera, cause, count, "{detail}");
        }
    }
}
