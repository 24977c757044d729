//! Puts the NAL units of one picture together into an access unit.

use super::nal::push_annexb;
use super::{H264, H265, PictureFacts, Role, StatedSize, Syntax};
use crate::{Loss, LossOf};
use millrace_frame::PacketCodec;
use std::path::Path;
use std::sync::Arc;

/// The cause of what is lost since a parameter set cannot be read.
const UNREADABLE_SET: &str = "unreadable_parameter_set";

/// An access unit in decoding order, as Annex-B.
#[derive(Clone, Debug)]
pub(crate) struct ParsedUnit {
    pub data: Vec<u8>,
    pub facts: PictureFacts,
    /// Slices of this picture that could not be parsed.
    pub damaged_nals: u32,
    /// The file that is this picture alone.
    pub path: Option<Arc<Path>>,
}

/// Collects NAL units until a picture is complete.
pub(crate) struct UnitBuilder {
    syntax: Box<dyn Syntax>,
    nals: Vec<u8>,
    /// The picture that the collected slices belong to.
    has_slices: bool,
    has_sps: bool,
    damaged_nals: u32,
    /// Slices that could not be parsed and belong to no picture.
    pub lost_nals: u64,
    /// Pictures before the first sequence parameter set: no slice of theirs can be parsed, and nothing is wrong with them.
    pub early_pictures: u64,
    early_slices: u64,
    /// Slices that lack a parameter set which cannot be read: how many, and why it cannot.
    without_set: Option<(u64, String)>,
    /// The container says that a decoder can start at the next picture. Believed of an intra picture.
    pub sync: bool,
    /// What the container states of the size.
    pub stated: StatedSize,
    /// A sequence parameter set has come, within the stream or outside of it.
    knows_sps: bool,
}

impl UnitBuilder {
    pub(crate) fn new(codec: PacketCodec) -> Self {
        let syntax: Box<dyn Syntax> = match codec {
            PacketCodec::H265 => Box::<H265>::default(),
            _ => Box::<H264>::default(),
        };
        Self {
            syntax,
            nals: Vec::new(),
            has_slices: false,
            has_sps: false,
            damaged_nals: 0,
            lost_nals: 0,
            early_pictures: 0,
            early_slices: 0,
            without_set: None,
            sync: false,
            stated: StatedSize::default(),
            knows_sps: false,
        }
    }

    /// Slices of a picture are collected.
    pub(crate) fn has_slices(&self) -> bool {
        self.has_slices
    }

    /// A sequence parameter set has come. Before one, no slice can be read.
    pub(crate) fn knows_sps(&self) -> bool {
        self.knows_sps
    }

    /// How many slices were lost since the last call: those that could not be read and belong to no picture.
    pub(crate) fn take_lost(&mut self) -> u64 {
        let of_no_picture = if self.has_slices { 0 } else { std::mem::take(&mut self.damaged_nals) };
        std::mem::take(&mut self.lost_nals)
            + std::mem::take(&mut self.early_slices)
            + u64::from(of_no_picture)
            + self.take_without_set().map_or(0, |loss| loss.count)
    }

    /// Slices that were lost since the last call because a parameter set cannot be read.
    pub(crate) fn take_without_set(&mut self) -> Option<Loss> {
        let (count, why) = self.without_set.take()?;
        Some(Loss::of(LossOf::Parts, UNREADABLE_SET, count, why))
    }

    /// Forgets what is collected.
    pub(crate) fn discard(&mut self) {
        self.nals.clear();
        (self.has_slices, self.has_sps, self.damaged_nals) = (false, false, 0);
        self.syntax.picture_ended();
    }

    /// Parameter sets that stand outside the stream (avcC, hvcC, SDP).
    pub(crate) fn out_of_band(&mut self, nal: &[u8]) {
        if !nal.is_empty() {
            self.knows_sps |= self.syntax.is_sps(nal);
            self.syntax.nal(nal);
        }
    }

    /// Adds the next NAL unit of a byte stream; gives back the picture before it when this one begins another.
    pub(crate) fn push(&mut self, nal: &[u8]) -> Option<ParsedUnit> {
        if nal.is_empty() {
            return None;
        }
        // the facts of the picture so far, before this NAL unit replaces them
        let before = self.has_slices.then(|| self.syntax.picture().cloned()).flatten();
        let role = self.syntax.nal(nal);
        let done = match role {
            Role::FirstSlice | Role::Prefix | Role::UnreadableSet => before.map(|facts| self.take(facts)),
            _ => None,
        };
        if matches!(role, Role::Prefix | Role::UnreadableSet) && done.is_some() {
            self.syntax.picture_ended();
        }
        match role {
            Role::Damaged if !self.knows_sps => {
                self.early_slices += 1;
                self.early_pictures += u64::from(self.syntax.is_first_slice(nal));
                self.forget_prefix();
                return done;
            }
            Role::Damaged => {
                match self.syntax.unreadable_set().filter(|_| !self.has_slices) {
                    Some(why) => {
                        self.without_set.get_or_insert_with(|| (0, why.to_owned())).0 += 1;
                        self.forget_prefix();
                    }
                    None => self.damaged_nals += 1,
                }
                return done;
            }
            Role::Slice if !self.has_slices => {
                // a slice whose picture's beginning is lost
                self.damaged_nals += 1;
                return done;
            }
            Role::UnreadableSet => {
                self.knows_sps |= self.syntax.is_sps(nal);
                self.lost_nals += u64::from(std::mem::take(&mut self.damaged_nals));
                return done;
            }
            Role::FirstSlice => self.begin_picture(),
            // slices that could not be parsed are of the picture before, of which nothing could be read
            Role::Prefix => self.lost_nals += u64::from(std::mem::take(&mut self.damaged_nals)),
            _ => {}
        }
        if self.syntax.is_sps(nal) {
            (self.has_sps, self.knows_sps) = (true, true);
        }
        push_annexb(&mut self.nals, nal);
        done
    }

    /// The picture collected so far, at the end of a stream or of a container's sample.
    pub(crate) fn finish(&mut self) -> Option<ParsedUnit> {
        let facts = self.has_slices.then(|| self.syntax.picture().cloned()).flatten();
        let unit = facts.map(|facts| self.take(facts));
        self.syntax.picture_ended();
        self.nals.clear();
        self.has_sps = false;
        self.lost_nals += u64::from(std::mem::take(&mut self.damaged_nals));
        unit
    }

    /// The one picture of a container's sample or of an RTP frame, and how many of its parts are lost: slices that are not
    /// readable, and, where damage made more of it than one picture, the others.
    pub(crate) fn sample<'a>(&mut self, nals: impl IntoIterator<Item = &'a [u8]>) -> (Option<ParsedUnit>, u64) {
        let mut found: Vec<ParsedUnit> = nals.into_iter().filter_map(|nal| self.push(nal)).collect();
        found.extend(self.finish());
        let last = found.pop();
        let lost = std::mem::take(&mut self.lost_nals) + self.take_without_set().map_or(0, |loss| loss.count);
        (last, found.len() as u64 + lost)
    }

    /// What was lost, under its own name where a parameter set that cannot be read is the reason.
    pub(crate) fn loss(&self, of: LossOf, cause: &'static str, count: u64, detail: impl Into<String>) -> Loss {
        match self.syntax.unreadable_set() {
            Some(why) => Loss::of(of, UNREADABLE_SET, count, why),
            None => Loss::of(of, cause, count, detail),
        }
    }

    /// Bytes collected so far.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.nals.len()
    }

    /// What was collected is of a picture that cannot be read: it says neither where the next one begins, nor when it is
    /// shown. Parameter sets are known, and are put in front of the next key picture.
    fn forget_prefix(&mut self) {
        self.nals.clear();
        self.has_sps = false;
    }

    /// A decoder that starts at a key picture needs the parameter sets in front of it. They are taken now, before the
    /// stream replaces them.
    fn begin_picture(&mut self) {
        self.has_slices = true;
        if !self.has_sps
            && self.syntax.picture().is_some_and(|p| p.key || p.recovery_frames.is_some() || self.sync && p.intra)
        {
            let mut with_sets = Vec::with_capacity(self.nals.len() + 256);
            for set in self.syntax.parameter_sets() {
                push_annexb(&mut with_sets, set);
            }
            with_sets.append(&mut self.nals);
            self.nals = with_sets;
        }
    }

    fn take(&mut self, mut facts: PictureFacts) -> ParsedUnit {
        facts.key |= self.sync && facts.intra;
        self.stated.apply(&mut facts.info);
        (self.has_slices, self.has_sps) = (false, false);
        let data = std::mem::take(&mut self.nals);
        ParsedUnit { data, facts, damaged_nals: std::mem::take(&mut self.damaged_nals), path: None }
    }
}
