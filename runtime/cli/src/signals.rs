//! Requests to stop, by signals.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

/// Requests to stop, counted.
pub(crate) struct Signals {
    count: Arc<AtomicUsize>,
    first: Arc<AtomicI32>,
}

impl Signals {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let this = Self { count: Arc::default(), first: Arc::default() };
        let (count, first) = (Arc::clone(&this.count), Arc::clone(&this.first));
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        std::thread::spawn(move || {
            for signal in signals.forever() {
                let _ = first.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(this)
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The first one was SIGTERM: a service manager or `millrace stop`, for which an orderly end is a success.
    pub(crate) fn is_term(&self) -> bool {
        self.first.load(Ordering::SeqCst) == SIGTERM
    }
}
