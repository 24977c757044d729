//! Whether the slices of a picture that are coded by CABAC (H.264) are whole: each ends within its data, where the next begins
//! or the picture ends.
//!
//! An arithmetic decoder makes macroblocks of any bytes, and of none: a slice that was cut short, or in which a bit is
//! wrong, looks like any other to a decoder that asks nothing more. But an intact slice says behind each macroblock whether
//! it ends there, and does so behind its last one, within its data. After damage both are so by chance alone. To find out
//! where a slice ends, its macroblocks are read, without a sample of them being decoded.

mod arithmetic;
mod macroblock;
mod residual;

use super::bits::rbsp;
use super::h264_slice::{Pps, SliceHeader, data_bits};
use super::{annexb_nals, h264_sps};
use arithmetic::Arithmetic;
use h264_reader::nal::sps::{FrameMbsFlags, SeqParameterSet};
use macroblock::{Macroblock, Walk};
use std::collections::BTreeMap;

/// What is wrong with a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    /// Its macroblocks need more data than there is.
    TooShort,
    /// It goes on behind the picture's last macroblock.
    TooLong,
    /// A value is in it that no slice may have.
    OutOfRange,
    /// Between the slices, or behind them, macroblocks are missing.
    Gap,
}

impl Damage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TooShort => "a slice of the picture ends early: its data was cut short or changed",
            Self::TooLong => "a slice of the picture does not end with its last macroblock: its data was changed",
            Self::OutOfRange => "a slice of the picture has a value that is out of its range: its data was changed",
            Self::Gap => "the slices of the picture do not hold all of its macroblocks: one is missing or was changed",
        }
    }
}

/// What the macroblocks of a slice are read by.
struct Slice {
    first: usize,
    /// Macroblocks in a row.
    width: usize,
    intra: bool,
    b: bool,
    refs: [u32; 2],
    transform_8x8: bool,
    direct_8x8: bool,
}

/// Reads along with a decoder, from its first unit on.
#[derive(Default)]
pub(crate) struct SliceCheck {
    sps: BTreeMap<u32, SeqParameterSet>,
    pps: BTreeMap<u32, Pps>,
    macroblocks: Vec<Macroblock>,
    slices: u64,
}

impl SliceCheck {
    /// Looks at the picture of an access unit. Nothing is claimed of one that is coded in another way, or whose parameter
    /// sets or slice headers cannot be read: the decoder reports that.
    pub(crate) fn check(&mut self, unit: &[u8]) -> Result<(), Damage> {
        let mut picture = None;
        for nal in annexb_nals(unit) {
            match nal[0] & 31 {
                7 => {
                    if let Ok((sps, _)) = h264_sps::read(&rbsp(&nal[1..], usize::MAX)) {
                        self.sps.insert(u32::from(sps.seq_parameter_set_id.id()), sps);
                    }
                }
                8 => {
                    if let Ok(pps) = Pps::parse(&rbsp(&nal[1..], usize::MAX)) {
                        self.pps.insert(pps.id, pps);
                    }
                }
                1 | 5 => {
                    let (next, _) = picture.unwrap_or((0, 0));
                    let Some(held) = self.slice(nal, next)? else { return Ok(()) };
                    picture = Some(held);
                }
                _ => {}
            }
        }
        match picture {
            Some((next, all)) if next < all => Err(Damage::Gap),
            _ => Ok(()),
        }
    }

    /// The macroblock behind a slice that begins with the macroblock `expected`, and how many its picture has.
    fn slice(&mut self, nal: &[u8], expected: usize) -> Result<Option<(usize, usize)>, Damage> {
        let rbsp = rbsp(&nal[1..], usize::MAX);
        let Some((header, pps, sps)) = self.header(nal[0], &rbsp) else { return Ok(None) };
        let frames_alone = !matches!(sps.frame_mbs_flags, FrameMbsFlags::Fields { mb_adaptive_frame_field_flag: true });
        let is_known = pps.cabac && !pps.slice_groups && !header.field && frames_alone;
        let Some(data) = header.data.filter(|_| is_known) else { return Ok(None) };
        let (width, all) = macroblocks(sps);
        if header.redundant {
            return Ok(Some((expected, all)));
        }
        let slice = Slice {
            first: header.first_mb as usize,
            width,
            intra: header.intra,
            b: header.b,
            refs: header.refs,
            transform_8x8: pps.transform_8x8 && u8::from(sps.profile_idc) >= 100,
            direct_8x8: sps.direct_8x8_inference_flag,
        };
        if slice.first != expected || slice.first >= all {
            return Err(Damage::Gap);
        }
        let model = if slice.intra { 0 } else { 1 + data.cabac_init as usize };
        let bins = Arithmetic::new(&rbsp, data.bit.div_ceil(8), data.qp, model);
        self.slices += 1;
        self.macroblocks.resize(all, Macroblock::default());
        let next = Walk::new(bins, &slice, &mut self.macroblocks, self.slices).read_to_end(data_bits(&rbsp))?;
        Ok(Some((next, all)))
    }

    fn header(&self, nal: u8, rbsp: &[u8]) -> Option<(SliceHeader, &Pps, &SeqParameterSet)> {
        let mut ids = super::bits::Bits::new(rbsp);
        let (_, _, pps_id) = (ids.ue().ok()?, ids.ue().ok()?, ids.ue().ok()?);
        let pps = self.pps.get(&pps_id)?;
        let sps = self.sps.get(&pps.sps_id)?;
        let header = SliceHeader::parse(nal, rbsp, pps, sps).ok()?;
        Some((header, pps, sps))
    }
}

/// The macroblocks of a row and of a frame.
fn macroblocks(sps: &SeqParameterSet) -> (usize, usize) {
    let rows = sps.pic_height_in_map_units() << u32::from(sps.frame_mbs_flags != FrameMbsFlags::Frames);
    (sps.pic_width_in_mbs() as usize, sps.pic_width_in_mbs() as usize * rows as usize)
}

#[cfg(test)]
mod tests;
