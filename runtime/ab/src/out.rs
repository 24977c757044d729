//! The report's forms.

mod capacity;
mod html;
mod markdown;
mod pictures;
mod plots;
mod scale;
mod soak;
mod spark;
mod tables;
mod terminal;

use crate::analysis::{Analysis, analyse};
use crate::gate::{Judgement, Requirements};
use crate::model::Experiment;
use serde::{Deserialize, Serialize};

pub use capacity::{capacity_html, capacity_row};
pub use html::html;
pub use markdown::markdown;
pub use soak::{soak_html, soak_json, soak_read};
pub use terminal::terminal;

/// An experiment with all that follows from it: the JSON report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// What was measured.
    pub experiment: Experiment,
    /// What follows.
    pub analysis: Analysis,
    /// What was required of it.
    #[serde(default)]
    pub requirements: Vec<Judgement>,
}

impl Report {
    /// Works everything out. Figures that are no numbers are taken out first: JSON has no form for them.
    #[must_use]
    pub fn new(mut experiment: Experiment, requirements: &Requirements) -> Self {
        finite(&mut experiment);
        let analysis = analyse(&experiment);
        let requirements = requirements.judge(&analysis);
        Self { experiment, analysis, requirements }
    }

    /// Reads a stored report, and evaluates it again.
    ///
    /// # Errors
    /// The text is no report, or one of another version.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        #[derive(Deserialize)]
        struct Version {
            experiment: Schema,
        }
        #[derive(Deserialize)]
        struct Schema {
            schema: u32,
        }
        let version: Version = serde_json::from_str(text)?;
        let found = version.experiment.schema;
        if found != crate::model::SCHEMA {
            return Err(ReadError::Schema { found });
        }
        let mut report: Self = serde_json::from_str(text)?;
        report.analysis = analyse(&report.experiment);
        Ok(report)
    }
}

/// Why a stored report cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not the JSON of a report.
    #[error("not a report of millrace ab: {0}")]
    Json(#[from] serde_json::Error),
    /// Another millrace wrote it.
    #[error("a report of schema {found}, this millrace reads {}; run the experiment again", crate::model::SCHEMA)]
    Schema {
        /// Its schema.
        found: u32,
    },
}

fn finite(experiment: &mut Experiment) {
    for run in experiment.loads.iter_mut().flat_map(|l| &mut l.runs) {
        run.figures.retain(|_, v| v.is_finite());
    }
    let Some(quality) = &mut experiment.quality else { return };
    for t in &mut quality.tensors {
        // an error that is no number is as large as one can be
        for v in [&mut t.sum_squared, &mut t.largest].into_iter().chain(&mut t.range_a) {
            if !v.is_finite() {
                *v = f64::MAX;
            }
        }
    }
    if !quality.score_threshold.is_finite() {
        quality.score_threshold = 0.0;
    }
    for frame in quality.detections_a.iter_mut().chain(&mut quality.detections_b).chain(&mut quality.truth) {
        for boxes in [&mut frame.boxes, &mut frame.ignored] {
            boxes.retain(|b| [b.x1, b.y1, b.x2, b.y2, b.score].iter().all(|v| v.is_finite()));
        }
    }
}

/// The report as JSON. Figures that are no numbers are left out, also of a report that was not made by [`Report::new`].
///
/// # Errors
/// Those of the serializer.
pub fn json(report: &Report) -> Result<String, serde_json::Error> {
    let mut report = report.clone();
    finite(&mut report.experiment);
    serde_json::to_string_pretty(&report)
}
