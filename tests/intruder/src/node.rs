//! The node: as `sw-nv12`, but for what its decoder does at the first picture.

use crate::attempts;
use millrace_cameras::{Backend, CameraSettings, Decode, Decoder, Frame, Sink, Unmapped};
use millrace_frame::Payload;
use millrace_ingest::{AccessUnit, Picture, ReorderPolicy, SoftwareDecoder};
use millrace_node::{Context, NodeError, Outputs};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;

/// `intruder`.
pub(crate) type Intruder = Decode<TakenOver>;

/// Settings of `intruder`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) struct Settings {
    #[serde(flatten)]
    cameras: CameraSettings,
    /// A port of this machine that no camera has.
    port: u16,
}

impl AsRef<CameraSettings> for Settings {
    fn as_ref(&self) -> &CameraSettings {
        &self.cameras
    }
}

pub(crate) struct TakenOver {
    cx: Context,
    port: u16,
    source: String,
}

pub(crate) struct Stream {
    inner: SoftwareDecoder,
    sink: Sink<Box<Picture>>,
    /// Until the first picture.
    plan: Option<(Context, u16, String)>,
}

impl Stream {
    fn give_out(&mut self) {
        while let Some(decoded) = self.inner.take() {
            (self.sink)(decoded.into());
        }
    }
}

impl Decoder for Stream {
    fn push(&mut self, unit: &AccessUnit) -> Result<(), String> {
        if let Some((cx, port, source)) = self.plan.take() {
            for (what, outcome) in attempts::all(port, &source) {
                cx.note(format!("attempt to {what}: {outcome};"));
            }
        }
        let pushed = self.inner.push(unit).map_err(|e| e.to_string());
        self.give_out();
        pushed
    }

    fn flush(&mut self) {
        self.inner.flush();
        self.give_out();
    }
}

impl Backend for TakenOver {
    const NAME: &'static str = "intruder";
    const SUMMARY: &'static str = "a decoder that its first picture takes over, for tests";
    const FRAME_DOC: &'static str = "nv12 in host memory";
    const PACKET_DOC: &'static str = "the encoded pictures";
    const DECODED: usize = 4;
    const MAPPED: usize = 4;
    const DECODES_IN_PUSH: bool = true;
    type Settings = Settings;
    type Decoder = Stream;
    type Picture = Box<Picture>;
    type Surface = Box<Picture>;
    type Workspace = ();

    fn open(settings: &Settings, cx: &Context) -> Result<Self, NodeError> {
        let source = settings.cameras.source.clone().unwrap_or_default();
        Ok(Self { cx: cx.clone(), port: settings.port, source })
    }

    fn workspace(&self, _: &Context) -> Result<Arc<()>, NodeError> {
        Ok(Arc::new(()))
    }

    fn decoder(&self, _: &str, sink: Sink<Box<Picture>>) -> Result<Stream, String> {
        let plan = Some((self.cx.clone(), self.port, self.source.clone()));
        Ok(Stream { inner: SoftwareDecoder::new(ReorderPolicy::Lossless), sink, plan })
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
        let (desc, bytes) = picture.info.nv12(64);
        let Some(mut slot) = out.slot("frame", frame.camera, bytes)? else { return Ok(()) };
        picture.write_nv12(&desc, slot.bytes_mut()).map_err(NodeError::fatal)?;
        out.publish(slot, &frame.item(Payload::Image(desc)))?;
        // the first may come before its consumer's bell
        if frame.seq == 20 && self.cx.metrics().counted("doorbells", frame.camera) < 10 {
            self.cx.note("woke its consumers by itself".to_owned());
        }
        Ok(())
    }
}
