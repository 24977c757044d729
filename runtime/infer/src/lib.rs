//! A detector node, written once for every inference engine.
//!
//! An [`Engine`] loads a model file and turns a tensor into raw outputs. [`Detector`] puts what is the same for all
//! engines around it: the check of the model against its `model.yml`, the check of each tensor, the head, suppression
//! and the mapping to the source. [`InferNode`] is the node of the dataflow; an engine's crate is its `Engine` and a
//! `main` of one line.
//!
//! [`main`] is also what `millrace model` asks: to check a model, and to write the description of a new one.
//!
//! A tensor may lie in host memory or, for an engine that works on one, on a GPU; then it is read where it lies, in the
//! order of the engine's stream, and frames that are there at once may go through the model together.
#![forbid(unsafe_code)]

mod detector;
mod engine;
mod node;
pub mod onnx;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod tests;
mod tool;
mod workers;

pub use detector::{DetectError, Detector, Found};
pub use engine::{Common, Elements, Engine, EngineError, OnGpu, contained, second_input};
pub use millrace_detect::{Port, RawTensor, Signature};
pub use node::InferNode;
pub use tool::main;
