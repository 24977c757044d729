//! NAL units out of a byte stream that comes in pieces, put together to pictures.

use crate::syntax::nal::{find_start_code, trim};
use crate::syntax::{H264, H265, ParsedUnit, UnitBuilder};
use crate::{Loss, LossOf};
use millrace_frame::PacketCodec;
use std::collections::VecDeque;

/// More than any level allows for a picture. What is longer is not video, and is not kept.
const MAX_UNIT_BYTES: usize = 64 << 20;

/// A picture, and where in the stream it begins.
pub(super) struct Placed {
    pub(super) unit: ParsedUnit,
    pub(super) at: u64,
}

pub(super) struct Splitter {
    codec: PacketCodec,
    units: UnitBuilder,
    buf: Vec<u8>,
    /// Where in the stream `buf` begins.
    buf_at: u64,
    /// Where the NAL unit in hand begins in `buf`, after its start code.
    nal_at: Option<usize>,
    /// Up to here `buf` holds no further start code.
    searched: usize,
    /// Where in the stream the picture in hand begins.
    unit_at: u64,
    ready: VecDeque<Placed>,
    oversized: u64,
    /// Nothing but the bytes says where another stream begins.
    looks_for_other: bool,
    other_at: Option<u64>,
}

impl Splitter {
    pub(super) fn new(codec: PacketCodec) -> Self {
        Self {
            codec,
            units: UnitBuilder::new(codec),
            buf: Vec::new(),
            buf_at: 0,
            nal_at: None,
            searched: 0,
            unit_at: 0,
            ready: VecDeque::new(),
            oversized: 0,
            looks_for_other: false,
            other_at: None,
        }
    }

    /// Ends where a stream of the other codec begins.
    pub(super) fn up_to_other(codec: PacketCodec) -> Self {
        Self { looks_for_other: true, ..Self::new(codec) }
    }

    /// Where a stream of the other codec begins, as where two files were joined.
    pub(super) fn other_at(&self) -> Option<u64> {
        self.other_at
    }

    /// How many bytes of the stream have come.
    pub(super) fn end(&self) -> u64 {
        self.buf_at + self.buf.len() as u64
    }

    /// The next bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        while let Some(code) = find_start_code(&self.buf, self.searched) {
            self.end_nal(code);
            self.nal_at = Some(code + 3);
            self.searched = code + 3;
        }
        // a start code may be in two pieces
        self.searched = self.searched.max(self.buf.len().saturating_sub(2));
        let mut keep_from = self.nal_at.unwrap_or(self.searched);
        if self.buf.len() - keep_from + self.units.pending_bytes() > MAX_UNIT_BYTES {
            self.oversized += 1;
            self.units.finish();
            self.nal_at = None;
            keep_from = self.searched;
        }
        self.buf.drain(..keep_from);
        self.buf_at += keep_from as u64;
        self.searched -= keep_from;
        self.nal_at = self.nal_at.map(|_| 0);
    }

    /// The stream ends here.
    pub(super) fn finish(&mut self) {
        self.end_nal(self.buf.len());
        if let Some(unit) = self.units.finish() {
            self.ready.push_back(Placed { unit, at: self.unit_at });
        }
        self.skip();
    }

    /// Bytes are missing here: the picture in hand is dropped, and whether there was one is returned.
    pub(super) fn cut(&mut self) -> bool {
        let had_any = self.units.pending_bytes() > 0 || self.nal_at.is_some();
        self.units.discard();
        self.skip();
        had_any
    }

    fn skip(&mut self) {
        self.buf_at += self.buf.len() as u64;
        self.buf.clear();
        (self.nal_at, self.searched) = (None, 0);
    }

    fn end_nal(&mut self, end: usize) {
        let Some(from) = self.nal_at.take() else { return };
        let at = self.buf_at + from as u64 - 3;
        if self.looks_for_other && self.other_at.is_none() && begins_other(self.codec, trim(&self.buf[from..end])) {
            self.other_at = Some(at);
        }
        if self.other_at.is_some() {
            return;
        }
        let begins = self.units.pending_bytes() == 0;
        let done = self.units.push(trim(&self.buf[from..end]));
        if begins || done.is_some() {
            let before = std::mem::replace(&mut self.unit_at, at);
            self.ready.extend(done.map(|unit| Placed { unit, at: before }));
        }
    }

    /// The next picture.
    pub(super) fn next(&mut self) -> Option<Placed> {
        self.ready.pop_front()
    }

    /// What was lost since this was last asked.
    pub(super) fn take_loss(&mut self) -> Option<Loss> {
        let oversized = std::mem::take(&mut self.oversized);
        if oversized > 0 {
            let detail = format!("no start code within {} MiB", MAX_UNIT_BYTES >> 20);
            return Some(Loss::new("oversized_unit", oversized, detail));
        }
        let early = std::mem::take(&mut self.units.early_pictures);
        if early > 0 {
            return Some(Loss::new("waiting_for_key", early, "pictures before the stream's first parameter sets"));
        }
        if let Some(loss) = self.units.take_without_set() {
            return Some(loss);
        }
        let lost = std::mem::take(&mut self.units.lost_nals);
        let detail = "slices without a readable header, picture or parameter set";
        (lost > 0).then(|| self.units.loss(LossOf::Parts, "damaged_slice", lost, detail))
    }
}

/// Whether a NAL unit begins a stream of the other codec: a parameter set of it that can be read, behind a header that means
/// nothing here, or nothing that is read here.
fn begins_other(codec: PacketCodec, nal: &[u8]) -> bool {
    match (codec, nal) {
        // a video parameter set, which no unit of H.264 looks like; a sequence parameter set
        (PacketCodec::H264, [0x40, 0x01, ..]) => true,
        (PacketCodec::H264, [0x42, 0x01, ..]) => H265::default().knows_sps(nal),
        (PacketCodec::H265, [0x27 | 0x47 | 0x67, ..]) => H264::default().knows_sps(nal),
        _ => false,
    }
}
