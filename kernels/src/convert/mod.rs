//! The fused pass: a decoded frame to a model's input tensor.
//!
//! For each output pixel the components of the source are sampled between two rows and two columns (half-pixel centres, no antialiasing:
//! OpenCV's `INTER_LINEAR`), Y where the pixel lies in the luma plane and CbCr where it lies in the chroma plane by the
//! stated siting; then one affine map and a clamp per channel give the normalized value. Resampling before the colour matrix
//! equals resampling after it, because both are affine, as long as no sample is outside the RGB cube; `docs/adr/0007` has
//! the measurements and the rule for footroom and headroom.

mod colour;
mod encode;
mod job;
mod sample;
mod taps;

use crate::geometry::{Placement, place};
use crate::target::{Target, TargetError};
use colour::Channel;
use encode::{AsF16, AsF32, AsU8};
use job::Job;
use millrace_frame::{ImageDesc, LayoutError, Size, TensorDesc, TensorDtype};
use sample::{PlaneBytes, Portable, Source};
use taps::PlaneTaps;

/// Why a frame was not converted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum ConvertError {
    #[error("the source image cannot be: {0}")]
    Source(#[from] LayoutError),
    #[error("the tensor cannot be: {0}")]
    Target(#[from] TargetError),
    #[error("a {format} frame of {coded} needs {need} bytes, the slice has {have}")]
    SourceBytes { format: millrace_frame::PixelFormat, coded: Size, need: u64, have: u64 },
    #[error("the tensor needs {need} bytes, the slice has {have}")]
    TensorBytes { need: u64, have: u64 },
}

/// Converts frames of one description into tensors of one target.
///
/// - In: an [`ImageDesc`] in any format that the frame crate knows (NV12, P016, I420, BGR24, RGB24), any size, pitch
///   and crop; matrix, range and siting as it states them.
/// - Out: the tensor of the [`Target`], contiguous from the slice's first byte, native byte order, any alignment.
/// - Not in place; every byte of the tensor is written, padding included.
#[derive(Debug)]
pub struct Converter {
    source: ImageDesc,
    source_bytes: u64,
    row_bytes: [usize; 3],
    target: Target,
    placement: Placement,
    full: PlaneTaps,
    chroma: Option<PlaneTaps>,
    channels: [Channel; 3],
    components: [Vec<f32>; 3],
}

impl Converter {
    /// Prepares the conversion of frames described by `source`. This computes the tap tables and allocates the scratch
    /// rows; [`Converter::convert`] then allocates nothing.
    pub fn new(source: &ImageDesc, target: &Target) -> Result<Self, ConvertError> {
        Self::placed(source, target, place(source.display_size(), target.size, target.fit))
    }

    /// The same, with the picture placed by the caller; `target.fit` is not looked at.
    pub(crate) fn placed(source: &ImageDesc, target: &Target, placement: Placement) -> Result<Self, ConvertError> {
        source.validate(u64::MAX)?;
        target.validate()?;
        let placed = Size::new(placement.placed.width_px, placement.placed.height_px);
        let (full, chroma) = taps::plane_taps(source.format, source.display, source.colour.siting.value, placed);
        let (mut source_bytes, mut row_bytes) = (0, [0; 3]);
        for (i, (plane, (row, rows))) in source.planes.iter().zip(source.format.plane_shapes(source.coded)).enumerate()
        {
            row_bytes[i] = row as usize;
            source_bytes = source_bytes.max(plane.offset_bytes + u64::from(plane.pitch_bytes) * (rows - 1) + row);
        }
        let row = vec![0.0; placed.width_px as usize];
        Ok(Self {
            source: source.clone(),
            source_bytes,
            row_bytes,
            target: *target,
            placement,
            full,
            chroma,
            channels: colour::channels(source.format, &source.colour, target),
            components: [row.clone(), row.clone(), row],
        })
    }

    /// Whether frames of this description are the ones that the converter was made for.
    pub fn fits(&self, source: &ImageDesc) -> bool {
        self.source == *source
    }

    /// The description of the tensor.
    pub fn tensor(&self) -> TensorDesc {
        TensorDesc {
            shape: self.target.shape(),
            dtype: self.target.dtype,
            layout: self.target.layout,
            source_from_model: self.placement.source_from_model,
            source_size: self.source.display_size(),
        }
    }

    /// Where the picture lies in the tensor.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Converts the frame in `source` (the slot that the description's offsets count from) into `tensor`, of which the
    /// first `self.tensor().bytes()` bytes are written.
    pub fn convert(&mut self, source: &[u8], tensor: &mut [u8]) -> Result<(), ConvertError> {
        let need = self.tensor().bytes();
        let have = tensor.len() as u64;
        if have < need {
            return Err(ConvertError::TensorBytes { need, have });
        }
        if (source.len() as u64) < self.source_bytes {
            let (format, coded) = (self.source.format, self.source.coded);
            let (need, have) = (self.source_bytes, source.len() as u64);
            return Err(ConvertError::SourceBytes { format, coded, need, have });
        }
        let mut planes = [PlaneBytes { bytes: &[], pitch_bytes: 0, row_bytes: 0 }; 3];
        for (i, (bytes, plane)) in planes.iter_mut().zip(&self.source.planes).enumerate() {
            *bytes = PlaneBytes {
                bytes: &source[plane.offset_bytes as usize..],
                pitch_bytes: plane.pitch_bytes as usize,
                row_bytes: self.row_bytes[i],
            };
        }
        let source = Source { format: self.source.format, planes, full: &self.full, chroma: self.chroma.as_ref() };
        let job = Job {
            source: &source,
            target: &self.target,
            placement: &self.placement,
            channels: &self.channels,
            components: &mut self.components,
            tensor: &mut tensor[..need as usize],
        };
        match self.target.dtype {
            TensorDtype::F32 => job.run::<4, AsF32, _>(&Portable),
            TensorDtype::F16 => job.run::<2, AsF16, _>(&Portable),
            TensorDtype::U8 => job.run::<1, AsU8, _>(&Portable),
        }
        Ok(())
    }
}
