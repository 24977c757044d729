//! Everything that follows from an experiment.

use crate::detections::{self, DetectionResult};
use crate::model::{Experiment, LoadRuns, Metric, Pace};
use crate::stats::{self, Comparison};
use crate::tensors::{self, TensorResult};
use crate::verdict::{self, Bottleneck, Verdict};
use serde::{Deserialize, Serialize};

/// What follows from an [`Experiment`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Analysis {
    /// The headline.
    pub verdict: Verdict,
    /// One a load, in the experiment's order.
    pub loads: Vec<LoadAnalysis>,
    /// The tensors, where they were compared.
    pub tensors: Option<TensorResult>,
    /// The detections, where they were compared.
    pub detections: Option<DetectionResult>,
}

/// What follows from the runs of one load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoadAnalysis {
    /// How the graphs were driven.
    pub pace: Pace,
    /// Where they were cut off.
    pub until: Option<String>,
    /// The metric that the verdict looks at first: at the cameras' rate the processor time is looked at after it; all
    /// others are shown and decide nothing.
    pub primary: Metric,
    /// All metrics that were measured.
    pub metrics: Vec<Comparison>,
    /// The busiest node of arm A, then of arm B.
    pub bottleneck: [Option<Bottleneck>; 2],
}

impl LoadAnalysis {
    /// The comparison of one metric.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> Option<&Comparison> {
        self.metrics.iter().find(|c| c.metric == metric)
    }

    /// What headings and requirements call it.
    #[must_use]
    pub fn title(&self) -> String {
        let pace = match self.pace {
            Pace::Saturated => "saturated",
            Pace::Cameras => "cameras",
        };
        self.until.as_ref().map_or_else(|| pace.to_owned(), |node| format!("{pace}, until {node}"))
    }
}

/// Works out everything. The same experiment gives the same analysis: the resampling is seeded.
#[must_use]
pub fn analyse(experiment: &Experiment) -> Analysis {
    let loads: Vec<_> = experiment.loads.iter().map(load).collect();
    let tensors = experiment.quality.as_ref().and_then(|q| tensors::analyse(&q.tensors));
    let detections = experiment.quality.as_ref().and_then(detections::analyse);
    let verdict = verdict::verdict(experiment, &loads, tensors.as_ref(), detections.as_ref());
    Analysis { verdict, loads, tensors, detections }
}

fn load(runs: &LoadRuns) -> LoadAnalysis {
    let metrics: Vec<_> = Metric::ALL.into_iter().filter_map(|m| stats::compare(runs, m)).collect();
    let primary = verdict::primary(runs.pace, &metrics);
    let bottleneck = verdict::bottlenecks(runs);
    LoadAnalysis { pace: runs.pace, until: runs.until.clone(), primary, metrics, bottleneck }
}
