//! What can go wrong with the video decoder.

use super::Codec;
use crate::CudaError;

/// Why the video decoder cannot decode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum NvdecError {
    #[error(transparent)]
    Cuda(#[from] CudaError),
    #[error(
        "{codec} of {width_px}x{height_px}, {bit_depth} bit, chroma format {chroma} on {gpu}: {why}; use sw-nv12 for this camera, or set the camera or transcode to what the GPU decodes"
    )]
    Unsupported {
        codec: Codec,
        width_px: u32,
        height_px: u32,
        bit_depth: u8,
        chroma: &'static str,
        gpu: String,
        why: String,
    },
    #[error("the stream's parser: {0}")]
    Stream(String),
    #[error("the stream was closed while it waited for a surface")]
    Closed,
}

impl NvdecError {
    /// No key picture will help: the GPU does not decode this kind of stream.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }
}
