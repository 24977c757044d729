//! One frame: sample a row, map it, write it, padding around it.

use crate::convert::colour::Channel;
use crate::convert::encode::{AsF16, AsF32, AsU8, Encode};
use crate::convert::sample::{Sampler, Source};
use crate::geometry::Placement;
use crate::target::Target;
use millrace_frame::{TensorDtype, TensorLayout};

/// Everything that one frame's conversion touches.
pub(crate) struct Job<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) target: &'a Target,
    pub(crate) placement: &'a Placement,
    pub(crate) channels: &'a [Channel; 3],
    pub(crate) components: &'a mut [Vec<f32>; 3],
    /// Whether padding is written.
    pub(crate) pads: bool,
    /// Exactly the tensor's bytes.
    pub(crate) tensor: &'a mut [u8],
}

impl Job<'_> {
    // everything is inlined into the caller, so that it is compiled for the instruction set that the caller chose
    #[inline(always)]
    pub(crate) fn run<S: Sampler>(self, sampler: &S) {
        match self.target.dtype {
            TensorDtype::F32 => self.typed::<4, AsF32, S>(sampler),
            TensorDtype::F16 => self.typed::<2, AsF16, S>(sampler),
            TensorDtype::U8 => self.typed::<1, AsU8, S>(sampler),
        }
    }

    #[inline(always)]
    fn typed<const N: usize, E: Encode<N>, S: Sampler>(self, sampler: &S) {
        match self.target.layout {
            TensorLayout::Nchw => self.planar::<N, E, S>(sampler),
            TensorLayout::Nhwc => self.interleaved::<N, E, S>(sampler),
        }
    }

    #[inline(always)]
    fn planar<const N: usize, E: Encode<N>, S: Sampler>(self, sampler: &S) {
        let placed = self.placement.placed;
        let (left, top) = (placed.x_px as usize, placed.y_px as usize);
        let (width, height) = (placed.width_px as usize, placed.height_px as usize);
        let row_len = self.target.size.width_px as usize;
        let plane_len = row_len * self.target.size.height_px as usize;
        let (elements, _) = self.tensor.as_chunks_mut::<N>();
        let pads = self.pads;
        for (channel, plane) in self.channels.iter().zip(elements.chunks_exact_mut(plane_len)).filter(|_| pads) {
            let pad = E::encode(channel.pad);
            plane[..top * row_len].fill(pad);
            plane[(top + height) * row_len..].fill(pad);
        }
        let [first, second, third] = self.channels;
        let pad_values = [E::encode(first.pad), E::encode(second.pad), E::encode(third.pad)];
        let (plane0, rest) = elements.split_at_mut(plane_len);
        let (plane1, plane2) = rest.split_at_mut(plane_len);
        for y in 0..height {
            sampler.sample(self.source, y, self.components);
            let [a, b, c] = &*self.components;
            let at = (top + y) * row_len;
            let mut rows = [&mut plane0[at..][..row_len], &mut plane1[at..][..row_len], &mut plane2[at..][..row_len]];
            for (row, pad) in rows.iter_mut().zip(pad_values).filter(|_| pads) {
                row[..left].fill(pad);
                row[left + width..].fill(pad);
            }
            let [row0, row1, row2] = rows.map(|row| &mut row[left..left + width]);
            let (a, b, c) = (&a[..width], &b[..width], &c[..width]);
            for x in 0..width {
                row0[x] = E::encode(first.apply(a[x], b[x], c[x]));
                row1[x] = E::encode(second.apply(a[x], b[x], c[x]));
                row2[x] = E::encode(third.apply(a[x], b[x], c[x]));
            }
        }
    }

    #[inline(always)]
    fn interleaved<const N: usize, E: Encode<N>, S: Sampler>(self, sampler: &S) {
        let placed = self.placement.placed;
        let (left, top) = (placed.x_px as usize, placed.y_px as usize);
        let (width, height) = (placed.width_px as usize, placed.height_px as usize);
        let row_len = self.target.size.width_px as usize;
        let [first, second, third] = self.channels;
        let pad = [E::encode(first.pad), E::encode(second.pad), E::encode(third.pad)];
        let (pixels, _) = self.tensor.as_chunks_mut::<N>().0.as_chunks_mut::<3>();
        if self.pads {
            pixels[..top * row_len].fill(pad);
            pixels[(top + height) * row_len..].fill(pad);
        }
        for y in 0..height {
            sampler.sample(self.source, y, self.components);
            let [a, b, c] = &*self.components;
            let row = &mut pixels[(top + y) * row_len..][..row_len];
            if self.pads {
                row[..left].fill(pad);
                row[left + width..].fill(pad);
            }
            for (((pixel, &a), &b), &c) in row[left..left + width].iter_mut().zip(a).zip(b).zip(c) {
                *pixel = [
                    E::encode(first.apply(a, b, c)),
                    E::encode(second.apply(a, b, c)),
                    E::encode(third.apply(a, b, c)),
                ];
            }
        }
    }
}
