//! A fair comparison of two graphs: what was measured, what follows from it, and how it is shown.
//!
//! `millrace ab` runs the graphs and fills an [`Experiment`](model::Experiment); everything else is worked out from that
//! alone, so a stored report can be judged and drawn again. The same for `millrace capacity` and its
//! [`Capacity`](capacity::Capacity), and for `millrace soak` and its [`Soak`](soak::Soak).
#![forbid(unsafe_code)]

mod analysis;
pub mod capacity;
mod detections;
mod gate;
mod metric;
pub mod model;
mod out;
pub mod soak;
mod stats;
mod tensors;
mod verdict;

pub use analysis::{Analysis, LoadAnalysis, analyse};
pub use detections::{Accuracy, BoxChange, DetectionResult};
pub use gate::{Fault, Judgement, Outcome, Requirements};
pub use out::{
    ReadError, Report, capacity_html, capacity_row, html, json, markdown, soak_html, soak_json, soak_read, terminal,
};
pub use stats::{Comparison, DEFAULT_ROUNDS, Interval};
pub use tensors::TensorResult;
pub use verdict::{Bottleneck, Verdict, Word};
