//! What the node asks of a decoder. The GPU's is [`cuda`](crate::cuda); the tests have one that needs none.

use crate::config::Settings;
use millrace_frame::{PacketCodec, Timing};
use millrace_ingest::{AccessUnit, Shown};
use millrace_node::{Context, NodeError, Outputs};
use std::sync::Arc;

/// Why a decoder gave no picture.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// It never will for this stream: the camera ends.
    Hopeless(String),
    /// It may from the next key picture on.
    Lost(String),
}

/// Takes pictures in presentation order, with the number of their unit.
pub(crate) type Sink<P> = Box<dyn FnMut(i64, P) + Send>;

/// A kind of decoder.
pub(crate) trait Backend: Sized + Send + Sync + 'static {
    /// A stream's parser and decoder, on the thread that feeds it.
    type Decoder: Decoder + Send + 'static;
    /// A picture that may still be being decoded.
    type Picture: Send + 'static;
    /// Its pixels.
    type Surface: Send + 'static;
    /// What a camera works with.
    type Lane: Send + Sync + 'static;

    fn open(settings: &Settings, cx: &Context) -> Result<Self, NodeError>;
    /// What a camera works with; cameras may share one.
    fn lane(&self, cx: &Context) -> Result<Arc<Self::Lane>, NodeError>;
    fn decoder(&self, codec: PacketCodec, sink: Sink<Self::Picture>) -> Result<Self::Decoder, DecodeError>;
    /// Waits until the picture is decoded; gives its pixels, and what went wrong with them if anything did.
    fn map(
        &self,
        lane: &Self::Lane,
        picture: Self::Picture,
    ) -> Result<(Self::Surface, Option<&'static str>), DecodeError>;
    fn publish(
        &self,
        lane: &Arc<Self::Lane>,
        surface: Self::Surface,
        frame: &Frame<'_>,
        out: &mut Outputs,
    ) -> Result<(), NodeError>;
}

/// What the node knows of a frame that it publishes.
pub(crate) struct Frame<'a> {
    pub(crate) camera: &'a str,
    pub(crate) seq: u64,
    pub(crate) shown: &'a Shown,
    pub(crate) settings: &'a Settings,
}

impl Frame<'_> {
    pub(crate) fn timing(&self) -> Timing {
        self.shown.timing
    }
}

pub(crate) trait Decoder {
    /// Decodes a unit. The sink gets what comes out, from within this call.
    fn feed(&mut self, unit: &AccessUnit, number: i64) -> Result<(), DecodeError>;
    /// Gives the sink everything that is held back; a further unit begins a stream anew.
    fn flush(&mut self) -> Result<(), DecodeError>;
}
