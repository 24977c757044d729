//! How many cameras a machine holds, by experiment: what was asked, each step, and what follows.

use crate::model::Machine;
use millrace_frame::counted;
use serde::{Deserialize, Serialize};

/// Version of the record's form.
pub const CAPACITY_SCHEMA: u32 = 1;

/// A search for the most cameras that hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Capacity {
    /// [`CAPACITY_SCHEMA`].
    pub schema: u32,
    /// When it was made.
    pub date: String,
    /// The command that repeats it.
    pub command: String,
    /// Where.
    pub machine: Machine,
    /// The graph file.
    pub graph: String,
    /// What was set over it.
    pub sets: Vec<String>,
    /// What each camera plays.
    pub clip: String,
    /// The bounds.
    pub asked: Asked,
    /// The runs, in the order in which they were made.
    pub steps: Vec<Step>,
    /// Why the search did not come to its end, where it did not.
    pub unfinished: Option<String>,
}

/// What has to hold, and how far the search goes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Bound on the 95th percentile of the results' age, in milliseconds.
    pub p95_ms: f64,
    /// Share of its own rate that each camera has to reach, in percent.
    pub rate_percent: f64,
    /// Cameras of the first step.
    pub from: u32,
    /// Most cameras that are tried.
    pub most: u32,
    /// Measured time of a step.
    pub seconds: f64,
    /// What passes before that, once all cameras are there.
    pub left_out_s: f64,
}

/// One run with so many cameras.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// How many.
    pub cameras: u32,
    /// What did not hold; empty where everything did.
    pub faults: Vec<String>,
    /// What was measured; nothing of a run that did not get so far.
    pub figures: Option<StepFigures>,
}

impl Step {
    /// Everything that was asked holds.
    #[must_use]
    pub fn held(&self) -> bool {
        self.faults.is_empty() && self.figures.is_some()
    }
}

/// What was measured of a step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepFigures {
    /// Frames a second with results, of all cameras.
    pub fps: f64,
    /// The cameras' own rates, summed.
    pub fps_of_cameras: f64,
    /// 95th percentile of the results' age in milliseconds, of the camera that is worst.
    pub p95_ms: Option<f64>,
    /// Share of the time in which a kernel ran on the GPU, in percent.
    pub gpu_percent: Option<f64>,
    /// Use of the GPU's decoder engines, in percent.
    pub nvdec_percent: Option<f64>,
    /// Processor time of all nodes, in cores.
    pub cpu_cores: f64,
    /// Frames that were lost.
    pub lost: u64,
    /// Frames of a batch of the detector, the mean.
    pub batch: Option<f64>,
    /// Frames a second that the detector's engine gives while it has work.
    pub engine_fps: Option<f64>,
}

impl Capacity {
    /// The most cameras of a step that held.
    #[must_use]
    pub fn held(&self) -> Option<u32> {
        self.steps.iter().filter(|step| step.held()).map(|step| step.cameras).max()
    }

    /// The fewest cameras above those that did not hold.
    fn broke(&self) -> Option<&Step> {
        let above = |step: &&Step| !step.held() && self.held().is_none_or(|held| step.cameras > held);
        self.steps.iter().filter(above).min_by_key(|step| step.cameras)
    }

    /// How many cameras to try next: twice as many until it does not hold, then half way between; nothing at the end.
    #[must_use]
    pub fn next_cameras(&self) -> Option<u32> {
        let Asked { from, most, .. } = self.asked;
        if self.steps.is_empty() {
            return Some(from.min(most));
        }
        let (held, broke) = (self.held().unwrap_or(0), self.broke().map(|step| step.cameras));
        match broke {
            None if held >= most => None,
            None => Some(held.saturating_mul(2).min(most)),
            Some(broke) => (broke - held > 1).then(|| held + (broke - held) / 2),
        }
    }

    /// The outcome in a sentence, of what ran and no more.
    #[must_use]
    pub fn outcome(&self) -> String {
        let broke = self.broke().map(|step| {
            let why = step.faults.first().and_then(|fault| fault.lines().next()).unwrap_or("nothing was measured");
            format!("{} did not: {why}", step.cameras)
        });
        let found = match (self.held(), broke) {
            (Some(held), Some(broke)) => format!("{} held; {broke}", cameras(held)),
            (Some(held), None) if held >= self.asked.most => {
                format!("{} held, the most that were tried (--most)", cameras(held))
            }
            (Some(held), None) => format!("{} held, and no more were tried", cameras(held)),
            (None, Some(broke)) => format!("no step held; {broke}"),
            (None, None) => "nothing ran".to_owned(),
        };
        match &self.unfinished {
            Some(why) => format!("{found} ({why})"),
            None => found,
        }
    }
}

/// So many cameras, in words.
pub(crate) fn cameras(n: u32) -> String {
    counted(n, "camera", "cameras")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn capacity(from: u32, most: u32) -> Capacity {
        Capacity {
            schema: CAPACITY_SCHEMA,
            date: "2026-11-24".into(),
            command: "millrace capacity graphs/cameras.yml".into(),
            machine: Machine::default(),
            graph: "graphs/cameras.yml".into(),
            sets: Vec::new(),
            clip: "clip<1>.mp4".into(),
            asked: Asked { p95_ms: 100.0, rate_percent: 98.0, from, most, seconds: 10.0, left_out_s: 5.0 },
            steps: Vec::new(),
            unfinished: None,
        }
    }

    pub(crate) fn step(cameras: u32, held: bool) -> Step {
        let faults = if held { Vec::new() } else { vec!["detect lost 7 frames (overtaken)".to_owned()] };
        let fps = f64::from(cameras) * 25.0;
        let figures =
            StepFigures { fps, fps_of_cameras: fps, p95_ms: Some(40.0), cpu_cores: 0.5, ..Default::default() };
        Step { cameras, faults, figures: Some(figures) }
    }

    /// The steps of a search on a machine that holds so many.
    fn search(from: u32, most: u32, holds: u32) -> (Vec<u32>, Capacity) {
        let mut capacity = capacity(from, most);
        let mut tried = Vec::new();
        while let Some(next) = capacity.next_cameras() {
            assert!(!tried.contains(&next) && tried.len() < 40, "{tried:?}, {next}");
            tried.push(next);
            capacity.steps.push(step(next, next <= holds));
        }
        (tried, capacity)
    }

    #[test]
    fn the_search_doubles_and_then_bisects_and_finds_the_last_that_holds() {
        assert_eq!(search(1, 256, 11).0, [1, 2, 4, 8, 16, 12, 10, 11]);
        for (from, most) in [(1, 256), (1, 5), (7, 300), (256, 256), (3, 3), (9, 4)] {
            for holds in 0..=310 {
                let (tried, capacity) = search(from, most, holds);
                let found = Some(holds.min(most)).filter(|held| *held > 0);
                assert_eq!(capacity.held(), found, "from {from}, most {most}, holds {holds}: {tried:?}");
                assert!(tried.iter().all(|n| (1..=most).contains(n)), "{tried:?}");
            }
        }
    }

    #[test]
    fn the_outcome_says_what_ran_and_no_more() {
        assert_eq!(search(1, 256, 11).1.outcome(), "11 cameras held; 12 did not: detect lost 7 frames (overtaken)");
        assert_eq!(search(1, 4, 9).1.outcome(), "4 cameras held, the most that were tried (--most)");
        assert_eq!(search(2, 4, 0).1.outcome(), "no step held; 1 did not: detect lost 7 frames (overtaken)");
        let mut stopped = capacity(1, 256);
        stopped.unfinished = Some("stopped by Ctrl-C".into());
        assert_eq!(stopped.outcome(), "nothing ran (stopped by Ctrl-C)");
        stopped.steps.push(step(1, true));
        assert_eq!(stopped.outcome(), "1 camera held, and no more were tried (stopped by Ctrl-C)");
        // a run that gave no figures did not hold, whatever it lacks
        stopped.steps[0] = Step { figures: None, ..step(1, true) };
        assert_eq!(stopped.held(), None);
    }
}
