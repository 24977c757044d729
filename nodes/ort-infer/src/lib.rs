//! An ONNX detector over ONNX Runtime, whose library is opened at run time.
//!
//! | module | what |
//! |---|---|
//! | `config` | the settings |
//! | `library` | where ONNX Runtime is found, and what it says |
//! | `provider` | sessions: on the CPU, on a GPU by CUDA or TensorRT; never elsewhere than was asked |
//! | `device` | a session's tensors in a GPU's memory: the one place with unsafe code |
//! | `places` | what is said of nodes that are not computed where it was asked |
//! | `rewrite` | a model said in another way, for what a provider lacks |
//! | `engine` | the engine |

mod config;
mod device;
mod engine;
mod library;
mod places;
mod provider;
mod rewrite;
#[cfg(test)]
mod tests;

pub use config::{ConvSearch, Provider, Settings};
pub use engine::Ort;

use millrace_node::Stage;
use std::process::ExitCode;

/// The `main` of its program.
pub fn main() -> ExitCode {
    millrace_infer::main::<Ort>()
}

/// The node as a part of a process of several.
pub const fn stage() -> Stage {
    millrace_infer::stage::<Ort>()
}
