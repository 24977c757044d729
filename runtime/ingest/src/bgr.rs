//! A decoded picture as packed BGR, the way of programs that know no YCbCr: the slow arm of a comparison.

use crate::picture::Planes;
use crate::turn::{Stored, turn};
use crate::{Picture, WriteError};
use millrace_frame::{ImageDesc, Matrix, Orientation, PixelFormat, Range};
use yuv::{YuvPlanarImage, YuvRange, YuvStandardMatrix, yuv420_to_bgr};

impl Picture {
    /// Writes what is shown as BGR24 where `desc` says, in one pass over the samples, by the matrix and the range of
    /// `desc.colour` (H.273). A chroma sample goes to all four luma samples of its square, wherever it is sited, and luma
    /// below black is black.
    ///
    /// # Errors
    /// When `desc` is not BGR24, not of the size that is shown, or does not lie in `out`.
    pub fn write_bgr24(&self, desc: &ImageDesc, out: &mut [u8]) -> Result<(), WriteError> {
        let size = self.info.display_size();
        if desc.format != PixelFormat::Bgr24 {
            return Err(WriteError::Format { expected: PixelFormat::Bgr24, described: desc.format });
        }
        if desc.coded != size {
            return Err(WriteError::Size { picture: size, described: desc.coded });
        }
        desc.validate(out.len() as u64)?;
        let (x, y) = self.origin_px;
        let bytes;
        let (planes, [luma_stride, stride]) = match &self.planes {
            Planes::Bytes { planes, strides } => (planes, *strides),
            Planes::Words(picture) => {
                let plane = |n: usize| picture.planes[n].data.iter().map(|&word| word as u8).collect::<Vec<u8>>();
                bytes = [plane(0), plane(1), plane(2)];
                (&bytes, [picture.planes[0].stride, picture.planes[1].stride])
            }
        };
        let chroma_at = y / 2 * stride + x / 2;
        let stored = self.info.stored_size();
        let image = YuvPlanarImage {
            y_plane: &planes[0][y * luma_stride + x..],
            y_stride: luma_stride as u32,
            u_plane: &planes[1][chroma_at..],
            u_stride: stride as u32,
            v_plane: &planes[2][chroma_at..],
            v_stride: stride as u32,
            width: stored.width_px,
            height: stored.height_px,
        };
        let range = match desc.colour.range.value {
            Range::Limited => YuvRange::Limited,
            Range::Full => YuvRange::Full,
        };
        let matrix = match desc.colour.matrix.value {
            Matrix::Bt709 => YuvStandardMatrix::Bt709,
            Matrix::Bt601 => YuvStandardMatrix::Bt601,
            Matrix::Bt2020Ncl => YuvStandardMatrix::Bt2020,
        };
        let converted = |to: &mut [u8], pitch_bytes| {
            yuv420_to_bgr(&image, to, pitch_bytes, range, matrix).map_err(|e| WriteError::Convert(e.to_string()))
        };
        let plane = desc.planes[0];
        let orientation = self.info.orientation;
        if orientation == Orientation::Upright {
            return converted(&mut out[plane.offset_bytes as usize..], plane.pitch_bytes);
        }
        let (width, height) = (stored.width_px as usize, stored.height_px as usize);
        let mut pixels = vec![0; 3 * width * height];
        converted(&mut pixels, 3 * stored.width_px)?;
        let rows = (plane.offset_bytes as usize, plane.pitch_bytes as usize);
        let (pixels, _) = pixels.as_chunks::<3>();
        turn(orientation, &Stored { size: (width, height), stride: width }, out, rows, |at| pixels[at]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::StreamInfo;
    use millrace_frame::{Colour, PacketCodec, Rect, Size, Tagged, Timing};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn picture(size: Size, samples: [Vec<u8>; 3], stride: usize) -> Picture {
        let display = Rect { x_px: 0, y_px: 0, width_px: size.width_px, height_px: size.height_px };
        let info = Arc::new(StreamInfo {
            codec: PacketCodec::H264,
            profile: "Main",
            coded: size,
            display,
            colour: Colour::assumed_for_height(size.height_px),
            bit_depth: 8,
            max_reorder: 0,
            max_reorder_origin: crate::BoundOrigin::Impossible,
            frame_rate: None,
            unsupported: None,
            slice_groups: false,
            orientation: Orientation::Upright,
        });
        let planes = Planes::Bytes { planes: samples, strides: [stride, stride] };
        Picture { timing: Timing::default(), info, planes, origin_px: (0, 0) }
    }

    /// H.273 equations in f64: E'Y, E'Cb, E'Cr of the codes, and from them B, G, R in 0 to 255, clamped.
    fn exact(codes: [u8; 3], matrix: Matrix, range: Range) -> [f64; 3] {
        let [y, cb, cr] = codes.map(f64::from);
        let (y, cb, cr) = match range {
            Range::Limited => ((y - 16.0) / 219.0, (cb - 128.0) / 224.0, (cr - 128.0) / 224.0),
            Range::Full => (y / 255.0, (cb - 128.0) / 255.0, (cr - 128.0) / 255.0),
        };
        let (kr, kb) = matrix.kr_kb();
        let (r, b) = (y + 2.0 * (1.0 - kr) * cr, y + 2.0 * (1.0 - kb) * cb);
        let g = (y - kr * r - kb * b) / (1.0 - kr - kb);
        [b, g, r].map(|v| (v * 255.0).clamp(0.0, 255.0))
    }

    proptest! {
        /// Every pixel of odd and even sizes, with pitch > width, against the equations. The library computes with whole
        /// numbers: rounding of its coefficients and of the result are each less than one step of 255. Codes of limited
        /// range are nominal ones, as luma below 16 is clamped.
        #[test]
        fn every_pixel_is_what_h273_says(
            w in 1u32..70, h in 1u32..9, pad in 0usize..5, seed: u32,
            matrix in prop::sample::select(vec![Matrix::Bt601, Matrix::Bt709, Matrix::Bt2020Ncl]),
            range in prop::sample::select(vec![Range::Limited, Range::Full]),
        ) {
            let size = Size::new(w, h);
            let stride = w as usize + 1 + pad;
            let noise = |n: usize| {
                let code = (seed.wrapping_mul(2_654_435_761).wrapping_add(n as u32).wrapping_mul(0x9E37_79B1) >> 24) as u8;
                if range == Range::Limited { code.clamp(16, 235) } else { code }
            };
            let samples: [Vec<u8>; 3] =
                std::array::from_fn(|plane| (0..stride * h as usize).map(|i| noise(plane * 100_003 + i)).collect());
            let mut colour = Colour::assumed_for_height(h);
            (colour.matrix, colour.range) = (Tagged::setting(matrix), Tagged::setting(range));
            let (desc, bytes) = ImageDesc::packed(PixelFormat::Bgr24, size, colour, 64);
            let mut out = vec![0; bytes as usize];
            picture(size, samples.clone(), stride).write_bgr24(&desc, &mut out).unwrap();
            for y in 0..h as usize {
                for x in 0..w as usize {
                    let chroma = y / 2 * stride + x / 2;
                    let want = exact([samples[0][y * stride + x], samples[1][chroma], samples[2][chroma]], matrix, range);
                    let at = y * desc.planes[0].pitch_bytes as usize + 3 * x;
                    for (channel, want) in want.into_iter().enumerate() {
                        let got = f64::from(out[at + channel]);
                        prop_assert!((got - want).abs() <= 2.0, "pixel {x},{y} channel {channel}: {got}, not {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn another_format_or_size_is_refused() {
        let size = Size::new(4, 4);
        let picture = picture(size, [vec![0; 16], vec![0; 16], vec![0; 16]], 4);
        let refused = |format, size| {
            let (desc, bytes) = ImageDesc::packed(format, size, Colour::assumed_for_height(4), 1);
            picture.write_bgr24(&desc, &mut vec![0; bytes as usize]).unwrap_err().to_string()
        };
        assert!(refused(PixelFormat::Nv12, size).contains("bgr24"));
        assert!(refused(PixelFormat::Bgr24, Size::new(2, 4)).contains("4x4"));
    }
}
