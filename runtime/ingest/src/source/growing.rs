//! A file that is still written while it is read.

use super::{Source, SourceEvent};
use crate::{Counted, IngestError};
use millrace_frame::{Orientation, Timebase};
use std::fs::File;
use std::path::{Path, PathBuf};

/// What was in a file is given out as ever. Where the file has grown meanwhile, a counter says so at its end: there is more
/// in it than was read, or will be.
pub(super) struct Growing {
    source: Box<dyn Source>,
    /// Another handle of the file that is read: what its name means may have changed.
    file: File,
    path: PathBuf,
    opened_bytes: u64,
    is_told: bool,
}

impl Growing {
    /// `open` reads the file.
    pub(super) fn open(
        file: File,
        path: &Path,
        open: impl FnOnce(File) -> Result<Box<dyn Source>, IngestError>,
    ) -> Result<Self, IngestError> {
        let facts = file.metadata().and_then(|metadata| Ok((metadata.len(), file.try_clone()?)));
        let (opened_bytes, same) = facts.map_err(|cause| IngestError::Open { path: path.into(), cause })?;
        Ok(Self { source: open(file)?, file: same, path: path.into(), opened_bytes, is_told: false })
    }

    fn growth(&mut self) -> Option<SourceEvent> {
        // a file that cannot be asked any more has no length to speak of
        let bytes = self.file.metadata().map_or(0, |metadata| metadata.len());
        if bytes <= self.opened_bytes || std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        let detail = format!(
            "'{}' grew from {} to {bytes} bytes while it was read: it is still written, and what was whole in it is read; \
             read it again when it is finished",
            self.path.display(),
            self.opened_bytes
        );
        Some(SourceEvent::Counted(Counted { name: "still_written", count: 1, detail }))
    }
}

impl Source for Growing {
    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        match self.source.next()? {
            SourceEvent::End => Ok(self.growth().unwrap_or(SourceEvent::End)),
            event => Ok(event),
        }
    }

    fn earliest_next_pts_ns(&self) -> Option<i64> {
        self.source.earliest_next_pts_ns()
    }

    fn frame_rate(&self) -> Option<Timebase> {
        self.source.frame_rate()
    }

    fn orientation(&self) -> Result<Orientation, IngestError> {
        self.source.orientation()
    }

    fn close(&mut self) -> Vec<SourceEvent> {
        self.source.close()
    }
}
