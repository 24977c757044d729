//! Software decoding: which decoder, in which order its pictures go out, and what happens after damage.

mod engine;
mod openh264;
mod raw;
mod rusty_h264;
mod rusty_h265;
mod still;

use crate::reorder::{PresentationOrder, Reorder, ReorderPolicy};
use crate::syntax::{SliceCheck, permit_gaps};
use crate::{AccessUnit, IngestError, Loss, Order, Picture, StreamInfo};
use engine::{Engine, EngineError, Frame};
use millrace_frame::{PacketCodec, Timing};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// What came out of the decoder.
pub enum Decoded {
    /// A picture, in presentation order.
    Picture(Box<Picture>),
    /// Pictures that did not come out.
    Loss(Loss),
}

/// Decodes access units on the CPU, one picture at a time.
///
/// After anything that is missing, damaged or not decodable it gives no picture until the next key picture, where it begins
/// with a fresh decoder: a picture that refers to what is not there would be wrong without anyone knowing. Everything that
/// is left out is counted.
pub struct SoftwareDecoder {
    engine: Option<Running>,
    reorder: Reorder<Picture>,
    ready: VecDeque<Decoded>,
    /// Units that were left out since the last key picture.
    waiting: u64,
    /// The pure Rust decoder gave up on a stream without B pictures, which the other one decodes exactly.
    prefer_openh264: bool,
    number: i64,
}

struct Running {
    engine: Box<dyn Engine>,
    /// Sees damage that the engine decodes without a word.
    slices: SliceCheck,
    kind: Kind,
    coded: millrace_frame::Size,
    /// Units handed in, of which no picture has come out yet.
    pending: VecDeque<Pending>,
    /// A decoder that begins at an open key picture cannot decode what is shown before it.
    leading_before: Option<Order>,
    /// Began at a recovery point: pictures before this frame are not exact.
    exact_from: u64,
}

struct Pending {
    number: i64,
    timing: Timing,
    info: Arc<StreamInfo>,
    place: PresentationOrder,
    shown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    RustyH264,
    OpenH264,
    RustyH265,
    Still,
}

impl Kind {
    /// The choice of ADR 0002: what was measured to be exact.
    fn of(info: &StreamInfo, prefer_openh264: bool) -> Self {
        let baseline = matches!(info.profile, "Baseline" | "Constrained Baseline");
        match info.codec {
            PacketCodec::H265 => Self::RustyH265,
            PacketCodec::Jpeg | PacketCodec::Png => Self::Still,
            _ if baseline || info.slice_groups || prefer_openh264 => Self::OpenH264,
            _ => Self::RustyH264,
        }
    }

    /// Both H.264 decoders filter the edges of raw macroblocks as if they had been quantized, in some pictures or in all.
    fn filters_raw_macroblocks(self) -> bool {
        matches!(self, Self::RustyH264 | Self::OpenH264)
    }

    fn start(self) -> Result<Box<dyn Engine>, EngineError> {
        Ok(match self {
            Self::RustyH264 => Box::new(rusty_h264::RustyH264::default()),
            Self::OpenH264 => Box::new(openh264::OpenH264::new()?),
            Self::RustyH265 => Box::new(rusty_h265::RustyH265::default()),
            Self::Still => Box::new(still::Still),
        })
    }
}

impl SoftwareDecoder {
    /// A decoder that waits for its first key picture. `policy` is what may be risked for a low delay.
    pub fn new(policy: ReorderPolicy) -> Self {
        Self {
            engine: None,
            reorder: Reorder::new(policy),
            ready: VecDeque::new(),
            waiting: 0,
            prefer_openh264: false,
            number: 0,
        }
    }

    /// Takes the next access unit in decoding order. What it leads to is fetched with [`Self::take`].
    ///
    /// # Errors
    /// When the stream uses what no software decoder here knows (interlacing, 4:2:2, 10 bit): no key picture will help.
    pub fn push(&mut self, unit: &AccessUnit) -> Result<(), IngestError> {
        // one that is decoded and not shown is none that anybody misses
        let one = u64::from(unit.shown);
        if let Some(what) = unit.unsupported.filter(|_| Kind::of(&unit.info, false) == Kind::Still) {
            // the next picture may be of another kind
            self.lose(Loss::new(
                "decode_error",
                one,
                unit.lost_since(&format!("a picture {what}, which is not decoded here")),
            ));
            return Ok(());
        }
        if let Some(what) = unit.unsupported {
            return Err(IngestError::Unsupported {
                codec: unit.info.codec,
                what: format!(
                    "({}, {}, {} bit) {what}",
                    unit.info.profile,
                    unit.info.display_size(),
                    unit.info.bit_depth
                ),
                fix: if unit.info.bit_depth > 8 {
                    "8 bits are expected: set the camera or transcode the file so, or use nvdec-nv12, where the GPU knows it"
                } else {
                    "progressive 8-bit 4:2:0 is expected: set the camera or transcode the file so"
                },
            });
        }
        // a stream with intra refresh has no key picture after its first
        let recovers = unit.recovery_frames.filter(|_| unit.info.codec == PacketCodec::H264 && !unit.info.slice_groups);
        if unit.after_loss && !unit.key && recovers.is_none() {
            self.lose(Loss::new("missing_reference", one, "a picture that may refer to one that was lost"));
            return Ok(());
        }
        if unit.damaged {
            self.lose(Loss::new("decode_error", one, "a slice of the picture is not readable"));
            return Ok(());
        }
        // A key picture of another size or profile, or after loss, starts afresh.
        let changed = self
            .engine
            .as_ref()
            .is_some_and(|r| unit.key && r.must_restart(unit, self.prefer_openh264) || unit.after_loss);
        if changed {
            let other_encoder = self.engine.as_ref().is_some_and(|r| r.coded != unit.info.coded);
            self.stop(None);
            if other_encoder {
                self.reorder.forget();
            }
        }
        let begins = self.engine.is_none();
        if begins {
            let started = match recovers {
                _ if unit.key => Running::start(unit, self.prefer_openh264),
                Some(frames) => Running::start_at_recovery_point(unit, frames),
                None => {
                    self.waiting += one;
                    return Ok(());
                }
            };
            self.report_waiting();
            match started {
                Ok(running) => self.engine = Some(running),
                Err(e) => {
                    self.report(Loss::new("decode_error", one, unit.lost_since(&e.0)));
                    return Ok(());
                }
            }
        }
        self.number += 1;
        let number = self.number;
        let Some(running) = &mut self.engine else { return Ok(()) };
        if running.leading_before.is_some_and(|key| unit.order < key) {
            // not decoded at all: its references lie before the start
            self.waiting += one;
            return Ok(());
        }
        let is_exact = unit.key || unit.frame >= running.exact_from;
        if is_exact {
            running.exact_from = 0;
        }
        if unit.key {
            running.leading_before = running.leading_before.filter(|key| unit.order <= *key);
        }
        let mut pending = Pending::of(unit, number, begins);
        pending.shown &= is_exact;
        running.pending.push_back(pending);
        let begins_within = (begins && !unit.key).then(|| AccessUnit { data: permit_gaps(&unit.data), ..unit.clone() });
        let unit = begins_within.as_ref().unwrap_or(unit);
        let mut frames = Vec::new();
        let checked = match unit.info.codec {
            PacketCodec::H264 => running.slices.check(&unit.data),
            _ => Ok(()),
        };
        let decoded = match checked {
            Ok(()) => contained(|| running.engine.decode(unit, number, &mut frames)),
            Err(damage) => Err(EngineError(damage.as_str().to_owned())),
        };
        if running.kind.filters_raw_macroblocks()
            && frames.iter().any(|frame| frame.number == number && raw::has_raw_macroblocks(&unit.data, frame))
        {
            self.stop(Some(number));
            let detail = "the picture has macroblocks of raw samples (I_PCM), whose edges are not decoded exactly";
            self.lose(Loss::new("raw_macroblocks", one, detail));
            return Ok(());
        }
        if !is_exact {
            let detail = "a picture behind a recovery point, which is not exact yet";
            self.report(Loss::new("recovering", one, detail));
        }
        match decoded {
            Ok(()) => {
                for frame in frames {
                    self.frame(frame);
                }
                self.report_overdue();
            }
            Err(e) => {
                for frame in frames.into_iter().filter(|f| f.number != number) {
                    self.frame(frame);
                }
                let in_order = unit.info.max_reorder == 0;
                self.prefer_openh264 |= checked.is_ok() && unit.info.codec == PacketCodec::H264 && in_order;
                self.stop(Some(number));
                if is_exact {
                    self.lose(Loss::new("decode_error", one, unit.lost_since(&e.0)));
                }
            }
        }
        Ok(())
    }

    /// The next picture or loss.
    pub fn take(&mut self) -> Option<Decoded> {
        self.ready.pop_front()
    }

    /// Ends the stream, or this connection's part of it: everything that is held back comes out. What follows begins with
    /// a key picture and a new decoder.
    pub fn flush(&mut self) {
        self.stop(None);
        self.report_waiting();
    }

    /// Gives out one decoded frame, when it is due.
    fn frame(&mut self, frame: Frame) {
        let Some(running) = &mut self.engine else { return };
        let Some(at) = running.pending.iter().position(|p| p.number == frame.number) else { return };
        let Some(p) = running.pending.remove(at) else { return };
        let Some(origin_px) = frame.origin_in(&p.info) else {
            let got = frame.size();
            let detail = format!("the decoder gave {got}, the stream says {}", p.info.stored_size());
            self.report(Loss::new("decode_error", u64::from(p.shown), detail));
            return;
        };
        let in_order = running.engine.puts_in_order();
        let due = if !p.shown {
            self.reorder.pass(p.place)
        } else {
            let picture = Picture { timing: p.timing, info: p.info, planes: frame.planes, origin_px };
            if in_order {
                vec![picture]
            } else {
                let pushed = self.reorder.push(p.place, picture);
                if pushed.late.is_some() {
                    self.report(Loss::reordered_late());
                }
                pushed.due
            }
        };
        self.ready.extend(due.into_iter().map(|p| Decoded::Picture(Box::new(p))));
    }

    /// A decoder gives a picture for each unit at most a picture buffer later; what has not come by then never will.
    fn report_overdue(&mut self) {
        const PICTURE_BUFFER: usize = 17;
        while let Some(overdue) = self
            .engine
            .as_mut()
            .and_then(|running| (running.pending.len() > PICTURE_BUFFER).then(|| running.pending.pop_front()).flatten())
        {
            self.report(Loss::new("decode_error", u64::from(overdue.shown), "the decoder gave no picture for it"));
        }
    }

    /// Takes what is left out of the decoder and drops it; the picture `failed` is counted by the caller.
    fn stop(&mut self, failed: Option<i64>) {
        let Some(running) = &mut self.engine else { return };
        let mut frames = Vec::new();
        // a decoder that fails while it is emptied has no more to give: its units are counted below
        let _ = contained(|| running.engine.flush(&mut frames));
        for frame in frames.into_iter().filter(|f| Some(f.number) != failed) {
            self.frame(frame);
        }
        let Some(running) = self.engine.take() else { return };
        self.ready.extend(self.reorder.flush().into_iter().map(|p| Decoded::Picture(Box::new(p))));
        let missing = running.pending.iter().filter(|p| p.shown && Some(p.number) != failed).count() as u64;
        self.report(Loss::new("decode_error", missing, "the decoder gave no picture"));
    }

    /// Counts a loss, after which only a key picture helps.
    fn lose(&mut self, loss: Loss) {
        self.stop(None);
        self.report(loss);
    }

    fn report(&mut self, loss: Loss) {
        if loss.count > 0 {
            self.ready.push_back(Decoded::Loss(loss));
        }
    }

    fn report_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        let detail = "pictures that cannot be decoded before the next key picture";
        self.report(Loss::new("waiting_for_key", waiting, detail));
    }
}

impl Running {
    fn start(unit: &AccessUnit, prefer_openh264: bool) -> Result<Self, EngineError> {
        let kind = Kind::of(&unit.info, prefer_openh264);
        tracing::debug!(decoder = ?kind, profile = unit.info.profile, size = %unit.info.display_size(), "decoder starts");
        Ok(Self {
            engine: kind.start()?,
            slices: SliceCheck::default(),
            kind,
            coded: unit.info.coded,
            pending: VecDeque::new(),
            leading_before: (!unit.closed).then_some(unit.order),
            exact_from: 0,
        })
    }

    /// The pure Rust decoder puts placeholders where pictures are missing; the other one waits for an IDR.
    fn start_at_recovery_point(unit: &AccessUnit, frames: u32) -> Result<Self, EngineError> {
        tracing::debug!(frames, size = %unit.info.display_size(), "decoder starts at a recovery point");
        Ok(Self {
            engine: Kind::RustyH264.start()?,
            slices: SliceCheck::default(),
            kind: Kind::RustyH264,
            coded: unit.info.coded,
            pending: VecDeque::new(),
            leading_before: Some(unit.order),
            exact_from: unit.frame + u64::from(frames),
        })
    }

    fn must_restart(&self, unit: &AccessUnit, prefer_openh264: bool) -> bool {
        self.kind != Kind::of(&unit.info, prefer_openh264) || self.coded != unit.info.coded || unit.after_loss
    }
}

impl Pending {
    fn of(unit: &AccessUnit, number: i64, begins: bool) -> Self {
        Self { number, timing: unit.timing, info: unit.info.clone(), place: unit.place(begins), shown: unit.shown }
    }
}

/// Runs third-party decoding so that a panic in it ends only the decoder. The decoder is thrown away after one.
fn contained(decode: impl FnOnce() -> Result<(), EngineError>) -> Result<(), EngineError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(EngineError("the decoder panicked".into())))
}
