//! What the threads of a camera and the event loop share.

use crate::config::Config;
use crate::counters::CameraCounters;
use crate::queue::Queue;
use crate::timeline::Timeline;
use crate::{Backend, CameraSettings};
use millrace_frame::monotonic_ns;
use millrace_node::StopFlag;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a sleeping thread lets a stop go unnoticed.
pub(crate) const LISTEN: Duration = Duration::from_millis(50);

/// One run of a camera's threads. A camera whose source changes gets a new run.
pub(crate) struct CameraRun<B: Backend> {
    pub(crate) config: Config,
    pub(crate) settings: CameraSettings,
    pub(crate) backend: Arc<B>,
    pub(crate) workspace: Arc<B::Workspace>,
    pub(crate) queue: Queue<B::Surface>,
    pub(crate) counters: Arc<CameraCounters>,
    pub(crate) timeline: Arc<Timeline>,
    /// Somebody reads the packets.
    pub(crate) packets: bool,
    /// When the decoder was called, and when the mapping was.
    pub(crate) decoding: Busy,
    pub(crate) mapping: Busy,
    target_fps: AtomicU64,
    gone: AtomicBool,
    stop: StopFlag,
}

impl<B: Backend> CameraRun<B> {
    #[allow(clippy::too_many_arguments, reason = "each is a part of what two threads share")]
    pub(crate) fn new(
        config: Config,
        settings: CameraSettings,
        backend: Arc<B>,
        workspace: Arc<B::Workspace>,
        queue: Queue<B::Surface>,
        (counters, timeline): (Arc<CameraCounters>, Arc<Timeline>),
        packets: bool,
        stop: StopFlag,
    ) -> Self {
        let camera_run = Self {
            settings,
            backend,
            workspace,
            queue,
            counters,
            timeline,
            packets,
            decoding: Busy::default(),
            mapping: Busy::default(),
            target_fps: AtomicU64::default(),
            gone: AtomicBool::default(),
            stop,
            config,
        };
        camera_run.set_target_fps(camera_run.config.target_fps);
        camera_run
    }

    /// The threads have nothing to do any more: the camera is gone, or the node is about to be.
    pub(crate) fn is_over(&self) -> bool {
        self.gone.load(Ordering::Relaxed) || self.stop.is_set()
    }

    /// Ends the threads at their next look.
    pub(crate) fn close(&self) {
        self.gone.store(true, Ordering::Relaxed);
        let (frames, packets) = self.queue.close();
        self.counters.stopped(frames);
        self.counters.stopped_packets(packets);
    }

    pub(crate) fn set_target_fps(&self, fps: Option<f64>) {
        self.target_fps.store(fps.unwrap_or(0.0).to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn target_fps(&self) -> Option<f64> {
        Some(f64::from_bits(self.target_fps.load(Ordering::Relaxed))).filter(|fps| *fps > 0.0)
    }

    /// Sleeps, and wakes when the camera is over.
    pub(crate) fn sleep(&self, wait: Duration) {
        let until = std::time::Instant::now() + wait;
        while !self.is_over() {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LISTEN));
        }
    }
}

/// Since when a thread has been inside a call that may not come back.
#[derive(Debug, Default)]
pub(crate) struct Busy(AtomicI64);

impl Busy {
    pub(crate) fn enter(&self) {
        self.0.store(monotonic_ns(), Ordering::Relaxed);
    }

    pub(crate) fn leave(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How long it has been; nothing where it is not.
    pub(crate) fn elapsed(&self) -> Duration {
        match self.0.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since_ns => Duration::from_nanos(monotonic_ns().saturating_sub(since_ns).max(0) as u64),
        }
    }
}

/// Runs what others wrote so that a panic in it ends this call alone.
pub(crate) fn contained<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message").to_owned()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
