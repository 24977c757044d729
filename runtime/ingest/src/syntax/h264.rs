//! H.264 parameter sets and pictures.

use super::bits::rbsp;
use super::h264_slice::{PocState, Pps, SliceHeader};
use super::{Order, PictureFacts, Role, StreamInfo, Syntax, colour, contained};
use h264_reader::nal::sps::{ChromaFormat, FrameMbsFlags, PicOrderCntType, SeqParameterSet};
use h264_reader::rbsp::BitReader;
use millrace_frame::{PacketCodec, Rect, Size};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Enough of a slice for its header: 32 references with all their weights need less.
const HEADER_BYTES: usize = 1024;

/// Pictures of more luma samples than this (level 6.2 allows 35.7 million) are refused before a decoder allocates for them.
pub(crate) const MAX_LUMA_SAMPLES: u64 = 36_000_000;

struct Set<T> {
    raw: Vec<u8>,
    parsed: T,
}

#[derive(Default)]
pub(crate) struct H264 {
    sps: BTreeMap<u32, Set<(SeqParameterSet, Arc<StreamInfo>)>>,
    pps: BTreeMap<u32, Set<Pps>>,
    poc: PocState,
    prev_ref_frame_num: u32,
    slice: Option<SliceHeader>,
    picture: Option<PictureFacts>,
    sequence: u64,
    /// A recovery point SEI with nothing to wait for stood in front of the next picture.
    recovery_point: bool,
}

impl H264 {
    /// Whether `nal` is a sequence parameter set that can be read.
    pub(crate) fn knows_sps(&mut self, nal: &[u8]) -> bool {
        self.is_sps(nal) && nal[0] & 0x80 == 0 && self.nal(nal) == Role::Prefix && !self.sps.is_empty()
    }

    fn slice(&mut self, nal: &[u8]) -> Role {
        let rbsp = rbsp(&nal[1..], HEADER_BYTES);
        let mut ids = super::bits::Bits::new(&rbsp);
        let Ok((_, _, pps_id)) = (|| Ok::<_, super::bits::OutOfBits>((ids.ue()?, ids.ue()?, ids.ue()?)))() else {
            return Role::Damaged;
        };
        let Some(pps) = self.pps.get(&pps_id) else { return Role::Damaged };
        let Some(Set { parsed: (sps, info), .. }) = self.sps.get(&pps.parsed.sps_id) else { return Role::Damaged };
        let Ok(slice) = SliceHeader::parse(nal[0], &rbsp, &pps.parsed, sps) else { return Role::Damaged };
        if slice.redundant {
            return Role::Slice;
        }
        if let (Some(before), Some(picture)) = (&self.slice, &mut self.picture)
            && !slice.begins_picture_after(before)
        {
            picture.intra &= slice.intra;
            picture.key &= slice.idr || slice.intra;
            return Role::Slice;
        }
        let max_frame_num = 1u32 << sps.log2_max_frame_num();
        let gap = !slice.idr
            && !sps.gaps_in_frame_num_value_allowed_flag
            && slice.frame_num != self.prev_ref_frame_num
            && slice.frame_num != (self.prev_ref_frame_num + 1) % max_frame_num;
        let poc = self.poc.next(&slice, sps);
        if slice.idr || slice.resets_order {
            self.sequence += 1;
        }
        if slice.nal_ref_idc != 0 {
            self.prev_ref_frame_num = if slice.resets_order { 0 } else { slice.frame_num };
        }
        let mut info = info.clone();
        if pps.parsed.slice_groups != info.slice_groups {
            Arc::make_mut(&mut info).slice_groups = pps.parsed.slice_groups;
        }
        self.picture = Some(PictureFacts {
            unsupported: slice.field.then_some("is coded in fields (interlaced)"),
            info,
            order: Order { sequence: self.sequence, poc },
            key: slice.idr || (self.recovery_point && slice.intra),
            intra: slice.intra,
            closed: slice.idr,
            gap,
            output: true,
        });
        self.recovery_point = false;
        self.slice = Some(slice);
        Role::FirstSlice
    }

    fn take_sps(&mut self, nal: &[u8]) -> Role {
        let body = rbsp(&nal[1..], usize::MAX);
        let Some(sps) = contained(|| SeqParameterSet::from_bits(BitReader::new(&body[..]))) else {
            return Role::Prefix;
        };
        let Some(info) = describe(&sps) else { return Role::Prefix };
        let id = u32::from(sps.seq_parameter_set_id.id());
        self.sps.insert(id, Set { raw: nal.to_vec(), parsed: (sps, Arc::new(info)) });
        Role::Prefix
    }
}

impl Syntax for H264 {
    fn nal(&mut self, nal: &[u8]) -> Role {
        let Some(&header) = nal.first() else { return Role::Other };
        if header & 0x80 != 0 {
            return Role::Damaged;
        }
        match header & 31 {
            1 | 5 => self.slice(nal),
            2..=4 => {
                if let Some(picture) = &mut self.picture {
                    picture.unsupported = Some("uses data partitioning (Extended profile)");
                }
                Role::Slice
            }
            6 => {
                self.recovery_point |= has_exact_recovery_point(&rbsp(&nal[1..], 4096));
                Role::Prefix
            }
            7 => self.take_sps(nal),
            8 => {
                if let Ok(pps) = Pps::parse(&rbsp(&nal[1..], HEADER_BYTES)) {
                    self.pps.insert(pps.id, Set { raw: nal.to_vec(), parsed: pps });
                }
                Role::Prefix
            }
            9 | 14..=18 => Role::Prefix,
            _ => Role::Other,
        }
    }

    fn picture(&self) -> Option<&PictureFacts> {
        self.picture.as_ref()
    }

    fn parameter_sets(&self) -> Vec<&[u8]> {
        let Some(slice) = &self.slice else { return Vec::new() };
        let pps = self.pps.values().filter(|p| p.parsed.sps_id == slice.sps_id).map(|p| &p.raw[..]);
        self.sps.get(&slice.sps_id).map(|s| &s.raw[..]).into_iter().chain(pps).collect()
    }

    fn is_sps(&self, nal: &[u8]) -> bool {
        nal.first().is_some_and(|h| h & 31 == 7)
    }
}

/// Whether an SEI holds a recovery point (D.2.8) after no frames at all.
fn has_exact_recovery_point(sei: &[u8]) -> bool {
    let mut rest = sei;
    let varied = |rest: &mut &[u8]| {
        let mut v = 0usize;
        loop {
            let (&b, tail) = rest.split_first()?;
            *rest = tail;
            v += usize::from(b);
            if b != 255 {
                return Some(v);
            }
        }
    };
    while rest.len() > 2 {
        let (Some(kind), Some(len)) = (varied(&mut rest), varied(&mut rest)) else { return false };
        let Some((payload, tail)) = rest.split_at_checked(len) else { return false };
        if kind == 6 {
            return super::bits::Bits::new(payload).ue() == Ok(0);
        }
        rest = tail;
    }
    false
}

/// `None` for a parameter set that contradicts itself (cropped to nothing, larger than any level).
fn describe(sps: &SeqParameterSet) -> Option<StreamInfo> {
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
        (_, ChromaFormat::YUV420) => None,
        _ => Some("has 4:4:4 chroma"),
    };
    let frame_rate = vui
        .and_then(|v| v.timing_info.as_ref())
        .filter(|t| t.num_units_in_tick > 0 && t.time_scale > 0)
        // a frame lasts two ticks (E.2.1)
        .and_then(|t| Some((t.time_scale, t.num_units_in_tick.checked_mul(2)?)));
    Some(StreamInfo {
        codec: PacketCodec::H264,
        profile: profile_name(sps),
        coded,
        display,
        colour: colour(display.height_px, signal.map(|s| s.video_full_range_flag), description, siting),
        bit_depth,
        max_reorder: max_reorder(sps),
        frame_rate,
        unsupported,
        slice_groups: false,
    })
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

/// `max_num_reorder_frames` where the VUI states it. Without it the standard allows a whole picture buffer (E.2.1),
/// which would hold back a camera's picture for up to 16 frames; streams that cannot reorder are told apart first.
fn max_reorder(sps: &SeqParameterSet) -> u32 {
    let stated = sps.vui_parameters.as_ref().and_then(|v| v.bitstream_restrictions.as_ref());
    // Baseline has no B slices; order count type 2 forbids reordering; with one reference frame there is none to reorder.
    let baseline = u8::from(sps.profile_idc) == 66;
    if baseline || sps.pic_order_cnt == PicOrderCntType::TypeTwo || (stated.is_none() && sps.max_num_ref_frames <= 1) {
        return 0;
    }
    stated.map_or_else(|| max_dpb_frames(sps), |r| r.max_num_reorder_frames.min(16))
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
