//! The sampler for AVX2: eight output pixels at a time, without `unsafe`.
//!
//! Neighbouring outputs read neighbouring bytes, so instead of gathering them one by one a row is read in windows of 16
//! bytes, and one byte shuffle picks from a window, for each of its outputs, the pair of samples that its taps name,
//! widened to 16 bits; one multiply-add by the tap weights then gives the blend. How many windows a group of eight needs
//! depends on the scale alone, so the windows and shuffles are computed once per geometry.
//!
//! The arithmetic is that of the portable sampler, so that the results have the same bits.

use crate::convert::sample::{RowPair, Sampler, Source};
use crate::convert::taps::{ONE, PlaneTaps, Tap};
use millrace_frame::PixelFormat;
use pulp::bytemuck::cast;
use pulp::f32x8;
use pulp::x86::V3;
use std::arch::x86_64::__m128i;

const WINDOW_BYTES: usize = 16;
const OUTPUTS: usize = 8;

/// Eight outputs: four in each 128-bit lane, read from `W` windows a lane.
#[derive(Debug)]
struct Group<const W: usize> {
    /// First byte of each lane's windows in the row.
    start: [[u32; 2]; W],
    /// For each window the place of the first component's samples: 0x80 gives a 0.
    pick: [[u8; 32]; W],
    /// Weights of the pairs.
    weights: [i16; 16],
}

/// The groups of a row, with the fewest windows that reach.
#[derive(Debug)]
enum Groups {
    One(Vec<Group<1>>),
    Two(Vec<Group<2>>),
    Four(Vec<Group<4>>),
}

impl Groups {
    /// `step` components of 8 bits are interleaved. `None` where a row is shorter than a window.
    fn new(taps: &[Tap], step: usize, row_bytes: usize) -> Option<Self> {
        None.or_else(|| groups(taps, step, row_bytes).map(Self::One))
            .or_else(|| groups(taps, step, row_bytes).map(Self::Two))
            .or_else(|| groups(taps, step, row_bytes).map(Self::Four))
    }
}

fn groups<const W: usize>(taps: &[Tap], step: usize, row_bytes: usize) -> Option<Vec<Group<W>>> {
    let last_start = row_bytes.checked_sub(WINDOW_BYTES)?;
    let last_tap = taps.last()?;
    taps.chunks(OUTPUTS)
        .map(|chunk| {
            let mut group = Group { start: [[0; 2]; W], pick: [[0x80; 32]; W], weights: [0; 16] };
            for lane in 0..2 {
                for j in 0..4 {
                    let tap = chunk.get(4 * lane + j).unwrap_or(last_tap);
                    let window = j * W / 4;
                    if (j * W).is_multiple_of(4) {
                        group.start[window][lane] = (tap.first as usize * step).min(last_start) as u32;
                    }
                    let start = group.start[window][lane] as usize;
                    for (k, (sample, weight)) in
                        [(tap.first, ONE - tap.weight), (tap.second, tap.weight)].into_iter().enumerate()
                    {
                        let place = (sample as usize * step).checked_sub(start)?;
                        if place + step > WINDOW_BYTES {
                            return None;
                        }
                        let pair = 4 * lane + j;
                        group.pick[window][4 * pair + 2 * k] = place as u8;
                        group.weights[2 * pair + k] = weight as i16;
                    }
                }
            }
            Some(group)
        })
        .collect()
}

/// The tables of one geometry.
#[derive(Debug)]
pub(crate) struct Windows {
    simd: V3,
    full: Groups,
    chroma: Option<Groups>,
}

impl Windows {
    /// `None` where the machine has no AVX2, for 16-bit samples, and for rows shorter than a window.
    pub(crate) fn new(
        format: PixelFormat,
        row_bytes: [usize; 3],
        full: &PlaneTaps,
        chroma: Option<&PlaneTaps>,
    ) -> Option<Self> {
        let simd = V3::try_new()?;
        let (step, chroma_step) = match format {
            PixelFormat::P016 => return None,
            PixelFormat::Nv12 => (1, 2),
            PixelFormat::I420 => (1, 1),
            PixelFormat::Bgr24 | PixelFormat::Rgb24 => (3, 0),
        };
        let chroma = match chroma {
            None => None,
            Some(taps) => Some(Groups::new(&taps.x, chroma_step, row_bytes[1])?),
        };
        Some(Self { simd, full: Groups::new(&full.x, step, row_bytes[0])?, chroma })
    }

    /// Runs `work` compiled for AVX2; all of it must be inlined.
    #[inline(always)]
    pub(crate) fn vectorize<R>(&self, work: impl FnOnce() -> R) -> R {
        self.simd.vectorize(work)
    }
}

impl Sampler for Windows {
    #[inline(always)]
    fn sample(&self, source: &Source<'_>, y: usize, [a, b, c]: &mut [Vec<f32>; 3]) {
        let [p0, p1, p2] = &source.planes;
        let first = p0.rows(source.full.y[y]);
        let (Some(taps), Some(chroma)) = (source.chroma, &self.chroma) else {
            return rows(self.simd, &first, &self.full, [a, b, c]);
        };
        rows(self.simd, &first, &self.full, [a]);
        let second = p1.rows(taps.y[y]);
        if source.format == PixelFormat::I420 {
            rows(self.simd, &second, chroma, [b]);
            rows(self.simd, &p2.rows(taps.y[y]), chroma, [c]);
        } else {
            rows(self.simd, &second, chroma, [b, c]);
        }
    }
}

/// `C` interleaved components of a row.
#[inline(always)]
fn rows<const C: usize>(simd: V3, pair: &RowPair<'_>, groups: &Groups, out: [&mut [f32]; C]) {
    match groups {
        Groups::One(groups) => blend(simd, pair, groups, out),
        Groups::Two(groups) => blend(simd, pair, groups, out),
        Groups::Four(groups) => blend(simd, pair, groups, out),
    }
}

// no closures and no iterator adaptors from here on: what is not inlined is not compiled for AVX2

#[inline(always)]
fn blend<const W: usize, const C: usize>(simd: V3, pair: &RowPair<'_>, groups: &[Group<W>], mut out: [&mut [f32]; C]) {
    match pair.second {
        None => {
            for (group, at) in groups.iter().zip((0..).step_by(OUTPUTS)) {
                put(&mut out, at, across(simd, pair.first, group));
            }
        }
        Some((second, weight)) => {
            let weight = simd.splat_f32x8(weight);
            for (group, at) in groups.iter().zip((0..).step_by(OUTPUTS)) {
                let mut values: [f32x8; C] = across(simd, pair.first, group);
                let bottom: [f32x8; C] = across(simd, second, group);
                for c in 0..C {
                    let rise = simd.mul_f32x8(simd.sub_f32x8(bottom[c], values[c]), weight);
                    values[c] = simd.add_f32x8(values[c], rise);
                }
                put(&mut out, at, values);
            }
        }
    }
}

#[inline(always)]
fn put<const C: usize>(out: &mut [&mut [f32]; C], at: usize, values: [f32x8; C]) {
    for c in 0..C {
        let value: [f32; OUTPUTS] = cast(values[c]);
        out[c][at..at + OUTPUTS].copy_from_slice(&value);
    }
}

/// Eight blends of each component along a row.
#[inline(always)]
fn across<const W: usize, const C: usize>(simd: V3, row: &[u8], group: &Group<W>) -> [f32x8; C] {
    let mut windows = [simd.avx._mm256_setzero_si256(); W];
    for (window, [low, high]) in windows.iter_mut().zip(group.start) {
        *window = simd.avx._mm256_set_m128i(load(row, high), load(row, low));
    }
    let mut values = [simd.splat_f32x8(0.0); C];
    for (c, value) in values.iter_mut().enumerate() {
        let component = simd.avx._mm256_set1_epi8(c as i8);
        let mut pairs = simd.avx._mm256_setzero_si256();
        for (&window, &pick) in windows.iter().zip(&group.pick) {
            // a place that gives 0 goes on giving 0: 0x80 + c has its highest bit set
            let pick = simd.avx2._mm256_add_epi8(cast(pick), component);
            pairs = simd.avx2._mm256_or_si256(pairs, simd.avx2._mm256_shuffle_epi8(window, pick));
        }
        *value = cast(simd.avx._mm256_cvtepi32_ps(simd.avx2._mm256_madd_epi16(pairs, cast(group.weights))));
    }
    values
}

#[inline(always)]
fn load(row: &[u8], start: u32) -> __m128i {
    let mut bytes = [0; WINDOW_BYTES];
    bytes.copy_from_slice(&row[start as usize..][..WINDOW_BYTES]);
    cast(bytes)
}
