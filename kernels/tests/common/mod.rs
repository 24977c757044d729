//! Frames and targets of every kind, for the tests of the conversion.
#![allow(dead_code, reason = "each test file uses its own part")]

use millrace_frame::{
    ChromaSiting, Colour, ImageDesc, Matrix, PixelFormat, Plane, Range, Rect, Size, Tagged, TensorDtype, TensorLayout,
};
use millrace_kernels::{Anchor, ChannelOrder, Fit, Rounding, Target};
use proptest::prelude::*;

/// Pseudo-random bytes (an LCG), so that a case is named by its seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

pub(crate) fn colour(matrix: Matrix, range: Range, siting: ChromaSiting) -> Colour {
    Colour {
        matrix: Tagged::bitstream(matrix),
        range: Tagged::bitstream(range),
        siting: Tagged::bitstream(siting),
        ..Colour::assumed_for_height(1080)
    }
}

pub(crate) fn size() -> impl Strategy<Value = u32> {
    prop_oneof![1u32..=6, 1u32..=75]
}

/// Any image: size, crop, padding of rows and between planes, colour.
pub(crate) fn image() -> impl Strategy<Value = (ImageDesc, u64)> {
    let formats = prop_oneof![3 => Just(PixelFormat::Nv12), 2 => prop::sample::select(PixelFormat::ALL)];
    let colours =
        (prop::sample::select(Matrix::ALL), prop::sample::select(Range::ALL), prop::sample::select(ChromaSiting::ALL));
    let crop = (0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64);
    let layout = (any::<bool>(), crop, prop::array::uniform3((0u64..20, 0u32..40)));
    (formats, size(), size(), colours, layout).prop_map(|(format, w, h, (m, r, s), (whole, crop, gaps))| {
        let coded = Size::new(w, h);
        let (cx, cw, cy, ch) = crop;
        let part = |len: u32, start: f64, share: f64| {
            let start_px = (f64::from(len) * start) as u32;
            let rest = len - start_px;
            (start_px, ((f64::from(rest) * share) as u32 + 1).min(rest))
        };
        let ((x_px, width_px), (y_px, height_px)) = match whole {
            true => ((0, w), (0, h)),
            false => (part(w, cx, cw), part(h, cy, ch)),
        };
        let mut end = 0;
        let planes = format
            .plane_shapes(coded)
            .into_iter()
            .zip(gaps)
            .map(|((row_bytes, rows), (gap, padding))| {
                let plane = Plane { offset_bytes: end + gap, pitch_bytes: row_bytes as u32 + padding };
                // the last row is not padded: reading past it must not happen
                end = plane.offset_bytes + u64::from(plane.pitch_bytes) * (rows - 1) + row_bytes;
                plane
            })
            .collect();
        let display = Rect { x_px, y_px, width_px, height_px };
        (ImageDesc { format, coded, display, planes, colour: colour(m, r, s) }, end)
    })
}

/// A crop's `resize_px` is over the input's shorter side.
pub(crate) fn fit() -> impl Strategy<Value = Fit> {
    let letterbox = |anchor, rounding| Fit::Letterbox { anchor, rounding };
    prop::sample::select(vec![
        letterbox(Anchor::TopLeft, Rounding::Down),
        letterbox(Anchor::TopLeft, Rounding::Nearest),
        letterbox(Anchor::Centre, Rounding::Down),
        letterbox(Anchor::Centre, Rounding::Nearest),
        Fit::Stretch,
        Fit::Crop { resize_px: 0 },
        Fit::Crop { resize_px: 9 },
    ])
}

/// `(mean, scale)`: as it is, to 0..1, to -1..1, ImageNet, falling.
pub(crate) fn normalization() -> impl Strategy<Value = ([f32; 3], [f32; 3])> {
    prop::sample::select(vec![
        ([0.0; 3], [1.0; 3]),
        ([0.0; 3], [1.0 / 255.0; 3]),
        ([127.5; 3], [1.0 / 127.5; 3]),
        ([123.675, 116.28, 103.53], [1.0 / 58.395, 1.0 / 57.12, 1.0 / 57.375]),
        ([255.0, 0.0, 10.0], [-1.0, 1.5, 0.5]),
    ])
}

pub(crate) fn target() -> impl Strategy<Value = Target> {
    let orders = prop::sample::select(vec![ChannelOrder::Rgb, ChannelOrder::Bgr]);
    let types = (prop::sample::select(TensorLayout::ALL), prop::sample::select(TensorDtype::ALL), orders);
    (size(), size(), types, normalization(), fit(), any::<u8>()).prop_map(
        |(w, h, (layout, dtype, order), (mean, scale), fit, pad)| Target {
            size: Size::new(w, h),
            layout,
            dtype,
            order,
            mean,
            scale,
            fit: match fit {
                Fit::Crop { resize_px } => Fit::Crop { resize_px: resize_px + w.min(h) },
                fit => fit,
            },
            pad,
        },
    )
}

/// An NV12 image and a target that shows it at a whole-number scale, but for what a few of them break: a crop that
/// begins at odd pixels, an odd pitch, a width of no whole group.
/// For a crop the picture is wider or higher than what is shown of it.
pub(crate) fn whole() -> impl Strategy<Value = ((ImageDesc, u64), Target)> {
    let scales = prop::sample::select(vec![2u32, 2, 3, 3, 4, 6, 1, 5]);
    let columns = prop_oneof![4 => (1u32..=9).prop_map(|groups| 4 * groups), 1 => 1u32..40];
    let crop = prop_oneof![2 => Just((0u32, 0u32)), 2 => (0u32..3, 0u32..4).prop_map(|(x, y)| (4 * x, 2 * y)), 1 => (0u32..9, 0u32..5)];
    let after = (0u32..9, 0u32..9);
    let pitch_align = prop_oneof![2 => Just(4u32), 2 => Just(64), 1 => 1u32..8];
    let colours =
        (prop::sample::select(Matrix::ALL), prop::sample::select(Range::ALL), prop::sample::select(ChromaSiting::ALL));
    let around = prop_oneof![Just((0u32, 0u32)), (0u32..20, Just(0u32)), (Just(0u32), 0u32..20)];
    (scales, columns, 1u32..13, (crop, after), pitch_align, colours, around, target()).prop_map(
        |(scale, columns, rows, ((x_px, y_px), (right, below)), pitch_align, (m, r, s), (wider, higher), target)| {
            let (width_px, height_px) = (scale * columns, scale * rows);
            let coded = Size::new(x_px + width_px + right, y_px + height_px + below);
            let (mut image, have) = ImageDesc::packed(PixelFormat::Nv12, coded, colour(m, r, s), pitch_align);
            image.display = Rect { x_px, y_px, width_px, height_px };
            let fit = match target.fit {
                Fit::Crop { .. } => {
                    if columns > rows {
                        image.display.height_px += below
                    } else {
                        image.display.width_px += right
                    }
                    let fit = Fit::Crop { resize_px: columns.min(rows) };
                    return ((image, have), Target { size: Size::new(columns, rows), fit, ..target });
                }
                Fit::Stretch if (wider, higher) != (0, 0) => {
                    Fit::Letterbox { anchor: Anchor::Centre, rounding: Rounding::Nearest }
                }
                fit => fit,
            };
            ((image, have), Target { size: Size::new(columns + wider, rows + higher), fit, ..target })
        },
    )
}

/// The values of a tensor's bytes; f16 from the definition of the format.
pub(crate) fn decode(dtype: TensorDtype, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        TensorDtype::U8 => bytes.iter().map(|&b| f64::from(b)).collect(),
        TensorDtype::F32 => {
            bytes.chunks_exact(4).map(|b| f64::from(f32::from_ne_bytes([b[0], b[1], b[2], b[3]]))).collect()
        }
        TensorDtype::F16 => bytes
            .chunks_exact(2)
            .map(|b| {
                let bits = u16::from_ne_bytes([b[0], b[1]]);
                let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
                let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
                let magnitude = match exponent {
                    0 => mantissa * 2f64.powi(-24),
                    31 => f64::NAN,
                    e => (1024.0 + mantissa) * 2f64.powi(e - 25),
                };
                sign * magnitude
            })
            .collect(),
    }
}

/// Largest distance of the fused pass from the reference, in steps of the 8-bit sample, before the result is rounded to its element type.
///
/// Weights have 14 bits, so each is off by at most 2^-15; two of them act on a component (across and down), on
/// neighbours that differ by at most 255: 0.0156. The largest rows of the matrices are 255/219 of Y and 2.142 of Cb
/// (BT.2020, limited): 0.0156 * (1.165 + 2.142) = 0.0515. Rounding in f32 adds less than 0.001.
pub(crate) const BOUND: f64 = 0.053;

pub(crate) fn tolerance(target: &Target, channel: usize, value: f64) -> f64 {
    let rounding = match target.dtype {
        TensorDtype::U8 => 0.5,
        TensorDtype::F16 => value.abs() * 2f64.powi(-11) + 2f64.powi(-25),
        TensorDtype::F32 => value.abs() * 2f64.powi(-22),
    };
    BOUND * f64::from(target.scale[channel]).abs() + rounding
}

pub(crate) fn channel_of(target: &Target, index: usize) -> usize {
    match target.layout {
        TensorLayout::Nchw => index / (target.size.width_px * target.size.height_px) as usize,
        TensorLayout::Nhwc => index % 3,
    }
}

/// Index, found and expected value of the worst element, with its distance in tolerances.
pub(crate) fn worst(target: &Target, found: &[f64], expected: &[f64]) -> (usize, f64, f64, f64) {
    assert_eq!(found.len(), expected.len());
    let mut worst = (0, 0.0, 0.0, 0.0);
    for (index, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let e = if target.dtype == TensorDtype::U8 { e.clamp(0.0, 255.0) } else { e };
        let distance = (f - e).abs() / tolerance(target, channel_of(target, index), e);
        if distance.is_nan() || distance > worst.3 {
            worst = (index, f, e, if distance.is_nan() { f64::INFINITY } else { distance });
        }
    }
    worst
}
