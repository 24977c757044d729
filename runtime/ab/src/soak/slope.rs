//! Whether something grows: slopes of samples that hang together in time, with intervals that say so.
//!
//! Neighbouring samples are alike, so an ordinary regression would be far too sure of itself. The samples of each process are
//! put together into about twelve blocks (the method of batch means), the slope is that of the blocks' means within the
//! processes, and the interval is widened by what correlation is left between neighbouring blocks, with a correction for the
//! bias that an estimate of it has in few blocks. `docs/soak.md` has the simulation that chose this.

use super::rows::{ProcessRow, Row, Rows, Usage};
use crate::stats::student;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Blocks that the whole time of a series is divided into.
const BLOCKS: f64 = 12.0;
/// The fewest blocks of one process: a line through two points says nothing of how good it is.
const LEAST_OF_LIFE: usize = 3;
/// The fewest blocks of all processes together.
const LEAST: usize = 8;
/// A process is new for so long: caches fill.
const WARM_UP_S: f64 = 120.0;
/// One that does not live for so long after that may still be on its way to its level.
const LEAST_LIFE_S: f64 = 600.0;
/// All intervals hold together with this probability.
const TOGETHER: f64 = 0.95;
const DAY_S: f64 = 86_400.0;
/// What grows by no more in a day does no harm in a month: half a GiB, or 480 of the 1,024 descriptors that a process may have.
const HARMLESS_A_DAY: f64 = 16.0;
/// Correlation beyond which an interval says nothing anyway.
const MOST_CORRELATION: f64 = 0.95;

/// A slope with its interval, in units a day.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slope {
    /// The estimate.
    pub per_day: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// The estimate of the later half alone.
    pub later_per_day: f64,
    /// Blocks that it is worked out from.
    pub blocks: usize,
    /// Processes that these are of.
    pub lives: usize,
}

/// What a slope says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trend {
    /// It grows: the interval is over 0, and the later half grows on.
    Grows,
    /// It does not, or by less than would do harm in a month.
    Flat,
    /// The samples do not decide it.
    NotShown,
}

impl Trend {
    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Grows => "grows",
            Self::Flat => "flat",
            Self::NotShown => "not shown",
        }
    }
}

/// One series, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trended {
    /// The process, or `all` and `machine`.
    pub who: String,
    /// What of it.
    pub what: &'static str,
    /// The last value.
    pub last: f64,
    /// Its slope; none where there is too little of it.
    pub slope: Option<Slope>,
    /// What follows.
    pub trend: Trend,
}

/// A sample.
#[derive(Clone, Copy, Debug)]
struct Point {
    at_s: f64,
    seconds: f64,
    value: f64,
}

/// What can grow, and its smallest step.
struct Quantity<T> {
    what: &'static str,
    step: f64,
    /// It goes on when processes end.
    outlives: bool,
    of: fn(&T) -> Option<f64>,
}

/// The process that all nodes of one start of the graph have in common.
const DORA: &str = "dora";
const PAGE_MIB: f64 = 4.0 / 1024.0;

const OF_PROCESS: [Quantity<ProcessRow>; 4] = [
    Quantity { what: "memory, MiB", step: PAGE_MIB, outlives: false, of: |p| Some(p.pss_mib) },
    Quantity { what: "descriptors", step: 1.0, outlives: false, of: |p| Some(p.descriptors) },
    Quantity { what: "threads", step: 1.0, outlives: false, of: |p| Some(p.threads) },
    Quantity { what: "mappings", step: 1.0, outlives: false, of: |p| Some(p.mappings) },
];

const OF_ALL: [Quantity<Usage>; 4] = [
    Quantity { what: "memory, MiB", step: PAGE_MIB, outlives: false, of: |u| Some(u.pss_mib) },
    Quantity { what: "processes", step: 1.0, outlives: false, of: |u| Some(u.processes) },
    Quantity { what: "/dev/shm, MiB", step: PAGE_MIB, outlives: true, of: |u| Some(u.shm_mib) },
    Quantity { what: "GPU memory, MiB", step: 1.0, outlives: true, of: |u| u.gpu_mib },
];

/// A series before it is judged: whose, what, its last value, its smallest step, its processes.
struct Series {
    who: String,
    what: &'static str,
    step: f64,
    lives: Vec<Vec<Point>>,
}

/// All series of a record, judged together.
pub(super) fn trends(rows: &Rows) -> Vec<Trended> {
    let all = series(&rows.rows);
    let level = 1.0 - (1.0 - TOGETHER) / all.len().max(1) as f64;
    let judge = |series: Series| {
        let slope = slope(&series.lives, series.step, level);
        let last = series.lives.last().and_then(|life| life.last()).map_or(0.0, |point| point.value);
        let trend = slope.map_or(Trend::NotShown, trend);
        Trended { who: series.who, what: series.what, last, slope, trend }
    };
    all.into_iter().map(judge).collect()
}

fn series(rows: &[Row]) -> Vec<Series> {
    let mut all = Vec::new();
    let names: BTreeSet<&String> = rows.iter().flat_map(|row| row.processes.keys()).collect();
    for name in names {
        for quantity in &OF_PROCESS {
            let mut lives: BTreeMap<(u64, u32), Vec<Point>> = BTreeMap::new();
            for row in rows {
                let Some(process) = row.processes.get(name) else { continue };
                let Some(value) = (quantity.of)(process) else { continue };
                lives.entry(life_of(process)).or_default().push(Point { at_s: row.at_s, seconds: row.seconds, value });
            }
            let (who, lives) = (name.clone(), lives.into_values().collect());
            all.push(Series { who, what: quantity.what, step: quantity.step, lives });
        }
    }
    for quantity in &OF_ALL {
        // while the graph is started again, nothing of it is there
        let running = || rows.iter().filter_map(|row| Some((row, row.processes.get(DORA)?)));
        let mut lives: BTreeMap<(u64, u32), Vec<Point>> = BTreeMap::new();
        for (row, dora) in running() {
            let Some(value) = (quantity.of)(&row.whole) else { continue };
            let life = if quantity.outlives { (0, 0) } else { life_of(dora) };
            lives.entry(life).or_default().push(Point { at_s: row.at_s, seconds: row.seconds, value });
        }
        if !lives.is_empty() {
            let (who, lives) = ("whole graph".to_owned(), lives.into_values().collect());
            all.push(Series { who, what: quantity.what, step: quantity.step, lives });
        }
    }
    all
}

/// What identifies a process: the moment in which it was first seen, and its number.
fn life_of(process: &ProcessRow) -> (u64, u32) {
    ((process.since_s * 1e3) as u64, process.pid)
}

/// Growth alone is a fault, and only such as is sure, goes on, and matters.
fn trend(slope: Slope) -> Trend {
    if slope.high <= HARMLESS_A_DAY {
        Trend::Flat
    } else if slope.low > 0.0 && slope.later_per_day >= slope.per_day / 2.0 {
        Trend::Grows
    } else {
        Trend::NotShown
    }
}

/// The slope within processes whose samples these are. `step` is the smallest by which a value can change.
fn slope(lives: &[Vec<Point>], step: f64, level: f64) -> Option<Slope> {
    let span = |life: &[Point]| life.iter().map(|point| point.seconds).sum::<f64>();
    let settled = lives.iter().map(|life| settled(life)).filter(|life| span(life) >= LEAST_LIFE_S);
    let settled: Vec<&[Point]> = settled.collect();
    let all_s: f64 = settled.iter().map(|life| span(life)).sum();
    if all_s <= 0.0 {
        return None;
    }
    let count = |life: &[Point]| ((BLOCKS * span(life) / all_s).round() as usize).max(LEAST_OF_LIFE).min(life.len());
    let lives: Vec<Vec<(f64, f64)>> =
        settled.iter().filter(|life| life.len() >= LEAST_OF_LIFE).map(|life| blocks(life, count(life))).collect();
    let n: usize = lives.iter().map(Vec::len).sum();
    if n < LEAST || n < lives.len() + 2 {
        return None;
    }
    let (per_s, error_s, correlation) = regress(&lives)?;
    // an estimate from few blocks is too low, by about (1+4ρ)/n for each value that was fitted: a line, and the level of each life
    let fitted = (lives.len() + 1) as f64 / n as f64;
    let left = (correlation + (1.0 + 4.0 * correlation.max(0.0)) * fitted).clamp(0.0, MOST_CORRELATION);
    let error_s = error_s * ((1.0 + left) / (1.0 - left)).sqrt();
    let half = student(level, n - lives.len() - 1) * error_s + step / all_s;
    let middle = {
        let mut times: Vec<f64> = lives.iter().flatten().map(|block| block.0).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let later: Vec<Vec<(f64, f64)>> =
        lives.iter().map(|life| life.iter().copied().filter(|block| block.0 >= middle).collect()).collect();
    let later_s = regress(&later).map_or(0.0, |fit| fit.0);
    let day = |per_s: f64| per_s * DAY_S;
    Some(Slope {
        per_day: day(per_s),
        low: day(per_s - half),
        high: day(per_s + half),
        later_per_day: day(later_s),
        blocks: n,
        lives: lives.len(),
    })
}

/// The samples of a process without those of its first time.
fn settled(life: &[Point]) -> &[Point] {
    let begin_s = life.first().map_or(0.0, |first| first.at_s - first.seconds);
    &life[life.partition_point(|point| point.at_s - point.seconds < begin_s + WARM_UP_S)..]
}

/// Time and mean of so many blocks of neighbours, which are alike in number.
fn blocks(life: &[Point], count: usize) -> Vec<(f64, f64)> {
    let block = |n: usize| {
        let part = &life[n * life.len() / count..(n + 1) * life.len() / count];
        let seconds: f64 = part.iter().map(|point| point.seconds).sum();
        let mean = |of: fn(&Point) -> f64| part.iter().map(|p| of(p) * p.seconds).sum::<f64>() / seconds;
        (mean(|p| p.at_s - p.seconds / 2.0), mean(|p| p.value))
    };
    (0..count).map(block).collect()
}

/// Least squares within groups: the slope, its standard error, and the correlation of neighbouring residuals.
fn regress(lives: &[Vec<(f64, f64)>]) -> Option<(f64, f64, f64)> {
    let mean = |life: &[(f64, f64)], of: fn(&(f64, f64)) -> f64| life.iter().map(of).sum::<f64>() / life.len() as f64;
    let centred: Vec<Vec<(f64, f64)>> = lives
        .iter()
        .filter(|life| life.len() >= 2)
        .map(|life| {
            let (t, y) = (mean(life, |b| b.0), mean(life, |b| b.1));
            life.iter().map(|block| (block.0 - t, block.1 - y)).collect()
        })
        .collect();
    let n: usize = centred.iter().map(Vec::len).sum();
    let spread: f64 = centred.iter().flatten().map(|(t, _)| t * t).sum();
    if n < centred.len() + 2 || spread <= 0.0 {
        return None;
    }
    let slope = centred.iter().flatten().map(|(t, y)| t * y).sum::<f64>() / spread;
    let residuals: Vec<Vec<f64>> =
        centred.iter().map(|life| life.iter().map(|(t, y)| y - slope * t).collect()).collect();
    let squares: f64 = residuals.iter().flatten().map(|e| e * e).sum();
    let error = (squares / (n - centred.len() - 1) as f64 / spread).sqrt();
    let neighbours: f64 = residuals.iter().flat_map(|life| life.windows(2)).map(|pair| pair[0] * pair[1]).sum();
    Some((slope, error, if squares > 0.0 { neighbours / squares } else { 0.0 }))
}

#[cfg(test)]
#[path = "slope_tests.rs"]
mod tests;
