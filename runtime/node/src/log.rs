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

/// The nodes that this process runs. Each is also the name of a crate.
static NODES: OnceLock<Vec<String>> = OnceLock::new();

thread_local! {
    /// In the event loop's thread of a node that shares its process: of its subscriber.
    static OWN_RELOAD: RefCell<Option<Reload>> = const { RefCell::new(None) };
}

/// Sets the nodes that this process runs, before a subscriber is installed. A second call changes nothing.
pub(crate) fn of_nodes<'a>(names: impl Iterator<Item = &'a str>) {
    let _ = NODES.set(names.map(str::to_owned).collect());
}

/// Installs the subscriber in a program that runs no node, for the lines of Millrace and of the crate `program`.
pub fn log_to_stderr(program: &str, level: &str) {
    of_nodes(std::iter::once(program));
    install(level);
}

/// Installs the subscriber: `RUST_LOG` decides, and otherwise `level` for Millrace and the nodes of this process, and warnings
/// for everything else.
pub(crate) fn install(level: &str) {
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

/// Lines of Millrace's own crates, whose names begin alike, and of the nodes that this process runs; of other crates warnings.
fn ours(level: &str) -> String {
    of_crates(level, NODES.get().map_or(&[], Vec::as_slice))
}

fn of_crates(level: &str, nodes: &[String]) -> String {
    let nodes: String = nodes.iter().map(|node| format!(",{}={level}", node.replace('-', "_"))).collect();
    format!("warn,millrace={level}{nodes}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn lines_of_the_nodes_of_the_process_are_kept_wherever_they_are_from() {
        let mut file = tempfile::tempfile().unwrap();
        let to = file.try_clone().unwrap();
        let nodes = ["class-filter".to_owned(), "other".to_owned()];
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter(&of_crates("info", &nodes)))
            .with_writer(move || to.try_clone().unwrap())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "class_filter", "first");
            tracing::info!(target: "other::part", "second");
            tracing::info!(target: "millrace_pool::producer", "third");
            tracing::warn!(target: "zenoh::net", "fourth");
            tracing::info!(target: "zenoh::net", "kept out");
            tracing::debug!(target: "class_filter", "kept out");
        });
        file.flush().unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        let words: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        assert_eq!(words, ["first", "second", "third", "fourth"], "{text}");
    }
}
