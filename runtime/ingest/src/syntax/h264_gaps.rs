//! A sequence parameter set that permits gaps in `frame_num` (7.3.2.1.1).

use super::annexb_nals;
use super::bits::{Bits, OutOfBits, rbsp};
use super::nal::push_annexb;

/// The access unit with the flag set in each sequence parameter set: a decoder that begins at a recovery point then puts
/// placeholders where earlier pictures are missing.
pub(crate) fn permit_gaps(unit: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(unit.len() + 16);
    for nal in annexb_nals(unit) {
        let changed = if nal[0] & 31 == 7 { with_gaps(nal) } else { None };
        push_annexb(&mut out, changed.as_deref().unwrap_or(nal));
    }
    out
}

fn with_gaps(nal: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = rbsp(&nal[1..], usize::MAX);
    let at = flag_position(&mut Bits::new(&bytes)).ok()?;
    *bytes.get_mut(at / 8)? |= 0x80 >> (at % 8);
    let mut out = vec![nal[0]];
    let mut zeros = 0;
    for byte in bytes {
        if zeros >= 2 && byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    Some(out)
}

/// Reads up to `gaps_in_frame_num_value_allowed_flag`, and gives its place in bits.
fn flag_position(r: &mut Bits) -> Result<usize, OutOfBits> {
    let profile = r.u(8)?;
    r.u(16)?; // constraint flags, level_idc
    r.ue()?; // seq_parameter_set_id
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        let chroma = r.ue()?;
        if chroma == 3 {
            r.flag()?; // separate_colour_plane_flag
        }
        r.ue()?; // bit_depth_luma_minus8
        r.ue()?; // bit_depth_chroma_minus8
        r.flag()?; // qpprime_y_zero_transform_bypass_flag
        if r.flag()? {
            for list in 0..if chroma == 3 { 12 } else { 8 } {
                if r.flag()? {
                    skip_scaling_list(r, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    r.ue()?; // log2_max_frame_num_minus4
    match r.ue()? {
        0 => drop(r.ue()?), // log2_max_pic_order_cnt_lsb_minus4
        1 => {
            r.flag()?; // delta_pic_order_always_zero_flag
            r.se()?; // offset_for_non_ref_pic
            r.se()?; // offset_for_top_to_bottom_field
            for _ in 0..r.ue()?.min(255) {
                r.se()?; // offset_for_ref_frame
            }
        }
        _ => {}
    }
    r.ue()?; // max_num_ref_frames
    Ok(r.position())
}

/// 7.3.2.1.1.1
fn skip_scaling_list(r: &mut Bits, size: usize) -> Result<(), OutOfBits> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + i64::from(r.se()?)).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::syntax::h264_sps;

    #[test]
    fn the_flag_is_set_and_nothing_else_changes() {
        for name in ["pyramid.264", "baseline_slices.264", "open_gop.264", "crop_left_top.264", "bt2020.264"] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
            let bytes = std::fs::read(path).unwrap();
            let sps = annexb_nals(&bytes).find(|nal| nal[0] & 31 == 7).unwrap();
            let read = |nal: &[u8]| h264_sps::read(&rbsp(&nal[1..], usize::MAX)).unwrap();
            let (mut before, info) = read(sps);
            let (after, info_after) = read(&with_gaps(sps).unwrap());
            assert!(!before.gaps_in_frame_num_value_allowed_flag, "{name}");
            before.gaps_in_frame_num_value_allowed_flag = true;
            assert_eq!((format!("{before:?}"), info), (format!("{after:?}"), info_after), "{name}");
        }
    }
}
