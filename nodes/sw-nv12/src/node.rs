//! The software decoder, and frames in host memory.

use crate::config::Settings;
use millrace_cameras::{Backend, Decode, Decoder, Frame, Sink, Unmapped};
use millrace_frame::{ImageDesc, Payload, PixelFormat};
use millrace_ingest::{AccessUnit, FrameFormat, Picture, ReorderPolicy, SoftwareDecoder};
use millrace_node::{Context, Flow, Metrics, NodeError, Outputs};
use std::sync::Arc;
use std::time::Instant;

/// Rows begin at multiples of this: a cache line, and what vector code likes.
const PITCH_ALIGN_BYTES: u32 = 64;

/// `sw-nv12`.
pub(crate) type SwNv12 = Decode<Software>;

pub(crate) struct Software {
    metrics: Metrics,
    order: ReorderPolicy,
}

/// A stream's decoder.
pub(crate) struct Stream {
    decoder: SoftwareDecoder,
    sink: Sink<Box<Picture>>,
}

impl Stream {
    fn give_out(&mut self) {
        while let Some(decoded) = self.decoder.take() {
            (self.sink)(decoded.into());
        }
    }
}

impl Decoder for Stream {
    fn push(&mut self, unit: &AccessUnit) -> Result<(), String> {
        let pushed = self.decoder.push(unit).map_err(|e| e.to_string());
        self.give_out();
        pushed
    }

    fn flush(&mut self) {
        self.decoder.flush();
        self.give_out();
    }
}

impl Backend for Software {
    const NAME: &'static str = "sw-nv12";
    const SUMMARY: &'static str = "decodes H.264 and H.265 from files and cameras to NV12, on the CPU";
    const FRAME_DOC: &'static str = "nv12 (or bgr24, by FORMAT) in host memory, what is shown of each picture, in presentation order of each camera";
    const PACKET_DOC: &'static str =
        "the encoded pictures as Annex-B, in decoding order of each camera; pts as of the frame";
    // each is a whole picture in memory
    const DECODED: usize = 4;
    const MAPPED: usize = 4;
    const DECODES_IN_PUSH: bool = true;

    type Settings = Settings;
    type Decoder = Stream;
    type Picture = Box<Picture>;
    type Surface = Box<Picture>;
    type Workspace = ();

    fn open(_: &Settings, cx: &Context) -> Result<Self, NodeError> {
        let order = match cx.flow() {
            Flow::Live => ReorderPolicy::Live,
            Flow::Lossless => ReorderPolicy::Lossless,
        };
        Ok(Self { metrics: cx.metrics().clone(), order })
    }

    fn workspace(&self, _: &Context) -> Result<Arc<()>, NodeError> {
        Ok(Arc::new(()))
    }

    fn decoder(&self, _: &str, sink: Sink<Box<Picture>>) -> Result<Stream, String> {
        Ok(Stream { decoder: SoftwareDecoder::new(self.order), sink })
    }

    fn map(&self, (): &(), picture: Box<Picture>) -> Result<Box<Picture>, Unmapped> {
        Ok(picture)
    }

    fn publish(
        &self,
        _: &Arc<()>,
        picture: Box<Picture>,
        frame: &Frame<'_>,
        out: &mut Outputs,
    ) -> Result<(), NodeError> {
        let unwritable = |e| NodeError::frame("unwritable", frame.camera, e);
        let (mut desc, mut bytes) = picture.info.nv12(PITCH_ALIGN_BYTES);
        frame.source_settings.override_colour(&mut desc.colour);
        // the decoder's own picture has as many samples as nv12 has
        self.metrics.moved(frame.camera, desc.bytes());
        if frame.source_settings.format == FrameFormat::Bgr24 {
            (desc, bytes) = ImageDesc::packed(PixelFormat::Bgr24, desc.coded, desc.colour, PITCH_ALIGN_BYTES);
        }
        let Some(mut slot) = out.slot("frame", frame.camera, bytes)? else { return Ok(()) };
        let began = Instant::now();
        match frame.source_settings.format {
            FrameFormat::Nv12 => picture.write_nv12(&desc, slot.bytes_mut()).map_err(unwritable)?,
            FrameFormat::Bgr24 => picture.write_bgr24(&desc, slot.bytes_mut()).map_err(unwritable)?,
        }
        self.metrics.observe_ns("write_frame", frame.camera, began.elapsed().as_nanos() as u64);
        out.publish(slot, &frame.item(Payload::Image(desc)))
    }
}
