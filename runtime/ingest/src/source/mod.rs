//! Where access units come from.

mod ahead;
mod annexb;
mod mkv;
mod mp4;
mod probe;
mod rtsp;
mod split;
mod ts;
mod url;

use crate::syntax::ParsedUnit;
use crate::{Counted, IngestError, Loss, Options, SourceState};
use millrace_frame::{Timebase, Timing};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use url::is_rtsp as is_rtsp_url;
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
    /// The connection has ended or stalled, or a file goes on at another place: the decoder gives out what it holds, before
    /// anything that follows.
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

/// Whether `source` is an RTSP URL rather than a path.
pub(crate) fn is_rtsp(source: &OsStr) -> bool {
    source.to_str().is_some_and(is_rtsp_url)
}

/// Opens what `source` names: an `rtsp://` URL, else a file, whose kind its first bytes decide.
pub(crate) fn open(source: &OsStr, options: &Options) -> Result<Box<dyn Source>, IngestError> {
    if let Some(url) = source.to_str().filter(|text| is_rtsp_url(text)) {
        return Ok(Box::new(rtsp::Rtsp::open(url, options)?));
    }
    let path = Path::new(source);
    let mut file = probe::open(path)?;
    Ok(match probe::probe(&mut file, path)? {
        probe::Kind::Mp4 => Box::new(mp4::Mp4::open(file, path)?),
        probe::Kind::Matroska => Box::new(mkv::Mkv::open(file, path)?),
        probe::Kind::Ts(layout) => Box::new(ts::Ts::open(file, path, layout)?),
        probe::Kind::AnnexB(codec) => Box::new(annexb::AnnexB::new(file, path, codec)),
    })
}
