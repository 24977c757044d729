//! Checks of dora graphs: every fault at once, each with its place, its cause and how to mend it.
//!
//! Knows dora's graph format (1.1) but uses no part of dora. The way of a graph through the modules:
//! [`yaml`] (a tree with places) → `modules` (their nodes put in place) → [`model`] (nodes, inputs, `env:`) → [`check`] (wiring, and settings by what each
//! node [`describe`]s of itself and [`remarks`] of its settings) → a [`fault::Report`]; from the outcome, [`explain`] and [`resolved`]. [`schema`] is for editors.

pub mod cameras;
pub mod check;
pub mod describe;
mod dora;
pub mod explain;
pub mod fault;
pub mod model;
mod modules;
pub mod nearest;
pub mod redact;
pub mod remarks;
pub mod resolved;
mod restarts;
pub mod schedule;
pub mod schema;
pub mod settings;
pub mod yaml;

pub use dora::Upstream;
pub use modules::ModuleNode;
pub use restarts::Restarts;
