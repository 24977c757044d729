//! A decoder's surfaces, and the pictures on them.
#![allow(unsafe_code, reason = "calls of the library")]

use super::surfaces::{Closer, MAX_SURFACES, SurfaceWait, Surfaces};
use super::{Format, Nvdec, NvdecError, sys};
use crate::sys::Handle;
use crate::{CudaError, Gpu, Span, Stream};
use std::sync::Arc;
use std::time::Duration;

/// The decoder behind a stream. It is destroyed when the last picture of it has gone.
pub(super) struct Decoder {
    nvdec: Nvdec,
    gpu: Gpu,
    raw: Handle,
    /// What it decodes now.
    format: Format,
    /// The largest size that it was made for.
    max_px: (u32, u32),
    decode_surfaces: u32,
    surfaces: Surfaces,
}

// SAFETY: the library takes calls on one decoder from several threads: its guide tells to decode and to map on different
// ones. Creating and destroying exclude them by ownership.
unsafe impl Send for Decoder {}
// SAFETY: as above.
unsafe impl Sync for Decoder {}

impl Decoder {
    pub(super) fn create(
        nvdec: Nvdec,
        gpu: &Gpu,
        format: &Format,
        extra_surfaces: u32,
        output_surfaces: u32,
        closer: Closer,
    ) -> Result<Self, NvdecError> {
        let decode_surfaces = surfaces_for(format, extra_surfaces)?;
        let output_surfaces = output_surfaces.max(1);
        let (width, height) = format.target_px();
        let mut info = sys::CreateInfo {
            width: format.coded_width_px.into(),
            height: format.coded_height_px.into(),
            num_decode_surfaces: decode_surfaces.into(),
            codec: format.codec.raw(),
            chroma_format: sys::CHROMA_420,
            creation_flags: sys::CREATE_PREFER_CUVID,
            bit_depth_minus8: u64::from(format.bit_depth) - 8,
            intra_decode_only: 0,
            max_width: format.coded_width_px.into(),
            max_height: format.coded_height_px.into(),
            reserved1: 0,
            display_area: whole(format),
            output_format: if format.bit_depth > 8 { sys::SURFACE_P016 } else { sys::SURFACE_NV12 },
            deinterlace_mode: sys::DEINTERLACE_WEAVE,
            target_width: width.into(),
            target_height: height.into(),
            num_output_surfaces: output_surfaces.into(),
            vid_lock: std::ptr::null_mut(),
            target_rect: sys::RectShort::default(),
            enable_histogram: 0,
            reserved2: [0; 4],
        };
        let mut raw = std::ptr::null_mut();
        let what = format!(
            "{} of {}x{}, {} bit, {decode_surfaces} + {output_surfaces} surfaces",
            format.codec, format.coded_width_px, format.coded_height_px, format.bit_depth
        );
        // the pointer to the handle is valid for writes until the call returns, and the description is fully initialized
        cuvid!(nvdec, gpu, what, cuvidCreateDecoder(&raw mut raw, &raw mut info))?;
        let surfaces = Surfaces::new(output_surfaces, closer);
        let max_px = (format.coded_width_px, format.coded_height_px);
        Ok(Self { nvdec, gpu: gpu.clone(), raw, format: *format, max_px, decode_surfaces, surfaces })
    }

    /// Whether the decoder can go on with `format` as it is.
    pub(super) fn suits(&self, format: &Format, extra_surfaces: u32) -> bool {
        let key = |f: &Format| (f.codec, f.bit_depth, f.coded_width_px, f.coded_height_px);
        key(&self.format) == key(format)
            && surfaces_for(format, extra_surfaces).is_ok_and(|need| need <= self.decode_surfaces)
    }

    /// Takes on another size, where it can: not larger than what it was made for, and with no picture held. `&mut self`
    /// is the proof of that, since pictures share it.
    pub(super) fn reconfigure(&mut self, format: &Format, extra_surfaces: u32) -> Result<bool, NvdecError> {
        let same = (self.format.codec, self.format.bit_depth) == (format.codec, format.bit_depth);
        let fits = format.coded_width_px <= self.max_px.0 && format.coded_height_px <= self.max_px.1;
        let need = surfaces_for(format, extra_surfaces)?;
        if !same || !fits || need > self.decode_surfaces {
            return Ok(false);
        }
        let (target_width, target_height) = format.target_px();
        let mut info = sys::ReconfigureInfo {
            width: format.coded_width_px,
            height: format.coded_height_px,
            target_width,
            target_height,
            num_decode_surfaces: self.decode_surfaces,
            reserved1: [0; 12],
            display_area: whole(format),
            target_rect: sys::RectShort::default(),
            reserved2: [0; 11],
        };
        let what = format!("{}x{}", format.coded_width_px, format.coded_height_px);
        // our decoder, with nothing mapped, and a whole description; called from the sequence callback as the page says
        cuvid!(self.nvdec, &self.gpu, what, cuvidReconfigureDecoder(self.raw, &raw mut info))?;
        self.format = *format;
        Ok(true)
    }

    pub(super) fn decode_surfaces(&self) -> u32 {
        self.decode_surfaces
    }

    /// Queues a picture for the decoder, once nobody holds the surface that it goes to, for which it waits up to `limit`.
    ///
    /// # Safety
    /// `picture` is what the parser gave to the decode callback, which is still running.
    pub(super) unsafe fn decode(
        &self,
        picture: *mut sys::PicParamsHead,
        limit: Option<Duration>,
    ) -> Result<(), NvdecError> {
        // SAFETY: the parser's structure begins with these fields.
        let index = unsafe { (*picture).picture_index };
        match usize::try_from(index).map_or(SurfaceWait::Unknown, |index| self.surfaces.wait_free(index, limit)) {
            SurfaceWait::Free => {}
            SurfaceWait::Closed => return Err(NvdecError::Closed),
            SurfaceWait::Unknown => {
                let text = format!("it decodes to surface {index}, of {}", self.decode_surfaces);
                return Err(NvdecError::Stream(text));
            }
            SurfaceWait::StillHeld => {
                let seconds = limit.unwrap_or_default().as_secs_f32();
                return Err(NvdecError::Stream(format!(
                    "it decodes to surface {index}, whose picture is still held after {seconds} s"
                )));
            }
        }
        // our decoder, and the parser's own structure
        Ok(cuvid!(self.nvdec, &self.gpu, "a picture", cuvidDecodePicture(self.raw, picture))?)
    }

    fn status(&self, index: i32) -> DecodeStatus {
        let mut info = sys::DecodeStatusInfo { status: 0, reserved: [0; 31], reserved_ptrs: [std::ptr::null_mut(); 8] };
        // the decoder is ours, and the pointer to the answer is valid for writes until the call returns
        let asked =
            cuvid!(self.nvdec, &self.gpu, "a picture's status", cuvidGetDecodeStatus(self.raw, index, &raw mut info));
        match asked {
            Ok(()) => DecodeStatus::of(info.status),
            // not offered for every codec and GPU
            Err(_) => DecodeStatus::Unknown,
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // our handle, not used again: pictures and mapped surfaces share the decoder, so there are none
        let _ = cuvid!(self.nvdec, &self.gpu, "a decoder", cuvidDestroyDecoder(self.raw))
            .inspect_err(|e| tracing::debug!("{e}"));
    }
}

fn surfaces_for(format: &Format, extra: u32) -> Result<u32, NvdecError> {
    let need = format.min_surfaces.max(1) + extra.max(1);
    if need as usize > MAX_SURFACES {
        return Err(NvdecError::Stream(format!("it needs {need} surfaces, expected at most {MAX_SURFACES}")));
    }
    Ok(need)
}

/// All that is coded: what is shown is cut out when a surface is read.
fn whole(format: &Format) -> sys::RectShort {
    let short = |px: u32| i16::try_from(px).unwrap_or(i16::MAX);
    sys::RectShort { left: 0, top: 0, right: short(format.coded_width_px), bottom: short(format.coded_height_px) }
}

/// How decoding a picture went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeStatus {
    /// Without an error.
    Complete,
    /// With errors, over which the decoder put something of its own.
    Concealed,
    /// With errors that can be seen.
    Damaged,
    /// The GPU does not say.
    Unknown,
}

impl DecodeStatus {
    pub(super) fn of(raw: u32) -> Self {
        match raw {
            sys::STATUS_SUCCESS => Self::Complete,
            sys::STATUS_ERROR => Self::Damaged,
            sys::STATUS_CONCEALED => Self::Concealed,
            _ => Self::Unknown,
        }
    }
}

/// A picture that is to be shown, whose decoding may still run. Its surface is kept until it, or what it was mapped to,
/// is dropped; so long the decoder cannot use it again, and [`Session::feed`](super::Session::feed) may wait for it.
pub struct Picture {
    decoder: Arc<Decoder>,
    format: Format,
    info: sys::DispInfo,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picture").field("timestamp", &self.timestamp()).field("format", &self.format).finish()
    }
}

impl Picture {
    /// Keeps the surface that the parser shows; the error says that there is none of this number.
    pub(super) fn hold(decoder: &Arc<Decoder>, format: &Format, info: &sys::DispInfo) -> Result<Self, NvdecError> {
        let held = usize::try_from(info.picture_index).is_ok_and(|index| decoder.surfaces.hold(index));
        if !held {
            return Err(NvdecError::Stream(format!("it shows surface {}", info.picture_index)));
        }
        Ok(Self { decoder: decoder.clone(), format: *format, info: *info })
    }

    /// What was passed to `feed` with the access unit.
    pub fn timestamp(&self) -> i64 {
        self.info.timestamp
    }

    /// What the stream's parameter sets say.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// A frame; otherwise two fields, which the surface has woven together.
    pub fn progressive(&self) -> bool {
        self.info.progressive_frame != 0
    }

    /// Waits until it is decoded and until an output surface is free, and queues the driver's own step to that surface on
    /// `stream`: work that is queued there afterwards finds the pixels. Call it from another thread than `feed`'s, or
    /// from within the sink.
    ///
    /// # Errors
    /// The driver's; [`NvdecError::Closed`] where the stream was closed while it waited.
    pub fn map(self, stream: &Stream) -> Result<Mapped, NvdecError> {
        let decoder = &self.decoder;
        if !decoder.surfaces.begin_map() {
            return Err(NvdecError::Closed);
        }
        let mut params = sys::ProcParams {
            progressive_frame: self.info.progressive_frame,
            second_field: 0,
            top_field_first: self.info.top_field_first,
            unpaired_field: (self.info.repeat_first_field < 0).into(),
            reserved_flags: 0,
            reserved_zero: 0,
            raw_input_dptr: 0,
            raw_input_pitch: 0,
            raw_input_format: 0,
            raw_output_dptr: 0,
            raw_output_pitch: 0,
            reserved1: 0,
            output_stream: stream.raw(),
            reserved: [0; 46],
            histogram_dptr: std::ptr::null_mut(),
            reserved2: [std::ptr::null_mut()],
        };
        let (mut ptr, mut pitch) = (0, 0);
        let what = || format!("surface {} of {}", self.info.picture_index, self.format.codec);
        // our decoder, a surface of it that we hold, places for the answers, a whole description, and a stream that lives
        cuvid!(
            decoder.nvdec,
            &decoder.gpu,
            what(),
            cuvidMapVideoFrame64(decoder.raw, self.info.picture_index, &raw mut ptr, &raw mut pitch, &raw mut params)
        )
        .inspect_err(|_| decoder.surfaces.end_map())?;
        let status = decoder.status(self.info.picture_index);
        Ok(Mapped { ptr, pitch_bytes: pitch, status, picture: self })
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // `hold` proved that the number is one
        self.decoder.surfaces.release(self.info.picture_index as usize);
    }
}

/// The shown part of a plane of a mapped surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedPlane {
    /// From its first sample to its last.
    pub span: Span,
    /// Bytes from row to row.
    pub pitch_bytes: u64,
    /// Bytes of a row.
    pub row_bytes: u64,
    /// Rows.
    pub rows: u64,
}

/// A mapped surface: NV12, or P016 for more than 8 bits.
///
/// Dropping it gives the surface back to the decoder at once: it is kept until the work that reads it **is done**, not
/// only queued. A decoder has few output surfaces; when all are mapped, the next `map` waits.
pub struct Mapped {
    ptr: u64,
    pitch_bytes: u32,
    status: DecodeStatus,
    picture: Picture,
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mapped").field("picture", &self.picture).field("status", &self.status).finish()
    }
}

impl Mapped {
    /// The picture.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// What is shown of it, by the picture's own parameter sets. The library's word is of the stream as it was when the
    /// picture came out, which may be that of a later picture.
    ///
    /// # Errors
    /// That is no part of the coded picture, or begins between chroma samples.
    pub fn show(&mut self, left_px: u32, top_px: u32, width_px: u32, height_px: u32) -> Result<(), NvdecError> {
        self.picture.format = self.picture.format.showing(left_px, top_px, width_px, height_px)?;
        Ok(())
    }

    /// How its decoding went.
    pub fn status(&self) -> DecodeStatus {
        self.status
    }

    /// What is shown of luma and of interleaved chroma.
    ///
    /// # Errors
    /// A pitch that does not hold a row.
    pub fn planes(&self) -> Result<[MappedPlane; 2], NvdecError> {
        let format = self.picture.format();
        let pitch_bytes = u64::from(self.pitch_bytes);
        let (width, _) = format.target_px();
        if pitch_bytes < u64::from(width) * u64::from(format.sample_bytes()) {
            let why = format!("rows of {width} samples at a pitch of {pitch_bytes} B");
            return Err(CudaError::misuse("a mapped surface", why).into());
        }
        let surface = self.whole();
        Ok(format.planes(pitch_bytes).map(|shape| {
            let bytes = (shape.rows - 1) * pitch_bytes + shape.row_bytes;
            let span = surface.part(shape.offset_bytes, bytes);
            MappedPlane { span, pitch_bytes, row_bytes: shape.row_bytes, rows: shape.rows }
        }))
    }

    /// The whole surface, with both planes, including the part that is not shown.
    pub fn whole(&self) -> Span {
        let (_, height) = self.picture.format().target_px();
        let bytes = u64::from(self.pitch_bytes) * u64::from(height) * 3 / 2;
        // SAFETY: the library states that a 4:2:0 surface has the target's rows of luma, then half as many of chroma, at
        // the pitch that it gave; they are mapped until `self` is dropped, whose documentation passes that on.
        unsafe { Span::from_raw(self.ptr, bytes) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let decoder = &self.picture.decoder;
        // our decoder, and the address that it mapped, which is not used again
        let _ = cuvid!(decoder.nvdec, &decoder.gpu, "a surface", cuvidUnmapVideoFrame64(decoder.raw, self.ptr))
            .inspect_err(|e| tracing::debug!("{e}"));
        decoder.surfaces.end_map();
    }
}
