//! The fused pass against the separate passes of the best maintained crates, one thread, interleaved.
//!
//! `cargo bench -p millrace-kernels --bench fused`: no harness, no dependency beyond the two
//! crates that it measures against. Both arms do the same job on the same frames: NV12 (BT.709, limited) of a moving
//! gradient with noise, in a ring of frames larger than the caches' upper levels, into a ring of tensors.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use millrace_frame::{ChromaSiting, Colour, ImageDesc, Matrix, PixelFormat, Range, Size, Tagged};
use millrace_frame::{TensorDtype, TensorLayout};
use millrace_kernels::{Anchor, ChannelOrder, Converter, Fit, Rounding, SeparatePasses, Target};
use std::time::Instant;
use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvRange, YuvStandardMatrix, yuv_nv12_to_bgr, yuv_nv12_to_rgb};

/// Distinct frames: 8 of 1080p are 25 MB.
const RING: usize = 8;
const ROUNDS: usize = 300;

fn main() {
    for (source, model, order) in [
        (Size::new(1920, 1080), Size::new(640, 640), ChannelOrder::Rgb),
        (Size::new(1920, 1080), Size::new(416, 416), ChannelOrder::Bgr),
        (Size::new(1280, 720), Size::new(640, 640), ChannelOrder::Rgb),
        (Size::new(768, 432), Size::new(416, 416), ChannelOrder::Bgr),
        (Size::new(640, 480), Size::new(640, 640), ChannelOrder::Rgb),
    ] {
        measure(source, model, order);
    }
}

fn measure(source: Size, model: Size, order: ChannelOrder) {
    let colour = Colour {
        matrix: Tagged::bitstream(Matrix::Bt709),
        range: Tagged::bitstream(Range::Limited),
        siting: Tagged::bitstream(ChromaSiting::Left),
        ..Colour::assumed_for_height(source.height_px)
    };
    let (image, bytes) = ImageDesc::packed(PixelFormat::Nv12, source, colour, 64);
    let target = Target {
        size: model,
        layout: TensorLayout::Nchw,
        dtype: TensorDtype::F32,
        order,
        mean: [0.0; 3],
        scale: [1.0 / 255.0; 3],
        fit: Fit::Letterbox { anchor: Anchor::TopLeft, rounding: Rounding::Down },
        pad: 114,
    };
    let frames: Vec<_> = (0..RING).map(|n| frame(&image, bytes, n)).collect();
    let mut fused = Converter::new(&image, &target).unwrap();
    let mut ours = SeparatePasses::new(&image, &target).unwrap();
    let mut crates = Crates::new(&image, &target, &fused);
    let len = fused.tensor().bytes() as usize;
    let mut tensors = vec![vec![0u8; len]; RING];

    // the arms agree, else there is nothing to compare
    fused.convert(&frames[0], &mut tensors[0]).unwrap();
    crates.convert(&frames[0], &mut tensors[1]);
    let difference = mean_difference(&tensors[0], &tensors[1]) * 255.0;
    assert!(difference < 2.0, "the arms differ by {difference} steps on average");

    let mut times: [Vec<f64>; 6] = Default::default();
    for round in 0..ROUNDS {
        let (from, to) = (&frames[round % RING], &mut tensors[(round * 3) % RING]);
        let mut lap = |arm: usize, work: &mut dyn FnMut()| {
            let start = Instant::now();
            work();
            times[arm].push(start.elapsed().as_secs_f64() * 1e3);
        };
        lap(0, &mut || fused.convert(from, to).unwrap());
        lap(1, &mut || crates.colour(from));
        lap(2, &mut || crates.resize());
        lap(3, &mut || crates.normalize(to));
        lap(4, &mut || ours.convert(from, to).unwrap());
    }
    times[5] = (0..ROUNDS).map(|i| times[1][i] + times[2][i] + times[3][i]).collect();
    let [fused, colour, resize, normalize, ours, sum] = times.map(median);
    println!(
        "{source} -> {model} f32 nchw: fused {fused:.3} ms; crates {sum:.3} ms (yuv {colour:.3}, resize {resize:.3}, \
         normalize {normalize:.3}); ratio {:.2}; our own separate passes {ours:.3} ms; mean difference {difference:.2} of 255",
        sum / fused
    );
}

/// A gradient that moves with the frame, and noise of a few steps.
fn frame(image: &ImageDesc, bytes: u64, number: usize) -> Vec<u8> {
    let mut state = number as u32 + 1;
    let pitch = image.planes[0].pitch_bytes as usize;
    (0..bytes as usize)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (x, y) = (at % pitch, at / pitch);
            60 + ((x / 16 + y / 16 + 4 * number) % 128) as u8 + (state >> 29) as u8
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn mean_difference(a: &[u8], b: &[u8]) -> f64 {
    let values =
        |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks::<4>().0.iter().map(|&v| f32::from_ne_bytes(v)).collect() };
    let (a, b) = (values(a), values(b));
    a.iter().zip(&b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len() as f64
}

/// `yuv` to full-size RGB, `fast_image_resize` bilinear without antialiasing, then a loop that letterboxes, normalizes and
/// transposes, compiled for the same instruction set as the fused pass.
struct Crates<'a> {
    image: &'a ImageDesc,
    target: &'a Target,
    full: Vec<u8>,
    small: TypedImage<'static, U8x3>,
    resizer: Resizer,
}

impl<'a> Crates<'a> {
    fn new(image: &'a ImageDesc, target: &'a Target, fused: &Converter) -> Self {
        let placed = fused.placement().placed;
        Self {
            image,
            target,
            full: vec![0; 3 * (image.coded.width_px * image.coded.height_px) as usize],
            small: TypedImage::new(placed.width_px, placed.height_px),
            resizer: Resizer::new(),
        }
    }

    fn convert(&mut self, from: &[u8], to: &mut [u8]) {
        self.colour(from);
        self.resize();
        self.normalize(to);
    }

    fn colour(&mut self, from: &[u8]) {
        let Size { width_px: width, height_px: height } = self.image.coded;
        let [luma, chroma] = self.image.planes[..] else { unreachable!("nv12 has two planes") };
        let (y_plane, uv_plane) = from.split_at(chroma.offset_bytes as usize);
        let picture = YuvBiPlanarImage {
            y_plane,
            y_stride: luma.pitch_bytes,
            uv_plane,
            uv_stride: chroma.pitch_bytes,
            width,
            height,
        };
        let convert = match self.target.order {
            ChannelOrder::Rgb => yuv_nv12_to_rgb,
            ChannelOrder::Bgr => yuv_nv12_to_bgr,
        };
        let (range, matrix) = (YuvRange::Limited, YuvStandardMatrix::Bt709);
        convert(&picture, &mut self.full, width * 3, range, matrix, YuvConversionMode::Balanced).unwrap();
    }

    fn resize(&mut self) {
        let Size { width_px, height_px } = self.image.coded;
        let full = TypedImageRef::<U8x3>::from_buffer(width_px, height_px, &self.full).unwrap();
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Interpolation(FilterType::Bilinear));
        self.resizer.resize_typed(&full, &mut self.small, &options).unwrap();
    }

    fn normalize(&mut self, to: &mut [u8]) {
        let small = self.small.pixels();
        let width = fast_image_resize::ImageView::width(&self.small) as usize;
        let target = self.target;
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || normalize(small, width, target, to),
        );
    }
}

#[inline(always)]
fn normalize(small: &[U8x3], width: usize, target: &Target, to: &mut [u8]) {
    let row_len = target.size.width_px as usize;
    let plane_len = row_len * target.size.height_px as usize;
    let (values, _) = to.as_chunks_mut::<4>();
    for (channel, plane) in values.chunks_exact_mut(plane_len).enumerate() {
        let (mean, scale) = (target.mean[channel], target.scale[channel]);
        let pad = ((f32::from(target.pad) - mean) * scale).to_ne_bytes();
        let mut rows = plane.chunks_exact_mut(row_len);
        for (pixels, row) in small.chunks_exact(width).zip(&mut rows) {
            for (value, pixel) in row.iter_mut().zip(pixels) {
                *value = ((f32::from(pixel.0[channel]) - mean) * scale).to_ne_bytes();
            }
            row[width..].fill(pad);
        }
        rows.for_each(|row| row.fill(pad));
    }
}
