//! Annex-B byte streams: start codes, no times.

use super::{Source, SourceEvent};
use crate::syntax::nal::{find_start_code, trim};
use crate::syntax::{ParsedUnit, UnitBuilder};
use crate::{IngestError, Loss, LossOf};
use millrace_frame::PacketCodec;
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

const CHUNK_BYTES: usize = 256 << 10;
/// More than any level allows for a picture. What is longer is not video, and is not kept.
const MAX_UNIT_BYTES: usize = 64 << 20;

pub(crate) struct AnnexB<R = File> {
    reader: R,
    path: PathBuf,
    read_bytes: u64,
    buf: Vec<u8>,
    /// Where the NAL unit in hand begins in `buf`, after its start code.
    nal_at: Option<usize>,
    /// Up to here `buf` holds no further start code.
    searched: usize,
    units: UnitBuilder,
    ready: VecDeque<ParsedUnit>,
    ended: bool,
    oversized: u64,
}

impl<R: Read> AnnexB<R> {
    pub(crate) fn new(reader: R, path: &Path, codec: PacketCodec) -> Self {
        Self {
            reader,
            path: path.into(),
            read_bytes: 0,
            buf: Vec::new(),
            nal_at: None,
            searched: 0,
            units: UnitBuilder::new(codec),
            ready: VecDeque::new(),
            ended: false,
            oversized: 0,
        }
    }

    fn read_more(&mut self) -> Result<(), IngestError> {
        let old = self.buf.len();
        self.buf.resize(old + CHUNK_BYTES, 0);
        let got = loop {
            match self.reader.read(&mut self.buf[old..]) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                got => break got,
            }
        };
        self.buf.truncate(old + *got.as_ref().unwrap_or(&0));
        let got =
            got.map_err(|cause| IngestError::Read { path: self.path.clone(), offset_bytes: self.read_bytes, cause })?;
        self.read_bytes += got as u64;
        self.ended = got == 0;
        self.split();
        Ok(())
    }

    /// Passes on every NAL unit of `buf` that is complete.
    fn split(&mut self) {
        while let Some(code) = find_start_code(&self.buf, self.searched) {
            if let Some(from) = self.nal_at {
                let unit = self.units.push(trim(&self.buf[from..code]));
                self.ready.extend(unit);
            }
            self.nal_at = Some(code + 3);
            self.searched = code + 3;
        }
        if self.ended {
            if let Some(from) = self.nal_at.take() {
                let unit = self.units.push(trim(&self.buf[from..]));
                self.ready.extend(unit);
            }
            self.ready.extend(self.units.finish());
            self.buf.clear();
            self.searched = 0;
            return;
        }
        // a start code may lie across the chunks
        self.searched = self.searched.max(self.buf.len().saturating_sub(2));
        let mut keep_from = self.nal_at.unwrap_or(self.searched);
        if self.buf.len() - keep_from + self.units.pending_bytes() > MAX_UNIT_BYTES {
            self.oversized += 1;
            self.units.finish();
            self.nal_at = None;
            keep_from = self.searched;
        }
        self.buf.drain(..keep_from);
        self.searched -= keep_from;
        self.nal_at = self.nal_at.map(|_| 0);
    }
}

impl<R: Read + Send> Source for AnnexB<R> {
    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        loop {
            if let Some(unit) = self.ready.pop_front() {
                return Ok(SourceEvent::Unit { unit, times: None, after_loss: false });
            }
            let oversized = std::mem::take(&mut self.oversized);
            if oversized > 0 {
                let detail = format!("no start code within {} MiB", MAX_UNIT_BYTES >> 20);
                return Ok(SourceEvent::Loss(Loss::new("oversized_unit", oversized, detail)));
            }
            let lost = std::mem::take(&mut self.units.lost_nals);
            if lost > 0 {
                let detail = "slices without a readable header, picture or parameter set".to_owned();
                return Ok(SourceEvent::Loss(self.units.loss(LossOf::Parts, "damaged_slice", lost, detail)));
            }
            if self.ended {
                return Ok(SourceEvent::End);
            }
            self.read_more()?;
        }
    }
}
