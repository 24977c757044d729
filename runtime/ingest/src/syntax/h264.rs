//! H.264 parameter sets and pictures.

use super::bits::rbsp;
use super::h264_slice::{PocState, Pps, SliceHeader};
use super::h264_sps::{self, SeqParameterSet};
use super::{Order, PictureFacts, Role, StreamInfo, Syntax};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Enough of a slice for its header: 32 references with all their weights need less.
const HEADER_BYTES: usize = 1024;

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
    /// No slice is of that slice's picture any more.
    picture_ended: bool,
    picture: Option<PictureFacts>,
    sequence: u64,
    /// A recovery point SEI was in front of the next picture: so many frames later the pictures are exact.
    recovery: Option<u32>,
    /// Number of the last picture's frame, without the limit of `frame_num`.
    frame: u64,
    /// Why the last parameter set that could not be read could not.
    unreadable: Option<String>,
    /// The last slice that could not be read refers to a parameter set that is not there.
    set_is_missing: bool,
}

impl H264 {
    /// Why a parameter set could not be read, since this was last asked.
    pub(crate) fn take_unreadable(&mut self) -> Option<String> {
        self.unreadable.take()
    }

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
        let sets = self.pps.get(&pps_id).and_then(|pps| Some((pps, &self.sps.get(&pps.parsed.sps_id)?.parsed)));
        self.set_is_missing = sets.is_none();
        let Some((pps, (sps, info))) = sets else { return Role::Damaged };
        let Ok(slice) = SliceHeader::parse(nal[0], &rbsp, &pps.parsed, sps) else { return Role::Damaged };
        if slice.redundant {
            return Role::Slice;
        }
        if let (Some(before), Some(picture)) = (&self.slice, &mut self.picture)
            && !slice.begins_picture_after(before)
            // where all pictures in between were lost, two key pictures may look like one
            && !(self.picture_ended && slice.first_mb == 0)
        {
            picture.intra &= slice.intra;
            picture.key &= slice.idr || slice.intra;
            return Role::Slice;
        }
        let max_frame_num = 1u32 << sps.log2_max_frame_num();
        // a stream that is joined late has no gap in front of its first picture
        let gap = !slice.idr
            && self.slice.is_some()
            && !sps.gaps_in_frame_num_value_allowed_flag
            && slice.frame_num != self.prev_ref_frame_num
            && slice.frame_num != (self.prev_ref_frame_num + 1) % max_frame_num;
        let poc = self.poc.next(&slice, sps);
        let recovery = self.recovery.take();
        let last_frame_num = self.slice.as_ref().map_or(slice.frame_num, |last| last.frame_num);
        self.frame += u64::from(slice.frame_num.wrapping_sub(last_frame_num) % max_frame_num);
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
            key: slice.idr || (recovery == Some(0) && slice.intra),
            intra: slice.intra,
            closed: slice.idr,
            first_shown: slice.idr || slice.resets_order,
            recovery_frames: recovery.filter(|&frames| frames > 0 && !slice.idr),
            frame: self.frame,
            gap,
            output: true,
        });
        self.slice = Some(slice);
        self.picture_ended = false;
        Role::FirstSlice
    }

    fn take_sps(&mut self, nal: &[u8]) -> Role {
        match h264_sps::read(&rbsp(&nal[1..], usize::MAX)) {
            Ok((sps, info)) => {
                let id = u32::from(sps.seq_parameter_set_id.id());
                self.sps.insert(id, Set { raw: nal.to_vec(), parsed: (sps, Arc::new(info)) });
                self.unreadable = None;
                Role::Prefix
            }
            Err(why) => {
                self.unreadable = Some(format!("the stream's sequence parameter set cannot be read: {why}"));
                // behind profile, constraints and level
                if let Some(id) = nal.get(4..).and_then(set_id) {
                    self.sps.remove(&id);
                }
                Role::UnreadableSet
            }
        }
    }

    fn take_pps(&mut self, nal: &[u8]) -> Role {
        let Ok(pps) = Pps::parse(&rbsp(&nal[1..], HEADER_BYTES)) else {
            let why = "it ends inside of a field, or a field is out of its range";
            self.unreadable.get_or_insert_with(|| format!("the stream's picture parameter set cannot be read: {why}"));
            if let Some(id) = set_id(&nal[1..]) {
                self.pps.remove(&id);
            }
            return Role::UnreadableSet;
        };
        self.pps.insert(pps.id, Set { raw: nal.to_vec(), parsed: pps });
        Role::Prefix
    }
}

/// The id that a parameter set begins with. Where the set cannot be read, it replaces the one of that id all the same.
fn set_id(payload: &[u8]) -> Option<u32> {
    super::bits::Bits::new(&rbsp(payload, 16)).ue().ok()
}

impl Syntax for H264 {
    fn picture_ended(&mut self) {
        self.picture_ended = true;
    }

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
                self.recovery = exact_recovery_point(&rbsp(&nal[1..], 4096)).or(self.recovery);
                Role::Prefix
            }
            7 => self.take_sps(nal),
            8 => self.take_pps(nal),
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

    fn is_first_slice(&self, nal: &[u8]) -> bool {
        // first_mb_in_slice is 0, which ue(v) writes as one bit (7.3.3)
        nal.get(1).is_some_and(|b| b & 0x80 != 0)
    }

    fn unreadable_set(&self) -> Option<&str> {
        self.unreadable.as_deref().filter(|_| self.set_is_missing)
    }
}

/// The recovery point (D.2.8) that an SEI holds: after how many frames the pictures are exact. That none needs to be waited
/// for is believed also where the encoder promises no exact match: the picture is intra then.
fn exact_recovery_point(sei: &[u8]) -> Option<u32> {
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
        let (kind, len) = (varied(&mut rest)?, varied(&mut rest)?);
        let (payload, tail) = rest.split_at_checked(len)?;
        if kind == 6 {
            let mut bits = super::bits::Bits::new(payload);
            let frames = bits.ue().ok()?;
            return (frames == 0 || bits.flag() == Ok(true)).then_some(frames);
        }
        rest = tail;
    }
    None
}
