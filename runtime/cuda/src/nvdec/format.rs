//! What a stream is, and what a GPU decodes.

use super::{NvdecError, sys};

/// A codec that the decoder knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264.
    H264,
    /// H.265.
    H265,
}

impl Codec {
    pub(crate) fn raw(self) -> u32 {
        match self {
            Self::H264 => sys::CODEC_H264,
            Self::H265 => sys::CODEC_HEVC,
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
        })
    }
}

/// What a GPU's decoder can do with a codec at one bit depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// It decodes it at all. The other numbers are 0 where it does not.
    pub supported: bool,
    /// Decoder engines that do.
    pub engines: u8,
    /// Smallest coded size.
    pub min_px: (u32, u32),
    /// Largest coded size.
    pub max_px: (u32, u32),
    /// Most blocks of 16x16 samples in a picture.
    pub max_macroblocks: u32,
    /// Surfaces can be NV12.
    pub nv12: bool,
    /// Surfaces can be P016.
    pub p016: bool,
}

impl Caps {
    pub(crate) fn of(raw: &sys::DecodeCaps) -> Self {
        let output = |format: u32| raw.output_format_mask & (1 << format) != 0;
        Self {
            supported: raw.is_supported != 0,
            engines: raw.num_nvdecs,
            min_px: (raw.min_width.into(), raw.min_height.into()),
            max_px: (raw.max_width, raw.max_height),
            max_macroblocks: raw.max_mb_count,
            nv12: output(sys::SURFACE_NV12),
            p016: output(sys::SURFACE_P016),
        }
    }

    /// Why a stream of this coded size and depth cannot be decoded, if so.
    pub(crate) fn refusal(&self, width_px: u32, height_px: u32, bit_depth: u8) -> Option<String> {
        let Self { min_px, max_px, max_macroblocks, .. } = *self;
        if !self.supported {
            return Some("it does not decode this codec at this depth".to_owned());
        }
        let fits = (min_px.0..=max_px.0).contains(&width_px) && (min_px.1..=max_px.1).contains(&height_px);
        if !fits {
            return Some(format!("it decodes {}x{} to {}x{}", min_px.0, min_px.1, max_px.0, max_px.1));
        }
        let macroblocks = u64::from(width_px.div_ceil(16)) * u64::from(height_px.div_ceil(16));
        if macroblocks > u64::from(max_macroblocks) {
            return Some(format!("it decodes up to {max_macroblocks} macroblocks, this has {macroblocks}"));
        }
        let output = if bit_depth > 8 { self.p016 } else { self.nv12 };
        (!output).then(|| format!("its surfaces cannot be {}", if bit_depth > 8 { "P016" } else { "NV12" }))
    }
}

/// What the bitstream says of colour: code points of H.273, and 2 ("unspecified") where it says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Samples use 0 to 255; also false where nothing was said.
    pub full_range: bool,
    /// `colour_primaries`.
    pub primaries: u8,
    /// `transfer_characteristics`.
    pub transfer: u8,
    /// `matrix_coefficients`.
    pub matrix: u8,
}

/// What a stream's parameter sets say, as the parser read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Codec.
    pub codec: Codec,
    /// Bits of a luma sample: 8 gives NV12 surfaces, more P016, whose samples are in the upper bits.
    pub bit_depth: u8,
    /// Coded width.
    pub coded_width_px: u32,
    /// Coded height.
    pub coded_height_px: u32,
    /// First column that is shown.
    pub left_px: u32,
    /// First row that is shown.
    pub top_px: u32,
    /// Columns that are shown.
    pub width_px: u32,
    /// Rows that are shown.
    pub height_px: u32,
    /// Colour.
    pub signal: Signal,
    /// Decode surfaces that the stream needs at least.
    pub min_surfaces: u32,
}

impl Format {
    /// Reads the parser's word.
    pub(crate) fn of(raw: &sys::VideoFormat, gpu: &str) -> Result<Self, NvdecError> {
        let bit_depth = 8u8.saturating_add(raw.bit_depth_luma_minus8.max(raw.bit_depth_chroma_minus8));
        let codec = match raw.codec {
            sys::CODEC_H264 => Codec::H264,
            sys::CODEC_HEVC => Codec::H265,
            other => return Err(NvdecError::Stream(format!("it found a codec that was not asked for ({other})"))),
        };
        if raw.chroma_format != sys::CHROMA_420 {
            return Err(NvdecError::Unsupported {
                codec,
                width_px: raw.coded_width,
                height_px: raw.coded_height,
                bit_depth,
                chroma: chroma_name(raw.chroma_format),
                gpu: gpu.to_owned(),
                why: "4:2:0 is what the graph carries".to_owned(),
            });
        }
        let area = raw.display_area;
        let whole = (raw.coded_width, raw.coded_height);
        let inside = |from: i32, to: i32, limit: u32| {
            let (from, to) = (u32::try_from(from).ok()?, u32::try_from(to).ok()?);
            (from < to && to <= limit).then_some((from, to - from))
        };
        let shown = inside(area.left, area.right, whole.0).zip(inside(area.top, area.bottom, whole.1));
        let Some(((left_px, width_px), (top_px, height_px))) = shown else {
            let why = format!("it shows {area:?} of {}x{} coded samples", whole.0, whole.1);
            return Err(NvdecError::Stream(why));
        };
        // 4:2:0 crops in units of two samples, which the offset of a chroma row relies on
        if left_px % 2 != 0 || top_px % 2 != 0 {
            return Err(NvdecError::Stream(format!(
                "its picture begins at {left_px},{top_px}, between chroma samples"
            )));
        }
        Ok(Self {
            codec,
            bit_depth,
            coded_width_px: raw.coded_width,
            coded_height_px: raw.coded_height,
            left_px,
            top_px,
            width_px,
            height_px,
            signal: Signal {
                full_range: raw.signal_bits & 0b1000 != 0,
                primaries: raw.color_primaries,
                transfer: raw.transfer_characteristics,
                matrix: raw.matrix_coefficients,
            },
            min_surfaces: raw.min_num_decode_surfaces.into(),
        })
    }

    /// The same, of which another part is shown.
    pub(crate) fn showing(self, left_px: u32, top_px: u32, width_px: u32, height_px: u32) -> Result<Self, NvdecError> {
        let inside = |from: u32, len: u32, whole: u32| len > 0 && from.checked_add(len).is_some_and(|to| to <= whole);
        let is_inside =
            inside(left_px, width_px, self.coded_width_px) && inside(top_px, height_px, self.coded_height_px);
        if !is_inside || !left_px.is_multiple_of(2) || !top_px.is_multiple_of(2) {
            return Err(NvdecError::Stream(format!(
                "{width_px}x{height_px} samples from {left_px},{top_px} on are shown of {}x{} coded ones",
                self.coded_width_px, self.coded_height_px
            )));
        }
        Ok(Self { left_px, top_px, width_px, height_px, ..self })
    }

    /// Bytes of a sample.
    pub fn sample_bytes(&self) -> u32 {
        if self.bit_depth > 8 { 2 } else { 1 }
    }

    /// Size of the surfaces: even, as the library wants it.
    pub(crate) fn target_px(&self) -> (u32, u32) {
        (self.coded_width_px.next_multiple_of(2), self.coded_height_px.next_multiple_of(2))
    }

    /// The positions of the shown samples of luma and chroma in a surface of this pitch. Chroma follows the coded rows of luma,
    /// not the shown ones.
    pub(crate) fn planes(&self, pitch_bytes: u64) -> [PlaneShape; 2] {
        let sample = u64::from(self.sample_bytes());
        let chroma_at = pitch_bytes * u64::from(self.target_px().1);
        let (left, top) = (u64::from(self.left_px), u64::from(self.top_px));
        let (width, height) = (u64::from(self.width_px), u64::from(self.height_px));
        [
            PlaneShape { offset_bytes: top * pitch_bytes + left * sample, row_bytes: width * sample, rows: height },
            PlaneShape {
                offset_bytes: chroma_at + top / 2 * pitch_bytes + left * sample,
                row_bytes: width.div_ceil(2) * 2 * sample,
                rows: height.div_ceil(2),
            },
        ]
    }
}

/// The shown part of a plane within a surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlaneShape {
    pub(crate) offset_bytes: u64,
    pub(crate) row_bytes: u64,
    pub(crate) rows: u64,
}

pub(crate) fn chroma_name(raw: u32) -> &'static str {
    match raw {
        0 => "4:0:0",
        1 => "4:2:0",
        2 => "4:2:2",
        3 => "4:4:4",
        _ => "unknown",
    }
}
