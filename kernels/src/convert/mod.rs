//! The fused pass: a decoded frame to a model's input tensor.
//!
//! For each output pixel the components of the source are sampled between two rows and two columns (half-pixel centres, no antialiasing:
//! OpenCV's `INTER_LINEAR`), Y where the pixel lies in the luma plane and CbCr where it lies in the chroma plane by the
//! stated siting; then one affine map and a clamp per channel give the normalized value. Resampling before the colour matrix
//! equals resampling after it, because both are affine, as long as no sample is outside the RGB cube; `docs/adr/0007` has
//! the measurements and the rule for footroom and headroom.

pub(crate) mod colour;
mod encode;
mod job;
mod sample;
pub(crate) mod taps;
#[cfg(target_arch = "x86_64")]
mod windows;

use crate::geometry::{Placement, place};
use crate::target::{Target, TargetError};
use colour::Channel;
use job::Job;
use millrace_frame::{ImageDesc, LayoutError, Rect, Size, TensorDesc};
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
/// - Not in place; every byte of the tensor is written, padding included, but by [`Converter::convert_padded`].
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
    #[cfg(target_arch = "x86_64")]
    windows: Option<windows::Windows>,
}

impl Converter {
    /// Prepares the conversion of frames described by `source`. This computes the tap tables and allocates the scratch
    /// rows; [`Converter::convert`] then allocates nothing.
    pub fn new(source: &ImageDesc, target: &Target) -> Result<Self, ConvertError> {
        let placement = place(source.display_size(), target.size, target.fit);
        Self::placed(source, target, placement, placement.shown_of(source))
    }

    /// The same, with this part of the stored picture placed by the caller; `target.fit` is not looked at.
    pub(crate) fn placed(
        source: &ImageDesc,
        target: &Target,
        placement: Placement,
        part: Rect,
    ) -> Result<Self, ConvertError> {
        source.validate(u64::MAX)?;
        target.validate()?;
        let placed = Size::new(placement.placed.width_px, placement.placed.height_px);
        let (full, chroma) = taps::plane_taps(source.format, source.display, part, source.colour.siting.value, placed);
        let (mut source_bytes, mut row_bytes) = (0, [0; 3]);
        for (i, (plane, (row, rows))) in source.planes.iter().zip(source.format.plane_shapes(source.coded)).enumerate()
        {
            row_bytes[i] = row as usize;
            source_bytes = source_bytes.max(plane.offset_bytes + u64::from(plane.pitch_bytes) * (rows - 1) + row);
        }
        // whole groups of eight, the widest that a sampler writes at a time
        let row = vec![0.0; (placed.width_px as usize).next_multiple_of(8)];
        #[cfg(target_arch = "x86_64")]
        let windows = windows::Windows::new(source.format, row_bytes, &full, chroma.as_ref());
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
            #[cfg(target_arch = "x86_64")]
            windows,
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

    /// The picture's position in the tensor.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// Converts the frame in `source` (the slot that the description's offsets count from) into `tensor`, of which the
    /// first `self.tensor().bytes()` bytes are written.
    pub fn convert(&mut self, source: &[u8], tensor: &mut [u8]) -> Result<(), ConvertError> {
        self.write(source, tensor, true)
    }

    /// The same into a tensor that has this target's padding already, around a picture placed alike: that is left as it is.
    pub fn convert_padded(&mut self, source: &[u8], tensor: &mut [u8]) -> Result<(), ConvertError> {
        self.write(source, tensor, false)
    }

    fn write(&mut self, source: &[u8], tensor: &mut [u8], pads: bool) -> Result<(), ConvertError> {
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
            pads,
            tensor: &mut tensor[..need as usize],
        };
        #[cfg(target_arch = "x86_64")]
        if let Some(windows) = &self.windows {
            windows.vectorize(
                #[inline(always)]
                || job.run(windows),
            );
            return Ok(());
        }
        job.run(&Portable);
        Ok(())
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::geometry::{Anchor, Fit, Rounding};
    use crate::target::ChannelOrder;
    use millrace_frame::{Colour, PixelFormat, TensorDtype, TensorLayout};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        /// Every number of windows (scales from 1/3 to 40) gives the bits of the portable sampler.
        #[test]
        fn samplers_agree_bit_for_bit(
            format in prop::sample::select(vec![PixelFormat::Nv12, PixelFormat::I420, PixelFormat::Bgr24]),
            w in 31u32..400, h in 1u32..20, out_w in 1u32..120, out_h in 1u32..20, x in 0u32..15, seed in any::<u32>(),
            dtype in prop::sample::select(TensorDtype::ALL), layout in prop::sample::select(TensorLayout::ALL),
        ) {
            let (mut image, have) = ImageDesc::packed(format, Size::new(w, h), Colour::assumed_for_height(h), 1);
            image.display.x_px = x;
            image.display.width_px -= x;
            let target = Target {
                size: Size::new(out_w, out_h), layout, dtype, order: ChannelOrder::Rgb, mean: [0.0; 3],
                scale: [1.0; 3], fit: Fit::Stretch, pad: 0,
            };
            let mut state = seed;
            let bytes: Vec<u8> = (0..have).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }).collect();
            let mut converter = Converter::new(&image, &target).unwrap();
            let mut tensors = [vec![1; converter.tensor().bytes() as usize], vec![2; converter.tensor().bytes() as usize]];
            if pulp::x86::V3::try_new().is_some() {
                prop_assert!(converter.windows.is_some(), "rows of {w} pixels fill a window");
            }
            converter.convert(&bytes, &mut tensors[0]).unwrap();
            converter.windows = None;
            converter.convert(&bytes, &mut tensors[1]).unwrap();
            prop_assert_eq!(&tensors[0], &tensors[1]);
        }
    }

    #[test]
    fn the_two_halves_of_a_frame_are_where_they_belong() {
        // 4:1 down, letterboxed in the middle: a wrong window would show the other half
        let (image, have) =
            ImageDesc::packed(PixelFormat::Rgb24, Size::new(128, 32), Colour::assumed_for_height(32), 1);
        let bytes: Vec<u8> = (0..have as usize).map(|at| if (at / 3) % 128 < 64 { 10 } else { 200 }).collect();
        let fit = Fit::Letterbox { anchor: Anchor::Centre, rounding: Rounding::Nearest };
        let target = Target { fit, pad: 77, ..Target::picture(Size::new(32, 10), ChannelOrder::Rgb) };
        let mut converter = Converter::new(&image, &target).unwrap();
        let mut out = vec![0; converter.tensor().bytes() as usize];
        converter.convert(&bytes, &mut out).unwrap();
        for (at, &value) in out.iter().enumerate() {
            let (x, y) = (at / 3 % 32, at / 96);
            let expected = if !(1..9).contains(&y) {
                77
            } else if x < 16 {
                10
            } else {
                200
            };
            assert_eq!(value, expected, "pixel {x}, {y}");
        }
    }
}
