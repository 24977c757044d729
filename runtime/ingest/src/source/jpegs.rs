//! JPEG pictures one after the other, in a file or as they arrive.

use super::{Source, SourceEvent};
use crate::syntax::still::{JPEG_FIRST, JPEG_START, JpegEnd, StillReader, jpeg_end};
use crate::{IngestError, Loss, LossOf};
use millrace_frame::PacketCodec;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const CHUNK_BYTES: usize = 256 << 10;
/// More than any camera's picture. What is longer is none, and is not kept.
const MAX_PICTURE_BYTES: usize = 64 << 20;

/// Finds the pictures in a row of bytes.
pub(super) struct JpegSplitter {
    buf: Vec<u8>,
    /// How far the picture was looked through that `buf` begins with. No byte is looked at again, however small the pieces
    /// are that a picture comes in.
    looked: usize,
    pictures: VecDeque<Result<Vec<u8>, Loss>>,
}

impl Default for JpegSplitter {
    fn default() -> Self {
        Self { buf: Vec::new(), looked: JPEG_FIRST, pictures: VecDeque::new() }
    }
}

impl JpegSplitter {
    /// The next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        // what is in front of it is done with
        let mut from = 0;
        loop {
            let Some(start) = self.buf[from..].windows(3).position(|bytes| bytes == JPEG_START) else {
                // the last two bytes may begin a picture
                from = from.max(self.buf.len().saturating_sub(2));
                break;
            };
            from += start;
            let (end, picture) = match jpeg_end(&self.buf[from..], self.looked) {
                JpegEnd::At(end) => (from + end, Ok(self.buf[from..from + end].to_vec())),
                JpegEnd::CutAt(end) => {
                    let detail = "a JPEG picture without an end, in which the next begins";
                    (from + end, Err(Loss::new("damaged_sample", 1, detail)))
                }
                JpegEnd::Open(_) if self.buf.len() - from > MAX_PICTURE_BYTES => {
                    let detail = format!("a JPEG picture of more than {} MiB", MAX_PICTURE_BYTES >> 20);
                    (self.buf.len(), Err(Loss::new("oversized_unit", 1, detail)))
                }
                JpegEnd::Open(looked) => {
                    self.looked = looked;
                    break;
                }
            };
            self.pictures.push_back(picture);
            (from, self.looked) = (end, JPEG_FIRST);
        }
        self.buf.drain(..from);
    }

    fn in_picture(&self) -> bool {
        self.buf.starts_with(&JPEG_START)
    }

    /// The bytes are at their end.
    pub(super) fn finish(&mut self) {
        self.push(&[]);
        if self.in_picture() {
            let detail = "the stream ends within a JPEG picture";
            self.pictures.push_back(Err(Loss::new("truncated", 1, detail)));
        }
        self.buf.clear();
        self.looked = JPEG_FIRST;
    }

    /// The next picture, or one that is lost.
    pub(super) fn next(&mut self) -> Option<Result<Vec<u8>, Loss>> {
        self.pictures.pop_front()
    }
}

/// A file of JPEG pictures: one, or several in a row.
pub(super) struct JpegFile {
    file: File,
    path: PathBuf,
    read_bytes: u64,
    splitter: JpegSplitter,
    reader: StillReader,
    ended: bool,
}

impl JpegFile {
    /// `by_exif`: the pictures are turned as they say.
    pub(super) fn new(file: File, path: &Path, by_exif: bool) -> Self {
        let (splitter, reader) = (JpegSplitter::default(), StillReader::new(by_exif));
        Self { file, path: path.into(), read_bytes: 0, splitter, reader, ended: false }
    }
}

impl Source for JpegFile {
    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        let mut chunk = Vec::new();
        loop {
            if let Some(picture) = self.splitter.next() {
                return Ok(match picture.map(|data| self.reader.unit(PacketCodec::Jpeg, data)) {
                    Ok(Ok(unit)) => SourceEvent::Unit { unit, times: None, after_loss: false },
                    Ok(Err(why)) => SourceEvent::Loss(unreadable(&why)),
                    Err(loss) => SourceEvent::Loss(loss),
                });
            }
            if self.ended {
                return Ok(SourceEvent::End);
            }
            chunk.resize(CHUNK_BYTES, 0);
            match self.file.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    self.splitter.finish();
                }
                Ok(len) => {
                    self.read_bytes += len as u64;
                    self.splitter.push(&chunk[..len]);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(cause) => {
                    let (path, offset_bytes) = (self.path.clone(), self.read_bytes);
                    return Err(IngestError::Read { path, offset_bytes, cause });
                }
            }
        }
    }
}

/// The loss of a picture whose header cannot be read.
pub(super) fn unreadable(why: &str) -> Loss {
    Loss::of(LossOf::Pictures, "damaged_sample", 1, format!("the header of a picture cannot be read: {why}"))
}
