//! What ingest must know of a stream without decoding it: where a picture begins, its place in presentation order,
//! whether a decoder can start there, and what the parameter sets say of size, colour and timing.

pub(crate) mod bits;
mod cabac;
pub(crate) mod config;
mod h264;
mod h264_gaps;
mod h264_slice;
mod h264_sps;
mod h265;
pub(crate) mod nal;
mod stated;
pub(crate) mod still;
mod unit;

use crate::reorder::BoundOrigin;
use millrace_frame::{Colour, ImageDesc, Orientation, PacketCodec, PixelFormat, Rect, Size};

pub(crate) use cabac::SliceCheck;
pub(crate) use h264::H264;
pub(crate) use h264_gaps::permit_gaps;
pub(crate) use h265::H265;
pub use nal::annexb_nals;
pub(crate) use stated::StatedSize;
pub(crate) use unit::{ParsedUnit, UnitBuilder};

/// What the active parameter sets say.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamInfo {
    /// Codec.
    pub codec: PacketCodec,
    /// Profile, by its usual name.
    pub profile: &'static str,
    /// The size that is coded: whole macroblocks or minimum coding blocks.
    pub coded: Size,
    /// The part of it that is shown (H.264 `frame_crop_*`, H.265 conformance window).
    pub display: Rect,
    /// Colour: what the VUI says, else what is assumed for the height that is shown.
    pub colour: Colour,
    /// Bits of a luma sample.
    pub bit_depth: u8,
    /// At most this many pictures precede a picture in decoding order and follow it in presentation order.
    pub max_reorder: u32,
    /// Where that bound comes from.
    pub max_reorder_origin: BoundOrigin,
    /// Frames per second as numerator and denominator, where the VUI states it.
    pub frame_rate: Option<(u32, u32)>,
    /// Why the software decoders cannot decode it, where that is known from the parameter sets.
    pub unsupported: Option<&'static str>,
    /// H.264 slice groups (FMO), which only the second decoder knows.
    pub slice_groups: bool,
    /// What has to be done to its pictures so that they are upright: not the bitstream's word, but the container's or the
    /// user's.
    pub orientation: Orientation,
}

impl StreamInfo {
    /// The size of what is shown, as it is stored.
    pub fn stored_size(&self) -> Size {
        Size::new(self.display.width_px, self.display.height_px)
    }

    /// The size that is shown, upright.
    pub fn display_size(&self) -> Size {
        self.orientation.shown_size(self.stored_size())
    }

    /// The same stream, whose pictures are shown so.
    pub(crate) fn oriented(&self, orientation: Orientation) -> Self {
        let mut oriented = Self { orientation, ..self.clone() };
        oriented.colour.siting.value = orientation.shown_siting(self.colour.siting.value);
        oriented
    }

    /// An NV12 image of what is shown, upright, each row padded to `pitch_align_bytes`, and its length in bytes.
    pub fn nv12(&self, pitch_align_bytes: u32) -> (ImageDesc, u64) {
        ImageDesc::packed(PixelFormat::Nv12, self.display_size(), self.colour, pitch_align_bytes)
    }
}

/// Place of a picture in presentation order: first by coded video sequence, then by picture order count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Order {
    /// Number of the coded video sequence, from 0. A picture that resets the order count begins one.
    pub sequence: u64,
    /// Picture order count (H.264 8.2.1, H.265 8.3.1).
    pub poc: i32,
}

/// What one NAL unit means for the picture being put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The first slice of a picture.
    FirstSlice,
    /// A further slice of it.
    Slice,
    /// A parameter set, delimiter or SEI: stands in front of a picture's slices, so behind slices it begins the next.
    Prefix,
    /// A parameter set that cannot be read. It ends a picture as others do, and no decoder gets it: pictures that need it
    /// are lost by that name, and others are not harmed.
    UnreadableSet,
    /// Anything that changes nothing (filler, suffix SEI, end of sequence).
    Other,
    /// A slice that could not be parsed.
    Damaged,
}

/// The state of a codec's syntax, fed NAL unit by NAL unit in decoding order.
pub(crate) trait Syntax: Send {
    /// Takes in the next NAL unit.
    fn nal(&mut self, nal: &[u8]) -> Role;
    /// The picture has ended, by what is around the NAL units: what looks like a further slice of it may begin the next.
    fn picture_ended(&mut self) {}
    /// The picture that the last [`Role::FirstSlice`] began.
    fn picture(&self) -> Option<&PictureFacts>;
    /// The parameter sets that the picture needs, in the order in which they are to be sent.
    fn parameter_sets(&self) -> Vec<&[u8]>;
    /// Whether a NAL unit is a sequence parameter set.
    fn is_sps(&self, nal: &[u8]) -> bool;
    /// Whether a slice is its picture's first, which its header says before anything that needs a parameter set.
    fn is_first_slice(&self, nal: &[u8]) -> bool;
    /// When the last slice that could not be read lacks a parameter set because one could not be read: why.
    fn unreadable_set(&self) -> Option<&str>;
}

/// What the slice headers say of a picture.
#[derive(Clone, Debug)]
pub(crate) struct PictureFacts {
    pub info: std::sync::Arc<StreamInfo>,
    pub order: Order,
    /// A decoder can start here.
    pub key: bool,
    /// All its slices so far are intra.
    pub intra: bool,
    /// Nothing before it is referred to by anything after it (IDR, BLA).
    pub closed: bool,
    /// Nothing after it is shown before it.
    pub first_shown: bool,
    /// A decoder that starts here is exact so many frames later (H.264 recovery point).
    pub recovery_frames: Option<u32>,
    /// Its number among the frames that are referred to (H.264 `frame_num` without its limit).
    pub frame: u64,
    /// A reference picture before it is missing.
    pub gap: bool,
    /// Meant to be shown (H.265 `pic_output_flag`).
    pub output: bool,
    /// Found only in the slices: why it cannot be decoded.
    pub unsupported: Option<&'static str>,
}

/// What a parser from elsewhere makes of a parameter set; in words, why it fails, or that it panics.
pub(crate) fn contained<T, E: std::fmt::Display>(parse: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(parse)) {
        Ok(parsed) => parsed.map_err(|e| e.to_string()),
        Err(_) => Err("its fields contradict each other".to_owned()),
    }
}

/// Colour from H.273 code points, each where the bitstream states one that is known, else what is assumed.
pub(crate) fn colour(
    height_px: u32,
    full_range: Option<bool>,
    description: Option<[u8; 3]>,
    siting: Option<u32>,
) -> Colour {
    use millrace_frame::{ChromaSiting, Matrix, Primaries, Range, Tagged, Transfer};
    let mut c = Colour::assumed_for_height(height_px);
    if let Some(full) = full_range {
        c.range = Tagged::bitstream(if full { Range::Full } else { Range::Limited });
    }
    if let Some([primaries, transfer, matrix]) = description {
        // 7 (SMPTE 240M) and the constant-luminance matrices have no formula here and stay assumed.
        c.primaries = Primaries::from_code(primaries).map_or(c.primaries, Tagged::bitstream);
        // 15 is BT.2020 for 12 bit, the same curve as 14
        let transfer = if transfer == 15 { 14 } else { transfer };
        c.transfer = Transfer::from_code(transfer).map_or(c.transfer, Tagged::bitstream);
        c.matrix = Matrix::from_h273(matrix).map_or(c.matrix, Tagged::bitstream);
    }
    if let Some(siting) = siting.and_then(ChromaSiting::from_h273) {
        c.siting = Tagged::bitstream(siting);
    }
    c
}
