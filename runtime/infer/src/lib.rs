//! A detector node, written once for every inference engine.
//!
//! An [`Engine`] loads a model file and turns a tensor into raw outputs. [`Detector`] puts what is the same for all
//! engines around it: the check of the model against its `model.yml`, the check of each tensor, the head, suppression
//! and the mapping to the source. [`InferNode`] is the node of the dataflow; an engine's crate is its `Engine` and a
//! `main` of one line.
//!
//! [`main`] is also what `millrace model` asks: to check a model, and to write the description of a new one.
//!
//! A tensor may be in host memory or, for an engine that works on one, on a GPU; then it is read where it is, in the order
//! of the engine's stream. Frames that are there at once may go through the model together. An engine accepts a batch and
//! gives it back later, and the event loop waits for none ([ADR 0024](../../../docs/adr/0024-batches-in-flight.md)).
#![forbid(unsafe_code)]

mod detector;
mod engine;
mod fit;
mod node;
mod order;
mod outlet;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod tests;
mod tool;
mod workers;

pub use detector::{DetectError, Detector, Found};
pub use engine::{
    Batch, Computed, DetectorSettings, Elements, Engine, EngineError, Flight, Tensor, contained, second_input,
};
pub use millrace_detect::{Grid, Port, RawTensor, Signature, onnx};
pub use node::InferNode;
pub use outlet::Outlet;
pub use tool::main;

/// The detector over the engine `E` as a part of a process of several nodes.
pub const fn stage<E: Engine>() -> millrace_node::Stage {
    millrace_node::Stage::of::<InferNode<E>>()
}
