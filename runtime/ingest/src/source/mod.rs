//! Where access units come from.

mod annexb;
mod mp4;
mod mp4_boxes;
mod mp4_order;
mod probe;
mod rtsp;
mod url;

use crate::syntax::ParsedUnit;
use crate::{Counted, IngestError, Loss, Options, SourceState};
use millrace_frame::{Timebase, Timing};
use std::path::Path;
use std::time::Duration;

pub(crate) use url::is_rtsp;
pub use url::{check_source, redact_url};

/// When a picture is shown and for how long, by its container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub pts_ns: i64,
    /// Decoding time; for a live source, where there is none, the presentation time.
    pub dts_ns: i64,
    pub duration_ns: i64,
    pub timebase: Timebase,
    /// False where an edit list leaves the picture out of the presentation.
    pub shown: bool,
}

pub(crate) enum SourceEvent {
    /// `times` is `None` where the container has none. `after_loss`: the source knows that something before it is missing.
    Unit {
        unit: ParsedUnit,
        times: Option<Times>,
        after_loss: bool,
    },
    /// A picture of a live source, with the times that it came with.
    Arrived {
        unit: ParsedUnit,
        timing: Timing,
        after_loss: bool,
    },
    Loss(Loss),
    Counted(Counted),
    State(SourceState),
    /// The connection has ended or stalled: the decoder gives out what it holds, before anything that follows.
    Flush,
    /// Nothing now; ask again after this long.
    Wait(Duration),
    End,
}

pub(crate) trait Source: Send {
    fn next(&mut self) -> Result<SourceEvent, IngestError>;

    /// The earliest time at which a picture behind the last unit is shown; nothing where the source does not know it.
    fn earliest_next_pts_ns(&self) -> Option<i64> {
        None
    }

    /// Ends the source, and gives what had arrived and was not fetched. A file's pictures arrive when they are fetched.
    fn close(&mut self) -> Vec<SourceEvent> {
        Vec::new()
    }
}

/// Opens what `source` names: an `rtsp://` URL, else a file, whose kind its first bytes decide.
pub(crate) fn open(source: &str, options: &Options) -> Result<Box<dyn Source>, IngestError> {
    if is_rtsp(source) {
        return Ok(Box::new(rtsp::Rtsp::open(source, options)?));
    }
    let path = Path::new(source);
    let mut file = std::fs::File::open(path).map_err(|cause| IngestError::Open { path: path.into(), cause })?;
    Ok(match probe::probe(&mut file, path)? {
        probe::Kind::Mp4 => Box::new(mp4::Mp4::open(file, path)?),
        probe::Kind::AnnexB(codec) => Box::new(annexb::AnnexB::new(file, path, codec)),
    })
}
