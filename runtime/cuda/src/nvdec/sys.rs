//! The entry points and structures of `libnvcuvid.so.1` that Millrace uses, as `nvcuvid.h` and `cuviddec.h` of the Video
//! Codec SDK 12 state them. Enumerations are plain numbers: a newer driver may return one that has no name here.
#![allow(non_snake_case, reason = "the library's own names")]
#![allow(unsafe_code, reason = "functions of a C library, looked up by name")]

use crate::sys::{DevicePtr, Handle, table};
use std::ffi::{c_int, c_long, c_short, c_uint, c_ulong, c_ushort, c_void};

/// `cudaVideoCodec_H264`.
pub(crate) const CODEC_H264: c_uint = 4;
/// `cudaVideoCodec_HEVC`.
pub(crate) const CODEC_HEVC: c_uint = 8;
/// `cudaVideoChromaFormat_420`.
pub(crate) const CHROMA_420: c_uint = 1;
/// `cudaVideoSurfaceFormat_NV12`.
pub(crate) const SURFACE_NV12: c_uint = 0;
/// `cudaVideoSurfaceFormat_P016`.
pub(crate) const SURFACE_P016: c_uint = 1;
/// `cudaVideoDeinterlaceMode_Weave`.
pub(crate) const DEINTERLACE_WEAVE: c_uint = 0;
/// `cudaVideoCreate_PreferCUVID`: the video engine, not a decoder made of kernels.
pub(crate) const CREATE_PREFER_CUVID: c_ulong = 4;
pub(crate) const PACKET_END_OF_STREAM: c_ulong = 1;
pub(crate) const PACKET_TIMESTAMP: c_ulong = 2;
pub(crate) const PACKET_END_OF_PICTURE: c_ulong = 8;
pub(crate) const STATUS_SUCCESS: c_uint = 2;
pub(crate) const STATUS_ERROR: c_uint = 8;
pub(crate) const STATUS_CONCEALED: c_uint = 9;

/// A rectangle of `int`s, right and bottom outside.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RectInt {
    pub(crate) left: c_int,
    pub(crate) top: c_int,
    pub(crate) right: c_int,
    pub(crate) bottom: c_int,
}

/// A rectangle of `short`s, right and bottom outside.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RectShort {
    pub(crate) left: c_short,
    pub(crate) top: c_short,
    pub(crate) right: c_short,
    pub(crate) bottom: c_short,
}

/// `CUVIDEOFORMAT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct VideoFormat {
    pub(crate) codec: c_uint,
    pub(crate) frame_rate: [c_uint; 2],
    pub(crate) progressive_sequence: u8,
    pub(crate) bit_depth_luma_minus8: u8,
    pub(crate) bit_depth_chroma_minus8: u8,
    pub(crate) min_num_decode_surfaces: u8,
    pub(crate) coded_width: c_uint,
    pub(crate) coded_height: c_uint,
    pub(crate) display_area: RectInt,
    pub(crate) chroma_format: c_uint,
    pub(crate) bitrate: c_uint,
    pub(crate) display_aspect_ratio: [c_int; 2],
    /// Bits 0 to 2: video format; bit 3: full range.
    pub(crate) signal_bits: u8,
    pub(crate) color_primaries: u8,
    pub(crate) transfer_characteristics: u8,
    pub(crate) matrix_coefficients: u8,
    pub(crate) seqhdr_data_length: c_uint,
}

/// `CUVIDSOURCEDATAPACKET`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct SourceDataPacket {
    pub(crate) flags: c_ulong,
    pub(crate) payload_size: c_ulong,
    pub(crate) payload: *const u8,
    pub(crate) timestamp: c_long,
}

/// `CUVIDPARSERDISPINFO`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DispInfo {
    pub(crate) picture_index: c_int,
    pub(crate) progressive_frame: c_int,
    pub(crate) top_field_first: c_int,
    pub(crate) repeat_first_field: c_int,
    pub(crate) timestamp: c_long,
}

/// The beginning of `CUVIDPICPARAMS`, which the parser fills and the decoder reads: only the picture's surface and its
/// fields concern us. Never made here, only looked at behind the parser's pointer.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct PicParamsHead {
    pub(crate) width_mbs: c_int,
    pub(crate) height_mbs: c_int,
    pub(crate) picture_index: c_int,
    pub(crate) field_picture: c_int,
    pub(crate) bottom_field: c_int,
    pub(crate) second_field: c_int,
}

/// 1 and more: go on; 0: stop.
pub(crate) type SequenceCallback = unsafe extern "C" fn(*mut c_void, *mut VideoFormat) -> c_int;
pub(crate) type DecodeCallback = unsafe extern "C" fn(*mut c_void, *mut PicParamsHead) -> c_int;
pub(crate) type DisplayCallback = unsafe extern "C" fn(*mut c_void, *mut DispInfo) -> c_int;

/// `CUVIDPARSERPARAMS`.
#[repr(C)]
pub(crate) struct ParserParams {
    pub(crate) codec: c_uint,
    pub(crate) max_num_decode_surfaces: c_uint,
    pub(crate) clock_rate: c_uint,
    pub(crate) error_threshold: c_uint,
    pub(crate) max_display_delay: c_uint,
    pub(crate) bits: c_uint,
    pub(crate) reserved1: [c_uint; 4],
    pub(crate) user_data: *mut c_void,
    pub(crate) sequence: Option<SequenceCallback>,
    pub(crate) decode: Option<DecodeCallback>,
    pub(crate) display: Option<DisplayCallback>,
    pub(crate) operating_point: *mut c_void,
    pub(crate) sei: *mut c_void,
    pub(crate) reserved2: [*mut c_void; 5],
    pub(crate) ext_video_info: *mut c_void,
}

/// `CUVIDDECODECAPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DecodeCaps {
    pub(crate) codec: c_uint,
    pub(crate) chroma_format: c_uint,
    pub(crate) bit_depth_minus8: c_uint,
    pub(crate) reserved1: [c_uint; 3],
    pub(crate) is_supported: u8,
    pub(crate) num_nvdecs: u8,
    pub(crate) output_format_mask: c_ushort,
    pub(crate) max_width: c_uint,
    pub(crate) max_height: c_uint,
    pub(crate) max_mb_count: c_uint,
    pub(crate) min_width: c_ushort,
    pub(crate) min_height: c_ushort,
    pub(crate) is_histogram_supported: u8,
    pub(crate) counter_bit_depth: u8,
    pub(crate) max_histogram_bins: c_ushort,
    pub(crate) reserved3: [c_uint; 10],
}

/// `CUVIDDECODECREATEINFO`.
#[repr(C)]
pub(crate) struct CreateInfo {
    pub(crate) width: c_ulong,
    pub(crate) height: c_ulong,
    pub(crate) num_decode_surfaces: c_ulong,
    pub(crate) codec: c_uint,
    pub(crate) chroma_format: c_uint,
    pub(crate) creation_flags: c_ulong,
    pub(crate) bit_depth_minus8: c_ulong,
    pub(crate) intra_decode_only: c_ulong,
    pub(crate) max_width: c_ulong,
    pub(crate) max_height: c_ulong,
    pub(crate) reserved1: c_ulong,
    pub(crate) display_area: RectShort,
    pub(crate) output_format: c_uint,
    pub(crate) deinterlace_mode: c_uint,
    pub(crate) target_width: c_ulong,
    pub(crate) target_height: c_ulong,
    pub(crate) num_output_surfaces: c_ulong,
    pub(crate) vid_lock: *mut c_void,
    pub(crate) target_rect: RectShort,
    pub(crate) enable_histogram: c_ulong,
    pub(crate) reserved2: [c_ulong; 4],
}

/// `CUVIDRECONFIGUREDECODERINFO`.
#[repr(C)]
pub(crate) struct ReconfigureInfo {
    pub(crate) width: c_uint,
    pub(crate) height: c_uint,
    pub(crate) target_width: c_uint,
    pub(crate) target_height: c_uint,
    pub(crate) num_decode_surfaces: c_uint,
    pub(crate) reserved1: [c_uint; 12],
    pub(crate) display_area: RectShort,
    pub(crate) target_rect: RectShort,
    pub(crate) reserved2: [c_uint; 11],
}

/// `CUVIDPROCPARAMS`.
#[repr(C)]
pub(crate) struct ProcParams {
    pub(crate) progressive_frame: c_int,
    pub(crate) second_field: c_int,
    pub(crate) top_field_first: c_int,
    pub(crate) unpaired_field: c_int,
    pub(crate) reserved_flags: c_uint,
    pub(crate) reserved_zero: c_uint,
    pub(crate) raw_input_dptr: u64,
    pub(crate) raw_input_pitch: c_uint,
    pub(crate) raw_input_format: c_uint,
    pub(crate) raw_output_dptr: u64,
    pub(crate) raw_output_pitch: c_uint,
    pub(crate) reserved1: c_uint,
    pub(crate) output_stream: Handle,
    pub(crate) reserved: [c_uint; 46],
    pub(crate) histogram_dptr: *mut u64,
    pub(crate) reserved2: [*mut c_void; 1],
}

/// `CUVIDGETDECODESTATUS`.
#[repr(C)]
pub(crate) struct DecodeStatusInfo {
    pub(crate) status: c_uint,
    pub(crate) reserved: [c_uint; 31],
    pub(crate) reserved_ptrs: [*mut c_void; 8],
}

table! {
    /// The video decoder's library.
    Cuvid {
        fn cuvidGetDecoderCaps(*mut DecodeCaps);
        fn cuvidCreateVideoParser(*mut Handle, *mut ParserParams);
        fn cuvidParseVideoData(Handle, *mut SourceDataPacket);
        fn cuvidDestroyVideoParser(Handle);
        fn cuvidCreateDecoder(*mut Handle, *mut CreateInfo);
        fn cuvidDestroyDecoder(Handle);
        fn cuvidReconfigureDecoder(Handle, *mut ReconfigureInfo);
        fn cuvidDecodePicture(Handle, *mut PicParamsHead);
        fn cuvidGetDecodeStatus(Handle, c_int, *mut DecodeStatusInfo);
        fn cuvidMapVideoFrame64(Handle, c_int, *mut DevicePtr, *mut c_uint, *mut ProcParams);
        fn cuvidUnmapVideoFrame64(Handle, DevicePtr);
    }
}
