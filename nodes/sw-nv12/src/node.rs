//! The node: a source in, NV12 frames and encoded packets out.

use crate::config::Settings;
use crate::feed::{Feed, Step};
use millrace_frame::{ImageDesc, Item, PacketDesc, Payload, PayloadKind, PixelFormat};
use millrace_ingest::{AccessUnit, FrameFormat, Loss, Picture, ReorderPolicy, redact_url};
use millrace_node::{Context, Flow, Input, Metrics, Node, NodeError, Outputs, PortOut, Ports, Progress};
use std::collections::BTreeSet;
use std::time::Instant;

/// Rows begin at multiples of this: a cache line, and what vector code likes.
const PITCH_ALIGN_BYTES: u32 = 64;

/// `sw-nv12`.
pub(crate) struct SwNv12 {
    feed: Feed,
    settings: Settings,
    camera: String,
    metrics: Metrics,
    frames: u64,
    packets: u64,
    told: BTreeSet<&'static str>,
}

impl Node for SwNv12 {
    const NAME: &'static str = "sw-nv12";
    const SUMMARY: &'static str = "decodes H.264 and H.265 from files and cameras to NV12, on the CPU";
    const PORTS: Ports = Ports {
        inputs: &[],
        outputs: &[
            PortOut {
                name: "frame",
                carries: PayloadKind::Image,
                doc: "nv12 (or bgr24, by FORMAT) in host memory, what is shown of each picture, in presentation order",
            },
            PortOut {
                name: "packet",
                carries: PayloadKind::Packet,
                doc: "the encoded pictures as Annex-B, in decoding order; pts as of the frame",
            },
        ],
    };
    type Settings = Settings;

    fn open(settings: Settings, cx: &Context) -> Result<Self, NodeError> {
        let policy = match cx.flow() {
            Flow::Live => ReorderPolicy::Live,
            Flow::Lossless => ReorderPolicy::Lossless,
        };
        let feed = Feed::open(&settings, policy).map_err(NodeError::fatal)?;
        let camera = settings.camera.clone().unwrap_or_else(|| cx.node_id().to_owned());
        tracing::info!(source = redact_url(&settings.source), camera, "opened");
        let metrics = cx.metrics().clone();
        Ok(Self { feed, settings, camera, metrics, frames: 0, packets: 0, told: BTreeSet::new() })
    }

    fn on_input(&mut self, port: &str, _: Input, _: &mut Outputs) -> Result<(), NodeError> {
        Err(NodeError::fatal(format!("'{port}' is no input: this node is a source")))
    }

    fn produce(&mut self, out: &mut Outputs) -> Result<Progress, NodeError> {
        if self.settings.feed.frames.is_some_and(|limit| self.frames >= limit) {
            return Ok(Progress::End);
        }
        let began = Instant::now();
        match self.feed.step().map_err(NodeError::fatal)? {
            Step::Packet(unit) => self.packet(&unit, out)?,
            Step::Picture(picture) => {
                self.metrics.observe_ns("decode", &self.camera, began.elapsed().as_nanos() as u64);
                self.picture(&picture, out)?;
            }
            Step::Loss(loss) => self.lose(&loss),
            Step::Wait(wait) => return Ok(Progress::Idle(wait)),
            Step::End => return Ok(Progress::End),
        }
        Ok(Progress::Busy)
    }
}

impl SwNv12 {
    fn picture(&mut self, picture: &Picture, out: &mut Outputs) -> Result<(), NodeError> {
        let seq = self.frames;
        self.frames += 1;
        if !out.connected("frame") {
            return Ok(());
        }
        let (mut desc, mut bytes) = picture.info.nv12(PITCH_ALIGN_BYTES);
        self.settings.feed.override_colour(&mut desc.colour);
        // the decoder's own picture has as many samples as nv12 has
        self.metrics.moved(&self.camera, desc.bytes());
        if self.settings.feed.format == FrameFormat::Bgr24 {
            (desc, bytes) = ImageDesc::packed(PixelFormat::Bgr24, desc.coded, desc.colour, PITCH_ALIGN_BYTES);
        }
        let Some(mut slot) = out.slot("frame", &self.camera, bytes)? else { return Ok(()) };
        let began = Instant::now();
        match self.settings.feed.format {
            FrameFormat::Nv12 => picture.write_nv12(&desc, slot.bytes_mut()).map_err(NodeError::fatal)?,
            FrameFormat::Bgr24 => picture.write_bgr24(&desc, slot.bytes_mut()).map_err(NodeError::fatal)?,
        }
        self.metrics.observe_ns("write_frame", &self.camera, began.elapsed().as_nanos() as u64);
        out.publish(slot, &Item::on_host(self.camera.as_str(), seq, picture.timing, Payload::Image(desc)))
    }

    fn packet(&mut self, unit: &AccessUnit, out: &mut Outputs) -> Result<(), NodeError> {
        let seq = self.packets;
        self.packets += 1;
        if !out.connected("packet") {
            return Ok(());
        }
        let Ok(len_bytes) = u32::try_from(unit.data.len()) else { return Ok(()) };
        let Some(mut slot) = out.slot("packet", &self.camera, u64::from(len_bytes))? else { return Ok(()) };
        slot.bytes_mut()[..unit.data.len()].copy_from_slice(&unit.data);
        let desc = PacketDesc { codec: unit.info.codec, key: unit.key, len_bytes, display: unit.info.display_size() };
        out.publish(slot, &Item::on_host(self.camera.as_str(), seq, unit.timing, Payload::Packet(desc)))
    }

    fn lose(&mut self, loss: &Loss) {
        self.metrics.drop(loss.cause, &self.camera, loss.count);
        // the counter tells how often; the log tells once what it looks like
        if self.told.insert(loss.cause) {
            tracing::warn!(camera = self.camera, cause = loss.cause, count = loss.count, "{}", loss.detail);
        } else {
            tracing::debug!(camera = self.camera, cause = loss.cause, count = loss.count, "{}", loss.detail);
        }
    }
}
