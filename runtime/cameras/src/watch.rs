//! A cameras file that may change: read at the start, and again whenever it is another.
//!
//! A thread of its own looks after it, since a file may be on a network that hangs. Editors write a file in pieces, or put
//! another in its place: it is read when two looks in a row have seen the same new file.

use crate::camera_run::lock;
use crate::config::Config;
use crate::reach::readable;
use millrace_cuda::Waker;
use millrace_graph::cameras::{Choice, read};
use millrace_graph::fault::Report;
use millrace_node::StopFlag;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What came of reading a cameras file: the cameras that are chosen, or the report of all that is wrong with it.
pub(crate) type Found = Result<Vec<Config>, Refused>;

/// Why a cameras file is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) faults: usize,
    pub(crate) report: String,
}

/// Reads a cameras file.
pub(crate) fn load(path: &str, choice: &Choice) -> Found {
    let unread = |what: String| Refused { faults: 1, report: format!("{path}: {what}\n") };
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        // a pipe would keep the reader waiting
        return Err(unread("the cameras file is no regular file".to_owned()));
    }
    readable(Path::new(path)).map_err(unread)?;
    let bytes = std::fs::read(path).map_err(|e| {
        unread(format!("the cameras file cannot be read: {e}; CAMERAS names it, from the folder of the graph"))
    })?;
    let text = String::from_utf8(bytes).map_err(|_| unread("a byte that is not UTF-8: this is not a text".into()))?;
    let mut report = Report::new(path, &text);
    match read(&text, 0, &mut report) {
        Some(cameras) => {
            let warnings = report.warnings();
            if !warnings.is_empty() {
                tracing::warn!("{}", warnings.trim_end());
            }
            Ok(cameras.chosen(choice).map(Config::of).collect())
        }
        None => {
            Err(Refused { faults: report.count(millrace_graph::fault::Severity::Error), report: report.text(false) })
        }
    }
}

/// Which file is there, as far as a look tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

fn version(path: &str) -> Option<Version> {
    let meta = std::fs::metadata(path).ok()?;
    let modified = (meta.mtime(), meta.mtime_nsec());
    Some(Version { device: meta.dev(), inode: meta.ino(), bytes: meta.size(), modified })
}

/// The watch over a file. It ends when it is dropped.
pub(crate) struct Watch {
    found: Arc<Mutex<Option<Found>>>,
    gone: Arc<AtomicBool>,
    path: String,
}

impl Watch {
    /// Reads the file now, and looks after it from here on.
    pub(crate) fn start(path: &str, choice: &Choice, waker: Waker, stop: StopFlag) -> Result<(Self, Found), String> {
        // before the reading: a change in between is one
        let seen = version(path);
        let found = load(path, choice);
        let watch = Self { found: Arc::default(), gone: Arc::default(), path: path.to_owned() };
        let (slot, gone) = (watch.found.clone(), watch.gone.clone());
        let (path, choice) = (path.to_owned(), choice.clone());
        let look_after = move || {
            let (mut read, mut last) = (seen, seen);
            while !gone.load(Ordering::Relaxed) && !stop.is_set() {
                std::thread::sleep(LOOK);
                let now = version(&path);
                if now != read && now == last {
                    read = now;
                    *lock(&slot) = Some(load(&path, &choice));
                    waker.wake();
                }
                last = now;
            }
        };
        let thread =
            std::thread::Builder::new().name("cameras file".into()).spawn(millrace_node::logging_here(look_after));
        thread.map_err(|e| format!("no thread to look after the cameras file: {e}"))?;
        Ok((watch, found))
    }

    /// What the file says since the last call, where it has changed.
    pub(crate) fn changed(&self) -> Option<Found> {
        lock(&self.found).take()
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}
