//! From sampled components to a normalized channel: one affine map and a clamp.

use crate::convert::taps::ONE;
use crate::target::{ChannelOrder, Target};
use millrace_frame::{Colour, PixelFormat, Range};

/// One channel of the tensor as a function of the three sampled components (Y, Cb, Cr or R, G, B), each scaled by
/// [`ONE`]: `clamp(weights . components + constant, low, high)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel {
    pub(crate) weights: [f32; 3],
    pub(crate) constant: f32,
    pub(crate) low: f32,
    pub(crate) high: f32,
    /// The value of a padding pixel.
    pub(crate) pad: f32,
}

impl Channel {
    /// Without fused multiply-add on purpose: the same bits on every machine.
    #[inline(always)]
    pub(crate) fn apply(&self, a: f32, b: f32, c: f32) -> f32 {
        let [wa, wb, wc] = self.weights;
        let v = (a * wa + b * wb) + (c * wc + self.constant);
        let v = if v < self.low { self.low } else { v };
        if v > self.high { self.high } else { v }
    }
}

/// `[weights of the components, constant]` of R, G and B on the 0..=255 scale, from whole samples.
///
/// The equations of H.273 clause 8.3 (YCbCr from RGB) solved for R, G and B, with the ranges that it states for
/// `VideoFullRangeFlag`. A 16-bit sample is a 256 times finer step of the same limited range; full range ends at its own
/// largest code.
fn rgb_from_samples(format: PixelFormat, colour: &Colour) -> [[f64; 4]; 3] {
    let (steps, full) = match format {
        PixelFormat::Rgb24 => return [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]],
        PixelFormat::Bgr24 => return [[0.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]],
        PixelFormat::Nv12 | PixelFormat::I420 => (1.0, 255.0),
        PixelFormat::P016 => (256.0, 65_535.0),
    };
    let (luma_zero, luma_span, chroma_span) = match colour.range.value {
        Range::Limited => (16.0 * steps, 219.0 * steps, 224.0 * steps),
        Range::Full => (0.0, full, full),
    };
    let chroma_zero = 128.0 * steps;
    let (kr, kb) = colour.matrix.value.kr_kb();
    let kg = 1.0 - kr - kb;
    let (red, blue) = (2.0 * (1.0 - kr), 2.0 * (1.0 - kb));
    [[0.0, red], [-blue * kb / kg, -red * kr / kg], [blue, 0.0]].map(|[cb, cr]| {
        let (y, cb, cr) = (255.0 / luma_span, 255.0 * cb / chroma_span, 255.0 * cr / chroma_span);
        [y, cb, cr, -luma_zero * y - chroma_zero * (cb + cr)]
    })
}

/// The channels of the tensor, in its order.
pub(crate) fn channels(format: PixelFormat, colour: &Colour, target: &Target) -> [Channel; 3] {
    let mut rows = rgb_from_samples(format, colour);
    if target.order == ChannelOrder::Bgr {
        rows.reverse();
    }
    std::array::from_fn(|c| {
        let (mean, scale) = (f64::from(target.mean[c]), f64::from(target.scale[c]));
        let [a, b, d, constant] = rows[c];
        let value = |sample: f64| ((sample - mean) * scale) as f32;
        Channel {
            weights: [a, b, d].map(|w| (w * scale / f64::from(ONE)) as f32),
            constant: ((constant - mean) * scale) as f32,
            low: value(0.0).min(value(255.0)),
            high: value(0.0).max(value(255.0)),
            pad: value(f64::from(target.pad)),
        }
    })
}
