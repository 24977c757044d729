//! Log lines to standard error, where dora collects them. Without a subscriber dora's own warnings would vanish.
//!
//! In a process of several nodes each has a subscriber of its own, for its threads, which writes to the standard error of
//! the process that dora started for the node. Lines of other threads go to the process's own.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tracing::Dispatch;
use tracing::dispatcher::{self, DefaultGuard};
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::EnvFilter;

/// Puts another filter into a subscriber, and says why where it cannot.
type Reload = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

static RELOAD: OnceLock<Reload> = OnceLock::new();

thread_local! {
    /// In the event loop's thread of a node that shares its process: of its subscriber.
    static OWN_RELOAD: RefCell<Option<Reload>> = const { RefCell::new(None) };
}

/// Installs the subscriber: `RUST_LOG` decides, and otherwise `level` for Millrace and warnings for everything else.
pub fn install(level: &str) {
    install_with(ours(level));
}

/// The same for a process of several nodes. dora and zenoh warn there of direct connections, which no node needs.
pub(crate) fn install_for_several() {
    install_with(format!("{},zenoh=error,dora_core=error", ours("info")));
}

fn install_with(usual: String) {
    if OWN_RELOAD.with_borrow(Option::is_some) {
        // refused only where RUST_LOG decides, which the subscriber has then
        let _ = change_to(&usual);
        return;
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&asked().unwrap_or(usual)))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_filter_reloading();
    let handle = builder.reload_handle();
    if builder.try_init().is_ok() {
        // the one subscriber of the process has the one handle
        let _ = RELOAD.set(Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string())));
    }
}

/// From now on, lines of this thread go to `sink`, until what is returned is dropped.
pub(crate) fn to(sink: Sink) -> Own {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&asked().unwrap_or_else(|| ours("info"))))
        .with_writer(move || sink.clone())
        .with_ansi(false)
        .without_time()
        .with_filter_reloading();
    let handle = builder.reload_handle();
    OWN_RELOAD.set(Some(Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()))));
    Own { _guard: dispatcher::set_default(&Dispatch::new(builder.finish())) }
}

/// While it is there, lines of its thread go to a file of their own.
pub(crate) struct Own {
    _guard: DefaultGuard,
}

impl Drop for Own {
    fn drop(&mut self) {
        OWN_RELOAD.set(None);
    }
}

/// A node's standard error, while the node runs. dora waits until nobody has it open, and a thread of the node's may last
/// longer than the node.
#[derive(Clone, Debug)]
pub(crate) struct Sink(Arc<Mutex<Option<File>>>);

impl Sink {
    pub(crate) fn new(file: File) -> Self {
        Self(Arc::new(Mutex::new(Some(file))))
    }

    /// Lets go of it. Lines that come later go to this process's own.
    pub(crate) fn close(&self) {
        self.file().take();
    }

    fn file(&self) -> MutexGuard<'_, Option<File>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl io::Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file().as_mut().map_or_else(|| io::stderr().write(line), |file| file.write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Work for another thread, whose log lines go where those of this thread go.
pub fn logging_here<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let log = dispatcher::get_default(Dispatch::clone);
    move || if log.is::<NoSubscriber>() { work() } else { dispatcher::with_default(&log, work) }
}

/// Another level, while the node runs.
pub(crate) fn change(level: &str) -> Result<(), String> {
    change_to(&ours(level))
}

fn change_to(text: &str) -> Result<(), String> {
    if asked().is_some() {
        return Err("RUST_LOG is set for this node and decides instead".to_owned());
    }
    let reload = |reload: &Reload| reload(filter(text));
    OWN_RELOAD.with_borrow(|own| own.as_ref().or(RELOAD.get()).map_or(Ok(()), reload))
}

fn asked() -> Option<String> {
    std::env::var("RUST_LOG").ok().filter(|v| !v.is_empty())
}

fn filter(text: &str) -> EnvFilter {
    EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new("warn"))
}

fn ours(level: &str) -> String {
    const CRATES: [&str; 21] = [
        "millrace_node",
        "millrace_pool",
        "millrace_cuda",
        "millrace_ingest",
        "millrace_cameras",
        "millrace_detect",
        "millrace_infer",
        "millrace_kernels",
        "sw_nv12",
        "nvdec_nv12",
        "nv12_to_rgb",
        "cpu_infer",
        "ort_infer",
        "trt_infer",
        "ws_publisher",
        "zenoh_publisher",
        "jsonl_writer",
        "frame_checksum",
        "ab_sink",
        "tensor_compare",
        "frame_picture",
    ];
    format!("warn,{}", CRATES.map(|name| format!("{name}={level}")).join(","))
}
