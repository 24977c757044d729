//! The H.264 slice header (7.3.3) as far as the reference marking, and the picture order count (8.2.1).

use super::bits::{Bits, OutOfBits};
use h264_reader::nal::sps::{ChromaFormat, FrameMbsFlags, PicOrderCntType, SeqParameterSet};

/// The part of a picture parameter set (7.3.2.2) that slice headers depend on.
#[derive(Clone, Debug)]
pub(crate) struct Pps {
    pub id: u32,
    pub sps_id: u32,
    bottom_field_pic_order: bool,
    pub slice_groups: bool,
    num_ref_idx_default: [u32; 2],
    weighted_pred: bool,
    weighted_bipred_idc: u32,
    redundant_pic_cnt_present: bool,
    pub cabac: bool,
    qp: i32,
    deblocking_control_present: bool,
    /// What a profile without such transforms has here means nothing.
    pub transform_8x8: bool,
}

impl Pps {
    pub(crate) fn parse(rbsp: &[u8]) -> Result<Self, OutOfBits> {
        let mut r = Bits::new(rbsp);
        let (id, sps_id) = (r.ue()?, r.ue()?);
        let cabac = r.flag()?;
        let bottom_field_pic_order = r.flag()?;
        let groups = r.ue()? + 1;
        if id > 255 || sps_id > 31 || groups > 8 {
            return Err(OutOfBits);
        }
        if groups > 1 {
            skip_slice_groups(&mut r, groups)?;
        }
        let num_ref_idx_default = [r.ue()?.saturating_add(1), r.ue()?.saturating_add(1)];
        let weighted_pred = r.flag()?;
        let weighted_bipred_idc = r.u(2)?;
        let qp = r.se()?.saturating_add(26);
        r.se()?; // pic_init_qs
        r.se()?; // chroma_qp_index_offset
        let deblocking_control_present = r.flag()?;
        r.flag()?; // constrained_intra_pred
        let redundant_pic_cnt_present = r.flag()?;
        let transform_8x8 = r.position() + 1 < data_bits(rbsp) && r.flag()?;
        Ok(Self {
            id,
            sps_id,
            bottom_field_pic_order,
            slice_groups: groups > 1,
            num_ref_idx_default,
            weighted_pred,
            weighted_bipred_idc,
            redundant_pic_cnt_present,
            cabac,
            qp,
            deblocking_control_present,
            transform_8x8,
        })
    }
}

/// The bits of an RBSP up to the one that ends it, that one included.
pub(super) fn data_bits(rbsp: &[u8]) -> usize {
    let last = rbsp.iter().rposition(|&byte| byte != 0);
    last.map_or(0, |last| 8 * (last + 1) - rbsp[last].trailing_zeros() as usize)
}

fn skip_slice_groups(r: &mut Bits, groups: u32) -> Result<(), OutOfBits> {
    match r.ue()? {
        0 => (0..groups).try_for_each(|_| r.ue().map(drop)),
        2 => (0..2 * (groups - 1)).try_for_each(|_| r.ue().map(drop)),
        3..=5 => {
            r.flag()?;
            r.ue().map(drop)
        }
        6 => {
            let units = r.ue()?.saturating_add(1);
            let bits = 32 - (groups - 1).leading_zeros();
            (0..units).try_for_each(|_| r.u(bits).map(drop))
        }
        _ => Ok(()),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceHeader {
    pub first_mb: u32,
    pub pps_id: u32,
    pub sps_id: u32,
    pub idr: bool,
    pub nal_ref_idc: u8,
    pub intra: bool,
    pub frame_num: u32,
    pub field: bool,
    idr_pic_id: u32,
    poc_lsb: u32,
    delta_poc: [i32; 2],
    pub redundant: bool,
    /// memory_management_control_operation 5: all references dropped, counts begin again after this picture.
    pub resets_order: bool,
    pub b: bool,
    /// How many references of each list are used.
    pub refs: [u32; 2],
    /// `None` where the header ends before it.
    pub data: Option<SliceData>,
}

/// What the macroblocks of a slice are read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceData {
    /// Where they begin.
    pub bit: usize,
    pub qp: i32,
    pub cabac_init: u32,
}

impl SliceHeader {
    /// Whether `self` is of another picture than `before` (7.4.1.2.4).
    pub(crate) fn begins_picture_after(&self, before: &Self) -> bool {
        self.frame_num != before.frame_num
            || self.pps_id != before.pps_id
            || self.field != before.field
            || (self.nal_ref_idc == 0) != (before.nal_ref_idc == 0)
            || self.idr != before.idr
            || self.idr_pic_id != before.idr_pic_id
            || self.poc_lsb != before.poc_lsb
            || self.delta_poc != before.delta_poc
    }

    /// `rbsp` is what follows the NAL unit's header byte.
    pub(crate) fn parse(header: u8, rbsp: &[u8], pps: &Pps, sps: &SeqParameterSet) -> Result<Self, OutOfBits> {
        let mut r = Bits::new(rbsp);
        let (idr, nal_ref_idc) = (header & 31 == 5, header >> 5 & 3);
        let first_mb = r.ue()?;
        let kind = r.ue()? % 5;
        let (p, b, intra) = (kind == 0 || kind == 3, kind == 1, kind == 2 || kind == 4);
        let pps_id = r.ue()?;
        if sps.chroma_info.separate_colour_plane_flag {
            r.u(2)?;
        }
        let frame_num = r.u(u32::from(sps.log2_max_frame_num()))?;
        let mut field = false;
        if sps.frame_mbs_flags != FrameMbsFlags::Frames && r.flag()? {
            field = true;
            r.flag()?; // bottom_field
        }
        let idr_pic_id = if idr { r.ue()? } else { 0 };
        let (mut poc_lsb, mut delta_poc) = (0, [0; 2]);
        match &sps.pic_order_cnt {
            PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4: log2 } => {
                poc_lsb = r.u(u32::from(*log2) + 4)?;
                if pps.bottom_field_pic_order && !field {
                    delta_poc[0] = r.se()?;
                }
            }
            PicOrderCntType::TypeOne { delta_pic_order_always_zero_flag: false, .. } => {
                delta_poc[0] = r.se()?;
                if pps.bottom_field_pic_order && !field {
                    delta_poc[1] = r.se()?;
                }
            }
            _ => {}
        }
        let redundant = pps.redundant_pic_cnt_present && r.ue()? > 0;
        if b {
            r.flag()?; // direct_spatial_mv_pred
        }
        let mut refs = pps.num_ref_idx_default;
        if (p || b) && r.flag()? {
            refs[0] = r.ue()?.saturating_add(1);
            if b {
                refs[1] = r.ue()?.saturating_add(1);
            }
        }
        if refs[0] > 32 || refs[1] > 32 {
            return Err(OutOfBits);
        }
        for _list in 0..usize::from(p || b) + usize::from(b) {
            skip_list_modification(&mut r)?;
        }
        if p && pps.weighted_pred || b && pps.weighted_bipred_idc == 1 {
            skip_weights(&mut r, &refs[..1 + usize::from(b)], sps)?;
        }
        let resets_order = nal_ref_idc != 0 && !idr && marking_resets_order(&mut r)?;
        if nal_ref_idc != 0 && idr {
            r.flag()?; // no_output_of_prior_pics
            r.flag()?; // long_term_reference
        }
        let data = slice_data(&mut r, kind, pps).ok().filter(|data| data.cabac_init < 3);
        let sps_id = pps.sps_id;
        Ok(Self {
            first_mb,
            pps_id,
            sps_id,
            idr,
            nal_ref_idc,
            intra,
            frame_num,
            field,
            idr_pic_id,
            poc_lsb,
            delta_poc,
            redundant,
            resets_order,
            b,
            refs,
            data,
        })
    }
}

/// A list modification has at most one command per reference field, and a marking not many more; a longer run is damage.
const MAX_COMMANDS: usize = 128;

fn skip_list_modification(r: &mut Bits) -> Result<(), OutOfBits> {
    if r.flag()? {
        for _ in 0..MAX_COMMANDS {
            match r.ue()? {
                3 => return Ok(()),
                0..=2 => r.ue()?,
                _ => break,
            };
        }
        return Err(OutOfBits);
    }
    Ok(())
}

fn skip_weights(r: &mut Bits, refs: &[u32], sps: &SeqParameterSet) -> Result<(), OutOfBits> {
    let chroma = sps.chroma_info.chroma_format != ChromaFormat::Monochrome;
    r.ue()?;
    if chroma {
        r.ue()?;
    }
    for _ in 0..refs.iter().sum() {
        for values in std::iter::once(2).chain(chroma.then_some(4)) {
            if r.flag()? {
                (0..values).try_for_each(|_| r.se().map(drop))?;
            }
        }
    }
    Ok(())
}

fn marking_resets_order(r: &mut Bits) -> Result<bool, OutOfBits> {
    let mut resets = false;
    if r.flag()? {
        for _ in 0..MAX_COMMANDS {
            match r.ue()? {
                0 => return Ok(resets),
                5 => resets = true,
                3 => drop((r.ue()?, r.ue()?)),
                1 | 2 | 4 | 6 => drop(r.ue()?),
                _ => break,
            }
        }
        return Err(OutOfBits);
    }
    Ok(resets)
}

/// The rest of the header. Slice groups, which nothing is read of here, have one more field.
fn slice_data(r: &mut Bits, kind: u32, pps: &Pps) -> Result<SliceData, OutOfBits> {
    let intra = kind == 2 || kind == 4;
    let cabac_init = if pps.cabac && !intra { r.ue()? } else { 0 };
    let qp = pps.qp.saturating_add(r.se()?);
    if kind == 3 {
        r.flag()?; // sp_for_switch
    }
    if kind == 3 || kind == 4 {
        r.se()?; // slice_qs_delta
    }
    if pps.deblocking_control_present && r.ue()? != 1 {
        r.se()?; // slice_alpha_c0_offset
        r.se()?; // slice_beta_offset
    }
    Ok(SliceData { bit: r.position(), qp, cabac_init })
}

/// The running state of 8.2.1, for frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct PocState {
    prev_msb: i64,
    prev_lsb: i64,
    prev_frame_num: i64,
    prev_frame_num_offset: i64,
}

impl PocState {
    /// The picture order count of the picture that `slice` begins. A picture that resets the order counts as 0
    /// (tempPicOrderCnt is taken off, 8.2.1).
    pub(crate) fn next(&mut self, slice: &SliceHeader, sps: &SeqParameterSet) -> i32 {
        let (mut top, mut bottom);
        let frame_num = i64::from(slice.frame_num);
        let max_frame_num = 1i64 << sps.log2_max_frame_num();
        if slice.idr {
            *self = Self::default();
        }
        let offset = self.prev_frame_num_offset + if self.prev_frame_num > frame_num { max_frame_num } else { 0 };
        let delta = slice.delta_poc.map(i64::from);
        match &sps.pic_order_cnt {
            PicOrderCntType::TypeZero { log2_max_pic_order_cnt_lsb_minus4: log2 } => {
                let (lsb, max) = (i64::from(slice.poc_lsb), 1i64 << (log2 + 4));
                let msb = if lsb < self.prev_lsb && self.prev_lsb - lsb >= max / 2 {
                    self.prev_msb + max
                } else if lsb > self.prev_lsb && lsb - self.prev_lsb > max / 2 {
                    self.prev_msb - max
                } else {
                    self.prev_msb
                };
                top = msb + lsb;
                bottom = top + delta[0];
                if slice.nal_ref_idc != 0 {
                    (self.prev_msb, self.prev_lsb) = (msb, lsb);
                }
            }
            PicOrderCntType::TypeOne {
                offset_for_non_ref_pic,
                offset_for_top_to_bottom_field,
                offsets_for_ref_frame: cycle,
                ..
            } => {
                let mut n = if cycle.is_empty() { 0 } else { offset + frame_num };
                if slice.nal_ref_idc == 0 && n > 0 {
                    n -= 1;
                }
                let mut expected = 0;
                if n > 0 {
                    let len = cycle.len() as i64;
                    let whole: i64 = cycle.iter().map(|&o| i64::from(o)).sum();
                    let part = ((n - 1) % len) as usize;
                    expected = (n - 1) / len * whole + cycle[..=part].iter().map(|&o| i64::from(o)).sum::<i64>();
                }
                if slice.nal_ref_idc == 0 {
                    expected += i64::from(*offset_for_non_ref_pic);
                }
                top = expected + delta[0];
                bottom = top + i64::from(*offset_for_top_to_bottom_field) + delta[1];
            }
            PicOrderCntType::TypeTwo => {
                top = if slice.idr { 0 } else { 2 * (offset + frame_num) - i64::from(slice.nal_ref_idc == 0) };
                bottom = top;
            }
        }
        (self.prev_frame_num, self.prev_frame_num_offset) = (frame_num, offset);
        if slice.resets_order {
            let temp = top.min(bottom);
            (top, bottom) = (top - temp, bottom - temp);
            *self = Self { prev_lsb: top, ..Self::default() };
        }
        top.min(bottom).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
    }
}
