//! The harness that every node runs in: it owns dora's connection, the settings, the pools, the counters, the stop and
//! the drain, so that a node is its settings and what it does to a frame.
//!
//! A node implements [`Node`]; its `main` is one line:
//!
//! ```ignore
//! fn main() -> std::process::ExitCode {
//!     millrace_node::main::<node::MyNode>()
//! }
//! ```
//!
//! Architecture invariant: dora is named in `link/dora.rs` and nowhere else in the workspace.
#![forbid(unsafe_code)]

mod batch;
mod cameras;
mod context;
mod describe;
mod directory;
mod error;
mod file_path;
mod files;
mod findings;
mod gpu;
mod group;
mod inputs;
mod launch;
mod link;
mod log;
mod metrics;
mod node;
mod node_lock;
mod outputs;
mod params;
mod run;
mod sandbox;
mod settings;
mod status;
mod stuck;
pub mod testing;
#[cfg(test)]
mod tests;
mod usage;

pub use cameras::Cameras;
pub use context::{Context, StopFlag};
pub use error::NodeError;
pub use file_path::FilePath;
pub use files::create_file;
pub use findings::Findings;
pub use gpu::{GpuSettings, Queue, ShareSetting, SyncMode};
pub use group::{Stage, host};
pub use inputs::{FrameLease, Input};
pub use log::{install as log_to_stderr, logging_here};
pub use metrics::Metrics;
pub use millrace_graph::settings::file_text;
pub use millrace_pool::Flow;
pub use node::{Node, Order, PortIn, PortOut, Ports, Progress};
pub use outputs::{DeviceSlotMut, Outputs, SlotMut};
pub use run::main;
pub use sandbox::{Needs, Sandbox, Sandboxed, sandboxed};
pub use settings::settings_from;
