//! Pictures for those who cannot be sent H.264: an image as JPEG, at its display size.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use millrace_frame::{ImageDesc, PixelFormat, Plane, Range, Size};

/// Why there is no JPEG of an image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JpegError {
    #[error("the image's description does not fit its {have_bytes} bytes: {source}")]
    Layout { have_bytes: usize, source: millrace_frame::LayoutError },
    #[error("a picture of {0} cannot be a JPEG")]
    Encode(Size, #[source] jpeg_encoder::EncodingError),
}

/// The display area of an image in host memory as a baseline JPEG, 4:2:0, of `quality` 1 to 100.
///
/// Colour goes by the image's own matrix and range to R'G'B'; primaries and transfer are left as they are, as a browser
/// does with video that it takes for BT.709.
pub(crate) fn encode(image: &ImageDesc, bytes: &[u8], quality: u8) -> Result<Vec<u8>, JpegError> {
    image.validate(bytes.len() as u64).map_err(|source| JpegError::Layout { have_bytes: bytes.len(), source })?;
    let (rgb, colour) = interleaved(image, bytes);
    let row_bytes = 3 * image.coded.width_px as usize;
    let shown = image.display;
    let mut packed = Vec::with_capacity(3 * shown.width_px as usize * shown.height_px as usize);
    let first = 3 * shown.x_px as usize;
    for row in rgb.chunks_exact(row_bytes).skip(shown.y_px as usize).take(shown.height_px as usize) {
        packed.extend_from_slice(&row[first..first + 3 * shown.width_px as usize]);
    }
    let mut out = Vec::with_capacity(packed.len() / 8);
    let mut encoder = Encoder::new(&mut out, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    // `validate` holds both below 32768
    let (width, height) = (shown.width_px as u16, shown.height_px as u16);
    encoder.encode(&packed, width, height, colour).map_err(|source| JpegError::Encode(image.display_size(), source))?;
    Ok(out)
}

/// All of the image as rows of three bytes a pixel without padding.
pub(super) fn interleaved(image: &ImageDesc, bytes: &[u8]) -> (Vec<u8>, ColorType) {
    let Size { width_px, height_px } = image.coded;
    let (width, height) = (width_px as usize, height_px as usize);
    let shapes = image.format.plane_shapes(image.coded);
    let row = |plane: usize, y: usize| {
        let Plane { offset_bytes, pitch_bytes } = image.planes[plane];
        let start = offset_bytes as usize + y * pitch_bytes as usize;
        &bytes[start..start + shapes[plane].0 as usize]
    };
    let mix = Mix::new(image);
    let mut out = vec![0; 3 * width * height];
    for (y, to) in out.chunks_exact_mut(3 * width).enumerate() {
        match image.format {
            PixelFormat::Nv12 => {
                let (luma, chroma) = (row(0, y), row(1, y / 2));
                mix.row(to, |x| luma[x], |x| (chroma[x & !1], chroma[x | 1]));
            }
            // a preview has eight bits: the high byte of each sample
            PixelFormat::P016 => {
                let (luma, chroma) = (row(0, y), row(1, y / 2));
                mix.row(to, |x| luma[2 * x + 1], |x| (chroma[2 * (x & !1) + 1], chroma[2 * (x | 1) + 1]));
            }
            PixelFormat::I420 => {
                let (luma, cb, cr) = (row(0, y), row(1, y / 2), row(2, y / 2));
                mix.row(to, |x| luma[x], |x| (cb[x / 2], cr[x / 2]));
            }
            PixelFormat::Rgb24 | PixelFormat::Bgr24 => to.copy_from_slice(row(0, y)),
        }
    }
    let colour = if image.format == PixelFormat::Bgr24 { ColorType::Bgr } else { ColorType::Rgb };
    (out, colour)
}

/// Y'CbCr to R'G'B' by H.273, in integers of 1/65536.
struct Mix {
    black: i32,
    y: i32,
    r_cr: i32,
    g_cb: i32,
    g_cr: i32,
    b_cb: i32,
}

impl Mix {
    fn new(image: &ImageDesc) -> Self {
        let (kr, kb) = image.colour.matrix.value.kr_kb();
        let kg = 1.0 - kr - kb;
        let (black, y, c) = match image.colour.range.value {
            Range::Limited => (16, 255.0 / 219.0, 255.0 / 224.0),
            Range::Full => (0, 1.0, 1.0),
        };
        let fixed = |v: f64| (v * 65536.0).round() as i32;
        Self {
            black,
            y: fixed(y),
            r_cr: fixed(2.0 * (1.0 - kr) * c),
            g_cb: fixed(-2.0 * kb * (1.0 - kb) / kg * c),
            g_cr: fixed(-2.0 * kr * (1.0 - kr) / kg * c),
            b_cb: fixed(2.0 * (1.0 - kb) * c),
        }
    }

    /// One row; chroma is that of the nearest sample, which is enough for what JPEG halves again.
    #[inline(always)]
    fn row(&self, to: &mut [u8], luma: impl Fn(usize) -> u8, chroma: impl Fn(usize) -> (u8, u8)) {
        for (x, pixel) in to.chunks_exact_mut(3).enumerate() {
            let (cb, cr) = chroma(x);
            let y = (i32::from(luma(x)) - self.black) * self.y + 32768;
            let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
            let sums = [y + self.r_cr * cr, y + self.g_cb * cb + self.g_cr * cr, y + self.b_cb * cb];
            for (to, sum) in pixel.iter_mut().zip(sums) {
                *to = (sum >> 16).clamp(0, 255) as u8;
            }
        }
    }
}
