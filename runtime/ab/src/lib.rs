//! A fair comparison of two graphs: what was measured, what follows from it, and how it is shown.
//!
//! `millrace ab` runs the graphs and fills an [`Experiment`](model::Experiment); everything else is worked out from that
//! alone, so a stored report can be judged and drawn again.
#![forbid(unsafe_code)]

pub mod model;
