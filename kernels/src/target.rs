//! What a model wants of its input.

use crate::geometry::Fit;
use millrace_frame::{Size, TensorDtype, TensorLayout};

/// The order of the colour channels in the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelOrder {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
}

/// A model's input: one picture, three channels, `value = (u8 - mean) * scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Target {
    /// Width and height of the input.
    pub size: Size,
    /// Axis order. The batch axis is 1.
    pub layout: TensorLayout,
    /// Element type. `f32` and `f16` values are not rounded to whole steps of 8 bits on their way; `u8` values are
    /// `value` rounded to the nearest and clamped to 0..=255.
    pub dtype: TensorDtype,
    /// Channel order.
    pub order: ChannelOrder,
    /// Subtracted from the 0..=255 sample, by channel in the tensor's order.
    pub mean: [f32; 3],
    /// Multiplied afterwards, by channel in the tensor's order.
    pub scale: [f32; 3],
    /// How the picture is fitted in.
    pub fit: Fit,
    /// The grey of the padding, a sample 0..=255 that is normalized like any other.
    pub pad: u8,
}

/// Why no tensor can be made for a target.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum TargetError {
    #[error("a model input of {0} is outside 1x1 to 16384x16384")]
    Size(Size),
    #[error(
        "channel {channel} of the tensor has scale {scale} and mean {mean}; both must be finite and the scale not 0 \
         (value = (u8 - mean) * scale)"
    )]
    Normalize { channel: usize, mean: f32, scale: f32 },
    #[error(
        "a crop to {size} begins with a picture of {resize_px} pixels along the shorter side, which does not cover it"
    )]
    Crop { size: Size, resize_px: u32 },
    #[error(
        "channel {channel} of the tensor reaches {value}, beyond 65504, the largest f16; use a smaller scale or dtype f32"
    )]
    HalfRange { channel: usize, value: f32 },
}

impl Target {
    const MAX_PX: u32 = 16_384;
    const HALF_MAX: f32 = 65_504.0;

    /// Checks that every value of the tensor exists in its element type.
    pub fn validate(&self) -> Result<(), TargetError> {
        let Size { width_px, height_px } = self.size;
        if !(1..=Self::MAX_PX).contains(&width_px) || !(1..=Self::MAX_PX).contains(&height_px) {
            return Err(TargetError::Size(self.size));
        }
        if let Fit::Crop { resize_px } = self.fit
            && !(width_px.min(height_px)..=Self::MAX_PX).contains(&resize_px)
        {
            return Err(TargetError::Crop { size: self.size, resize_px });
        }
        for (channel, (&mean, &scale)) in self.mean.iter().zip(&self.scale).enumerate() {
            let ends = [(0.0 - mean) * scale, (255.0 - mean) * scale];
            if !mean.is_finite() || !scale.is_finite() || scale == 0.0 || ends.iter().any(|v| !v.is_finite()) {
                return Err(TargetError::Normalize { channel, mean, scale });
            }
            if self.dtype == TensorDtype::F16
                && let Some(&value) = ends.iter().find(|v| v.abs() > Self::HALF_MAX)
            {
                return Err(TargetError::HalfRange { channel, value });
            }
        }
        Ok(())
    }

    /// Extent of the four axes in the order of `layout`.
    pub fn shape(&self) -> [u32; 4] {
        let Size { width_px, height_px } = self.size;
        match self.layout {
            TensorLayout::Nchw => [1, 3, height_px, width_px],
            TensorLayout::Nhwc => [1, height_px, width_px, 3],
        }
    }
}
