//! What surrounds a detector's engine: the description of a model (`model.yml`), the heads that turn a network's raw
//! output into boxes, and non-maximum suppression.
//!
//! No engine lives here, so that a converter can read what input a model wants without linking one. Everything is
//! plain arithmetic on slices; nothing panics on any file or any tensor.
#![forbid(unsafe_code)]

pub mod doubt;
pub mod heads;
pub mod model;
pub mod nms;
pub mod onnx;
pub mod signature;
mod yaml;

pub use heads::{Boxes, Decoder, Grid, HeadError, Mapping, RawTensor};
pub use model::{Model, ModelError, Unfit, labels_of, open_file};
pub use onnx::FileError;
pub use signature::{Port, Signature};
pub use yaml::Fault;
