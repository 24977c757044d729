//! A library in place of `libnvcuvid`, which follows its header where a session relies on it: a unit whose end is not marked
//! is decoded when the next one begins; pictures are shown in order, by a bound on reordering and the display delay; a
//! surface is used again once its picture was shown and nothing refers to it.
//!
//! A unit is three bytes: the picture's place in presentation order, whether the stream's parameter sets are in front of it,
//! and how many pictures are reordered at most.
#![allow(unsafe_code, reason = "the library's side of its calls")]

use super::super::{Nvdec, sys};
use crate::sys::{DevicePtr, Handle, SUCCESS, StatusCode};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Decoders that were made and destroyed.
pub(super) static MADE: AtomicUsize = AtomicUsize::new(0);
pub(super) static DESTROYED: AtomicUsize = AtomicUsize::new(0);
/// Makes the parser decode a unit when the next one begins, whatever its flags.
pub(super) static END_IS_IGNORED: AtomicBool = AtomicBool::new(false);
/// Surfaces that a picture of the stream may refer to, beside the reordered ones.
pub(super) const MIN_SURFACES: u8 = 6;

pub(super) fn nvdec() -> Nvdec {
    static TABLE: sys::Cuvid = sys::Cuvid {
        cuvidGetDecoderCaps: caps,
        cuvidCreateVideoParser: create_parser,
        cuvidParseVideoData: parse,
        cuvidDestroyVideoParser: destroy_parser,
        cuvidCreateDecoder: create_decoder,
        cuvidDestroyDecoder: destroy_decoder,
        cuvidReconfigureDecoder: reconfigure,
        cuvidDecodePicture: decode,
        cuvidGetDecodeStatus: status,
        cuvidMapVideoFrame64: map,
        cuvidUnmapVideoFrame64: unmap,
    };
    Nvdec { cuvid: &TABLE }
}

struct Parser {
    params: sys::ParserParams,
    surfaces: usize,
    next_surface: usize,
    /// A unit whose end was not marked.
    open: Option<([u8; 3], i64)>,
    /// Surfaces of the last pictures, to which later ones refer.
    references: VecDeque<usize>,
    /// Decoded and not yet in order, by place.
    reordered: BTreeMap<u8, (usize, i64)>,
    /// In order, and held back by the display delay.
    delayed: VecDeque<(usize, i64)>,
    /// Times of pictures that were not shown yet. As with the real parser, the picture that is shown next gets the earliest.
    times: BTreeSet<i64>,
}

impl Parser {
    fn picture(&mut self, [place, begins, depth]: [u8; 3], timestamp: i64) -> Result<(), StatusCode> {
        let user = self.params.user_data;
        if begins != 0 {
            let mut format = sys::VideoFormat {
                codec: self.params.codec,
                coded_width: 64,
                coded_height: 48,
                display_area: sys::RectInt { left: 0, top: 0, right: 64, bottom: 48 },
                chroma_format: sys::CHROMA_420,
                min_num_decode_surfaces: MIN_SURFACES + depth,
                ..sys::VideoFormat::default()
            };
            // SAFETY: the session's own callback and user data, and a whole description.
            let surfaces = unsafe { self.params.sequence.ok_or(1u32)?(user, &raw mut format) };
            self.surfaces = usize::try_from(surfaces).ok().filter(|&n| n > 0).ok_or(1u32)?;
        }
        let busy = |at: &usize| {
            self.references.contains(at)
                || self.reordered.values().any(|(surface, _)| surface == at)
                || self.delayed.iter().any(|(surface, _)| surface == at)
        };
        let free = (0..self.surfaces).map(|n| (self.next_surface + n) % self.surfaces).find(|at| !busy(at));
        let surface = free.ok_or(2u32)?;
        self.next_surface = surface + 1;
        let mut head = sys::PicParamsHead {
            width_mbs: 4,
            height_mbs: 3,
            picture_index: surface as c_int,
            field_picture: 0,
            bottom_field: 0,
            second_field: 0,
        };
        // SAFETY: as above.
        if unsafe { self.params.decode.ok_or(1u32)?(user, &raw mut head) } == 0 {
            return Err(3);
        }
        self.references.push_back(surface);
        if self.references.len() > usize::from(MIN_SURFACES) - 2 {
            self.references.pop_front();
        }
        self.times.insert(timestamp);
        self.reordered.insert(place, (surface, timestamp));
        while self.reordered.len() > usize::from(depth) {
            self.delayed.extend(self.reordered.pop_first().map(|(_, picture)| picture));
        }
        self.show(self.params.max_display_delay as usize)
    }

    /// Shows all but the last `keep` pictures that are in order.
    fn show(&mut self, keep: usize) -> Result<(), StatusCode> {
        while self.delayed.len() > keep {
            let Some((surface, own)) = self.delayed.pop_front() else { break };
            let timestamp = self.times.pop_first().unwrap_or(own);
            let mut info = sys::DispInfo {
                picture_index: surface as c_int,
                progressive_frame: 1,
                timestamp,
                ..Default::default()
            };
            // SAFETY: as above.
            if unsafe { self.params.display.ok_or(1u32)?(self.params.user_data, &raw mut info) } == 0 {
                return Err(3);
            }
        }
        Ok(())
    }

    fn packet(&mut self, packet: &sys::SourceDataPacket) -> Result<(), StatusCode> {
        if packet.payload_size > 0 {
            // SAFETY: the caller's bytes, for the time of the call.
            let bytes = unsafe { std::slice::from_raw_parts(packet.payload, packet.payload_size as usize) };
            let unit = <[u8; 3]>::try_from(bytes).map_err(|_| 1u32)?;
            if let Some((unit, timestamp)) = self.open.take() {
                self.picture(unit, timestamp)?;
            }
            let timestamp = if packet.flags & sys::PACKET_TIMESTAMP == 0 { 0 } else { packet.timestamp };
            if packet.flags & sys::PACKET_END_OF_PICTURE == 0 || END_IS_IGNORED.load(Ordering::SeqCst) {
                self.open = Some((unit, timestamp));
            } else {
                self.picture(unit, timestamp)?;
            }
        }
        if packet.flags & sys::PACKET_END_OF_STREAM != 0 {
            if let Some((unit, timestamp)) = self.open.take() {
                self.picture(unit, timestamp)?;
            }
            self.delayed.extend(std::mem::take(&mut self.reordered).into_values());
            self.show(0)?;
        }
        Ok(())
    }
}

unsafe extern "C" fn caps(caps: *mut sys::DecodeCaps) -> StatusCode {
    // SAFETY: the caller's whole description.
    let caps = unsafe { &mut *caps };
    (caps.is_supported, caps.num_nvdecs, caps.output_format_mask) = (1, 1, 1);
    (caps.max_width, caps.max_height, caps.max_mb_count) = (4096, 4096, 65_536);
    SUCCESS
}

unsafe extern "C" fn create_parser(place: *mut Handle, params: *mut sys::ParserParams) -> StatusCode {
    // SAFETY: the caller's place, and its description, whose callbacks and user data outlive the parser.
    unsafe {
        let params = std::ptr::read(params);
        let parser = Parser {
            params,
            surfaces: 0,
            next_surface: 0,
            open: None,
            references: VecDeque::new(),
            reordered: BTreeMap::new(),
            delayed: VecDeque::new(),
            times: BTreeSet::new(),
        };
        *place = Box::into_raw(Box::new(parser)).cast();
    }
    SUCCESS
}

unsafe extern "C" fn parse(parser: Handle, packet: *mut sys::SourceDataPacket) -> StatusCode {
    // SAFETY: made by `create_parser`, and used by one thread at a time.
    let (parser, packet) = unsafe { (&mut *parser.cast::<Parser>(), &*packet) };
    parser.packet(packet).err().unwrap_or(SUCCESS)
}

unsafe extern "C" fn destroy_parser(parser: Handle) -> StatusCode {
    // SAFETY: made by `create_parser`, destroyed once.
    drop(unsafe { Box::from_raw(parser.cast::<Parser>()) });
    SUCCESS
}

unsafe extern "C" fn create_decoder(place: *mut Handle, _: *mut sys::CreateInfo) -> StatusCode {
    MADE.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the caller's place; no call looks behind the handle.
    unsafe { *place = std::ptr::without_provenance_mut::<c_void>(1) };
    SUCCESS
}

unsafe extern "C" fn destroy_decoder(_: Handle) -> StatusCode {
    DESTROYED.fetch_add(1, Ordering::SeqCst);
    SUCCESS
}

unsafe extern "C" fn reconfigure(_: Handle, _: *mut sys::ReconfigureInfo) -> StatusCode {
    SUCCESS
}

unsafe extern "C" fn decode(_: Handle, _: *mut sys::PicParamsHead) -> StatusCode {
    SUCCESS
}

unsafe extern "C" fn status(_: Handle, _: c_int, info: *mut sys::DecodeStatusInfo) -> StatusCode {
    // SAFETY: the caller's place.
    unsafe { (*info).status = sys::STATUS_SUCCESS };
    SUCCESS
}

unsafe extern "C" fn map(
    _: Handle,
    _: c_int,
    ptr: *mut DevicePtr,
    pitch: *mut c_uint,
    _: *mut sys::ProcParams,
) -> StatusCode {
    // SAFETY: the caller's places. Nobody reads the pixels.
    unsafe { (*ptr, *pitch) = (0x1000, 64) };
    SUCCESS
}

unsafe extern "C" fn unmap(_: Handle, _: DevicePtr) -> StatusCode {
    SUCCESS
}
