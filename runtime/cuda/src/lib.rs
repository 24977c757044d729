//! Everything that loads an NVIDIA library. Nothing is linked: libraries are opened when the first device is, and a
//! machine without them gets an error that says which is missing, what brings it and what to use instead.
//!
//! | module | what |
//! |---|---|
//! | `gpu` | the driver, devices, contexts |
//! | `stream` | streams, events, between processes too |
//! | `memory` | device memory by plain allocation, by IPC handle and by file descriptor; pinned host memory; copies |
//! | `module` | PTX modules and launches |
//! | [`nvdec`] | the video decoder |
//! | [`nvml`] | how busy a device is, for reports |
//! | `libraries` | which libraries are there, and their versions, for reports |
//! | `tensorrt` | TensorRT: an ONNX model to an engine, and an engine to its outputs |
//!
//! Architecture invariant: status codes and values that a newer driver may return are read as numbers, never as Rust
//! enums. What was opened from another process never sits in an owning allocation.

mod error;
mod gpu;
mod graph;
pub mod libraries;
mod memory;
mod module;
pub mod nvdec;
pub mod nvml;
mod stream;
mod sys;
pub mod tensorrt;

pub use error::CudaError;
pub use gpu::{Attribute, Gpu, device_count, device_uuid, driver_version};
pub use graph::Graph;
pub use memory::{DeviceMemory, PinnedMemory, Rows, Span};
pub use module::{Function, Grid, Module};
pub use stream::{Event, Stream, Waker};

pub(crate) use error::driver;
