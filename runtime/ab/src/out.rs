//! The report's forms.

use crate::analysis::Analysis;
use crate::gate::Judgement;
use crate::model::Experiment;
use serde::{Deserialize, Serialize};

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

/// The report as JSON.
pub fn json(report: &Report) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(report)
}

/// Tables for a terminal; `colour` where it is one.
#[must_use]
pub fn terminal(_report: &Report, _colour: bool) -> String {
    String::new()
}

/// One page that needs no other file.
#[must_use]
pub fn html(_report: &Report) -> String {
    String::new()
}

/// The page for docs/experiments/ and the plot beside it, whose file name is `svg_name`: (Markdown, SVG).
#[must_use]
pub fn markdown(_report: &Report, _svg_name: &str) -> (String, String) {
    (String::new(), String::new())
}
