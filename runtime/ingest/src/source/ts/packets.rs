//! Packets of a transport stream out of a file, in each of the three ways in which files hold them.

use crate::IngestError;
use mpeg2ts_reader::packet::Packet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How far packets are apart, and how many bytes of something else are in front of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    step: usize,
    lead: usize,
}

/// Alone; behind a time stamp of four bytes, as Blu-ray discs and camcorders have them (M2TS); in front of 16 bytes of
/// error correction.
const LAYOUTS: [Layout; 3] =
    [Layout { step: 188, lead: 0 }, Layout { step: 192, lead: 4 }, Layout { step: 204, lead: 0 }];
/// So many packets in a row are no accident.
const ENOUGH: usize = 5;

impl Layout {
    /// The layout of a file that begins with `head`, which may begin within a packet.
    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        LAYOUTS.into_iter().find(|layout| (0..layout.step).any(|at| layout.holds(head, at)))
    }

    /// Whether packets follow each other from `at` on: a few of them, or all that there are.
    fn holds(self, bytes: &[u8], at: usize) -> bool {
        let there = bytes.len().saturating_sub(at + self.lead).div_ceil(self.step).min(ENOUGH);
        let all = (0..there).all(|n| bytes[at + self.lead + n * self.step] == Packet::SYNC_BYTE);
        // a short file is a transport stream if it begins with a packet
        all && (there == ENOUGH || at == 0 && bytes.len() >= self.step)
    }
}

const CHUNK_BYTES: usize = 256 << 10;

pub(super) struct Packets<R> {
    reader: R,
    path: PathBuf,
    layout: Layout,
    buf: Vec<u8>,
    at: usize,
    read_bytes: u64,
    ended: bool,
    /// Bytes that belong to no packet, since this was last asked. What precedes the first packet is no loss.
    skipped: u64,
    has_begun: bool,
    /// The last packet was followed by this place.
    is_in_step: bool,
}

impl<R: Read> Packets<R> {
    pub(super) fn new(reader: R, path: &Path, layout: Layout) -> Self {
        Self {
            reader,
            path: path.into(),
            layout,
            buf: Vec::new(),
            at: 0,
            read_bytes: 0,
            ended: false,
            skipped: 0,
            has_begun: false,
            is_in_step: false,
        }
    }

    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// How many bytes were skipped since this was last asked, because they belong to no packet.
    pub(super) fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// The next packet.
    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, IngestError> {
        let Layout { step, lead } = self.layout;
        loop {
            let rest = self.buf.len() - self.at;
            if rest < ENOUGH * step + lead && !self.ended {
                self.fill()?;
                continue;
            }
            let from = self.at + lead;
            if rest < lead + Packet::SIZE {
                self.skipped += if self.has_begun { rest as u64 } else { 0 };
                self.at = self.buf.len();
                return Ok(None);
            }
            if self.buf[from] == Packet::SYNC_BYTE && (self.is_in_step || self.finds_step()) {
                (self.has_begun, self.is_in_step) = (true, true);
                self.at = (self.at + step).min(self.buf.len());
                return Ok(Packet::try_new(&self.buf[from..from + Packet::SIZE]));
            }
            self.is_in_step = false;
            self.skipped += u64::from(self.has_begun);
            self.at += 1;
        }
    }

    /// Whether packets follow each other from here on.
    fn finds_step(&self) -> bool {
        let rest = &self.buf[self.at..];
        (0..ENOUGH)
            .map(|n| self.layout.lead + n * self.layout.step)
            .take_while(|&at| at < rest.len())
            .all(|at| rest[at] == Packet::SYNC_BYTE)
    }

    fn fill(&mut self) -> Result<(), IngestError> {
        self.buf.drain(..self.at);
        self.at = 0;
        let old = self.buf.len();
        self.buf.resize(old + CHUNK_BYTES, 0);
        let got = self.reader.read(&mut self.buf[old..]);
        self.buf.truncate(old + *got.as_ref().unwrap_or(&0));
        match got {
            Ok(len) => {
                self.read_bytes += len as u64;
                self.ended = len == 0;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => {
                return Err(IngestError::Read { path: self.path.clone(), offset_bytes: self.read_bytes, cause });
            }
        }
        Ok(())
    }
}
