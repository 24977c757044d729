//! The fused pass on a GPU: one launch for the frames of many cameras, of any sizes and formats. And the way of a detector's
//! outputs back.
//!
//! | module | what |
//! |---|---|
//! | `plan` | a kernel's parameters for the frames of one description |
//! | `grid` | which kernel, how many threads, which frames |
//! | `launch` | the modules, and checked jobs to launches |
//! | `converter` | the fused pass, and pictures for previews |
//! | `whole` | frames whose scale is a whole number |
//! | `separate` | the same job as separate passes over full-size RGB |
//! | `candidates` | of a detector's candidates those that can become boxes |
//! | `turn` | a plane as it is shown |
//! | `download` | an output of a network on its way to the host |
//!
//! The kernels are in `kernels/cuda`; those of the pass compute the bits that [`Converter`](crate::Converter) computes.

mod candidates;
mod converter;
mod download;
mod grid;
mod launch;
mod plan;
mod separate;
mod turn;
mod whole;

pub use candidates::{Candidates, Layout, NoBox};
pub use converter::{CudaConverter, CudaJob, CudaToRgb};
pub use download::{Arrived, Download, KeptPlaces};
pub use grid::{Kernel, Launch, MAX_FRAMES, Tile};
pub use plan::Plan;
pub use separate::CudaSeparatePasses;
pub use turn::{CudaTurn, TurnParameter, TurnedPlane};

use crate::ConvertError;
use millrace_cuda::CudaError;

/// Why frames were not converted on a GPU.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum CudaConvertError {
    #[error("frame {index} of the batch: {error}")]
    Job { index: usize, error: ConvertError },
    #[error(
        "frame {index} of the batch: a tensor begins at address {address:#x}, which is no multiple of the {element_bytes} bytes \
         of its elements; begin tensors at whole elements of their memory"
    )]
    Alignment { index: usize, address: u64, element_bytes: u64 },
    #[error(transparent)]
    Convert(#[from] ConvertError),
    #[error(transparent)]
    Cuda(#[from] CudaError),
}
