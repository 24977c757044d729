//! Samples of a run of any length in bounded room: where they become many, neighbours are put together.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rows at which neighbours are put together.
const MOST_ROWS: usize = 480;

/// The samples in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// From one sample to the next.
    pub every_s: f64,
    /// The samples.
    pub rows: Vec<Row>,
}

impl Default for Rows {
    fn default() -> Self {
        Self { every_s: 2.0, rows: Vec::new() }
    }
}

/// One moment, or the mean of several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its end, in measured time.
    pub at_s: f64,
    /// How much time it is for.
    pub seconds: f64,
    /// Each node's process, and dora's.
    pub processes: BTreeMap<String, ProcessRow>,
    /// Each camera.
    pub cameras: BTreeMap<String, CameraRow>,
    /// All processes of the graph together, and the machine.
    pub whole: Usage,
}

/// A process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessRow {
    /// Its number.
    pub pid: u32,
    /// When it was first seen, in measured time.
    pub since_s: f64,
    /// Resident memory, in MiB.
    pub rss_mib: f64,
    /// Memory by its proportional share, in MiB: shared pages are divided among those that map them.
    pub pss_mib: f64,
    /// Open file descriptors.
    pub descriptors: f64,
    /// Threads.
    pub threads: f64,
    /// Memory mappings.
    pub mappings: f64,
    /// Processor time, in cores.
    pub cores: f64,
}

/// A camera at the end of the graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CameraRow {
    /// Its state, the worst of the time.
    pub state: String,
    /// Results a second.
    pub fps: f64,
    /// Age of its results in milliseconds, the largest of the time: p50, p95, p99.
    pub age_ms: Option<[f64; 3]>,
    /// Frames that were lost in the time.
    pub lost: u64,
}

/// The graph as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Processes.
    pub processes: f64,
    /// Their memory by its proportional share, in MiB.
    pub pss_mib: f64,
    /// Their processor time, in cores.
    pub cores: f64,
    /// What is in use of `/dev/shm`, by any program, in MiB.
    pub shm_mib: f64,
    /// Memory in use of the graph's GPUs, by any program, in MiB.
    pub gpu_mib: Option<f64>,
    /// Share of the time in which a kernel ran there, in percent.
    pub gpu_percent: Option<f64>,
}

impl Rows {
    /// Adds a sample. Where there are many, two neighbours become one, and the next samples come half as often.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
        if self.rows.len() >= MOST_ROWS {
            let mut thinned = Vec::with_capacity(MOST_ROWS);
            let mut rows = std::mem::take(&mut self.rows).into_iter();
            while let Some(first) = rows.next() {
                thinned.push(match rows.next() {
                    Some(second) => join(first, second),
                    None => first,
                });
            }
            self.rows = thinned;
            self.every_s *= 2.0;
        }
    }
}

/// Two neighbours as one: means by time, sums of counts, the worst of states and ages.
fn join(first: Row, second: Row) -> Row {
    let seconds = first.seconds + second.seconds;
    let weight = if seconds > 0.0 { first.seconds / seconds } else { 0.5 };
    let mean = |a: f64, b: f64| a * weight + b * (1.0 - weight);
    let either = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => Some(mean(a, b)),
        (a, b) => b.or(a),
    };
    let mut processes = first.processes;
    for (name, b) in second.processes {
        let joined = match processes.get(&name) {
            Some(a) if (a.pid, a.since_s) == (b.pid, b.since_s) => ProcessRow {
                rss_mib: mean(a.rss_mib, b.rss_mib),
                pss_mib: mean(a.pss_mib, b.pss_mib),
                descriptors: mean(a.descriptors, b.descriptors),
                threads: mean(a.threads, b.threads),
                mappings: mean(a.mappings, b.mappings),
                cores: mean(a.cores, b.cores),
                ..b
            },
            // of two processes the newer: they have nothing in common that a mean could be of
            _ => b,
        };
        processes.insert(name, joined);
    }
    let mut cameras = first.cameras;
    for (name, b) in second.cameras {
        let joined = match cameras.remove(&name) {
            Some(a) => CameraRow {
                state: if a.state == "live" { b.state } else { a.state },
                fps: mean(a.fps, b.fps),
                age_ms: match (a.age_ms, b.age_ms) {
                    (Some(a), Some(b)) => Some([0, 1, 2].map(|i| a[i].max(b[i]))),
                    (a, b) => a.or(b),
                },
                lost: a.lost + b.lost,
            },
            None => b,
        };
        cameras.insert(name, joined);
    }
    let (a, b) = (first.whole, second.whole);
    let whole = Usage {
        processes: mean(a.processes, b.processes),
        pss_mib: mean(a.pss_mib, b.pss_mib),
        cores: mean(a.cores, b.cores),
        shm_mib: mean(a.shm_mib, b.shm_mib),
        gpu_mib: either(a.gpu_mib, b.gpu_mib),
        gpu_percent: either(a.gpu_percent, b.gpu_percent),
    };
    Row { at_s: second.at_s, seconds, processes, cameras, whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: u32, pid: u32) -> Row {
        let process = ProcessRow { pid, pss_mib: f64::from(n), ..ProcessRow::default() };
        let state = if n == 3 { "stalled" } else { "live" }.to_owned();
        let age_ms = (!n.is_multiple_of(2)).then_some([1.0, 2.0, f64::from(n)]);
        let camera = CameraRow { state, fps: f64::from(n), age_ms, lost: 1 };
        Row {
            at_s: f64::from(n),
            seconds: 1.0,
            processes: [("decode".to_owned(), process)].into(),
            cameras: [("gate".to_owned(), camera)].into(),
            whole: Usage { gpu_mib: (n == 1).then_some(7.0), shm_mib: f64::from(n), ..Usage::default() },
        }
    }

    #[test]
    fn neighbours_are_put_together_by_what_they_are() {
        let joined = join(join(row(1, 7), row(2, 7)), join(row(3, 7), row(4, 7)));
        assert_eq!((joined.at_s, joined.seconds, joined.processes["decode"].pss_mib), (4.0, 4.0, 2.5));
        let camera = &joined.cameras["gate"];
        assert_eq!(
            (camera.state.as_str(), camera.fps, camera.lost, camera.age_ms),
            ("stalled", 2.5, 4, Some([1.0, 2.0, 3.0]))
        );
        assert_eq!((joined.whole.shm_mib, joined.whole.gpu_mib), (2.5, Some(7.0)));
        // what two processes use has no mean
        assert_eq!(join(row(1, 7), row(2, 8)).processes["decode"].pss_mib, 2.0);
    }

    #[test]
    fn a_run_of_any_length_has_a_bounded_number_of_rows_and_loses_no_time() {
        let (mut rows, mut at_s) = (Rows::default(), 0.0);
        // a month
        while at_s < 30.0 * 86_400.0 {
            let seconds = rows.every_s;
            at_s += seconds;
            rows.push(Row { at_s, seconds, ..Row::default() });
            assert!(rows.rows.len() < MOST_ROWS);
        }
        assert!(rows.rows.len() >= MOST_ROWS / 2 - 1, "{}", rows.rows.len());
        assert_eq!(rows.rows.iter().map(|row| row.seconds).sum::<f64>(), at_s);
    }
}
