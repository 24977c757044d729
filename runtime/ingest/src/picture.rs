//! A decoded picture, as the decoder left it, and the one pass that writes it as NV12.

use crate::turn::{Rows, Stored, turn};
use crate::{StreamInfo, WriteError};
use millrace_frame::{ImageDesc, Orientation, PixelFormat, Size, Timing};
use std::sync::Arc;

/// The samples of a picture: planes Y, Cb, Cr at 4:2:0.
pub(crate) enum Planes {
    /// 8-bit samples; strides in bytes of luma and chroma.
    Bytes { planes: [Vec<u8>; 3], strides: [usize; 2] },
    /// The H.265 decoder keeps 8-bit samples in 16 bits.
    Words(Arc<rusty_h265::Picture>),
}

/// A decoded picture with its place in time.
pub struct Picture {
    /// Its times, as the access unit had them.
    pub timing: Timing,
    /// Size, crop and colour.
    pub info: Arc<StreamInfo>,
    pub(crate) planes: Planes,
    /// Position of the first shown luma sample in the planes.
    pub(crate) origin_px: (usize, usize),
}

impl Picture {
    /// Writes what is shown as NV12, upright, where `desc` says, in one pass over the samples. Bytes of `out` between rows and
    /// behind the planes are left as they were.
    ///
    /// # Errors
    /// When `desc` is not NV12, not of the size that is shown, or does not lie in `out`.
    pub fn write_nv12(&self, desc: &ImageDesc, out: &mut [u8]) -> Result<(), WriteError> {
        let size = self.info.display_size();
        if desc.format != PixelFormat::Nv12 {
            return Err(WriteError::Format { expected: PixelFormat::Nv12, described: desc.format });
        }
        if desc.coded != size {
            return Err(WriteError::Size { picture: size, described: desc.coded });
        }
        desc.validate(out.len() as u64)?;
        let rows = |plane: usize| {
            let p = desc.planes[plane];
            (p.offset_bytes as usize, p.pitch_bytes as usize)
        };
        let (x, y) = self.origin_px;
        let orientation = self.info.orientation;
        if orientation != Orientation::Upright {
            self.write_turned(orientation, out, [rows(0), rows(1)]);
            return Ok(());
        }
        let chroma = Size::new(size.width_px.div_ceil(2), size.height_px.div_ceil(2));
        match &self.planes {
            Planes::Bytes { planes: [luma, cb, cr], strides: [luma_stride, stride] } => {
                copy(&luma[y * luma_stride + x..], *luma_stride, out, rows(0), size, |to, from| {
                    to.copy_from_slice(from)
                });
                let at = y / 2 * stride + x / 2;
                interleave(&cb[at..], &cr[at..], *stride, out, rows(1), chroma, |b| b);
            }
            Planes::Words(picture) => {
                let [luma, cb, cr] = &picture.planes;
                copy(&luma.data[y * luma.stride + x..], luma.stride, out, rows(0), size, |to, from: &[u16]| {
                    for (to, &from) in to.iter_mut().zip(from) {
                        *to = from as u8;
                    }
                });
                let at = y / 2 * cb.stride + x / 2;
                interleave(&cb.data[at..], &cr.data[at..], cb.stride, out, rows(1), chroma, |w| w as u8);
            }
        }
        Ok(())
    }

    fn write_turned(&self, orientation: Orientation, out: &mut [u8], [luma_to, chroma_to]: [Rows; 2]) {
        let Size { width_px, height_px } = self.info.stored_size();
        let (width, height) = (width_px as usize, height_px as usize);
        let stored = |stride| Stored { size: (width, height), stride };
        let half = |stride| Stored { size: (width.div_ceil(2), height.div_ceil(2)), stride };
        let (x, y) = self.origin_px;
        match &self.planes {
            Planes::Bytes { planes: [luma, cb, cr], strides: [luma_stride, stride] } => {
                let luma = &luma[y * luma_stride + x..];
                turn(orientation, &stored(*luma_stride), out, luma_to, |at| [luma[at]]);
                let at = y / 2 * stride + x / 2;
                let (cb, cr) = (&cb[at..], &cr[at..]);
                turn(orientation, &half(*stride), out, chroma_to, |at| [cb[at], cr[at]]);
            }
            Planes::Words(picture) => {
                let [luma, cb, cr] = &picture.planes;
                let (luma, stride) = (&luma.data[y * luma.stride + x..], luma.stride);
                turn(orientation, &stored(stride), out, luma_to, |at| [luma[at] as u8]);
                let at = y / 2 * cb.stride + x / 2;
                let (stride, cb, cr) = (cb.stride, &cb.data[at..], &cr.data[at..]);
                turn(orientation, &half(stride), out, chroma_to, |at| [cb[at] as u8, cr[at] as u8]);
            }
        }
    }
}

fn copy<T>(
    from: &[T],
    stride: usize,
    out: &mut [u8],
    (offset, pitch): (usize, usize),
    size: Size,
    row: impl Fn(&mut [u8], &[T]),
) {
    let width = size.width_px as usize;
    for y in 0..size.height_px as usize {
        row(&mut out[offset + y * pitch..][..width], &from[y * stride..][..width]);
    }
}

fn interleave<T: Copy>(
    cb: &[T],
    cr: &[T],
    stride: usize,
    out: &mut [u8],
    (offset, pitch): (usize, usize),
    chroma: Size,
    byte: impl Fn(T) -> u8,
) {
    let width = chroma.width_px as usize;
    for y in 0..chroma.height_px as usize {
        let to = &mut out[offset + y * pitch..][..2 * width];
        let (cb, cr) = (&cb[y * stride..][..width], &cr[y * stride..][..width]);
        for ((to, &b), &r) in to.as_chunks_mut::<2>().0.iter_mut().zip(cb).zip(cr) {
            *to = [byte(b), byte(r)];
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::syntax::colour;
    use millrace_frame::{PacketCodec, Rect};
    use proptest::prelude::*;

    fn info(display: Rect, coded: Size) -> Arc<StreamInfo> {
        Arc::new(StreamInfo {
            codec: PacketCodec::H264,
            profile: "Main",
            coded,
            display,
            colour: colour(display.height_px, None, None, None),
            bit_depth: 8,
            max_reorder: 0,
            max_reorder_origin: crate::BoundOrigin::Impossible,
            frame_rate: None,
            unsupported: None,
            slice_groups: false,
            orientation: Orientation::Upright,
        })
    }

    proptest! {
        /// Sample by sample, by the definition of NV12, for odd sizes, crops, strides and pitches, in both sample widths.
        #[test]
        fn every_sample_lands_where_nv12_has_it(
            w in 1u32..40, h in 1u32..24, crop_x in 0u32..4, crop_y in 0u32..4, pad in 0usize..5,
            align in prop::sample::select(vec![1u32, 2, 64]), words: bool, seed: u8,
        ) {
            let (crop_x, crop_y) = (2 * crop_x, 2 * crop_y);
            let coded = Size::new((w + crop_x).next_multiple_of(2) + 2, (h + crop_y).next_multiple_of(2) + 2);
            let (cw, ch) = (coded.width_px as usize / 2, coded.height_px as usize / 2);
            let strides = [coded.width_px as usize + pad, cw + pad];
            let sample = |plane: usize, i: usize| (i * 7 + plane * 31 + usize::from(seed)) as u8;
            let fill = |plane: usize, len: usize| (0..len).map(|i| sample(plane, i)).collect::<Vec<u8>>();
            let data = [fill(0, strides[0] * coded.height_px as usize), fill(1, strides[1] * ch), fill(2, strides[1] * ch)];
            let planes = if words {
                let mut p = rusty_h265::Picture::new(coded.width_px as usize, coded.height_px as usize, 1, 8, 8);
                for (i, plane) in p.planes.iter_mut().enumerate() {
                    plane.stride = strides[usize::from(i > 0)];
                    plane.data = data[i].iter().map(|&b| u16::from(b)).collect();
                }
                Planes::Words(Arc::new(p))
            } else {
                Planes::Bytes { planes: data, strides }
            };
            let display = Rect { x_px: crop_x, y_px: crop_y, width_px: w, height_px: h };
            let info = info(display, coded);
            let (desc, bytes) = info.nv12(align);
            let origin_px = (crop_x as usize, crop_y as usize);
            let picture =
                Picture { timing: Timing::default(), info, planes, origin_px };
            let mut out = vec![0xAA; bytes as usize];
            picture.write_nv12(&desc, &mut out).unwrap();
            for y in 0..h as usize {
                for x in 0..desc.planes[0].pitch_bytes as usize {
                    let at = y * desc.planes[0].pitch_bytes as usize + x;
                    let from = (y + crop_y as usize) * strides[0] + x + crop_x as usize;
                    let want = if x < w as usize { sample(0, from) } else { 0xAA };
                    prop_assert_eq!(out[at], want, "luma {},{}", x, y);
                }
            }
            for y in 0..h.div_ceil(2) as usize {
                for x in 0..desc.planes[1].pitch_bytes as usize {
                    let at = desc.planes[1].offset_bytes as usize + y * desc.planes[1].pitch_bytes as usize + x;
                    let from = (y + crop_y as usize / 2) * strides[1] + x / 2 + crop_x as usize / 2;
                    let inside = x < 2 * w.div_ceil(2) as usize;
                    let want = if inside { sample(1 + x % 2, from) } else { 0xAA };
                    prop_assert_eq!(out[at], want, "chroma {},{}", x, y);
                }
            }
            // one byte short of the last sample; behind it, a row need not be padded
            let last_row = desc.planes[1].pitch_bytes as usize * (h.div_ceil(2) as usize - 1);
            let end = desc.planes[1].offset_bytes as usize + last_row + 2 * w.div_ceil(2) as usize;
            prop_assert!(picture.write_nv12(&desc, &mut out[..end - 1]).is_err());
            let (other, _) = ImageDesc::packed(PixelFormat::I420, info_size(&picture), desc.colour, 1);
            prop_assert_eq!(picture.write_nv12(&other, &mut out), Err(WriteError::Format { expected: PixelFormat::Nv12, described: PixelFormat::I420 }));
        }
    }

    fn info_size(picture: &Picture) -> Size {
        picture.info.display_size()
    }

    #[test]
    fn a_description_of_another_size_is_refused() {
        let size = Size::new(4, 4);
        let info = info(Rect { x_px: 0, y_px: 0, width_px: 4, height_px: 4 }, size);
        let planes = Planes::Bytes { planes: [vec![0; 16], vec![0; 4], vec![0; 4]], strides: [4, 2] };
        let (desc, bytes) = ImageDesc::packed(PixelFormat::Nv12, Size::new(2, 4), info.colour, 1);
        let picture = Picture { timing: Timing::default(), info, planes, origin_px: (0, 0) };
        let got = picture.write_nv12(&desc, &mut vec![0; bytes as usize]);
        assert_eq!(got, Err(WriteError::Size { picture: size, described: Size::new(2, 4) }));
    }
}
