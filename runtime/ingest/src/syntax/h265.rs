//! H.265 parameter sets (parsed by the decoder's own crate) and pictures.

use super::bits::{Bits, OutOfBits, rbsp};
use super::h264_sps::MAX_LUMA_SAMPLES;
use super::{Order, PictureFacts, Role, StreamInfo, Syntax, colour, contained};
use crate::reorder::BoundOrigin;
use millrace_frame::{Orientation, PacketCodec, Rect, Size};
use rusty_h265::ps::{Pps, Sps, parse_pps, parse_sps};
use std::collections::BTreeMap;
use std::sync::Arc;

const HEADER_BYTES: usize = 1024;

struct Set<T> {
    raw: Vec<u8>,
    parsed: T,
}

pub(crate) struct H265 {
    vps: BTreeMap<u8, Vec<u8>>,
    sps: BTreeMap<u8, Set<(Sps, Arc<StreamInfo>)>>,
    pps: BTreeMap<u8, Set<Pps>>,
    active: Option<(u8, u8)>,
    picture: Option<PictureFacts>,
    sequence: u64,
    /// POC of the last picture of temporal layer 0 that others may refer to (8.3.1).
    prev_tid0_poc: i32,
    first_in_sequence: bool,
    /// Why the last parameter set that could not be read could not.
    unreadable: Option<String>,
    /// The last picture whose beginning could not be read refers to a parameter set that is not there.
    set_is_missing: bool,
}

impl Default for H265 {
    fn default() -> Self {
        Self {
            vps: BTreeMap::new(),
            sps: BTreeMap::new(),
            pps: BTreeMap::new(),
            active: None,
            picture: None,
            sequence: 0,
            prev_tid0_poc: 0,
            first_in_sequence: true,
            unreadable: None,
            set_is_missing: false,
        }
    }
}

struct Slice {
    pps_id: u8,
    intra: bool,
    output: bool,
    poc_lsb: i32,
}

/// Reads a slice header as far as its picture parameter set.
fn pps_id(kind: u8, r: &mut Bits) -> Result<u8, OutOfBits> {
    r.flag()?; // first_slice_segment_in_pic
    if (16..=23).contains(&kind) {
        r.flag()?; // no_output_of_prior_pics
    }
    u8::try_from(r.ue()?).map_err(|_| OutOfBits)
}

impl H265 {
    /// Why a parameter set could not be read, since this was last asked.
    pub(crate) fn take_unreadable(&mut self) -> Option<String> {
        self.unreadable.take()
    }

    /// Whether `nal` is a sequence parameter set that can be read.
    pub(crate) fn knows_sps(&mut self, nal: &[u8]) -> bool {
        self.is_sps(nal) && self.nal(nal) == Role::Prefix && !self.sps.is_empty()
    }

    /// Whether a slice header that can be read so far refers to a parameter set that is not there.
    fn lacks_sets(&self, kind: u8, rbsp: &[u8]) -> bool {
        let Ok(pps_id) = pps_id(kind, &mut Bits::new(rbsp)) else { return false };
        self.pps.get(&pps_id).is_none_or(|pps| !self.sps.contains_key(&pps.parsed.sps_id))
    }

    /// The header of a picture's first slice segment (7.3.6.1), as far as its order count.
    fn first_slice(&self, kind: u8, rbsp: &[u8]) -> Result<Slice, OutOfBits> {
        let mut r = Bits::new(rbsp);
        let pps_id = pps_id(kind, &mut r)?;
        let pps = &self.pps.get(&pps_id).ok_or(OutOfBits)?.parsed;
        let (sps, _) = &self.sps.get(&pps.sps_id).ok_or(OutOfBits)?.parsed;
        r.u(u32::from(pps.num_extra_slice_header_bits))?;
        let intra = r.ue()? == 2;
        let output = !pps.output_flag_present || r.flag()?;
        if sps.separate_colour_plane_flag {
            r.u(2)?;
        }
        let idr = kind == 19 || kind == 20;
        let poc_lsb = if idr { 0 } else { r.u(u32::from(sps.log2_max_poc_lsb))? as i32 };
        Ok(Slice { pps_id, intra, output, poc_lsb })
    }

    fn begin_picture(&mut self, kind: u8, temporal_id: u8, nal: &[u8]) -> Role {
        let header = rbsp(&nal[2..], HEADER_BYTES);
        self.set_is_missing = self.lacks_sets(kind, &header);
        let Ok(slice) = self.first_slice(kind, &header) else { return Role::Damaged };
        let sps_id = self.pps[&slice.pps_id].parsed.sps_id;
        let (sps, info) = &self.sps[&sps_id].parsed;
        let irap = (16..=23).contains(&kind);
        let restarts = irap && (kind <= 20 || self.first_in_sequence);
        let max_lsb = 1i32 << sps.log2_max_poc_lsb.min(16);
        let prev_lsb = self.prev_tid0_poc & (max_lsb - 1);
        let prev_msb = self.prev_tid0_poc.wrapping_sub(prev_lsb);
        let msb = if restarts {
            0
        } else if slice.poc_lsb < prev_lsb && prev_lsb - slice.poc_lsb >= max_lsb / 2 {
            prev_msb.wrapping_add(max_lsb)
        } else if slice.poc_lsb > prev_lsb && slice.poc_lsb - prev_lsb > max_lsb / 2 {
            prev_msb.wrapping_sub(max_lsb)
        } else {
            prev_msb
        };
        let poc = msb.wrapping_add(slice.poc_lsb);
        let leading = (6..=9).contains(&kind);
        let sub_layer_non_reference = kind <= 14 && kind.is_multiple_of(2);
        if temporal_id == 0 && !leading && !sub_layer_non_reference {
            self.prev_tid0_poc = poc;
        }
        if restarts {
            self.sequence += 1;
        }
        self.first_in_sequence = false;
        self.active = Some((sps_id, slice.pps_id));
        self.picture = Some(PictureFacts {
            info: info.clone(),
            order: Order { sequence: self.sequence, poc },
            key: irap,
            intra: slice.intra,
            closed: irap && kind != 21,
            // of the types that allow no leading pictures
            first_shown: kind == 18 || kind == 20,
            recovery_frames: None,
            frame: 0,
            gap: false,
            output: slice.output,
            unsupported: None,
        });
        Role::FirstSlice
    }
}

impl Syntax for H265 {
    fn nal(&mut self, nal: &[u8]) -> Role {
        let &[first, second, ..] = nal else { return Role::Damaged };
        let (kind, layer, temporal_id) = (first >> 1 & 63, (first & 1) << 5 | second >> 3, second & 7);
        if first & 0x80 != 0 || temporal_id == 0 {
            return Role::Damaged;
        }
        if layer != 0 {
            return Role::Other; // enhancement layers: the base layer decodes alone
        }
        let body = &nal[2..];
        match kind {
            0..=21 if body.first().is_some_and(|b| b & 0x80 != 0) => self.begin_picture(kind, temporal_id - 1, nal),
            0..=21 => Role::Slice,
            32 => {
                if let Some(&b) = body.first() {
                    self.vps.insert(b >> 4, nal.to_vec());
                }
                Role::Prefix
            }
            33 => {
                let contradictory = "its picture is empty, or larger than any level allows";
                let sps = contained(|| parse_sps(&rbsp(body, usize::MAX)));
                match sps.and_then(|sps| describe(&sps).map(|info| (sps, info)).ok_or(contradictory.to_owned())) {
                    Ok((sps, info)) => {
                        self.sps.insert(sps.id, Set { raw: nal.to_vec(), parsed: (sps, Arc::new(info)) });
                        self.unreadable = None;
                        Role::Prefix
                    }
                    Err(why) => {
                        self.unreadable = Some(format!("the stream's sequence parameter set cannot be read: {why}"));
                        Role::UnreadableSet
                    }
                }
            }
            34 => match contained(|| parse_pps(&rbsp(body, usize::MAX))) {
                Ok(pps) => {
                    self.pps.insert(pps.id, Set { raw: nal.to_vec(), parsed: pps });
                    Role::Prefix
                }
                Err(why) => {
                    let words = || format!("the stream's picture parameter set cannot be read: {why}");
                    self.unreadable.get_or_insert_with(words);
                    if let Some(id) = Bits::new(&rbsp(body, 16)).ue().ok().and_then(|id| u8::try_from(id).ok()) {
                        self.pps.remove(&id);
                    }
                    Role::UnreadableSet
                }
            },
            36 | 37 => {
                self.first_in_sequence = true;
                Role::Other
            }
            35 | 39 | 41..=44 | 48..=55 => Role::Prefix,
            _ => Role::Other,
        }
    }

    fn picture(&self) -> Option<&PictureFacts> {
        self.picture.as_ref()
    }

    fn parameter_sets(&self) -> Vec<&[u8]> {
        let Some((sps_id, _)) = self.active else { return Vec::new() };
        let Some(sps) = self.sps.get(&sps_id) else { return Vec::new() };
        let vps = self.vps.get(&sps.parsed.0.vps_id).map(|v| &v[..]);
        let pps = self.pps.values().filter(|p| p.parsed.sps_id == sps_id).map(|p| &p.raw[..]);
        vps.into_iter().chain([&sps.raw[..]]).chain(pps).collect()
    }

    fn is_sps(&self, nal: &[u8]) -> bool {
        nal.first().is_some_and(|h| h >> 1 & 63 == 33)
    }

    fn is_first_slice(&self, nal: &[u8]) -> bool {
        // first_slice_segment_in_pic_flag is the first bit behind the header (7.3.6.1)
        nal.get(2).is_some_and(|b| b & 0x80 != 0)
    }

    fn unreadable_set(&self) -> Option<&str> {
        self.unreadable.as_deref().filter(|_| self.set_is_missing)
    }
}

/// `None` for a parameter set that contradicts itself (cropped to nothing, larger than any level).
fn describe(sps: &Sps) -> Option<StreamInfo> {
    let coded = Size::new(sps.width, sps.height);
    if coded.width_px == 0 || u64::from(sps.width) * u64::from(sps.height) > MAX_LUMA_SAMPLES {
        return None;
    }
    let (unit_x, unit_y) = (u32::from(sps.sub_width_c), u32::from(sps.sub_height_c));
    let [left, right, top, bottom] = sps.conf_win;
    let x = left.checked_add(right)?.checked_mul(unit_x)?;
    let y = top.checked_add(bottom)?.checked_mul(unit_y)?;
    let display = Rect {
        x_px: left * unit_x,
        y_px: top * unit_y,
        width_px: sps.width.checked_sub(x).filter(|&w| w > 0)?,
        height_px: sps.height.checked_sub(y).filter(|&h| h > 0)?,
    };
    let vui = sps.vui.as_ref();
    // The parser does not tell a missing signal description from limited range and code point 0, which is reserved.
    let description =
        vui.map(|v| [v.colour_primaries, v.transfer_characteristics, v.matrix_coeffs]).filter(|d| *d != [0; 3]);
    let full_range =
        vui.and_then(|v| (v.video_full_range_flag || description.is_some()).then_some(v.video_full_range_flag));
    let bit_depth = sps.bit_depth_luma.max(sps.bit_depth_chroma);
    let unsupported = match (sps.chroma_format_idc, bit_depth) {
        // of the range extensions and later profiles
        (1, 8) if sps.ptl.profile() > 3 => Some("may use tools that the Main profile does not have"),
        (1, 8) => None,
        (1, _) => Some("has more than 8 bits a sample"),
        (0, _) => Some("is monochrome (4:0:0)"),
        (2, _) => Some("has 4:2:2 chroma"),
        _ => Some("has 4:4:4 chroma"),
    };
    let ordering = sps.ordering.get(usize::from(sps.max_sub_layers_minus1))?;
    Some(StreamInfo {
        codec: PacketCodec::H265,
        profile: match sps.ptl.profile() {
            1 => "Main",
            2 => "Main 10",
            3 => "Main Still Picture",
            4 => "Range Extensions",
            _ => "another profile",
        },
        coded,
        display,
        colour: colour(display.height_px, full_range, description, None),
        bit_depth,
        max_reorder: ordering.max_num_reorder_pics.min(16),
        max_reorder_origin: BoundOrigin::Stated,
        frame_rate: vui
            .filter(|v| v.timing_info_present && v.num_units_in_tick > 0 && v.time_scale > 0)
            .map(|v| (v.time_scale, v.num_units_in_tick)),
        unsupported,
        slice_groups: false,
        orientation: Orientation::Upright,
    })
}
