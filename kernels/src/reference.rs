//! The conversion in `f64`, one pixel after the other, written from the formulas and sharing no code with the fast
//! path: what tests compare it with. Slow on purpose where slow is plain.
//!
//! - A plane is a function of continuous coordinates: the sum of its samples, each under a tent of width 2; beyond the edge, the
//!   edge's sample.
//! - The colour matrix is built as H.273 clause 8.3 states it, from RGB to YCbCr, and solved for RGB by Cramer's rule.
//! - The geometry follows the detectors' Python.

use crate::geometry::{Anchor, Fit, Rounding};
use crate::target::{ChannelOrder, Target};
use millrace_frame::{ImageDesc, Matrix, PixelFormat, Range, TensorLayout};

/// In which order the picture is resized and its colour converted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Y, Cb and Cr are sampled at the output pixel, then converted and clamped: the definition of the fused pass.
    ResizeFirst,
    /// Each source pixel is converted and clamped (chroma upsampled to it), then RGB is resized: OpenCV's order, without its
    /// rounding to 8 bits.
    ConvertFirst,
}

/// All values of the tensor, before they are rounded to its element type; in the order of its bytes.
///
/// `bytes` is the slot that the description's offsets count from; panics if the description exceeds the slot.
pub fn tensor(source: &ImageDesc, bytes: &[u8], target: &Target, order: Order) -> Vec<f64> {
    let (w, h) = (target.size.width_px as usize, target.size.height_px as usize);
    let picture = Picture { source, bytes };
    let window = Window::of(source, target);
    let mut values = vec![f64::NAN; 3 * w * h];
    for y in 0..h {
        for x in 0..w {
            let rgb = match window.source_position(x, y) {
                None => [f64::from(target.pad); 3],
                Some((sx, sy)) => match order {
                    Order::ResizeFirst => clamp(picture.rgb_at(sx, sy)),
                    Order::ConvertFirst => picture.resized_rgb(sx, sy),
                },
            };
            for channel in 0..3 {
                let sample = match target.order {
                    ChannelOrder::Rgb => rgb[channel],
                    ChannelOrder::Bgr => rgb[2 - channel],
                };
                let value = (sample - f64::from(target.mean[channel])) * f64::from(target.scale[channel]);
                let index = match target.layout {
                    TensorLayout::Nchw => (channel * h + y) * w + x,
                    TensorLayout::Nhwc => (y * w + x) * 3 + channel,
                };
                values[index] = value;
            }
        }
    }
    values
}

fn clamp(rgb: [f64; 3]) -> [f64; 3] {
    rgb.map(|v| v.clamp(0.0, 255.0))
}

/// The picture's position in the model's input.
struct Window {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
    /// The part of the shown picture that it shows: first column and row, columns and rows.
    part: [f64; 4],
}

impl Window {
    fn of(source: &ImageDesc, target: &Target) -> Self {
        let (shown_w, shown_h) = (f64::from(source.display.width_px), f64::from(source.display.height_px));
        let (model_w, model_h) = (f64::from(target.size.width_px), f64::from(target.size.height_px));
        let (anchor, rounding) = match target.fit {
            Fit::Stretch => {
                let (width, height) = (model_w as usize, model_h as usize);
                return Self { left: 0, top: 0, width, height, part: [0.0, 0.0, shown_w, shown_h] };
            }
            Fit::Crop { resize_px } => {
                let (width, height) = (model_w as usize, model_h as usize);
                // pixels of the source for those of the model, so that the model's shorter side would be `resize_px`; the
                // division comes last, since a half would not be one after another
                let (covered, by) =
                    if shown_w * model_h < shown_h * model_w { (shown_w, model_w) } else { (shown_h, model_h) };
                let side = f64::min(model_w, model_h);
                let extent =
                    |of_model: f64| (of_model * covered * side / (by * f64::from(resize_px)) + 0.5).floor().max(1.0);
                let (w, h) = (extent(model_w), extent(model_h));
                let first = |all: f64, part: f64| ((all - part) / 2.0).floor();
                return Self { left: 0, top: 0, width, height, part: [first(shown_w, w), first(shown_h, h), w, h] };
            }
            Fit::Letterbox { anchor, rounding } => (anchor, rounding),
        };
        let ratio = f64::min(model_h / shown_h, model_w / shown_w);
        let round = |v: f64| match rounding {
            Rounding::Down => v.floor(),
            Rounding::Nearest if (v - v.floor() - 0.5).abs() == 0.0 => 2.0 * (v / 2.0).round(),
            Rounding::Nearest => (v + 0.5).floor(),
        };
        let width = round(shown_w * ratio).max(1.0);
        let height = round(shown_h * ratio).max(1.0);
        let share = match anchor {
            Anchor::TopLeft => 0.0,
            Anchor::Centre => 0.5,
        };
        Self {
            left: ((model_w - width) * share).floor() as usize,
            top: ((model_h - height) * share).floor() as usize,
            width: width as usize,
            height: height as usize,
            part: [0.0, 0.0, shown_w, shown_h],
        }
    }

    /// The position in the shown picture, pixel centres on whole numbers; `None` in the padding.
    fn source_position(&self, x: usize, y: usize) -> Option<(f64, f64)> {
        let inside =
            (self.left..self.left + self.width).contains(&x) && (self.top..self.top + self.height).contains(&y);
        inside.then(|| {
            let [first_x, first_y, w, h] = self.part;
            let along = |k: usize, len: f64, of: usize| (k as f64 + 0.5) * len / of as f64 - 0.5;
            (first_x + along(x - self.left, w, self.width), first_y + along(y - self.top, h, self.height))
        })
    }
}

struct Picture<'a> {
    source: &'a ImageDesc,
    bytes: &'a [u8],
}

impl Picture<'_> {
    /// One stored sample on the scale of 8 bits. `component`: Y, Cb, Cr, or R, G, B.
    fn sample(&self, component: usize, x: i64, y: i64) -> f64 {
        // (plane, bytes from one sample to the next, bytes of the first one)
        let (plane, step, start) = match (self.source.format, component) {
            (PixelFormat::Nv12, 0) | (PixelFormat::I420, 0) => (0, 1, 0),
            (PixelFormat::Nv12, c) => (1, 2, c - 1),
            (PixelFormat::I420, c) => (c, 1, 0),
            (PixelFormat::P016, 0) => (0, 2, 0),
            (PixelFormat::P016, c) => (1, 4, 2 * (c - 1)),
            (PixelFormat::Rgb24, c) => (0, 3, c),
            (PixelFormat::Bgr24, c) => (0, 3, 2 - c),
        };
        let plane = self.source.planes[plane];
        let at = plane.offset_bytes as usize + y as usize * plane.pitch_bytes as usize + x as usize * step + start;
        match self.source.format {
            PixelFormat::P016 => f64::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])) / 256.0,
            _ => f64::from(self.bytes[at]),
        }
    }

    /// A component at a position of the shown picture.
    fn component(&self, component: usize, sx: f64, sy: f64) -> f64 {
        let shown = self.source.display;
        let (w, h) = (i64::from(shown.width_px), i64::from(shown.height_px));
        let (left, top) = (i64::from(shown.x_px), i64::from(shown.y_px));
        let (x, y) = (left as f64 + sx.clamp(0.0, (w - 1) as f64), top as f64 + sy.clamp(0.0, (h - 1) as f64));
        let subsampled = component > 0 && !matches!(self.source.format, PixelFormat::Rgb24 | PixelFormat::Bgr24);
        // the samples' own coordinates, and the range of those that belong to the shown picture
        let (x, y, xs, ys) = if subsampled {
            let (ox, oy) = self.source.colour.siting.value.offset_luma_px();
            ((x - ox) / 2.0, (y - oy) / 2.0, (left / 2, (left + w - 1) / 2), (top / 2, (top + h - 1) / 2))
        } else {
            (x, y, (left, left + w - 1), (top, top + h - 1))
        };
        let tent = |distance: f64| (1.0 - distance.abs()).max(0.0);
        let mut sum = 0.0;
        for j in y.floor() as i64 - 1..=y.floor() as i64 + 2 {
            for i in x.floor() as i64 - 1..=x.floor() as i64 + 2 {
                let weight = tent(x - i as f64) * tent(y - j as f64);
                if weight > 0.0 {
                    sum += weight * self.sample(component, i.clamp(xs.0, xs.1), j.clamp(ys.0, ys.1));
                }
            }
        }
        sum
    }

    /// R, G, B on the 0..=255 scale, not clamped.
    fn rgb_at(&self, sx: f64, sy: f64) -> [f64; 3] {
        let stored = [0, 1, 2].map(|c| self.component(c, sx, sy));
        match self.source.format {
            PixelFormat::Rgb24 | PixelFormat::Bgr24 => stored,
            PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::P016 => {
                let colour = &self.source.colour;
                let white = if self.source.format == PixelFormat::P016 { 65_535.0 / 256.0 } else { 255.0 };
                rgb_from_ycbcr(stored, colour.matrix.value, colour.range.value, white)
            }
        }
    }

    /// The two-by-two nearest source pixels, each converted and clamped, blended.
    fn resized_rgb(&self, sx: f64, sy: f64) -> [f64; 3] {
        let shown = self.source.display;
        let sx = sx.clamp(0.0, f64::from(shown.width_px - 1));
        let sy = sy.clamp(0.0, f64::from(shown.height_px - 1));
        let (fx, fy) = (sx.fract(), sy.fract());
        let mut out = [0.0; 3];
        for (dy, wy) in [(0.0, 1.0 - fy), (1.0, fy)] {
            for (dx, wx) in [(0.0, 1.0 - fx), (1.0, fx)] {
                if wx * wy > 0.0 {
                    let pixel = clamp(self.rgb_at(sx.floor() + dx, sy.floor() + dy));
                    for (sum, value) in out.iter_mut().zip(pixel) {
                        *sum += wx * wy * value;
                    }
                }
            }
        }
        out
    }
}

/// H.273 clause 8.3 solved for RGB: `stored` is Y, Cb, Cr on the scale of 8 bits, `white` the full range's largest
/// code on that scale.
fn rgb_from_ycbcr(stored: [f64; 3], matrix: Matrix, range: Range, white: f64) -> [f64; 3] {
    let [y, cb, cr] = stored;
    // E'Y in 0..1, E'PB and E'PR in -0.5..0.5
    let (ey, pb, pr) = match range {
        Range::Limited => ((y - 16.0) / 219.0, (cb - 128.0) / 224.0, (cr - 128.0) / 224.0),
        Range::Full => (y / white, (cb - 128.0) / white, (cr - 128.0) / white),
    };
    // table 4 of H.273, stated here again
    let (kr, kb) = match matrix {
        Matrix::Bt709 => (0.2126, 0.0722),
        Matrix::Bt601 => (0.299, 0.114),
        Matrix::Bt2020Ncl => (0.2627, 0.0593),
    };
    // E'Y = kr R + (1 - kr - kb) G + kb B;  E'PB = (B - E'Y) / (2 (1 - kb));  E'PR = (R - E'Y) / (2 (1 - kr))
    let luma = [kr, 1.0 - kr - kb, kb];
    let difference = |of: usize, k: f64| {
        let mut row = luma.map(|v| -v);
        row[of] += 1.0;
        row.map(|v| v / (2.0 * (1.0 - k)))
    };
    let forward = [luma, difference(2, kb), difference(0, kr)];
    let determinant = |m: &[[f64; 3]; 3]| {
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1]) - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    };
    let whole = determinant(&forward);
    [0, 1, 2].map(|column| {
        let mut replaced = forward;
        for (row, value) in replaced.iter_mut().zip([ey, pb, pr]) {
            row[column] = value;
        }
        255.0 * determinant(&replaced) / whole
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: [f64; 3], expected: [f64; 3], tolerance: f64) {
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= tolerance, "{found:?}, expected {expected:?}");
        }
    }

    #[test]
    fn black_white_and_grey() {
        for &matrix in Matrix::ALL {
            near(rgb_from_ycbcr([16.0, 128.0, 128.0], matrix, Range::Limited, 255.0), [0.0; 3], 1e-9);
            near(rgb_from_ycbcr([235.0, 128.0, 128.0], matrix, Range::Limited, 255.0), [255.0; 3], 1e-9);
            near(rgb_from_ycbcr([77.0, 128.0, 128.0], matrix, Range::Full, 255.0), [77.0; 3], 1e-9);
        }
    }

    #[test]
    fn primaries_have_the_codes_of_the_standards_colour_bars() {
        // 100 % bars, 8-bit limited range, as published: BT.709 red 63/102/240, green 173/42/26, blue 32/240/118;
        // BT.601 red 81/90/240, green 145/54/34, blue 41/240/110. Codes are rounded, so RGB comes back within 2.
        let bars = [
            (Matrix::Bt709, [63.0, 102.0, 240.0], [255.0, 0.0, 0.0]),
            (Matrix::Bt709, [173.0, 42.0, 26.0], [0.0, 255.0, 0.0]),
            (Matrix::Bt709, [32.0, 240.0, 118.0], [0.0, 0.0, 255.0]),
            (Matrix::Bt601, [81.0, 90.0, 240.0], [255.0, 0.0, 0.0]),
            (Matrix::Bt601, [145.0, 54.0, 34.0], [0.0, 255.0, 0.0]),
            (Matrix::Bt601, [41.0, 240.0, 110.0], [0.0, 0.0, 255.0]),
        ];
        for (matrix, stored, expected) in bars {
            near(rgb_from_ycbcr(stored, matrix, Range::Limited, 255.0), expected, 2.0);
        }
    }
}
