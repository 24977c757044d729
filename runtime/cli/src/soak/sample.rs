//! A look at every process and every camera.

use super::delivery::Delivery;
use crate::procs::{Family, pss_bytes};
use crate::status::NodeReport;
use crate::totals::Totals;
use crate::trial::gpu::Probe;
use millrace_ab::soak::{CameraRow, ProcessRow, Row, Usage};
use std::collections::BTreeMap;

/// What is not a node.
const DORA: &str = "dora";
const OWN: &str = "millrace soak";
const MIB: f64 = 1_048_576.0;
/// `/proc` counts processor time in these, on every machine that Linux runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// Keeps what the next look is compared with.
#[derive(Default)]
pub(super) struct Sampler {
    probe: Probe,
    at_s: f64,
    /// Of each process: when it was first seen, and its processor time.
    known: BTreeMap<u32, (f64, f64)>,
    /// Of each camera: what has come at its ports, and what was lost.
    came: BTreeMap<String, BTreeMap<(String, String), u64>>,
    lost: BTreeMap<String, u64>,
}

impl Sampler {
    /// For a graph on these devices, from this moment of measured time.
    pub(super) fn new(probe: Probe, at_s: f64) -> Self {
        Self { probe, at_s, ..Self::default() }
    }

    /// The measured time of the last look.
    pub(super) const fn at_s(&self) -> f64 {
        self.at_s
    }

    /// Looks now.
    pub(super) fn row(&mut self, nodes: &[Totals], family: &Family, root: u32, delivery: &Delivery, at_s: f64) -> Row {
        let seconds = (at_s - self.at_s).max(1e-3);
        self.at_s = at_s;
        let (processes, mut whole) = self.processes(nodes, family, root, at_s, seconds);
        if let Ok(shm) = rustix::fs::statvfs("/dev/shm") {
            whole.shm_mib = rounded(shm.f_blocks.saturating_sub(shm.f_bfree) as f64 * shm.f_frsize as f64 / MIB);
        }
        if let Some(sample) = self.probe.sample() {
            (whole.gpu_mib, whole.gpu_percent) = (sample.memory_mib, sample.gpu_percent);
        }
        Row { at_s, seconds, processes, cameras: self.cameras(nodes, delivery, seconds), whole }
    }

    fn processes(
        &mut self,
        nodes: &[Totals],
        family: &Family,
        root: u32,
        at_s: f64,
        seconds: f64,
    ) -> (BTreeMap<String, ProcessRow>, Usage) {
        // nodes that share a process are one row
        let own = std::process::id();
        let mut names = BTreeMap::from([(root, DORA.to_owned()), (own, OWN.to_owned())]);
        for node in nodes {
            let Some(last) = node.last.as_ref() else { continue };
            let name = last.group.as_ref().map_or(&node.id, |group| &group.name);
            names.insert(last.works_in(), name.clone());
        }
        let (mut rows, mut whole, mut seen) = (BTreeMap::new(), Usage::default(), BTreeMap::new());
        for pid in family.pids().into_iter().chain([own]) {
            let Some(mut row) = process(pid) else { continue };
            let ticks = row.cores;
            let (since_s, before) = self.known.get(&pid).copied().unwrap_or((at_s, ticks));
            seen.insert(pid, (since_s, ticks));
            row.cores = rounded((ticks - before).max(0.0) / TICKS_A_SECOND / seconds);
            row.since_s = since_s;
            whole.processes += 1.0;
            whole.pss_mib += row.pss_mib;
            whole.cores += row.cores;
            if let Some(name) = names.get(&pid) {
                rows.insert(name.clone(), row);
            }
        }
        self.known = seen;
        (whole.pss_mib, whole.cores) = (rounded(whole.pss_mib), rounded(whole.cores));
        (rows, whole)
    }

    fn cameras(&mut self, nodes: &[Totals], delivery: &Delivery, seconds: f64) -> BTreeMap<String, CameraRow> {
        let mut came: BTreeMap<String, BTreeMap<(String, String), u64>> = BTreeMap::new();
        let mut lost: BTreeMap<String, u64> = BTreeMap::new();
        for node in nodes {
            for ((_, _, camera), count) in node.losses_of_cameras() {
                *lost.entry(camera.clone()).or_default() += count;
            }
            for ((port, camera), count) in node.counts("in").into_iter().filter(|_| delivery.is_sink(&node.id)) {
                came.entry(camera).or_default().insert((node.id.clone(), port), count);
            }
        }
        let row = |(camera, state): (&String, &'static str)| {
            let ports = came.get(camera);
            let before = |port| self.came.get(camera).and_then(|ports| ports.get(port)).copied();
            // of a port that is new nothing is known yet
            let rates = ports
                .into_iter()
                .flatten()
                .map(|(port, count)| count.saturating_sub(before(port).unwrap_or(*count)) as f64 / seconds);
            let count = |all: &BTreeMap<String, u64>| all.get(camera).copied().unwrap_or(0);
            let row = CameraRow {
                state: state.to_owned(),
                fps: rounded(rates.min_by(f64::total_cmp).unwrap_or(0.0)),
                age_ms: ages_ms(nodes, delivery, camera),
                lost: count(&lost).saturating_sub(count(&self.lost)),
            };
            (camera.clone(), row)
        };
        let rows = delivery.states().map(row).collect();
        (self.came, self.lost) = (came, lost);
        rows
    }
}

/// p50, p95 and p99 of the last seconds at the sink where they are largest; of results, where there are any.
fn ages_ms(nodes: &[Totals], delivery: &Delivery, camera: &str) -> Option<[f64; 3]> {
    let worst = |name: &str| {
        let sinks = nodes.iter().filter(|node| delivery.is_sink(&node.id));
        let ages = sinks.filter_map(|node| node.last.as_ref()).flat_map(|last: &NodeReport| &last.latency);
        let ages = ages.filter(|times| times.name == name && times.source == camera);
        let ages = ages.filter_map(|age| Some([age.recent_p50_ns?, age.recent_p95_ns?, age.recent_p99_ns?]));
        ages.max_by_key(|ages| ages[2]).map(|ages| ages.map(|ns| rounded(ns as f64 / 1e6)))
    };
    worst("result_age").or_else(|| worst("age"))
}

/// What the kernel says of a process; `cores` has its processor time in ticks, of which the caller makes cores.
fn process(pid: u32) -> Option<ProcessRow> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // the name in parentheses may hold anything; the numbers are those of proc(5), less the two before it and 1
    let fields: Vec<f64> =
        text[text.rfind(')')? + 1..].split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0.0);
    let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    Some(ProcessRow {
        pid,
        since_s: 0.0,
        rss_mib: rounded(field(24) * rustix::param::page_size() as f64 / MIB),
        pss_mib: rounded(pss_bytes(pid) as f64 / MIB),
        descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0.0, |entries| entries.count() as f64),
        threads: field(20),
        mappings: maps.iter().filter(|byte| **byte == b'\n').count() as f64,
        cores: field(14) + field(15),
    })
}

/// As many digits as mean something.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_is_as_it_knows_itself() {
        let files: Vec<std::fs::File> = (0..40).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let over = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| over.wait());
            }
            let own = process(std::process::id());
            over.wait();
            let own = own.unwrap();
            assert!(own.descriptors >= 40.0 && own.threads >= 6.0 && own.mappings > 10.0, "{own:?}");
            assert!(own.rss_mib > 1.0 && own.pss_mib > 0.0 && own.pss_mib <= own.rss_mib * 1.1, "{own:?}");
        });
        assert_eq!(files.len(), 40);
        assert!(process(u32::MAX).is_none());
    }
}
