//! What all nodes did, from their reports, across restarts.

use crate::status::{NodeReport, State};
use crate::vitals::Vital;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Rates are over about this long.
const WINDOW: Duration = Duration::from_secs(3);
/// A node that gives no sign of life for so long hangs, or is gone; one that is well reports twice a second. With the time
/// until somebody looks ([`LOOK`]) that is less than 3 s, on a busy machine too.
pub(crate) const SILENT: Duration = Duration::from_millis(2_500);
/// How often the signs of life are looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Counters that the harness keeps, and those that other figures are worked out from.
const NOT_ITS_OWN: [&str; 11] = [
    "in",
    "out",
    "doorbells",
    "bytes_in",
    "bytes_out",
    "bytes_inside",
    "copies",
    "handover_waits",
    "engine_batches",
    "engine_frames",
    "engine_ns",
];

/// A counter or loss: name, port, source.
pub(crate) type Key = (String, String, String);

/// One node of the graph.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Its id.
    pub(crate) id: String,
    /// Its last report; none where it never reported.
    pub(crate) last: Option<NodeReport>,
    /// How often it came back after it had ended.
    pub(crate) restarts: u32,
    /// When the last report came.
    pub(crate) last_report_at: Option<Instant>,
    /// Whether it gives signs of life.
    pub(crate) vital: Vital,
    /// Since when its process has been gone, although it did not report its end.
    pub(crate) process_gone: Option<Instant>,
    /// It has worked, in some process.
    pub(crate) ran: bool,
    counters: Sums,
    drops: Sums,
    /// Time, frames and processor time of the last seconds.
    recent: VecDeque<(Instant, u64, u64)>,
}

/// A node's process was replaced by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restart {
    /// The process that has ended.
    pub(crate) before: u32,
    /// The one that runs now.
    pub(crate) pid: u32,
    /// The one before had reported that it failed.
    pub(crate) failed: bool,
    /// From the last report of the one to the first report of the other.
    pub(crate) silent: Duration,
}

/// Counters that start from 0 again when their node restarts.
#[derive(Debug, Default)]
struct Sums {
    earlier: BTreeMap<Key, u64>,
    now: BTreeMap<Key, u64>,
}

impl Sums {
    fn restart(&mut self) {
        for (key, value) in std::mem::take(&mut self.now) {
            *self.earlier.entry(key).or_default() += value;
        }
    }

    fn all(&self) -> BTreeMap<&Key, u64> {
        let mut all: BTreeMap<&Key, u64> = BTreeMap::new();
        for (key, value) in self.earlier.iter().chain(&self.now) {
            *all.entry(key).or_default() += value;
        }
        all
    }
}

impl Totals {
    /// A node that has not reported.
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), ..Self::default() }
    }

    /// The whole graph is started again: no process of this node has reported yet. Its counts go on.
    pub(crate) fn begin_life(&mut self) {
        (self.last_report_at, self.process_gone, self.vital) = (None, None, Vital::Well);
        self.recent.clear();
    }

    /// Takes a report. `Some` where it is the first of a process that was started in the place of another.
    pub(crate) fn take(&mut self, status: NodeReport, now: Instant) -> Option<Restart> {
        let mut restart = None;
        if let Some(last) =
            self.last.as_ref().filter(|last| status.pid != last.pid || status.uptime_ns < last.uptime_ns)
        {
            let silent = now.saturating_duration_since(self.last_report_at.unwrap_or(now));
            restart = Some(Restart { before: last.pid, pid: status.pid, failed: last.state == State::Failed, silent });
            self.restarts += 1;
            self.counters.restart();
            self.drops.restart();
            self.recent.clear();
        }
        let counters = status.counters.iter();
        self.counters.now = counters.map(|c| ((c.name.clone(), c.port.clone(), c.source.clone()), c.value)).collect();
        let drops = status.drops.iter();
        self.drops.now = drops.map(|d| ((d.cause.clone(), d.port.clone(), d.source.clone()), d.value)).collect();
        if self.last.as_ref().is_none_or(|last| last.pid != status.pid) {
            self.process_gone = None;
        }
        let cpu_ns = status.cpu_ns;
        self.ran |= matches!(status.state, State::Running | State::Done);
        self.last = Some(status);
        self.last_report_at = Some(now);
        self.recent.push_back((now, self.frames(), cpu_ns));
        while self.recent.len() > 2 && self.recent.get(1).is_some_and(|(at, _, _)| now - *at >= WINDOW) {
            self.recent.pop_front();
        }
        restart
    }

    /// Items of the busiest port by this counter (`in` or `out`): a frame that leaves as picture and as packet is one.
    pub(crate) fn items(&self, name: &str) -> Option<u64> {
        let mut by_port: BTreeMap<&str, u64> = BTreeMap::new();
        for ((counter, port, _), value) in self.counters.all() {
            if counter == name {
                *by_port.entry(port).or_default() += value;
            }
        }
        by_port.into_values().max()
    }

    /// Frames through the node.
    pub(crate) fn frames(&self) -> u64 {
        self.items("out").unwrap_or(0).max(self.items("in").unwrap_or(0))
    }

    /// The same of each camera.
    pub(crate) fn frames_by_camera(&self) -> BTreeMap<String, u64> {
        let mut frames: BTreeMap<String, u64> = BTreeMap::new();
        for ((counter, _, source), value) in self.counters.all() {
            if matches!(counter.as_str(), "in" | "out") && !source.is_empty() {
                let most = frames.entry(source.clone()).or_default();
                *most = value.max(*most);
            }
        }
        frames
    }

    /// One counter by port and camera.
    pub(crate) fn counts(&self, name: &str) -> BTreeMap<(String, String), u64> {
        let of_it =
            self.counters.all().into_iter().filter(|((counter, _, source), _)| counter == name && !source.is_empty());
        of_it.map(|((_, port, source), value)| ((port.clone(), source.clone()), value)).collect()
    }

    /// Losses by cause, port and camera.
    pub(crate) fn losses_of_cameras(&self) -> impl Iterator<Item = (&Key, u64)> {
        self.drops.all().into_iter().filter(|(_, value)| *value > 0)
    }

    /// A gauge that is of no camera.
    pub(crate) fn gauge(&self, name: &str) -> Option<i64> {
        let gauges = self.last.iter().flat_map(|last| &last.gauges);
        gauges.filter(|gauge| gauge.name == name && gauge.source.is_empty()).map(|gauge| gauge.value).next_back()
    }

    /// All losses.
    pub(crate) fn dropped(&self) -> u64 {
        self.drops.all().values().sum()
    }

    /// Losses by cause and port.
    pub(crate) fn losses(&self) -> BTreeMap<(String, String), u64> {
        let mut losses = BTreeMap::new();
        for ((cause, port, _), value) in self.drops.all() {
            if value > 0 {
                *losses.entry((cause.clone(), port.clone())).or_default() += value;
            }
        }
        losses
    }

    /// What is known of a loss besides its count: `: frames 3 to 7: the file is damaged`; empty where nothing is. Of the first
    /// camera that says anything.
    pub(crate) fn reason(&self, cause: &str, port: &str) -> String {
        let drops = self.last.iter().flat_map(|last| &last.drops);
        let mut of_it = drops.filter(|drop| drop.cause == cause && drop.port == port);
        let said = of_it.find(|drop| !(drop.frames.is_empty() && drop.why.is_empty()));
        let parts = said.map(|drop| [drop.frames.as_str(), drop.why.as_str()]).unwrap_or_default();
        parts.iter().filter(|part| !part.is_empty()).map(|part| format!(": {part}")).collect()
    }

    /// The node's own counters.
    pub(crate) fn own_counters(&self) -> BTreeMap<String, u64> {
        let mut own = BTreeMap::new();
        for ((name, _, _), value) in self.counters.all() {
            if !NOT_ITS_OWN.contains(&name.as_str()) {
                *own.entry(name.clone()).or_default() += value;
            }
        }
        own
    }

    /// One counter, of all ports and cameras.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters.all().into_iter().filter(|((counter, _, _), _)| counter == name).map(|(_, value)| value).sum()
    }

    /// All counters by name, the harness's own too.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for ((name, _, _), value) in self.counters.all() {
            *sums.entry(name.clone()).or_default() += value;
        }
        sums
    }

    /// Frames a second, and the share of one core, over the last seconds; 0 of a node that has ended or does not report.
    pub(crate) fn rates(&self, now: Instant) -> Option<(f64, f64)> {
        let (first, last) = (self.recent.front()?, self.recent.back()?);
        if !self.should_run() || self.silent_for(now).is_some() {
            return Some((0.0, 0.0));
        }
        let seconds = (last.0 - first.0).as_secs_f64();
        if seconds < 0.2 {
            return None;
        }
        let fps = last.1.saturating_sub(first.1) as f64 / seconds;
        let cpu = last.2.saturating_sub(first.2) as f64 / 1e9 / seconds;
        Some((fps, cpu))
    }

    /// It has not ended.
    pub(crate) fn should_run(&self) -> bool {
        matches!(self.state(), Some(State::Opening | State::Running))
    }

    /// Since when it gives no sign of life, where it should.
    pub(crate) fn silent_for(&self, now: Instant) -> Option<Duration> {
        let silent = now.saturating_duration_since(self.last_report_at?);
        (self.should_run() && (silent >= SILENT || self.process_gone.is_some())).then_some(silent)
    }

    /// Since when its event loop does not turn although it reports, where that is too long.
    pub(crate) fn stuck_for(&self, now: Instant) -> Option<Duration> {
        let last = self.last.as_ref().filter(|last| last.state == State::Running)?;
        let stuck = Duration::from_millis(last.loop_age_ms?) + now.saturating_duration_since(self.last_report_at?);
        (stuck >= SILENT).then_some(stuck)
    }

    /// p50, p95 and p99 of the age of the frames that it took in the last seconds, in milliseconds; of the camera whose
    /// frames are oldest.
    pub(crate) fn ages_ms(&self, now: Instant) -> Option<[f64; 3]> {
        if self.silent_for(now).is_some() {
            return None;
        }
        let ages = self.last.as_ref()?.latency.iter().filter(|times| times.name == "age");
        let ages = ages.filter_map(|age| Some([age.recent_p50_ns?, age.recent_p95_ns?, age.recent_p99_ns?]));
        ages.max_by_key(|ages| ages[2]).map(|ages| ages.map(|ns| ns as f64 / 1e6))
    }

    /// The same since it started.
    pub(crate) fn ages_since_start_ms(&self) -> Option<[f64; 3]> {
        let ages = self.last.as_ref()?.latency.iter().filter(|times| times.name == "age" && times.count > 0);
        let worst = ages.max_by_key(|age| age.p99_ns)?;
        Some([worst.p50_ns, worst.p95_ns, worst.p99_ns].map(|ns| ns as f64 / 1e6))
    }

    /// Where it is; none where it never reported.
    pub(crate) fn state(&self) -> Option<State> {
        self.last.as_ref().map(|last| last.state)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::{Counter, DropCount};

    fn report(uptime_ns: u64, frames: u64, stale: u64) -> NodeReport {
        let counter =
            |port: &str, value| Counter { name: "out".into(), port: port.into(), source: "cam".into(), value };
        NodeReport {
            node: "decode".into(),
            uptime_ns,
            counters: vec![counter("frame", frames), counter("packet", frames)],
            drops: vec![DropCount {
                cause: "stale".into(),
                port: "frame".into(),
                source: "cam".into(),
                value: stale,
                ..DropCount::default()
            }],
            cpu_ns: uptime_ns / 2,
            ..NodeReport::default()
        }
    }

    #[test]
    fn counts_go_on_after_a_restart() {
        let mut totals = Totals::new("decode");
        let start = Instant::now();
        totals.take(report(500, 10, 1), start);
        totals.take(report(1_000, 20, 2), start);
        assert_eq!((totals.frames(), totals.dropped(), totals.restarts), (20, 2, 0));
        let again = totals.take(NodeReport { pid: 8, ..report(500, 5, 1) }, start + Duration::from_secs(2));
        let silent = Duration::from_secs(2);
        assert_eq!(again, Some(Restart { before: 0, pid: 8, failed: false, silent }));
        assert_eq!((totals.frames(), totals.dropped(), totals.restarts), (25, 3, 1));
        totals.take(NodeReport { pid: 8, ..report(900, 7, 1) }, start);
        assert_eq!((totals.items("out"), totals.items("in")), (Some(27), None));
        assert_eq!(totals.losses()[&("stale".to_owned(), "frame".to_owned())], 3);
    }

    #[test]
    fn a_process_that_runs_for_longer_than_its_predecessor_did_is_another_one() {
        let (mut totals, start) = (Totals::new("page"), Instant::now());
        totals.take(NodeReport { pid: 7, ..report(600, 10, 0) }, start);
        let again = totals.take(NodeReport { pid: 8, ..report(1_500, 4, 0) }, start);
        assert_eq!(again.map(|r| (r.before, r.pid)), Some((7, 8)));
        assert_eq!((totals.frames(), totals.restarts), (14, 1));
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let mut totals = Totals::new("decode");
        let start = Instant::now();
        assert_eq!(totals.rates(start), None);
        for half in 0..20_u64 {
            let frames = if half < 10 { 0 } else { (half - 9) * 15 };
            totals.take(report(half * 500_000_000, frames, 0), start + Duration::from_millis(half * 500));
        }
        let end = start + Duration::from_millis(9_500);
        let (fps, cpu) = totals.rates(end).unwrap();
        assert!((fps - 30.0).abs() < 1e-9 && (cpu - 0.5).abs() < 1e-9, "{fps} {cpu}");
        // no report for longer than a node that is well leaves between two: what it did before says nothing of now
        assert_eq!(totals.silent_for(end + Duration::from_millis(2_400)), None);
        assert_eq!(totals.silent_for(end + Duration::from_secs(4)), Some(Duration::from_secs(4)));
        assert_eq!(totals.rates(end + Duration::from_secs(3)), Some((0.0, 0.0)));
    }

    #[test]
    fn a_loop_that_stands_still_is_seen_in_the_reports() {
        let (mut totals, start) = (Totals::new("detect"), Instant::now());
        totals.take(NodeReport { loop_age_ms: Some(80), ..report(500, 1, 0) }, start);
        assert_eq!(totals.stuck_for(start), None);
        totals.take(NodeReport { loop_age_ms: Some(3_200), ..report(3_600, 1, 0) }, start + Duration::from_secs(3));
        assert_eq!(totals.stuck_for(start + Duration::from_secs(3)), Some(Duration::from_millis(3_200)));
        totals.take(NodeReport { state: State::Opening, loop_age_ms: None, ..report(9_600, 1, 0) }, start);
        assert_eq!(totals.stuck_for(start + Duration::from_secs(30)), None, "a model may take long to open");
        totals.take(NodeReport { state: State::Done, ..report(9_900, 1, 0) }, start);
        assert_eq!(totals.silent_for(start + Duration::from_secs(60)), None, "it has ended");
    }

    #[test]
    fn ages_are_those_of_the_worst_camera_now() {
        let age = |source: &str, ms: u64, recent: bool| crate::status::Latency {
            name: "age".into(),
            source: source.into(),
            count: 5,
            p50_ns: 1_000_000,
            p95_ns: 2_000_000,
            p99_ns: 900_000_000,
            recent_p50_ns: recent.then_some(ms * 1_000_000),
            recent_p95_ns: recent.then_some(ms * 2_000_000),
            recent_p99_ns: recent.then_some(ms * 3_000_000),
        };
        let (mut totals, now) = (Totals::new("page"), Instant::now());
        let latency = vec![age("a", 10, true), age("b", 40, true), age("dead", 5_000, false)];
        totals.take(NodeReport { latency, ..report(500, 1, 0) }, now);
        assert_eq!(totals.ages_ms(now), Some([40.0, 80.0, 120.0]));
        assert_eq!(totals.ages_ms(now + Duration::from_secs(4)), None);
        assert_eq!(totals.ages_since_start_ms(), Some([1.0, 2.0, 900.0]));
    }
}
