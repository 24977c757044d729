//! The H.264 sequence parameter set (7.3.2.1.1): read with tolerance for what cameras write, and described.

use super::{StreamInfo, colour};
use crate::reorder::BoundOrigin;
use h264_reader::nal::sps::{ChromaFormat, FrameMbsFlags, PicOrderCntType, SpsError};
use h264_reader::rbsp::{BitRead, BitReader, BitReaderError, Numeric, Primitive};
use millrace_frame::{Orientation, PacketCodec, Rect, Size};
use std::panic::catch_unwind;

pub(crate) use h264_reader::nal::sps::SeqParameterSet;

/// Pictures of more luma samples than this (level 6.2 allows 35.7 million) are refused before a decoder allocates for them.
pub(crate) const MAX_LUMA_SAMPLES: u64 = 36_000_000;

/// Reads a parameter set; `rbsp` is what follows the NAL unit's header byte. What is behind its end is ignored, as every
/// player does. Of a VUI that cannot be read (H.264 annex E: nothing in it is needed for decoding) as much is ignored as
/// has to be.
///
/// # Errors
/// In words: which field, and what is wrong with it.
pub(super) fn read(rbsp: &[u8]) -> Result<(SeqParameterSet, StreamInfo), String> {
    let mut first_error = None;
    for without in [None, Some("bitstream_restriction_flag"), Some("vui_parameters_present_flag")] {
        let reader = Tolerant { bits: BitReader::new(rbsp), without };
        let parsed = catch_unwind(|| SeqParameterSet::from_bits(reader));
        let error = match parsed {
            Ok(Ok(sps)) => {
                if let (Some(flag), Some(why)) = (without, &first_error) {
                    tracing::debug!("an H.264 parameter set is read as if {flag} were 0: {why}");
                }
                let info = describe(&sps)?;
                return Ok((sps, info));
            }
            Ok(Err(e)) => words(&e),
            Err(_) => "its fields contradict each other".to_owned(),
        };
        first_error.get_or_insert(error);
    }
    Err(first_error.unwrap_or_default())
}

/// What the parser reads from: a parameter set may be followed by anything, and one of its flags may be read as 0.
struct Tolerant<'a> {
    bits: BitReader<&'a [u8]>,
    without: Option<&'static str>,
}

impl BitRead for Tolerant<'_> {
    fn read_ue(&mut self, name: &'static str) -> Result<u32, BitReaderError> {
        self.bits.read_ue(name)
    }

    fn read_se(&mut self, name: &'static str) -> Result<i32, BitReaderError> {
        self.bits.read_se(name)
    }

    fn read_bool(&mut self, name: &'static str) -> Result<bool, BitReaderError> {
        let value = self.bits.read_bool(name)?;
        Ok(value && self.without != Some(name))
    }

    fn read<U: Numeric>(&mut self, bit_count: u32, name: &'static str) -> Result<U, BitReaderError> {
        self.bits.read(bit_count, name)
    }

    fn read_to<V: Primitive>(&mut self, name: &'static str) -> Result<V, BitReaderError> {
        self.bits.read_to(name)
    }

    fn skip(&mut self, bit_count: u32, name: &'static str) -> Result<(), BitReaderError> {
        self.bits.skip(bit_count, name)
    }

    fn has_more_rbsp_data(&mut self, name: &'static str) -> Result<bool, BitReaderError> {
        self.bits.has_more_rbsp_data(name)
    }

    fn finish_rbsp(self) -> Result<(), BitReaderError> {
        Ok(())
    }

    fn finish_sei_payload(self) -> Result<(), BitReaderError> {
        Ok(())
    }
}

/// The parser's error by the field's name in the standard.
fn words(error: &SpsError) -> String {
    match error {
        SpsError::RbspReaderError(e) => bits_words(e),
        SpsError::BitDepthOutOfRange(v) => {
            format!("bit_depth_luma_minus8 or bit_depth_chroma_minus8 is {v}, at most 6 is allowed")
        }
        SpsError::Log2MaxFrameNumMinus4OutOfRange(v) => {
            format!("log2_max_frame_num_minus4 is {v}, at most 12 is allowed")
        }
        SpsError::FieldValueTooLarge { name, value } => format!("{name} is {value}, which is too large"),
        SpsError::FieldValueTooSmall { name, value } => format!("{name} is {value}, which is too small"),
        SpsError::CpbCountOutOfRange(v) => format!("cpb_cnt_minus1 is {v}, at most 31 is allowed"),
        SpsError::CroppingError(_) => "frame_crop_*_offset cut away the whole picture".to_owned(),
        SpsError::BadSeqParamSetId(_) => "seq_parameter_set_id is more than 31".to_owned(),
        SpsError::PicOrderCnt(e) => format!("pic_order_cnt_type and what follows it ({e:?})"),
        SpsError::ScalingMatrix(e) => format!("seq_scaling_matrix ({e:?})"),
        SpsError::UnknownSeqParamSetId(_) => "it refers to a parameter set that is missing".to_owned(),
    }
}

fn bits_words(error: &BitReaderError) -> String {
    match error {
        BitReaderError::ReaderErrorFor(name, _) => format!("it ends inside of {name}"),
        BitReaderError::ExpGolombTooLarge(name) => format!("{name} has more than 32 bits"),
        BitReaderError::RemainingData | BitReaderError::Unaligned => "bytes are left over".to_owned(),
    }
}

/// What a parameter set says; an error for one that contradicts itself (cropped to nothing, larger than any level).
fn describe(sps: &SeqParameterSet) -> Result<StreamInfo, String> {
    let (coded, display) = sizes(sps).ok_or_else(|| {
        "pic_width_in_mbs_minus1, pic_height_in_map_units_minus1 and frame_crop_*_offset give a picture that is empty, \
         or larger than any level allows"
            .to_owned()
    })?;
    let chroma = sps.chroma_info.chroma_format;
    let vui = sps.vui_parameters.as_ref();
    let signal = vui.and_then(|v| v.video_signal_type.as_ref());
    let description = signal
        .and_then(|s| s.colour_description.as_ref())
        .map(|d| [d.colour_primaries, d.transfer_characteristics, d.matrix_coefficients]);
    let siting = vui.and_then(|v| v.chroma_loc_info.as_ref()).map(|c| c.chroma_sample_loc_type_top_field);
    let bit_depth = 8 + sps.chroma_info.bit_depth_luma_minus8.max(sps.chroma_info.bit_depth_chroma_minus8);
    let unsupported = match (&sps.frame_mbs_flags, chroma) {
        (FrameMbsFlags::Fields { mb_adaptive_frame_field_flag: true }, _) => Some("is interlaced (MBAFF)"),
        (_, ChromaFormat::Monochrome) => Some("is monochrome (4:0:0)"),
        (_, ChromaFormat::YUV422) => Some("has 4:2:2 chroma"),
        (_, ChromaFormat::YUV420) if bit_depth > 8 => Some("has more than 8 bits a sample"),
        (_, ChromaFormat::YUV420) if sps.chroma_info.qpprime_y_zero_transform_bypass_flag => {
            Some("is coded without loss (transform bypass)")
        }
        (_, ChromaFormat::YUV420) => None,
        _ => Some("has 4:4:4 chroma"),
    };
    let frame_rate = vui
        .and_then(|v| v.timing_info.as_ref())
        .filter(|t| t.num_units_in_tick > 0 && t.time_scale > 0)
        // a frame lasts two ticks (E.2.1)
        .and_then(|t| Some((t.time_scale, t.num_units_in_tick.checked_mul(2)?)));
    let (max_reorder, max_reorder_origin) = max_reorder(sps);
    Ok(StreamInfo {
        codec: PacketCodec::H264,
        profile: profile_name(sps),
        coded,
        display,
        colour: colour(display.height_px, signal.map(|s| s.video_full_range_flag), description, siting),
        bit_depth,
        max_reorder,
        max_reorder_origin,
        frame_rate,
        unsupported,
        slice_groups: false,
        orientation: Orientation::Upright,
    })
}

/// The size that is coded, and the part that is shown.
fn sizes(sps: &SeqParameterSet) -> Option<(Size, Rect)> {
    let width_px = sps.pic_width_in_mbs_minus1.checked_add(1)?.checked_mul(16)?;
    let fields = sps.frame_mbs_flags != FrameMbsFlags::Frames;
    let rows = 16 << u32::from(fields);
    let height_px = sps.pic_height_in_map_units_minus1.checked_add(1)?.checked_mul(rows)?;
    let coded = Size::new(width_px, height_px);
    if u64::from(width_px) * u64::from(height_px) > MAX_LUMA_SAMPLES {
        return None;
    }
    let chroma = sps.chroma_info.chroma_format;
    let unit_x = if matches!(chroma, ChromaFormat::YUV420 | ChromaFormat::YUV422) { 2 } else { 1 };
    let unit_y = if chroma == ChromaFormat::YUV420 { 2 } else { 1 } << u32::from(fields);
    let mut display = Rect { x_px: 0, y_px: 0, width_px, height_px };
    if let Some(crop) = &sps.frame_cropping {
        let x = crop.left_offset.checked_add(crop.right_offset)?.checked_mul(unit_x)?;
        let y = crop.top_offset.checked_add(crop.bottom_offset)?.checked_mul(unit_y)?;
        display = Rect {
            x_px: crop.left_offset * unit_x,
            y_px: crop.top_offset * unit_y,
            width_px: width_px.checked_sub(x).filter(|&w| w > 0)?,
            height_px: height_px.checked_sub(y).filter(|&h| h > 0)?,
        };
    }
    Some((coded, display))
}

fn profile_name(sps: &SeqParameterSet) -> &'static str {
    match u8::from(sps.profile_idc) {
        66 if sps.constraint_flags.flag1() => "Constrained Baseline",
        66 => "Baseline",
        77 => "Main",
        88 => "Extended",
        100 => "High",
        110 => "High 10",
        122 => "High 4:2:2",
        244 => "High 4:4:4 Predictive",
        _ => "another profile",
    }
}

/// `max_num_reorder_frames` where the VUI states it. Without it the standard allows a whole picture buffer (E.2.1);
/// streams that cannot reorder are recognized first.
fn max_reorder(sps: &SeqParameterSet) -> (u32, BoundOrigin) {
    let stated = sps.vui_parameters.as_ref().and_then(|v| v.bitstream_restrictions.as_ref());
    let profile = u8::from(sps.profile_idc);
    // Baseline has no B slices; order count type 2 forbids reordering; the intra profiles infer 0 (E.2.1).
    let intra_only = matches!(profile, 44 | 100 | 110 | 122 | 244) && sps.constraint_flags.flag3();
    if profile == 66 || intra_only || sps.pic_order_cnt == PicOrderCntType::TypeTwo {
        return (0, BoundOrigin::Impossible);
    }
    match stated {
        Some(stated) => (stated.max_num_reorder_frames.min(16), BoundOrigin::Stated),
        // with one reference frame there is none to reorder
        None if sps.max_num_ref_frames <= 1 => (0, BoundOrigin::Impossible),
        None => (max_dpb_frames(sps), BoundOrigin::Assumed),
    }
}

/// MaxDpbFrames of A.3.1: MaxDpbMbs of table A-1 over the frame's macroblocks, at most 16.
fn max_dpb_frames(sps: &SeqParameterSet) -> u32 {
    let max_dpb_mbs = match sps.level_idc {
        0..=10 => 396,
        11 => 900,
        12..=20 => 2_376,
        21 => 4_752,
        22..=30 => 8_100,
        31 => 18_000,
        32 => 20_480,
        33..=41 => 32_768,
        42 => 34_816,
        43..=50 => 110_400,
        51..=52 => 184_320,
        _ => 696_320,
    };
    let rows = sps.pic_height_in_map_units() << u32::from(sps.frame_mbs_flags != FrameMbsFlags::Frames);
    let frame_mbs = sps.pic_width_in_mbs().saturating_mul(rows).max(1);
    (max_dpb_mbs / frame_mbs).clamp(1, 16)
}
