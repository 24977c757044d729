//! Counters, durations and camera states of one node, by port and camera.

mod lost;
mod news;
mod times;

use lost::Lost;
use millrace_frame::{CameraStatus, monotonic_ns};
use news::Outage;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use times::Times;

/// A handle on the node's counters; clones share them, any thread may use them.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<MetricsInner>);

/// What the clones of a [`Metrics`] share.
#[derive(Debug, Default)]
struct MetricsInner {
    state: Mutex<State>,
    /// When the event loop last turned, by `CLOCK_MONOTONIC`; 0 before it first did.
    loop_turned_ns: AtomicI64,
}

#[derive(Debug, Default)]
struct State {
    counters: Table<u64>,
    gauges: Table<i64>,
    drops: Table<Lost>,
    damage: Table<Lost>,
    /// Each has a lock of its own: a report reads them one by one, and holds up nobody who counts.
    latency: Table<Arc<Mutex<Times>>>,
    last_logged: BTreeMap<&'static str, Instant>,
    warned: Table<(Option<Instant>, u64)>,
    notes: Vec<String>,
    params: BTreeMap<String, String>,
    param_answers: BTreeMap<String, ParamAnswer>,
    cameras: BTreeMap<String, CameraStatus>,
    outages: BTreeMap<String, Outage>,
}

/// Values by name and port, then by camera.
#[derive(Debug)]
struct Table<V>(BTreeMap<(&'static str, &'static str), BTreeMap<Arc<str>, V>>);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Table<V> {
    fn entry(&mut self, name: &'static str, port: &'static str, source: &str, new: impl FnOnce() -> V) -> &mut V {
        let by_source = self.0.entry((name, port)).or_default();
        // a name is copied once for each camera and not for each frame
        if !by_source.contains_key(source) {
            by_source.insert(source.into(), new());
        }
        by_source.get_mut(source).expect("it was put there")
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, &Arc<str>, &V)> {
        self.0.iter().flat_map(|((name, port), by_source)| {
            by_source.iter().map(move |(source, value)| (*name, *port, source, value))
        })
    }
}

impl<V> Table<V> {
    fn sum(&self, name: &str, source: &str, number: impl Fn(&V) -> u64) -> u64 {
        let of_name = self.0.iter().filter(|((n, _), _)| *n == name);
        of_name.filter_map(|(_, by_source)| by_source.get(source)).map(number).sum()
    }
}

/// Answers to changes of settings that are kept, the newest ones.
const MOST_ANSWERS: u64 = 100;

/// Counted among the losses, although no frame is missing: the pools have what a dora message would have said.
const NO_FRAMES: [&str; 2] = ["doorbell", "bad_doorbell"];

impl Metrics {
    /// Adds `n` to a counter of camera `source`.
    pub fn count(&self, name: &'static str, source: &str, n: u64) {
        self.count_port(name, "", source, n);
    }

    pub(crate) fn count_port(&self, name: &'static str, port: &'static str, source: &str, n: u64) {
        *self.state().counters.entry(name, port, source, || 0) += n;
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

    /// The same with the reason in words, which is shown where the count is shown.
    pub fn drop_because(&self, cause: &'static str, source: &str, n: u64, why: &str) {
        self.lose((cause, "", source), n, None, why);
    }

    /// The same for what one output port did not carry.
    pub fn drop_port(&self, cause: &'static str, port: &'static str, source: &str, n: u64) {
        self.lose((cause, port, source), n, None, "");
    }

    /// Counts damage that is not counted in frames: a camera that failed, packets or parts of frames. Where every frame
    /// has to be there, it shows that they are not.
    pub fn count_damage(&self, name: &'static str, source: &str, n: u64, why: &str) {
        self.count(name, source, n);
        self.state().damage.entry(name, "", source, Lost::default).add(n, why);
    }

    /// Counts the loss of one frame, by its number where that is known.
    pub(crate) fn drop_frame(&self, cause: &'static str, source: &str, seq: Option<u64>, why: &str) {
        self.lose((cause, "", source), 1, seq, why);
    }

    fn lose(&self, (cause, port, source): (&'static str, &'static str, &str), n: u64, seq: Option<u64>, why: &str) {
        if n == 0 {
            return;
        }
        let mut state = self.state();
        let total = {
            let lost = state.drops.entry(cause, port, source, Lost::default);
            lost.add(n, why);
            seq.into_iter().for_each(|seq| lost.frame(seq));
            lost.total
        };
        let now = Instant::now();
        let quiet = state.last_logged.get(cause).is_some_and(|&then| now - then < Duration::from_secs(1));
        if !quiet {
            state.last_logged.insert(cause, now);
            drop(state);
            tracing::debug!(cause, port, camera = source, total, "dropped");
        }
    }

    /// Which frames are missing, where and why, in one sentence; nothing where every frame is there.
    pub(crate) fn missing(&self) -> Option<String> {
        let state = self.state();
        let frames = state.drops.iter().filter(|(cause, ..)| !NO_FRAMES.contains(cause));
        let each = frames.chain(state.damage.iter()).map(|(cause, port, source, lost)| {
            let camera = if source.is_empty() { String::new() } else { format!(" of camera '{source}'") };
            let port = if port.is_empty() { String::new() } else { format!(" at '{port}'") };
            let which = lost.frames();
            let which = if which.is_empty() { String::new() } else { format!(", {which}") };
            let why = if lost.why.is_empty() { String::new() } else { format!(": {}", lost.why) };
            format!("{}{camera}{port} ({cause}{which}){why}", lost.total)
        });
        let each: Vec<String> = each.collect();
        (!each.is_empty()).then(|| format!("frames are missing: {}", each.join("; ")))
    }

    /// Logs a warning, at most once in ten seconds for each cause and camera. The next one says how many were left out.
    pub(crate) fn warn_sometimes(&self, cause: &'static str, source: &str, text: impl FnOnce() -> String) {
        const APART: Duration = Duration::from_secs(10);
        let now = Instant::now();
        let left_out = {
            let mut state = self.state();
            let (last, left_out) = state.warned.entry(cause, "", source, Default::default);
            if last.is_some_and(|last| now - last < APART) {
                *left_out += 1;
                return;
            }
            *last = Some(now);
            std::mem::take(left_out)
        };
        match left_out {
            0 => tracing::warn!("{}", text()),
            n => tracing::warn!("{} ({n} more like it since the last line)", text()),
        }
    }

    /// Records a duration of camera `source`.
    pub fn observe_ns(&self, name: &'static str, source: &str, ns: u64) {
        let now = Instant::now();
        let times = self.state().latency.entry(name, "", source, || Arc::new(Mutex::new(Times::new(now)))).clone();
        locked(&times).record(ns, now);
    }

    /// Sets a gauge of camera `source`.
    pub fn gauge(&self, name: &'static str, source: &str, value: i64) {
        *self.state().gauges.entry(name, "", source, || 0) = value;
    }

    /// Says something that a user wants to see once: `millrace run` prints it.
    pub fn note(&self, text: String) {
        tracing::info!("{text}");
        self.state().notes.push(text);
    }

    /// The notes that the node has shown to its user; for tests.
    pub fn notes(&self) -> Vec<String> {
        self.state().notes.clone()
    }

    /// A camera that this node reads has this state now. Each change is logged once, and the end of an outage with its
    /// length.
    pub(crate) fn camera(&self, status: CameraStatus, log: bool) {
        let mut state = self.state();
        let before = state.cameras.insert(status.source.clone(), status.clone());
        let outage = state.outages.entry(status.source.clone()).or_default();
        let news = outage.take(before.as_ref(), &status, Instant::now());
        drop(state);
        if let Some(news) = news.filter(|_| log) {
            news.log();
        }
    }

    pub(crate) fn remove_camera(&self, source: &str) {
        let mut state = self.state();
        state.cameras.remove(source);
        state.outages.remove(source);
    }

    /// The state of each camera that was reported, by id; for tests and for pages that show it.
    pub fn cameras(&self) -> Vec<CameraStatus> {
        self.state().cameras.values().cloned().collect()
    }

    /// A setting was changed from one value to another by `dora param`, or why it was not.
    pub(crate) fn param(&self, key: &str, answer: Result<(String, String), String>) {
        let mut state = self.state();
        let n = state.param_answers.values().map(|answer| answer.n).max().unwrap_or(0) + 1;
        let answer = match answer {
            Ok((was, now)) => {
                state.params.insert(key.to_owned(), now.clone());
                ParamAnswer { n, was, now, refused: None }
            }
            Err(why) => ParamAnswer { n, refused: Some(why), ..ParamAnswer::default() },
        };
        state.param_answers.insert(key.to_owned(), answer);
        // names that are no setting's are refused, and there may be any number of them
        state.param_answers.retain(|_, answer| answer.n + MOST_ANSWERS > n);
    }

    /// A counter's value; for tests and for pages that show it.
    pub fn counted(&self, name: &str, source: &str) -> u64 {
        self.state().counters.sum(name, source, |value| *value)
    }

    /// A gauge's value, if it was ever set; for tests.
    pub fn gauged(&self, name: &str, source: &str) -> Option<i64> {
        let state = self.state();
        state.gauges.iter().find(|(n, _, s, _)| *n == name && &***s == source).map(|(.., value)| *value)
    }

    /// How many items of camera `source` a port carried so far.
    pub fn published(&self, port: &str, source: &str) -> u64 {
        let state = self.state();
        let of_port = state.counters.0.iter().filter(|((name, of), _)| *name == "out" && *of == port);
        of_port.filter_map(|(_, by_source)| by_source.get(source)).sum()
    }

    /// The losses of camera `source`: cause, the port where it is one port's alone, and how many.
    pub fn drops(&self, source: &str) -> Vec<(&'static str, &'static str, u64)> {
        let state = self.state();
        let of_source = state.drops.iter().filter(|(_, _, of, _)| &***of == source);
        of_source.map(|(cause, port, _, lost)| (cause, port, lost.total)).collect()
    }

    /// What was lost of camera `source` under `cause`.
    pub fn dropped(&self, cause: &str, source: &str) -> u64 {
        self.state().drops.sum(cause, source, |lost| lost.total)
    }

    /// The node's event loop has turned: it takes frames, or waits for them or for its consumers.
    pub(crate) fn beat(&self) {
        self.0.loop_turned_ns.store(monotonic_ns(), Ordering::Relaxed);
    }

    /// The process goes on after it was stopped. Its event loop could not turn meanwhile, and its time counts from here.
    pub(crate) fn resumed(&self) {
        if self.loop_age().is_some() {
            self.beat();
        }
    }

    /// How long ago the node's event loop last turned, which it does at least ten times a second where it is well; `None`
    /// before it first did.
    pub fn loop_age(&self) -> Option<Duration> {
        let turned_ns = self.0.loop_turned_ns.load(Ordering::Relaxed);
        (turned_ns != 0).then(|| Duration::from_nanos(monotonic_ns().saturating_sub(turned_ns).max(0) as u64))
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let state = self.state();
        let count =
            |(name, port, source, &value): (_, _, &Arc<str>, &u64)| Count { name, port, source: source.into(), value };
        let dropped = |(cause, port, source, lost): (_, _, &Arc<str>, &Lost)| DropCount {
            cause,
            port,
            source: source.into(),
            value: lost.total,
            frames: lost.frames(),
            why: lost.why.clone(),
        };
        let gauges = state.gauges.iter().map(|(name, _, source, &value)| Gauge { name, source: source.into(), value });
        let mut snapshot = Snapshot {
            counters: state.counters.iter().map(count).collect(),
            drops: state.drops.iter().map(dropped).collect(),
            gauges: gauges.collect(),
            latency: Vec::new(),
            notes: state.notes.clone(),
            params: state.params.clone(),
            param_answers: state.param_answers.clone(),
            cameras: state.cameras.values().cloned().collect(),
        };
        let times: Vec<_> =
            state.latency.iter().map(|(name, _, source, times)| (name, source.clone(), times.clone())).collect();
        // from here on nobody who counts is held up
        drop(state);
        snapshot.latency = times.iter().map(|(name, source, times)| latency(name, source, times, now)).collect();
        snapshot
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn locked(times: &Mutex<Times>) -> MutexGuard<'_, Times> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

fn latency(name: &'static str, source: &Arc<str>, times: &Mutex<Times>, now: Instant) -> Latency {
    let mut times = locked(times);
    let (all, recent) = (times.all(), times.recent(now));
    Latency {
        name,
        source: source.into(),
        count: times.count(),
        p50_ns: all.p50_ns,
        p95_ns: all.p95_ns,
        p99_ns: all.p99_ns,
        max_ns: times.max_ns(),
        recent_p50_ns: recent.map(|r| r.p50_ns),
        recent_p95_ns: recent.map(|r| r.p95_ns),
        recent_p99_ns: recent.map(|r| r.p99_ns),
    }
}

/// All counters at one time, as the status message has them.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    counters: Vec<Count>,
    drops: Vec<DropCount>,
    gauges: Vec<Gauge>,
    latency: Vec<Latency>,
    notes: Vec<String>,
    /// The settings that were changed since the node runs.
    params: BTreeMap<String, String>,
    /// What came of the last change of each setting.
    param_answers: BTreeMap<String, ParamAnswer>,
    /// The cameras that it reads or serves, with their states.
    cameras: Vec<CameraStatus>,
}

/// What came of a change of a setting, for who asked for it.
#[derive(Clone, Debug, Default, Serialize)]
struct ParamAnswer {
    /// Its number among all answers, from 1.
    n: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    was: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    now: String,
    /// Why nothing has changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// A camera's id, shared with the counters.
#[derive(Clone, Debug)]
struct Source(Arc<str>);

impl From<&Arc<str>> for Source {
    fn from(id: &Arc<str>) -> Self {
        Self(id.clone())
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[derive(Clone, Debug, Serialize)]
struct Count {
    name: &'static str,
    port: &'static str,
    source: Source,
    value: u64,
}

#[derive(Clone, Debug, Serialize)]
struct DropCount {
    cause: &'static str,
    port: &'static str,
    source: Source,
    value: u64,
    /// The frames that are known by number: `frames 3, 7 to 12`.
    #[serde(skip_serializing_if = "String::is_empty")]
    frames: String,
    /// The reason of the first one.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

#[derive(Clone, Debug, Serialize)]
struct Gauge {
    name: &'static str,
    source: Source,
    value: i64,
}

/// Durations since the start, and `recent_…` of the last 5 s to 10 s; none of these where nothing was recorded in them.
#[derive(Clone, Debug, Serialize)]
struct Latency {
    name: &'static str,
    source: Source,
    count: u64,
    p50_ns: u64,
    p95_ns: u64,
    p99_ns: u64,
    max_ns: u64,
    recent_p50_ns: Option<u64>,
    recent_p95_ns: Option<u64>,
    recent_p99_ns: Option<u64>,
}

#[cfg(test)]
mod tests;
