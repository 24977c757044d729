#![allow(clippy::unwrap_used)]

mod library;
mod session;

use super::format::{Caps, Codec, Format, PlaneShape};
use super::{DecodeStatus, Nvdec, NvdecError, sys};
use nvidia_video_codec_sdk::sys::{cuviddec, nvcuvid};
use std::mem::{align_of, offset_of, size_of};

/// The size, alignment and the place of each field of one of ours, against the SDK's as bindgen reads its headers.
macro_rules! same_layout {
    ($ours:ty, $theirs:ty, { $($our:ident = $their:ident),* $(,)? }) => {
        assert_eq!(size_of::<$ours>(), size_of::<$theirs>(), "size of {}", stringify!($theirs));
        assert_eq!(align_of::<$ours>(), align_of::<$theirs>(), "alignment of {}", stringify!($theirs));
        $(assert_eq!(
            offset_of!($ours, $our), offset_of!($theirs, $their), "{}::{}", stringify!($theirs), stringify!($their)
        );)*
    };
}

#[test]
fn structures_are_laid_out_as_the_sdk_has_them() {
    same_layout!(sys::VideoFormat, nvcuvid::CUVIDEOFORMAT, {
        codec = codec, frame_rate = frame_rate, progressive_sequence = progressive_sequence,
        bit_depth_luma_minus8 = bit_depth_luma_minus8, bit_depth_chroma_minus8 = bit_depth_chroma_minus8,
        min_num_decode_surfaces = min_num_decode_surfaces, coded_width = coded_width, coded_height = coded_height,
        display_area = display_area, chroma_format = chroma_format, bitrate = bitrate,
        display_aspect_ratio = display_aspect_ratio, signal_bits = video_signal_description,
        seqhdr_data_length = seqhdr_data_length,
    });
    same_layout!(sys::SourceDataPacket, nvcuvid::CUVIDSOURCEDATAPACKET, {
        flags = flags, payload_size = payload_size, payload = payload, timestamp = timestamp,
    });
    same_layout!(sys::DispInfo, nvcuvid::CUVIDPARSERDISPINFO, {
        picture_index = picture_index, progressive_frame = progressive_frame, top_field_first = top_field_first,
        repeat_first_field = repeat_first_field, timestamp = timestamp,
    });
    same_layout!(sys::ParserParams, nvcuvid::CUVIDPARSERPARAMS, {
        codec = CodecType, max_num_decode_surfaces = ulMaxNumDecodeSurfaces, clock_rate = ulClockRate,
        error_threshold = ulErrorThreshold, max_display_delay = ulMaxDisplayDelay, reserved1 = uReserved1,
        user_data = pUserData, sequence = pfnSequenceCallback, decode = pfnDecodePicture, display = pfnDisplayPicture,
        operating_point = pfnGetOperatingPoint, sei = pfnGetSEIMsg, reserved2 = pvReserved2,
        ext_video_info = pExtVideoInfo,
    });
    same_layout!(sys::DecodeCaps, cuviddec::CUVIDDECODECAPS, {
        codec = eCodecType, chroma_format = eChromaFormat, bit_depth_minus8 = nBitDepthMinus8, reserved1 = reserved1,
        is_supported = bIsSupported, num_nvdecs = nNumNVDECs, output_format_mask = nOutputFormatMask,
        max_width = nMaxWidth, max_height = nMaxHeight, max_mb_count = nMaxMBCount, min_width = nMinWidth,
        min_height = nMinHeight, is_histogram_supported = bIsHistogramSupported, counter_bit_depth = nCounterBitDepth,
        max_histogram_bins = nMaxHistogramBins, reserved3 = reserved3,
    });
    same_layout!(sys::CreateInfo, cuviddec::CUVIDDECODECREATEINFO, {
        width = ulWidth, height = ulHeight, num_decode_surfaces = ulNumDecodeSurfaces, codec = CodecType,
        chroma_format = ChromaFormat, creation_flags = ulCreationFlags, bit_depth_minus8 = bitDepthMinus8,
        intra_decode_only = ulIntraDecodeOnly, max_width = ulMaxWidth, max_height = ulMaxHeight, reserved1 = Reserved1,
        display_area = display_area, output_format = OutputFormat, deinterlace_mode = DeinterlaceMode,
        target_width = ulTargetWidth, target_height = ulTargetHeight, num_output_surfaces = ulNumOutputSurfaces,
        vid_lock = vidLock, target_rect = target_rect, enable_histogram = enableHistogram, reserved2 = Reserved2,
    });
    same_layout!(sys::ReconfigureInfo, cuviddec::CUVIDRECONFIGUREDECODERINFO, {
        width = ulWidth, height = ulHeight, target_width = ulTargetWidth, target_height = ulTargetHeight,
        num_decode_surfaces = ulNumDecodeSurfaces, reserved1 = reserved1, display_area = display_area,
        target_rect = target_rect, reserved2 = reserved2,
    });
    same_layout!(sys::ProcParams, cuviddec::CUVIDPROCPARAMS, {
        progressive_frame = progressive_frame, second_field = second_field, top_field_first = top_field_first,
        unpaired_field = unpaired_field, reserved_flags = reserved_flags, reserved_zero = reserved_zero,
        raw_input_dptr = raw_input_dptr, raw_input_pitch = raw_input_pitch, raw_input_format = raw_input_format,
        raw_output_dptr = raw_output_dptr, raw_output_pitch = raw_output_pitch, reserved1 = Reserved1,
        output_stream = output_stream, reserved = Reserved, histogram_dptr = histogram_dptr, reserved2 = Reserved2,
    });
    same_layout!(sys::DecodeStatusInfo, cuviddec::CUVIDGETDECODESTATUS, {
        status = decodeStatus, reserved = reserved, reserved_ptrs = pReserved,
    });
    // of this one only the beginning is ours
    assert_eq!(
        (offset_of!(sys::PicParamsHead, width_mbs), offset_of!(sys::PicParamsHead, height_mbs)),
        (offset_of!(cuviddec::CUVIDPICPARAMS, PicWidthInMbs), offset_of!(cuviddec::CUVIDPICPARAMS, FrameHeightInMbs))
    );
    assert_eq!(offset_of!(sys::PicParamsHead, picture_index), offset_of!(cuviddec::CUVIDPICPARAMS, CurrPicIdx));
    assert_eq!(offset_of!(sys::PicParamsHead, field_picture), offset_of!(cuviddec::CUVIDPICPARAMS, field_pic_flag));
    assert_eq!(offset_of!(sys::PicParamsHead, bottom_field), offset_of!(cuviddec::CUVIDPICPARAMS, bottom_field_flag));
    assert_eq!(offset_of!(sys::PicParamsHead, second_field), offset_of!(cuviddec::CUVIDPICPARAMS, second_field));
}

#[test]
fn rectangles_and_signal_bits_lie_as_the_sdk_has_them() {
    let area = cuviddec::_CUVIDDECODECREATEINFO__bindgen_ty_1 { left: 1, top: 2, right: 3, bottom: 4 };
    // SAFETY: both are four 16-bit numbers, as the sizes say.
    #[allow(unsafe_code, reason = "reads one structure as another")]
    let ours: sys::RectShort = unsafe { std::mem::transmute(area) };
    assert_eq!((ours.left, ours.top, ours.right, ours.bottom), (1, 2, 3, 4));
    let mut theirs = nvcuvid::CUVIDEOFORMAT__bindgen_ty_4::default();
    theirs.set_video_format(5);
    theirs.set_video_full_range_flag(1);
    (theirs.color_primaries, theirs.transfer_characteristics, theirs.matrix_coefficients) = (1, 13, 9);
    // SAFETY: both are four bytes, as the sizes say.
    #[allow(unsafe_code, reason = "reads one structure as another")]
    let [bits, primaries, transfer, matrix]: [u8; 4] = unsafe { std::mem::transmute(theirs) };
    let raw = sys::VideoFormat {
        signal_bits: bits,
        color_primaries: primaries,
        transfer_characteristics: transfer,
        matrix_coefficients: matrix,
        ..video(1920, 1088, [0, 0, 1920, 1080])
    };
    let signal = Format::of(&raw, "gpu").unwrap().signal;
    assert_eq!((signal.full_range, signal.primaries, signal.transfer, signal.matrix), (true, 1, 13, 9));
}

#[test]
fn numbers_are_those_of_the_sdk() {
    use cuviddec::*;
    let theirs = [
        (cudaVideoCodec_enum::cudaVideoCodec_H264 as u32, sys::CODEC_H264),
        (cudaVideoCodec_enum::cudaVideoCodec_HEVC as u32, sys::CODEC_HEVC),
        (cudaVideoChromaFormat_enum::cudaVideoChromaFormat_420 as u32, sys::CHROMA_420),
        (cudaVideoSurfaceFormat_enum::cudaVideoSurfaceFormat_NV12 as u32, sys::SURFACE_NV12),
        (cudaVideoSurfaceFormat_enum::cudaVideoSurfaceFormat_P016 as u32, sys::SURFACE_P016),
        (cudaVideoDeinterlaceMode_enum::cudaVideoDeinterlaceMode_Weave as u32, sys::DEINTERLACE_WEAVE),
        (cudaVideoCreateFlags_enum::cudaVideoCreate_PreferCUVID as u32, sys::CREATE_PREFER_CUVID as u32),
        (nvcuvid::CUvideopacketflags::CUVID_PKT_ENDOFSTREAM as u32, sys::PACKET_END_OF_STREAM as u32),
        (nvcuvid::CUvideopacketflags::CUVID_PKT_TIMESTAMP as u32, sys::PACKET_TIMESTAMP as u32),
        (nvcuvid::CUvideopacketflags::CUVID_PKT_ENDOFPICTURE as u32, sys::PACKET_END_OF_PICTURE as u32),
        (cuvidDecodeStatus_enum::cuvidDecodeStatus_Success as u32, sys::STATUS_SUCCESS),
        (cuvidDecodeStatus_enum::cuvidDecodeStatus_Error as u32, sys::STATUS_ERROR),
        (cuvidDecodeStatus_enum::cuvidDecodeStatus_Error_Concealed as u32, sys::STATUS_CONCEALED),
    ];
    for (n, (their, our)) in theirs.into_iter().enumerate() {
        assert_eq!(our, their, "number {n}");
    }
    assert_eq!(DecodeStatus::of(1), DecodeStatus::Unknown, "in progress is no result");
}

fn video(width: u32, height: u32, [left, top, right, bottom]: [i32; 4]) -> sys::VideoFormat {
    sys::VideoFormat {
        codec: 4,
        coded_width: width,
        coded_height: height,
        display_area: sys::RectInt { left, top, right, bottom },
        chroma_format: 1,
        min_num_decode_surfaces: 6,
        ..sys::VideoFormat::default()
    }
}

#[test]
fn what_is_shown_lies_behind_the_coded_rows() {
    // 1080 rows of 1088: chroma begins at row 1088
    let format = Format::of(&video(1920, 1088, [0, 0, 1920, 1080]), "gpu").unwrap();
    let [luma, chroma] = format.planes(2048);
    assert_eq!(luma, PlaneShape { offset_bytes: 0, row_bytes: 1920, rows: 1080 });
    assert_eq!(chroma, PlaneShape { offset_bytes: 2048 * 1088, row_bytes: 1920, rows: 540 });
    // cropped at the left and at the top, with two bytes a sample
    let mut raw = video(64, 48, [6, 4, 60, 40]);
    raw.bit_depth_luma_minus8 = 2;
    let format = Format::of(&raw, "gpu").unwrap();
    assert_eq!((format.bit_depth, format.sample_bytes()), (10, 2));
    let [luma, chroma] = format.planes(512);
    assert_eq!(luma, PlaneShape { offset_bytes: 4 * 512 + 12, row_bytes: 108, rows: 36 });
    assert_eq!(chroma, PlaneShape { offset_bytes: 48 * 512 + 2 * 512 + 12, row_bytes: 108, rows: 18 });
}

#[test]
fn what_is_shown_of_a_picture_is_its_own() {
    // the stream shows all rows by now, the picture is of before
    let format = Format::of(&video(640, 368, [0, 0, 640, 368]), "gpu").unwrap();
    let [luma, chroma] = format.showing(6, 4, 600, 356).unwrap().planes(1024);
    assert_eq!(luma, PlaneShape { offset_bytes: 4 * 1024 + 6, row_bytes: 600, rows: 356 });
    assert_eq!(chroma, PlaneShape { offset_bytes: 368 * 1024 + 2 * 1024 + 6, row_bytes: 600, rows: 178 });
    for (left, top, width, height) in [
        (0, 0, 642, 356),
        (42, 0, 600, 356),
        (0, 14, 640, 356),
        (1, 0, 2, 2),
        (0, 3, 2, 2),
        (0, 0, 0, 2),
        (u32::MAX - 1, 0, 4, 4),
    ] {
        assert!(format.showing(left, top, width, height).is_err(), "{left},{top} {width}x{height}");
    }
}

#[test]
fn a_stream_that_shows_what_is_not_coded_is_refused() {
    for area in [[0, 0, 66, 48], [0, 0, 64, 49], [-2, 0, 64, 48], [10, 0, 10, 48], [1, 0, 63, 48]] {
        let error = Format::of(&video(64, 48, area), "gpu").unwrap_err();
        assert!(matches!(error, NvdecError::Stream(_)), "{area:?}: {error}");
    }
}

#[test]
fn chroma_that_no_graph_carries_is_refused_with_what_to_do() {
    let mut raw = video(64, 48, [0, 0, 64, 48]);
    raw.chroma_format = 2;
    let error = Format::of(&raw, "device 0 (X)").unwrap_err();
    assert!(error.is_unsupported());
    let text = error.to_string();
    assert!(text.contains("H.264 of 64x48, 8 bit, chroma format 4:2:2 on device 0 (X)"), "{text}");
    assert!(text.contains("sw-nv12"), "{text}");
}

/// What an H200 answered for H.264.
fn caps() -> Caps {
    Caps::of(&sys::DecodeCaps {
        is_supported: 1,
        num_nvdecs: 7,
        output_format_mask: 0b01,
        max_width: 4096,
        max_height: 4096,
        max_mb_count: 65_536,
        min_width: 48,
        min_height: 16,
        ..sys::DecodeCaps::default()
    })
}

#[test]
fn a_refusal_says_what_the_gpu_decodes() {
    let caps = caps();
    assert_eq!((caps.supported, caps.engines, caps.nv12, caps.p016), (true, 7, true, false));
    assert_eq!(caps.refusal(4096, 4096, 8), None, "the largest");
    assert_eq!(caps.refusal(48, 16, 8), None, "the smallest");
    for (width, height) in [(4112, 64), (64, 4112), (32, 16), (48, 8)] {
        let why = caps.refusal(width, height, 8).unwrap();
        assert_eq!(why, "it decodes 48x16 to 4096x4096", "{width}x{height}");
    }
    assert_eq!(caps.refusal(64, 64, 10).unwrap(), "its surfaces cannot be P016");
    let small = Caps { max_macroblocks: 8, ..caps };
    assert_eq!(small.refusal(64, 48, 8).unwrap(), "it decodes up to 8 macroblocks, this has 12");
    assert!(Caps { supported: false, ..caps }.refusal(64, 64, 8).is_some());
}

#[test]
fn a_machine_without_the_library_gets_a_way_out() {
    match Nvdec::open() {
        // a machine with the driver
        Ok(_) => {}
        Err(e) => {
            let text = e.to_string();
            assert!(text.contains("libnvcuvid.so.1 cannot be opened"), "{text}");
            assert!(text.contains("'video' capability") && text.contains("sw-nv12"), "{text}");
        }
    }
    assert_eq!(Codec::H265.to_string(), "H.265");
}
