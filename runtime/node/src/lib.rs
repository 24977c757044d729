//! The harness that every node runs in: it owns dora's connection, the settings, the pools, the counters, the stop and
//! the drain, so that a node is its settings and what it does to a frame.
//!
//! `docs/your-own-node.md` is a tutorial. A node implements [`Node`]; its `main` is one line:
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
pub use log::{log_to_stderr, logging_here};
pub use metrics::Metrics;
/// Descriptions of frames and detections.
pub use millrace_frame as frame;
pub use millrace_graph::settings::file_text;
pub use millrace_pool::Flow;
pub use node::{Node, Order, PortIn, PortOut, Ports, Progress};
pub use outputs::{DeviceSlotMut, Outputs, SlotMut};
pub use run::main;
pub use sandbox::{Needs, Sandbox, Sandboxed, sandboxed};
pub use settings::settings_from;
// what a node's settings and log lines are made with, in the versions that the harness uses
pub use {schemars, serde, tracing};

/// Declares the settings of a node: a struct with documented fields, each of which is a setting of the graph's `env:`. Fields are
/// named in upper case there, and a name that is no field is refused. `#[serde(default)]` makes a setting optional, and
/// `#[schemars(range(min = 0, max = 1))]` bounds it.
///
/// It saves the node the dependencies on serde and schemars; `docs/your-own-node.md` has an example.
#[macro_export]
macro_rules! settings {
    ($(#[$meta:meta])* $visibility:vis struct $name:ident { $($fields:tt)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, $crate::serde::Deserialize, $crate::schemars::JsonSchema)]
        #[serde(crate = "::millrace_node::serde", rename_all = "SCREAMING_SNAKE_CASE", deny_unknown_fields)]
        #[schemars(crate = "::millrace_node::schemars")]
        $visibility struct $name { $($fields)* }
    };
}
