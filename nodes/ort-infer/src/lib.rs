//! An ONNX detector over ONNX Runtime, whose library is opened at run time.
//!
//! | module | what |
//! |---|---|
//! | `config` | the settings |
//! | `library` | where ONNX Runtime is found, and what it says |
//! | `provider` | sessions: on the CPU, on a GPU by CUDA or TensorRT; never elsewhere than was asked |
//! | `device` | a session's tensors in a GPU's memory: the one place with unsafe code |
//! | `engine` | the engine |

mod config;
mod device;
mod engine;
mod library;
mod provider;
#[cfg(test)]
mod tests;

pub use config::{Provider, Settings};
pub use engine::Ort;
