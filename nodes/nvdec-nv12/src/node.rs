//! The GPU's decoder, and frames in its memory.

use crate::admitted::{DecodeError, Given, NumberedSink, Parser, Stream};
use crate::config::{Memory, Settings, Streams};
use crate::surface::Writer;
use millrace_cameras::{Backend, Decode, Frame, Sink, Unmapped};
use millrace_cuda::nvdec::{
    Codec, DecodeStatus, Mapped, Nvdec, NvdecError, Picture, PictureOrder, Session, SessionOptions,
};
use millrace_cuda::{DeviceMemory, Gpu};
use millrace_frame::{Orientation, PacketCodec, Payload};
use millrace_ingest::AccessUnit;
use millrace_node::{Context, Flow, GpuSettings, Metrics, NodeError, Outputs, Queue, StopFlag};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Pictures of a camera that wait for the loop or for their copy, beyond what its stream needs.
const EXTRA_SURFACES: u32 = 6;
const OUTPUT_SURFACES: u32 = 3;

/// `nvdec-nv12`.
pub(crate) type NvdecNv12 = Decode<Cuda>;

pub(crate) struct Cuda {
    gpu: Gpu,
    nvdec: Nvdec,
    options: SessionOptions,
    memory: Memory,
    settings: GpuSettings,
    writer: Writer,
    metrics: Metrics,
    stop: StopFlag,
    /// The workspace of all cameras, with `STREAMS: one`.
    shared_workspace: Option<OnceLock<Arc<Workspace>>>,
}

/// A stream of GPU work, and the buffer for frames that are copied to host memory.
pub(crate) struct Workspace {
    queue: Queue,
    /// Where frames on the way to host memory are packed.
    staging: Mutex<Option<DeviceMemory>>,
}

pub(crate) struct Nvidia {
    /// `None` only while this is dropped.
    session: Option<Session>,
    /// Its frames can be turned.
    turns: bool,
    stop: StopFlag,
}

impl Drop for Nvidia {
    /// The driver destroys one decoder after the other, 26 ms each on an H200: 140 cameras would take 3.6 s. A process that
    /// ends leaves that to the kernel.
    fn drop(&mut self) {
        match self.session.take() {
            Some(session) if self.stop.is_set() => session.leave(),
            _ => {}
        }
    }
}

impl Backend for Cuda {
    const NAME: &'static str = "nvdec-nv12";
    const SUMMARY: &'static str = "decodes H.264 and H.265 of many cameras to NV12 or P016, on an NVIDIA GPU";
    const FRAME_DOC: &'static str = "nv12, or p016 for more than 8 bits, in the GPU's memory; what is shown of each \
                                     picture, in presentation order of each camera";
    const PACKET_DOC: &'static str =
        "the encoded pictures as Annex-B in host memory, in decoding order of each camera; pts as of the frame";
    // more pictures than a decoder can hold
    const DECODED: usize = 64;
    // with the one that is copied, as many as there are output surfaces
    const MAPPED: usize = OUTPUT_SURFACES as usize - 1;
    const DECODES_IN_PUSH: bool = false;
    const OPENS_DEVICES: bool = true;

    type Settings = Settings;
    type Decoder = Stream<Nvidia>;
    type Picture = Picture;
    type Surface = Mapped;
    type Workspace = Workspace;

    fn open(settings: &Settings, cx: &Context) -> Result<Self, NodeError> {
        let gpu = Gpu::open(settings.device).map_err(NodeError::fatal)?;
        let nvdec = Nvdec::open().map_err(NodeError::fatal)?;
        tracing::info!(device = gpu.ordinal(), gpu = gpu.name(), "decodes");
        let live = cx.flow() == Flow::Live;
        let low_delay = settings.low_delay.unwrap_or(live);
        let options = SessionOptions {
            low_delay,
            // the parser holds back a whole picture buffer where a stream states no bound on reordering
            order: if live && low_delay { PictureOrder::Decoding } else { PictureOrder::Presentation },
            extra_surfaces: EXTRA_SURFACES,
            output_surfaces: OUTPUT_SURFACES,
        };
        if settings.memory == Memory::Cuda {
            cx.frames_are_on(&gpu);
        }
        let writer = Writer::new(&gpu, settings.cameras.source_settings.format)?;
        let shared_workspace = (settings.streams == Streams::One).then(OnceLock::new);
        let (memory, settings, metrics) = (settings.memory, settings.gpu, cx.metrics().clone());
        Ok(Self { gpu, nvdec, options, memory, settings, writer, metrics, stop: cx.stopping(), shared_workspace })
    }

    fn workspace(&self, cx: &Context) -> Result<Arc<Workspace>, NodeError> {
        if let Some(workspace) = self.shared_workspace.as_ref().and_then(OnceLock::get) {
            return Ok(workspace.clone());
        }
        let workspace =
            Arc::new(Workspace { queue: Queue::new(&self.gpu, self.settings, cx)?, staging: Mutex::new(None) });
        Ok(self.shared_workspace.as_ref().map_or(workspace.clone(), |shared| shared.get_or_init(|| workspace).clone()))
    }

    fn decoder(&self, _: &str, sink: Sink<Picture>) -> Result<Stream<Nvidia>, String> {
        let (gpu, nvdec, options, stop) = (self.gpu.clone(), self.nvdec, self.options, self.stop.clone());
        let turns = self.writer.turns();
        let make = move |codec, mut sink: NumberedSink<Picture>| {
            let codec = match codec {
                PacketCodec::H264 => Codec::H264,
                PacketCodec::H265 => Codec::H265,
                other => {
                    let what =
                        format!("{other} is not decoded on the GPU here; H.264 or H.265 is expected, or sw-nv12");
                    return Err(DecodeError::Hopeless(what));
                }
            };
            let sink = Box::new(move |picture: Picture| sink(picture.timestamp(), picture));
            let session = Session::new(nvdec, &gpu, codec, options, sink).map_err(classified)?;
            Ok(Nvidia { session: Some(session), turns, stop: stop.clone() })
        };
        let given = match options.order {
            PictureOrder::Presentation => Given::InOrder,
            PictureOrder::Decoding => Given::Decoded,
        };
        Ok(Stream::new(Box::new(make), given, sink))
    }

    fn map(&self, workspace: &Workspace, picture: Picture) -> Result<Mapped, Unmapped> {
        let lost = |e: NvdecError| Unmapped { cause: "decode_error", detail: e.to_string() };
        let mapped = picture.map(workspace.queue.stream()).map_err(lost)?;
        let cause = match mapped.status() {
            DecodeStatus::Complete | DecodeStatus::Unknown => return Ok(mapped),
            DecodeStatus::Concealed => "concealed_errors",
            DecodeStatus::Damaged => "decode_error",
        };
        Err(Unmapped { cause, detail: "the GPU met errors in the picture's bitstream".to_owned() })
    }

    fn change(&self, settings: &Settings, cx: &Context) -> Result<(), String> {
        cx.set_sync(settings.gpu.sync);
        Ok(())
    }

    fn publish(
        &self,
        workspace: &Arc<Workspace>,
        mut surface: Mapped,
        frame: &Frame<'_>,
        out: &mut Outputs,
    ) -> Result<(), NodeError> {
        let shown = frame.picture_info.info.display;
        surface
            .show(shown.x_px, shown.y_px, shown.width_px, shown.height_px)
            .map_err(|e| NodeError::frame("unreadable_surface", frame.camera, e))?;
        let (desc, bytes) = self.writer.described(&surface, frame);
        let item = frame.item(Payload::Image(desc.clone()));
        let queue = &workspace.queue;
        match self.memory {
            Memory::Cuda => {
                // a surface is dropped unread where no slot is free: nothing was queued on it but the driver's own step
                let Some(slot) = out.device_slot("frame", frame.camera, bytes, queue)? else { return Ok(()) };
                let read = self.writer.write(queue, &surface, frame, &desc, slot.span());
                // first of all: whatever was queued on the surface is done before it goes
                out.hold(surface, queue)?;
                self.metrics.moved(frame.camera, read?);
                out.publish_device(slot, item, queue)
            }
            Memory::Host => {
                let Some(mut slot) = out.slot("frame", frame.camera, bytes)? else { return Ok(()) };
                let mut staging = workspace.staging.lock().unwrap_or_else(PoisonError::into_inner);
                if staging.as_ref().is_none_or(|memory| memory.span().bytes() < bytes) {
                    let what = format!("a frame of camera '{}' on its way to the host", frame.camera);
                    *staging = Some(DeviceMemory::allocate(&self.gpu, bytes, &what).map_err(NodeError::fatal)?);
                }
                let Some(memory) = staging.as_ref() else { return Ok(()) };
                let packed = memory.span().part(0, bytes);
                let to = &mut slot.bytes_mut()[..bytes as usize];
                let read = self.writer.write(queue, &surface, frame, &desc, packed);
                let copied = queue.stream().download(packed, to);
                // nothing of the surface is read any more, however it went
                let done = queue.stream().synchronize();
                copied.and(done).map_err(NodeError::fatal)?;
                // into the staging memory, and out of it
                self.metrics.moved(frame.camera, read? + 2 * desc.bytes());
                out.publish(slot, &item)
            }
        }
    }
}

fn classified(e: NvdecError) -> DecodeError {
    if e.is_unsupported() { DecodeError::Hopeless(e.to_string()) } else { DecodeError::Lost(e.to_string()) }
}

impl Parser for Nvidia {
    type Picture = Picture;

    fn feed(&mut self, unit: &AccessUnit, number: i64) -> Result<(), DecodeError> {
        if let Some(what) = refusal(unit, self.turns) {
            return Err(DecodeError::Hopeless(what));
        }
        self.session
            .as_mut()
            .map_or(Ok(()), |session| session.feed(&unit.data, number, unit.timing.pts_ns))
            .map_err(classified)
    }

    fn flush(&mut self) -> Result<(), DecodeError> {
        self.session.as_mut().map_or(Ok(()), Session::flush).map_err(classified)
    }
}

/// What is known to be wrong before the GPU sees it, where frames can be turned, or cannot. Depths are the GPU's to judge.
pub(crate) fn refusal(unit: &AccessUnit, turns: bool) -> Option<String> {
    let info = &unit.info;
    if info.orientation != Orientation::Upright && !turns {
        return Some(format!(
            "its pictures are stored turned or mirrored (to be shown by '{}'), which the conversion to BGR24 does not undo; \
             set FORMAT: nv12, or ORIENTATION: none to have them as they are stored",
            info.orientation
        ));
    }
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
