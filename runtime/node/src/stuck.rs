//! Work on a GPU that never ends, since the process that it waits for was killed.
//!
//! An event that was recorded, and is not complete when its process is killed, never completes for other processes, whatever
//! work was before it (seen on an H200, driver 580.159.04). A stream that waits for it makes no progress for ever, and so does every call that waits
//! for the context: freeing memory, closing a handle. Nothing but the end of the process helps, so a thread of its own sees
//! to it, and `restart_policy` brings the node back.

use crate::metrics::Metrics;
use millrace_frame::monotonic_ns;
use rustix::process::{Signal, getpid, kill_process};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// How long work may go on, or the event loop make no progress, behind a producer that has died. Work that ends takes milliseconds.
const LIMIT: Duration = Duration::from_secs(3);
/// Work that waits for a dead producer is queued within this time of its death: frames that wait longer are too old.
const WATCHED: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Since when the node has had work on the GPU that is not done. The event loop sets it each time it turns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unfinished(Arc<AtomicI64>);

impl Unfinished {
    pub(crate) fn since(&self, began: Option<Instant>) {
        let ns = began.map_or(0, |began| (monotonic_ns() - began.elapsed().as_nanos() as i64).max(1));
        self.0.store(ns, Ordering::Relaxed);
    }

    fn age(&self) -> Option<Duration> {
        let ns = self.0.load(Ordering::Relaxed);
        (ns != 0).then(|| Duration::from_nanos((monotonic_ns() - ns).max(0) as u64))
    }
}

/// Producer `from` (`node/output`) of frames on a GPU has died: ends this process where its work does not go on.
/// `last_words` puts the reason where the node's failures are seen.
pub(crate) fn watch(
    from: String,
    unfinished: Unfinished,
    metrics: Metrics,
    last_words: impl FnOnce(&str) + Send + 'static,
) {
    let began = Instant::now();
    let run = crate::log::logging_here(move || {
        while began.elapsed() < WATCHED {
            std::thread::sleep(LOOK);
            if let Some(what) = stands_still(began.elapsed(), unfinished.age(), metrics.loop_age()) {
                let text = format!(
                    "{what} since {from} died: the GPU never finishes what waits for a process that was killed, so this process \
                     ends as well; its restart_policy starts it again"
                );
                tracing::error!("{text}");
                last_words(&text);
                // an ordinary end would free memory of the GPU, which waits for that work
                let _ = kill_process(getpid(), Signal::KILL);
                return;
            }
        }
    });
    if let Err(e) = std::thread::Builder::new().name("gpu-watch".into()).spawn(run) {
        tracing::warn!("work that waits for a dead producer is not watched: {e}");
    }
}

/// What has stood still for [`LIMIT`] since the producer died.
fn stands_still(since_death: Duration, work: Option<Duration>, event_loop: Option<Duration>) -> Option<&'static str> {
    let stands = |age: Option<Duration>| age.is_some_and(|age| age.min(since_death) >= LIMIT);
    if stands(work) {
        Some("work on the GPU is not done")
    } else if stands(event_loop) {
        Some("a call of the GPU's driver has not come back")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::{LIMIT, Unfinished, stands_still, watch};
    use crate::metrics::Metrics;
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};

    #[test]
    fn what_stands_still_longer_than_the_limit_since_the_death_is_named() {
        let (short, long) = (Duration::from_millis(10), LIMIT + Duration::from_secs(1));
        assert_eq!(stands_still(long, Some(short), Some(short)), None);
        assert_eq!(stands_still(long, None, None), None);
        assert_eq!(stands_still(short, Some(long), Some(long)), None, "long work of before the death");
        assert!(stands_still(long, Some(long), Some(short)).unwrap().contains("work on the GPU"));
        assert!(stands_still(long, None, Some(long)).unwrap().contains("driver"));
    }

    const ROLE: &str = "MILLRACE_STUCK_ROLE";

    #[test]
    fn a_process_whose_work_never_ends_is_ended_and_one_that_goes_on_is_not() {
        if let Ok(role) = std::env::var(ROLE) {
            let unfinished = Unfinished::default();
            unfinished.since((role == "stuck").then(Instant::now));
            let last_words = |text: &str| writeln!(std::io::stdout(), "{text}").unwrap();
            watch("decode/frame".to_owned(), unfinished, Metrics::default(), last_words);
            return std::thread::sleep(LIMIT + Duration::from_secs(2));
        }
        let run = |role: &str| {
            let name = "stuck::tests::a_process_whose_work_never_ends_is_ended_and_one_that_goes_on_is_not";
            let mut child = std::process::Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", name, "--nocapture"]).env(ROLE, role).output().unwrap()
        };
        let stuck = run("stuck");
        assert_eq!(stuck.status.signal(), Some(9), "{stuck:?}");
        let said = String::from_utf8_lossy(&stuck.stdout).into_owned();
        assert!(said.contains("work on the GPU is not done since decode/frame died"), "{said}");
        assert!(run("going on").status.success());
    }
}
