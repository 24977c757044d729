//! What a decoder library is to the rest.

use crate::picture::Planes;
use crate::{AccessUnit, StreamInfo};
use millrace_frame::Size;

/// Why a decoder gave up, in its own words.
#[derive(Debug)]
pub(super) struct EngineError(pub String);

/// One decoder, from one key picture on.
pub(super) trait Engine: Send {
    /// Decodes a unit and adds the frames that come out, of this or of earlier units.
    fn decode(&mut self, unit: &AccessUnit, number: i64, out: &mut Vec<Frame>) -> Result<(), EngineError>;
    /// Adds the frames that are held back.
    fn flush(&mut self, out: &mut Vec<Frame>) -> Result<(), EngineError>;
    /// Frames come out in presentation order, not in decoding order.
    fn puts_in_order(&self) -> bool {
        false
    }
}

/// A decoded frame of the unit `number`.
pub(super) struct Frame {
    pub number: i64,
    pub planes: Planes,
    /// Luma samples that the planes hold, and which of the coded picture's is their first.
    pub size: (usize, usize),
    pub first: (usize, usize),
}

impl Frame {
    pub(super) fn size(&self) -> Size {
        Size::new(self.size.0 as u32, self.size.1 as u32)
    }

    /// Where in the planes the shown area begins; `None` when it does not lie in them.
    pub(super) fn origin_in(&self, info: &StreamInfo) -> Option<(usize, usize)> {
        let d = info.display;
        let x = (d.x_px as usize).checked_sub(self.first.0)?;
        let y = (d.y_px as usize).checked_sub(self.first.1)?;
        let (width, height) = (x + d.width_px as usize, y + d.height_px as usize);
        let (chroma_width, chroma_height) = (width.div_ceil(2), height.div_ceil(2));
        let holds = |len: usize, stride: usize, w: usize, h: usize| w <= stride && len >= stride * (h - 1) + w;
        let fits = match &self.planes {
            Planes::Bytes { planes: [luma, cb, cr], strides } => {
                holds(luma.len(), strides[0], width, height)
                    && [cb, cr].iter().all(|c| holds(c.len(), strides[1], chroma_width, chroma_height))
            }
            Planes::Words(picture) => {
                let [luma, cb, cr] = &picture.planes;
                holds(luma.data.len(), luma.stride, width, height)
                    && [cb, cr].iter().all(|c| holds(c.data.len(), c.stride, chroma_width, chroma_height))
                    && cb.stride == cr.stride
            }
        };
        (fits && width <= self.size.0 && height <= self.size.1).then_some((x, y))
    }
}
