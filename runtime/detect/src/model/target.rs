//! The tensor that a model takes, as the converter makes it.

use super::{Anchor, ChannelOrder, FitSpec, Model};
use millrace_frame::Size;
use millrace_kernels::{self as kernels, Fit, Rounding, Target};

impl Model {
    /// What a picture is converted to for this model.
    pub fn target(&self) -> Target {
        let input = &self.input;
        let (fit, pad) = match self.fit {
            FitSpec::Stretch => (Fit::Stretch, 0),
            FitSpec::Crop { resize_px } => (Fit::Crop { resize_px }, 0),
            FitSpec::Letterbox { anchor, pad } => (letterbox(anchor), pad),
        };
        Target {
            size: Size::new(input.width_px, input.height_px),
            layout: input.layout,
            dtype: input.dtype,
            order: match input.order {
                ChannelOrder::Rgb => kernels::ChannelOrder::Rgb,
                ChannelOrder::Bgr => kernels::ChannelOrder::Bgr,
            },
            mean: input.mean,
            scale: input.scale,
            fit,
            pad,
        }
    }
}

/// The rounding of the placed size that the anchor's family of detectors trains with.
fn letterbox(anchor: Anchor) -> Fit {
    let (anchor, rounding) = match anchor {
        Anchor::TopLeft => (kernels::Anchor::TopLeft, Rounding::Down),
        Anchor::Centre => (kernels::Anchor::Centre, Rounding::Nearest),
    };
    Fit::Letterbox { anchor, rounding }
}
