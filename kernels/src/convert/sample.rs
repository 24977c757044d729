//! The three components of a row of output pixels, sampled between two rows and two columns of the source.

use crate::convert::taps::{PlaneTaps, Tap};
use millrace_frame::PixelFormat;

/// A plane of the source: its bytes from the first row on.
#[derive(Clone, Copy)]
pub(crate) struct PlaneBytes<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) pitch_bytes: usize,
    pub(crate) row_bytes: usize,
}

/// The two rows that an output row reads, and the weight of the second; one row where that weight is 0.
pub(crate) struct RowPair<'a> {
    pub(crate) first: &'a [u8],
    pub(crate) second: Option<(&'a [u8], f32)>,
}

impl<'a> PlaneBytes<'a> {
    #[inline(always)]
    pub(crate) fn rows(&self, tap: Tap) -> RowPair<'a> {
        let row = |y: u32| &self.bytes[y as usize * self.pitch_bytes..][..self.row_bytes];
        let weight = tap.weight as f32 / crate::convert::taps::ONE as f32;
        RowPair { first: row(tap.first), second: (tap.weight > 0).then(|| (row(tap.second), weight)) }
    }
}

/// The planes of one frame with the taps of its geometry.
pub(crate) struct Source<'a> {
    pub(crate) format: PixelFormat,
    pub(crate) planes: [PlaneBytes<'a>; 3],
    pub(crate) full: &'a PlaneTaps,
    pub(crate) chroma: Option<&'a PlaneTaps>,
}

/// Fills a row of each component (Y, Cb, Cr or the three of an RGB image as stored), scaled by `taps::ONE`.
pub(crate) trait Sampler {
    fn sample(&self, source: &Source<'_>, y: usize, components: &mut [Vec<f32>; 3]);
}

/// The portable sampler, for every format.
pub(crate) struct Portable;

impl Sampler for Portable {
    #[inline(always)]
    fn sample(&self, source: &Source<'_>, y: usize, [a, b, c]: &mut [Vec<f32>; 3]) {
        let [p0, p1, p2] = &source.planes;
        let full = source.full;
        match (source.format, source.chroma) {
            (PixelFormat::Nv12, Some(chroma)) => {
                let pair = p1.rows(chroma.y[y]);
                blend::<1, 1>(&p0.rows(full.y[y]), &full.x, 0, a);
                blend::<1, 2>(&pair, &chroma.x, 0, b);
                blend::<1, 2>(&pair, &chroma.x, 1, c);
            }
            (PixelFormat::P016, Some(chroma)) => {
                let pair = p1.rows(chroma.y[y]);
                blend::<2, 1>(&p0.rows(full.y[y]), &full.x, 0, a);
                blend::<2, 2>(&pair, &chroma.x, 0, b);
                blend::<2, 2>(&pair, &chroma.x, 1, c);
            }
            (PixelFormat::I420, Some(chroma)) => {
                blend::<1, 1>(&p0.rows(full.y[y]), &full.x, 0, a);
                blend::<1, 1>(&p1.rows(chroma.y[y]), &chroma.x, 0, b);
                blend::<1, 1>(&p2.rows(chroma.y[y]), &chroma.x, 0, c);
            }
            // `plane_taps` makes chroma taps for exactly the formats above
            _ => {
                let pair = p0.rows(full.y[y]);
                blend::<1, 3>(&pair, &full.x, 0, a);
                blend::<1, 3>(&pair, &full.x, 1, b);
                blend::<1, 3>(&pair, &full.x, 2, c);
            }
        }
    }
}

/// One component of a row: `STEP` components of `SAMPLE_BYTES` bytes each are interleaved.
#[inline(always)]
fn blend<const SAMPLE_BYTES: usize, const STEP: usize>(
    rows: &RowPair<'_>,
    taps: &[Tap],
    component: usize,
    out: &mut [f32],
) {
    let across = |row: &[u8], tap: Tap| {
        let at = |index: u32| {
            let start = (index as usize * STEP + component) * SAMPLE_BYTES;
            match SAMPLE_BYTES {
                1 => i32::from(row[start]),
                _ => i32::from(u16::from_le_bytes([row[start], row[start + 1]])),
            }
        };
        let (first, second) = (at(tap.first), at(tap.second));
        // 16 bits by 14: no overflow
        ((first << 14) + (second - first) * tap.weight) as f32
    };
    match rows.second {
        None => {
            for (value, &tap) in out.iter_mut().zip(taps) {
                *value = across(rows.first, tap);
            }
        }
        Some((second, weight)) => {
            for (value, &tap) in out.iter_mut().zip(taps) {
                let top = across(rows.first, tap);
                *value = top + (across(second, tap) - top) * weight;
            }
        }
    }
}
