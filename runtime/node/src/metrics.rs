//! Counters and latency histograms of one node, by port and camera.

use hdrhistogram::Histogram;
use millrace_frame::CameraStatus;
use serde::Serialize;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A handle on the node's counters; clones share them, any thread may use them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    counters: BTreeMap<Key, u64>,
    gauges: BTreeMap<Key, i64>,
    drops: BTreeMap<Key, u64>,
    latency: BTreeMap<Key, Times>,
    last_logged: BTreeMap<&'static str, Instant>,
    warned: BTreeMap<Key, (Instant, u64)>,
    notes: Vec<String>,
    params: BTreeMap<String, String>,
    cameras: BTreeMap<String, CameraStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    name: &'static str,
    port: &'static str,
    source: String,
}

/// Nothing slower than this is told apart: a minute.
const SLOWEST_NS: u64 = 60_000_000_000;

/// Durations, all of them and the last ones.
#[derive(Debug)]
struct Times {
    all: Histogram<u64>,
    /// The span that runs and the one before.
    recent: [Histogram<u64>; 2],
    since: Instant,
}

/// How long a span of recent durations is.
const SPAN: Duration = Duration::from_secs(5);

impl Times {
    fn new() -> Self {
        let empty = || {
            Histogram::new_with_bounds(1_000, SLOWEST_NS, 2)
                .expect("the bounds are constants that hdrhistogram accepts")
        };
        Self { all: empty(), recent: [empty(), empty()], since: Instant::now() }
    }

    fn record(&mut self, ns: u64) {
        let age = self.since.elapsed();
        if age >= SPAN {
            self.recent.swap(0, 1);
            self.recent[0].reset();
            if age >= 2 * SPAN {
                self.recent[1].reset();
            }
            self.since = Instant::now();
        }
        self.all.saturating_record(ns);
        self.recent[0].saturating_record(ns);
    }

    fn recent_p95_ns(&self) -> Option<u64> {
        if self.since.elapsed() >= 2 * SPAN {
            return None;
        }
        let mut both = self.recent[0].clone();
        both.add(&self.recent[1]).expect("both have the same bounds");
        (!both.is_empty()).then(|| both.value_at_quantile(0.95))
    }
}

impl Metrics {
    /// Adds `n` to a counter of camera `source`.
    pub fn count(&self, name: &'static str, source: &str, n: u64) {
        self.count_port(name, "", source, n);
    }

    pub(crate) fn count_port(&self, name: &'static str, port: &'static str, source: &str, n: u64) {
        *self.state().counters.entry(key(name, port, source)).or_default() += n;
    }

    /// Counts a frame of `bytes` that was copied: read once, written once.
    pub(crate) fn copied(&self, source: &str, bytes: u64) {
        self.count("copies", source, 1);
        self.moved(source, 2 * bytes);
    }

    /// Counts bytes of frames of camera `source` that the node read or wrote besides what it takes in and publishes,
    /// which the harness counts.
    pub fn moved(&self, source: &str, bytes: u64) {
        self.count("bytes_inside", source, bytes);
    }

    /// Counts a loss of `n` frames or messages of camera `source`. It is also logged, at most once a second a cause.
    pub fn drop(&self, cause: &'static str, source: &str, n: u64) {
        self.drop_port(cause, "", source, n);
    }

    pub(crate) fn drop_port(&self, cause: &'static str, port: &'static str, source: &str, n: u64) {
        if n == 0 {
            return;
        }
        let mut state = self.state();
        let total = {
            let total = state.drops.entry(key(cause, port, source)).or_default();
            *total += n;
            *total
        };
        let now = Instant::now();
        let quiet = state.last_logged.get(cause).is_some_and(|&at| now - at < Duration::from_secs(1));
        if !quiet {
            state.last_logged.insert(cause, now);
            drop(state);
            tracing::debug!(cause, port, camera = source, total, "dropped");
        }
    }

    /// Logs a warning, at most once in ten seconds for each cause and camera. The next one says how many were left out.
    pub(crate) fn warn_sometimes(&self, cause: &'static str, source: &str, text: impl FnOnce() -> String) {
        const APART: Duration = Duration::from_secs(10);
        let now = Instant::now();
        let left_out = match self.state().warned.entry(key(cause, "", source)) {
            Entry::Vacant(new) => {
                new.insert((now, 0));
                0
            }
            Entry::Occupied(mut known) => {
                let (last, left_out) = known.get_mut();
                if now - *last < APART {
                    *left_out += 1;
                    return;
                }
                *last = now;
                std::mem::take(left_out)
            }
        };
        match left_out {
            0 => tracing::warn!("{}", text()),
            n => tracing::warn!("{} ({n} more like it since the last line)", text()),
        }
    }

    /// Records a duration of camera `source`.
    pub fn observe_ns(&self, name: &'static str, source: &str, ns: u64) {
        let mut state = self.state();
        state.latency.entry(key(name, "", source)).or_insert_with(Times::new).record(ns.clamp(1_000, SLOWEST_NS));
    }

    /// Sets a gauge of camera `source`.
    pub fn gauge(&self, name: &'static str, source: &str, value: i64) {
        self.state().gauges.insert(key(name, "", source), value);
    }

    pub(crate) fn note(&self, text: String) {
        self.state().notes.push(text);
    }

    /// What the node has told its user; for tests.
    pub fn notes(&self) -> Vec<String> {
        self.state().notes.clone()
    }

    /// A camera has this state now.
    pub(crate) fn camera(&self, status: CameraStatus) {
        self.state().cameras.insert(status.source.clone(), status);
    }

    pub(crate) fn remove_camera(&self, source: &str) {
        self.state().cameras.remove(source);
    }

    /// The state of each camera that was reported, by id; for tests and for pages that show it.
    pub fn cameras(&self) -> Vec<CameraStatus> {
        self.state().cameras.values().cloned().collect()
    }

    /// A setting has this value since `dora param` changed it.
    pub(crate) fn param(&self, key: &str, value: String) {
        self.state().params.insert(key.to_owned(), value);
    }

    /// A counter's value; for tests and for pages that show it.
    pub fn counted(&self, name: &str, source: &str) -> u64 {
        self.state().counters.iter().filter(|(k, _)| k.name == name && k.source == source).map(|(_, n)| n).sum()
    }

    /// What was lost of camera `source` under `cause`.
    pub fn dropped(&self, cause: &str, source: &str) -> u64 {
        self.state().drops.iter().filter(|(k, _)| k.name == cause && k.source == source).map(|(_, n)| n).sum()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let count = |(k, &value): (&Key, &u64)| Count { name: k.name, port: k.port, source: k.source.clone(), value };
        Snapshot {
            counters: state.counters.iter().map(count).collect(),
            drops: state
                .drops
                .iter()
                .map(|(k, &value)| Drop { cause: k.name, port: k.port, source: k.source.clone(), value })
                .collect(),
            gauges: state
                .gauges
                .iter()
                .map(|(k, &value)| Gauge { name: k.name, source: k.source.clone(), value })
                .collect(),
            latency: state
                .latency
                .iter()
                .map(|(k, times)| Latency {
                    name: k.name,
                    source: k.source.clone(),
                    count: times.all.len(),
                    p50_ns: times.all.value_at_quantile(0.5),
                    p95_ns: times.all.value_at_quantile(0.95),
                    p99_ns: times.all.value_at_quantile(0.99),
                    max_ns: times.all.max(),
                    recent_p95_ns: times.recent_p95_ns(),
                })
                .collect(),
            notes: state.notes.clone(),
            params: state.params.clone(),
            cameras: state.cameras.values().cloned().collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(name: &'static str, port: &'static str, source: &str) -> Key {
    Key { name, port, source: source.to_owned() }
}

/// All counters at one time, as the status message has them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    counters: Vec<Count>,
    drops: Vec<Drop>,
    gauges: Vec<Gauge>,
    latency: Vec<Latency>,
    notes: Vec<String>,
    /// The settings that were changed since the node runs.
    params: BTreeMap<String, String>,
    /// The cameras that it reads or serves, with their states.
    cameras: Vec<CameraStatus>,
}

#[derive(Clone, Debug, Serialize)]
struct Count {
    name: &'static str,
    port: &'static str,
    source: String,
    value: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Drop {
    cause: &'static str,
    port: &'static str,
    source: String,
    value: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Gauge {
    name: &'static str,
    source: String,
    value: i64,
}

#[derive(Clone, Debug, Serialize)]
struct Latency {
    name: &'static str,
    source: String,
    count: u64,
    p50_ns: u64,
    p95_ns: u64,
    p99_ns: u64,
    max_ns: u64,
    /// Of the last 5 s to 10 s; none where nothing was recorded in them.
    recent_p95_ns: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_add_up_by_camera_and_histograms_give_their_quantiles() {
        let metrics = Metrics::default();
        metrics.count("boxes", "a", 2);
        metrics.count("boxes", "a", 3);
        metrics.count("boxes", "b", 1);
        metrics.drop("gone", "a", 0);
        metrics.drop("gone", "b", 4);
        assert_eq!((metrics.counted("boxes", "a"), metrics.counted("boxes", "b")), (5, 1));
        assert_eq!((metrics.dropped("gone", "a"), metrics.dropped("gone", "b")), (0, 4));
        for ms in 1..=100 {
            metrics.observe_ns("on_input", "a", ms * 1_000_000);
        }
        let latency = &metrics.snapshot().latency[0];
        assert_eq!(latency.count, 100);
        assert_eq!(latency.recent_p95_ns, Some(latency.p95_ns), "all of them are of the last seconds");
        // two significant digits
        assert!((49_500_000..=51_000_000).contains(&latency.p50_ns), "{}", latency.p50_ns);
        assert!((98_000_000..=101_000_000).contains(&latency.p99_ns), "{}", latency.p99_ns);
    }
}
