//! The GPU's decoder, and frames in its memory.

use crate::backend::{Backend, DecodeError, Decoder, Frame, Sink};
use crate::config::{Memory, Settings};
use millrace_cuda::nvdec::{Codec, Mapped, MappedPlane, Nvdec, NvdecError, Options, Picture, Session, Status};
use millrace_cuda::{CudaError, DeviceMemory, Gpu, Rows, Span};
use millrace_frame::{Colour, ImageDesc, Item, PacketCodec, Payload, PixelFormat, Size};
use millrace_ingest::AccessUnit;
use millrace_node::{Context, GpuSettings, NodeError, Outputs, Queue};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows begin at multiples of this: what a warp reads at once, and what kernels with wide loads want.
const PITCH_ALIGN_BYTES: u32 = 256;
/// Pictures of a camera that wait for the loop or for their copy, beyond what its stream needs.
const EXTRA_SURFACES: u32 = 6;
const OUTPUT_SURFACES: u32 = 3;

pub(crate) struct Cuda {
    gpu: Gpu,
    nvdec: Nvdec,
    options: Options,
    memory: Memory,
    settings: GpuSettings,
}

/// A camera's row of work on the GPU.
pub(crate) struct Lane {
    queue: Queue,
    /// Where frames on the way to host memory are packed.
    staging: Mutex<Option<DeviceMemory>>,
}

pub(crate) struct Stream(Session);

impl Backend for Cuda {
    type Decoder = Stream;
    type Picture = Picture;
    type Surface = Mapped;
    type Lane = Lane;

    fn open(settings: &Settings, _: &Context) -> Result<Self, NodeError> {
        let gpu = Gpu::open(settings.device).map_err(NodeError::fatal)?;
        let nvdec = Nvdec::open().map_err(NodeError::fatal)?;
        tracing::info!(device = gpu.ordinal(), gpu = gpu.name(), "decodes");
        let options =
            Options { low_delay: settings.low_delay, extra_surfaces: EXTRA_SURFACES, output_surfaces: OUTPUT_SURFACES };
        Ok(Self { gpu, nvdec, options, memory: settings.memory, settings: settings.gpu })
    }

    fn lane(&self, cx: &Context) -> Result<Lane, NodeError> {
        Ok(Lane { queue: Queue::new(&self.gpu, self.settings, cx)?, staging: Mutex::new(None) })
    }

    fn decoder(&self, codec: PacketCodec, mut sink: Sink<Picture>) -> Result<Stream, DecodeError> {
        let codec = match codec {
            PacketCodec::H264 => Codec::H264,
            PacketCodec::H265 => Codec::H265,
            other => {
                return Err(DecodeError::Hopeless(format!("{other} is not decoded here; H.264 or H.265 is expected")));
            }
        };
        let sink = Box::new(move |picture: Picture| sink(picture.timestamp(), picture));
        Session::new(self.nvdec, &self.gpu, codec, self.options, sink).map(Stream).map_err(said)
    }

    fn map(&self, lane: &Lane, picture: Picture) -> Result<(Mapped, Option<&'static str>), DecodeError> {
        let mapped = picture.map(lane.queue.stream()).map_err(said)?;
        let flaw = match mapped.status() {
            Status::Complete | Status::Unknown => None,
            Status::Concealed => Some("concealed_errors"),
            Status::Damaged => Some("decode_error"),
        };
        Ok((mapped, flaw))
    }

    fn publish(
        &self,
        lane: &Arc<Lane>,
        surface: Mapped,
        frame: &Frame<'_>,
        out: &mut Outputs,
    ) -> Result<(), NodeError> {
        let lost = |e: NvdecError| NodeError::frame("unreadable_surface", frame.camera, e);
        let planes = surface.planes().map_err(lost)?;
        let (desc, bytes) = described(&surface, frame);
        let item = Item::on_host(frame.camera, frame.seq, frame.timing(), Payload::Image(desc.clone()));
        let queue = &lane.queue;
        match self.memory {
            Memory::Cuda => {
                // a surface is dropped unread where no slot is free: nothing was queued on it but the driver's own step
                let Some(slot) = out.device_slot("frame", frame.camera, bytes, queue)? else { return Ok(()) };
                let copied = copy(queue, &planes, &desc, slot.span());
                // first of all: whatever was queued on the surface is done before it goes
                out.hold(surface, queue)?;
                copied.map_err(NodeError::fatal)?;
                out.publish_device(slot, item, queue)
            }
            Memory::Host => {
                let Some(mut slot) = out.slot("frame", frame.camera, bytes)? else { return Ok(()) };
                let mut staging = lane.staging.lock().unwrap_or_else(PoisonError::into_inner);
                if staging.as_ref().is_none_or(|memory| memory.span().bytes() < bytes) {
                    let what = format!("a frame of camera '{}' on its way to the host", frame.camera);
                    *staging = Some(DeviceMemory::allocate(&self.gpu, bytes, &what).map_err(NodeError::fatal)?);
                }
                let Some(memory) = staging.as_ref() else { return Ok(()) };
                let packed = memory.span().part(0, bytes);
                let to = &mut slot.bytes_mut()[..bytes as usize];
                let copied = copy(queue, &planes, &desc, packed).and_then(|()| queue.stream().download(packed, to));
                // nothing of the surface is read any more, however it went
                let done = queue.stream().synchronize();
                copied.and(done).map_err(NodeError::fatal)?;
                out.publish(slot, &item)
            }
        }
    }
}

/// What the frame is: the shown size as the decoder has it, the colour as the parameter sets have it.
fn described(surface: &Mapped, frame: &Frame<'_>) -> (ImageDesc, u64) {
    let format = surface.picture().format();
    let pixels = if format.bit_depth > 8 { PixelFormat::P016 } else { PixelFormat::Nv12 };
    let mut colour: Colour = frame.shown.info.colour;
    frame.settings.feed.override_colour(&mut colour);
    ImageDesc::packed(pixels, Size::new(format.width_px, format.height_px), colour, PITCH_ALIGN_BYTES)
}

fn copy(queue: &Queue, planes: &[MappedPlane; 2], desc: &ImageDesc, to: Span) -> Result<(), CudaError> {
    for (from, plane) in planes.iter().zip(&desc.planes) {
        let rows = Rows {
            row_bytes: from.row_bytes,
            rows: from.rows,
            from_pitch_bytes: from.pitch_bytes,
            to_pitch_bytes: plane.pitch_bytes.into(),
        };
        let to = to.part(plane.offset_bytes, to.bytes() - plane.offset_bytes);
        queue.stream().copy_rows(from.span, to, rows)?;
    }
    Ok(())
}

fn said(e: NvdecError) -> DecodeError {
    if e.is_unsupported() { DecodeError::Hopeless(e.to_string()) } else { DecodeError::Lost(e.to_string()) }
}

impl Decoder for Stream {
    fn feed(&mut self, unit: &AccessUnit, number: i64) -> Result<(), DecodeError> {
        if let Some(what) = refusal(unit) {
            return Err(DecodeError::Hopeless(what));
        }
        self.0.feed(&unit.data, number).map_err(said)
    }

    fn flush(&mut self) -> Result<(), DecodeError> {
        self.0.flush().map_err(said)
    }
}

/// What is known to be wrong before the GPU sees it. Depths are the GPU's to judge.
fn refusal(unit: &AccessUnit) -> Option<String> {
    let info = &unit.info;
    let what = match unit.unsupported {
        Some(what) if info.bit_depth == 8 => what,
        _ if info.slice_groups => "uses slice groups (FMO), which no NVIDIA decoder knows",
        _ => return None,
    };
    let codec = info.codec;
    Some(format!(
        "{codec} stream ({}, {}, {} bit) {what}; progressive 4:2:0 is expected: set the camera or transcode so; \
         sw-nv12 decodes slice groups",
        info.profile,
        info.display_size(),
        info.bit_depth
    ))
}
