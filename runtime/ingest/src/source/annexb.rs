//! Annex-B byte streams: start codes, no times.

use super::split::Splitter;
use super::{Source, SourceEvent};
use crate::{IngestError, Loss, LossOf};
use millrace_frame::PacketCodec;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const CHUNK_BYTES: usize = 256 << 10;

pub(crate) struct AnnexB<R = File> {
    reader: R,
    path: PathBuf,
    chunk: Vec<u8>,
    splitter: Splitter,
    ended: bool,
    /// A stream of the other codec follows.
    other: Option<Loss>,
}

impl<R: Read> AnnexB<R> {
    pub(crate) fn new(reader: R, path: &Path, codec: PacketCodec) -> Self {
        let splitter = Splitter::up_to_other(codec);
        Self { reader, path: path.into(), chunk: vec![0; CHUNK_BYTES], splitter, ended: false, other: None }
    }

    fn read_more(&mut self) -> Result<(), IngestError> {
        match self.reader.read(&mut self.chunk) {
            Ok(0) => {
                self.ended = true;
                self.splitter.finish();
            }
            Ok(len) => {
                self.splitter.push(&self.chunk[..len]);
                if let Some(at) = self.splitter.other_at() {
                    self.ended = true;
                    self.splitter.finish();
                    let detail = format!(
                        "a stream of another codec (H.264, H.265) begins at byte {at} of this one, and is not read; split \
                         them, or join them with a tool that converts them to one codec"
                    );
                    self.other = Some(Loss::of(LossOf::Parts, "unread_recording", 1, detail));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => {
                return Err(IngestError::Read { path: self.path.clone(), offset_bytes: self.splitter.end(), cause });
            }
        }
        Ok(())
    }
}

impl<R: Read + Send> Source for AnnexB<R> {
    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        loop {
            if let Some(placed) = self.splitter.next() {
                return Ok(SourceEvent::Unit { unit: placed.unit, times: None, after_loss: false });
            }
            if let Some(loss) = self.splitter.take_loss() {
                return Ok(SourceEvent::Loss(loss));
            }
            if self.ended {
                return Ok(self.other.take().map_or(SourceEvent::End, SourceEvent::Loss));
            }
            self.read_more()?;
        }
    }
}
