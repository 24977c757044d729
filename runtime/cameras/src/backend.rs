//! What is asked of a kind of decoder: the GPU's, the software one, those of tests.

use crate::CameraSettings;
use millrace_frame::{Item, Payload, Timing};
use millrace_ingest::{AccessUnit, Decoded, Loss, Picture, SourceSettings, StreamInfo};
use millrace_node::{Context, NodeError, Outputs};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// The times and the stream of a picture that a decoder outputs.
#[derive(Clone, Debug)]
pub struct PictureInfo {
    /// Its times, as its access unit had them.
    pub timing: Timing,
    /// What the stream's parameter sets say.
    pub info: Arc<StreamInfo>,
}

/// What a decoder gives out.
pub enum Output<P> {
    /// A picture, in presentation order.
    Picture {
        /// Its times and its stream.
        picture_info: PictureInfo,
        /// Its pixels, or where they will be.
        picture: P,
    },
    /// Pictures that will not come out.
    Loss(Loss),
}

/// What the software decoder gives.
impl From<Decoded> for Output<Box<Picture>> {
    fn from(decoded: Decoded) -> Self {
        match decoded {
            Decoded::Loss(loss) => Self::Loss(loss),
            Decoded::Picture(picture) => {
                let picture_info = PictureInfo { timing: picture.timing, info: picture.info.clone() };
                Self::Picture { picture_info, picture }
            }
        }
    }
}

/// Takes what a decoder gives out.
pub type Sink<P> = Box<dyn FnMut(Output<P>) + Send>;

/// A stream's decoder. It is used by one thread.
pub trait Decoder: Send + 'static {
    /// Decodes a unit. The sink gets what comes of it from within this call. Whatever is lost is given out as a loss, and
    /// pictures go on at the next key picture.
    ///
    /// # Errors
    /// Why no picture of this stream can ever be decoded here.
    fn push(&mut self, unit: &AccessUnit) -> Result<(), String>;

    /// Gives the sink everything that is held back. A further unit begins a new stream.
    fn flush(&mut self);
}

/// A picture whose pixels cannot be had.
#[derive(Debug)]
pub struct Unmapped {
    /// The cause that it is counted under.
    pub cause: &'static str,
    /// What happened, for the log.
    pub detail: String,
}

/// A kind of decoder.
pub trait Backend: Sized + Send + Sync + 'static {
    /// The node's name.
    const NAME: &'static str;
    /// What the node does, in one line.
    const SUMMARY: &'static str;
    /// What its port `frame` carries.
    const FRAME_DOC: &'static str;
    /// What its port `packet` carries.
    const PACKET_DOC: &'static str;
    /// Decoded pictures of a camera that may wait until they are mapped.
    const DECODED: usize;
    /// Decoding happens in [`Decoder::push`], not in [`map`](Self::map).
    const DECODES_IN_PUSH: bool;
    /// Mapped pictures of a camera that may wait for the event loop.
    const MAPPED: usize;

    /// Its libraries open files, devices and programs that nobody can name in advance, so that its sandbox restricts system
    /// calls alone.
    const OPENS_DEVICES: bool = false;

    /// The node's settings.
    type Settings: AsRef<CameraSettings> + Clone + DeserializeOwned + JsonSchema + Send + 'static;
    /// A stream's decoder.
    type Decoder: Decoder;
    /// A picture that may still be in the making.
    type Picture: Send + 'static;
    /// A picture whose pixels are there.
    type Surface: Send + 'static;
    /// The resources that the pictures of a camera are mapped and published with, such as a stream of a GPU.
    type Workspace: Send + Sync + 'static;

    /// Makes it, before there is a camera.
    ///
    /// # Errors
    /// The node cannot work on this machine or with these settings.
    fn open(settings: &Self::Settings, cx: &Context) -> Result<Self, NodeError>;

    /// The workspace of a camera. Cameras may share one.
    ///
    /// # Errors
    /// Those of the device.
    fn workspace(&self, cx: &Context) -> Result<Arc<Self::Workspace>, NodeError>;

    /// A decoder for this camera's stream, whose codec the first unit names.
    ///
    /// # Errors
    /// Why there is none.
    fn decoder(&self, camera: &str, sink: Sink<Self::Picture>) -> Result<Self::Decoder, String>;

    /// Waits until a picture is decoded, and gives its pixels.
    ///
    /// # Errors
    /// The picture is lost.
    fn map(&self, workspace: &Self::Workspace, picture: Self::Picture) -> Result<Self::Surface, Unmapped>;

    /// Publishes a picture on the port `frame`.
    ///
    /// # Errors
    /// As [`Outputs::slot`]; a fault of the picture loses the picture alone.
    fn publish(
        &self,
        workspace: &Arc<Self::Workspace>,
        surface: Self::Surface,
        frame: &Frame<'_>,
        out: &mut Outputs,
    ) -> Result<(), NodeError>;

    /// Takes over settings that changed while the node runs; the cameras are not its business.
    ///
    /// # Errors
    /// Why it cannot; nothing has changed then.
    fn change(&self, settings: &Self::Settings, cx: &Context) -> Result<(), String> {
        let _ = (settings, cx);
        Ok(())
    }
}

/// What the node knows of a frame that is published.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The camera's id.
    pub camera: &'a str,
    /// The frame's number.
    pub seq: u64,
    /// What the decoder knows of it.
    pub picture_info: &'a PictureInfo,
    /// What the user says of the camera.
    pub source_settings: &'a SourceSettings,
}

impl Frame<'_> {
    /// The frame's description around this payload.
    pub fn item(&self, payload: Payload) -> Item {
        Item::on_host(self.camera, self.seq, self.picture_info.timing, payload)
    }
}
