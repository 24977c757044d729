//! TensorRT: an ONNX model to an engine, and an engine to its outputs.
//!
//! Called without its headers and without a C++ compiler, by the places of its virtual functions: docs/adr/0013 says
//! why, and docs/nodes/trt-infer.md which half has been seen to work where.
//!
//! | module | what |
//! |---|---|
//! | `layout` | places of the functions, for each major version |
//! | `abi` | objects of a C++ library |
//! | `calls` | what TensorRT calls: logger, progress monitor |
//! | `library` | opening, versions |
//! | `network` | an ONNX model, parsed, and the engine built of it: needs no GPU with TensorRT-RTX |
//! | `config` | what a build is given beside the model |
//! | `engine` | an engine loaded on a GPU |
//! | `context` | what is called of an engine's contexts |
//! | `session` | batches through an engine: several in work, outputs in host memory |

mod abi;
mod calls;
mod config;
mod context;
mod engine;
mod layout;
mod library;
mod network;
mod session;
#[cfg(test)]
mod tests;

pub use calls::Progress;
pub use engine::Engine;
pub use layout::Version;
pub use library::Tensorrt;
pub use network::{BuildOptions, Network, OpenInput, Plan};
pub use session::{Down, Flight, Input, Output, Session, Work};

use crate::CudaError;

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// Extent of its axes, -1 for one that the model leaves open.
    pub dims: Vec<i64>,
    /// Whether it is an input.
    pub is_input: bool,
}

/// `DataType`, as a number: a newer release may have more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Dtype(i32);

impl Dtype {
    /// 32-bit floats.
    pub const F32: Self = Self(0);
    /// 16-bit floats.
    pub const F16: Self = Self(1);
    /// Bytes without a sign.
    pub const U8: Self = Self(5);

    /// The type as Rust writes it.
    pub fn name(self) -> String {
        let known = ["f32", "f16", "i8", "i32", "bool", "u8", "f8", "bf16", "i64", "i4", "f4"];
        let name = usize::try_from(self.0).ok().and_then(|n| known.get(n));
        name.map_or_else(|| format!("type {} of TensorRT", self.0), |name| (*name).to_owned())
    }

    /// Bytes of one element, of the types that a tensor of a detector can have.
    pub fn bytes(self) -> Option<u64> {
        match self.0 {
            0 | 3 => Some(4),
            1 | 7 => Some(2),
            2 | 4 | 5 => Some(1),
            8 => Some(8),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

/// Why TensorRT did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum TensorrtError {
    #[error(transparent)]
    Cuda(#[from] CudaError),
    #[error("'{file}' is no name of TensorRT; name a libnvinfer.so.8, .10 or .11, or a libtensorrt_rtx.so.1")]
    Name { file: String },
    #[error("'{file}' is {version}, and where its functions are is not known here; it is known of {understood}")]
    Version { file: String, version: String, understood: &'static str },
    #[error("'{before}' was opened before '{file}'; a process has one TensorRT")]
    Second { before: String, file: String },
    #[error("TensorRT cannot read the model: {why}")]
    Model { why: String },
    #[error("TensorRT did not {what}: {said}")]
    Refused { what: &'static str, said: String },
    #[error("{what}: {why}")]
    Misuse { what: String, why: String },
}

impl TensorrtError {
    pub(crate) fn misuse(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Misuse { what: what.into(), why: why.into() }
    }
}
