//! JPEG and PNG pictures, to planes at 4:2:0.

use super::engine::{Engine, EngineError, Frame};
use crate::AccessUnit;
use crate::picture::Planes;
use crate::syntax::still::limits;
use libjpeg_turbo_rs::{Decoder, RawImage};
use millrace_frame::PacketCodec;
use yuv::{BufferStoreMut, YuvConversionMode, YuvPlanarImageMut, YuvRange, YuvStandardMatrix, rgb_to_yuv420};

/// What a PNG may need beside its pixels.
const PNG_BYTES: usize = 1 << 30;

pub(super) struct Still;

impl Engine for Still {
    fn decode(&mut self, unit: &AccessUnit, number: i64, out: &mut Vec<Frame>) -> Result<(), EngineError> {
        let planes = match unit.info.codec {
            PacketCodec::Png => png(unit)?,
            _ => jpeg(unit)?,
        };
        let coded = unit.info.coded;
        let size = (coded.width_px as usize, coded.height_px as usize);
        out.push(Frame { number, planes, size, first: (0, 0) });
        Ok(())
    }

    fn flush(&mut self, _: &mut Vec<Frame>) -> Result<(), EngineError> {
        Ok(())
    }
}

fn jpeg(unit: &AccessUnit) -> Result<Planes, EngineError> {
    let in_words = |e: libjpeg_turbo_rs::JpegError| EngineError(e.to_string());
    let decoder = Decoder::new_with_limits(&unit.data, limits()).map_err(in_words)?;
    let factors: Vec<(usize, usize)> = decoder
        .header()
        .components
        .iter()
        .map(|c| (c.horizontal_sampling.into(), c.vertical_sampling.into()))
        .collect();
    let raw = decoder.decode_raw().map_err(in_words)?;
    if raw.planes.len() < 3 {
        let chroma = vec![128; raw.width.div_ceil(2) * raw.height.div_ceil(2)];
        let strides = [raw.plane_widths[0], raw.width.div_ceil(2)];
        let luma = raw.planes.into_iter().next().unwrap_or_default();
        return Ok(Planes::Bytes { planes: [luma, chroma.clone(), chroma], strides });
    }
    let luma_stride = raw.plane_widths[0];
    if (1..3).all(|n| factors[0] == (2 * factors[n].0, 2 * factors[n].1)) {
        let strides = [luma_stride, raw.plane_widths[1]];
        let planes = raw.planes.try_into().map_err(|_| EngineError("it has more than three planes".into()))?;
        return Ok(Planes::Bytes { planes, strides });
    }
    let [cb, cr] = [1, 2].map(|n| halved(&raw, n, factors[0], factors[n]));
    let strides = [luma_stride, raw.width.div_ceil(2)];
    let luma = raw.planes.into_iter().next().unwrap_or_default();
    Ok(Planes::Bytes { planes: [luma, cb, cr], strides })
}

/// A chroma plane at half the size of the luma: of each square of four luma samples, the mean of what is there of chroma.
fn halved(raw: &RawImage, plane: usize, luma: (usize, usize), chroma: (usize, usize)) -> Vec<u8> {
    let (samples, stride) = (&raw.planes[plane], raw.plane_widths[plane]);
    // the sample at a luma sample's place; a square that the picture's edge cuts has its inner half alone
    let x = |x: usize| x.min(raw.width - 1) * chroma.0 / luma.0;
    let y = |y: usize| y.min(raw.height - 1) * chroma.1 / luma.1;
    let mut out = Vec::with_capacity(raw.width.div_ceil(2) * raw.height.div_ceil(2));
    for row in 0..raw.height.div_ceil(2) {
        let (above, below) = (y(2 * row) * stride, y(2 * row + 1) * stride);
        for column in 0..raw.width.div_ceil(2) {
            let (left, right) = (x(2 * column), x(2 * column + 1));
            let sum: u16 = [above + left, above + right, below + left, below + right]
                .map(|at| u16::from(samples[at]))
                .iter()
                .sum();
            out.push(((sum + 2) / 4) as u8);
        }
    }
    out
}

fn png(unit: &AccessUnit) -> Result<Planes, EngineError> {
    let in_words = |e: png::DecodingError| EngineError(e.to_string());
    let limits = png::Limits { bytes: PNG_BYTES };
    let mut decoder = png::Decoder::new_with_limits(std::io::Cursor::new(&unit.data), limits);
    // colours of a palette and 16 bits become three or four bytes, grey one or two
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(in_words)?;
    let bytes = reader.output_buffer_size().ok_or_else(|| EngineError("it is too large".into()))?;
    let mut pixels = vec![0; bytes];
    let info = reader.next_frame(&mut pixels).map_err(in_words)?;
    let channels = info.color_type.samples();
    let (width, height) = (info.width, info.height);
    let rgb: Vec<u8> = match channels {
        1 | 2 => pixels.chunks_exact(channels).flat_map(|grey| [grey[0]; 3]).collect(),
        3 => pixels,
        _ => pixels.chunks_exact(channels).flat_map(|rgba| [rgba[0], rgba[1], rgba[2]]).collect(),
    };
    let (w, h) = (width as usize, height as usize);
    let half = w.div_ceil(2);
    let mut planes = [vec![0; w * h], vec![0; half * h.div_ceil(2)], vec![0; half * h.div_ceil(2)]];
    let [y, u, v] = &mut planes;
    let mut image = YuvPlanarImageMut {
        y_plane: BufferStoreMut::Borrowed(y),
        y_stride: width,
        u_plane: BufferStoreMut::Borrowed(u),
        u_stride: half as u32,
        v_plane: BufferStoreMut::Borrowed(v),
        v_stride: half as u32,
        width,
        height,
    };
    let (range, matrix) = (YuvRange::Full, YuvStandardMatrix::Bt601);
    rgb_to_yuv420(&mut image, &rgb, 3 * width, range, matrix, YuvConversionMode::Balanced)
        .map_err(|e| EngineError(e.to_string()))?;
    Ok(Planes::Bytes { planes, strides: [w, half] })
}
