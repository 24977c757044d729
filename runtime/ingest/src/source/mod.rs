//! Where access units come from.

mod address;
mod ahead;
mod annexb;
mod avi;
mod growing;
mod http;
mod in_order;
mod jpegs;
mod mkv;
mod mp4;
mod network;
mod pictures;
mod probe;
mod queue;
mod rtsp;
mod split;
mod ts;
mod url;

#[cfg(fuzzing)]
pub use rtsp::fuzzing;

use crate::syntax::ParsedUnit;
use crate::{Counted, IngestError, IngestOptions, Loss, SourceState};
use in_order::InOrder;
use millrace_frame::{Orientation, Timebase, Timing};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

pub use url::{check_source, is_camera_url, redact_url};

/// What to do about pictures that are turned in a way that is not known here.
const ORIENTATION_FIX: &str =
    "say by ORIENTATION how they are shown: none, 90, 180, 270, mirror, mirror_90, mirror_180 or mirror_270";

/// When a picture is shown and for how long, by its container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub pts_ns: i64,
    /// Decoding time; for a live source, where there is none, the presentation time.
    pub dts_ns: i64,
    pub duration_ns: i64,
    pub timebase: Timebase,
    /// The presentation time as the container has it, before its edit list.
    pub stated: i64,
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
    /// The last picture is shown for so long once more, of a container that has no times.
    Repeated,
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

    /// How long a picture is shown, of a container that has no times; nothing where it does not say so.
    fn frame_rate(&self) -> Option<Timebase> {
        None
    }

    /// What has to be done to its pictures so that they are upright, by the container's word.
    ///
    /// # Errors
    /// The container says something that cannot be done here.
    fn orientation(&self) -> Result<Orientation, IngestError> {
        Ok(Orientation::Upright)
    }

    /// Ends the source, and gives what had arrived and was not fetched. A file's pictures arrive when they are fetched.
    fn close(&mut self) -> Vec<SourceEvent> {
        Vec::new()
    }
}

/// Whether `source` is a camera's URL rather than a path.
pub(crate) fn is_camera(source: &OsStr) -> bool {
    source.to_str().is_some_and(is_camera_url)
}

/// Opens what `source` names: an `rtsp://` or `http://` URL, else a folder of pictures, or a file, whose kind its first bytes
/// decide.
pub(crate) fn open(source: &OsStr, options: &IngestOptions) -> Result<Box<dyn Source>, IngestError> {
    match source.to_str() {
        Some(url) if url::is_rtsp(url) => return Ok(Box::new(rtsp::Rtsp::open(url, options)?)),
        Some(url) if url::is_http(url) => return Ok(Box::new(http::Http::open(url, options)?)),
        Some(text) => {
            if let Some(scheme) = url::strange_scheme(text) {
                let (url, reason) = (format!("{scheme}://…"), "this kind of address is not read".to_owned());
                return Err(IngestError::Camera { url, reason, fix: url::SERVE });
            }
        }
        None => {}
    }
    let path = Path::new(source);
    // the user's word comes first
    let by_exif = options.orientation.is_none();
    if path.is_dir() {
        return Ok(Box::new(pictures::Pictures::folder(path, by_exif)?));
    }
    let mut file = probe::open(path)?;
    let kind = probe::probe(&mut file, path)?;
    let growing = growing::Growing::open(file, path, |file| {
        Ok(match kind {
            probe::Kind::Mp4 => Box::new(InOrder::new(mp4::Mp4::open(file, path)?)),
            probe::Kind::Matroska => Box::new(InOrder::new(mkv::Mkv::open(file, path)?)),
            probe::Kind::Ts(layout) => Box::new(InOrder::new(ts::Ts::open(file, path, layout)?)),
            probe::Kind::Avi => Box::new(avi::Avi::open(file, path)?),
            probe::Kind::Jpeg => Box::new(jpegs::JpegFile::new(file, path, by_exif)),
            probe::Kind::Png => Box::new(pictures::Pictures::of(vec![path.into()], by_exif)),
            probe::Kind::AnnexB(codec) => Box::new(annexb::AnnexB::new(file, path, codec)),
        })
    })?;
    Ok(Box::new(growing))
}
