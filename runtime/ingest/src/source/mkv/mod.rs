//! Matroska and WebM files (RFC 9559): the first video track that is H.264 or H.265.
//!
//! The file is read from front to back, element by element, and the sizes of segments and clusters are not relied on:
//! live recordings do not know them. So a file that is cut short plays up to its last whole block.

mod elements;
mod header;

use super::ahead::Ahead;
use super::{ORIENTATION_FIX, Source, SourceEvent};
use crate::source::jpegs::unreadable;
use crate::syntax::nal::length_prefixed;
use crate::syntax::still::StillReader;
use crate::syntax::{annexb_nals, contained};
use crate::{IngestError, Loss, LossOf};
use elements::{Element, Elements, NextElement};
use header::Track;
use millrace_frame::{Orientation, PacketCodec, Timebase};
use mkv_element::prelude::{BlockGroup, Cluster, Element as _, Segment, SimpleBlock, Timestamp};
use mkv_element::{ClusterBlock, FrameData};
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

pub(crate) struct Mkv {
    path: PathBuf,
    elements: Elements,
    track: Track,
    /// How long a picture is shown, where several are in one block.
    frame_ticks: i64,
    /// The time of the cluster that is being read.
    cluster_ticks: Option<u64>,
    stills: StillReader,
    after_loss: bool,
    events: VecDeque<SourceEvent>,
    ahead: Ahead,
    earliest_next_pts_ns: Option<i64>,
    ended: bool,
}

impl Mkv {
    pub(crate) fn open(file: File, path: &Path) -> Result<Self, IngestError> {
        let io = |cause| IngestError::Read { path: path.into(), offset_bytes: 0, cause };
        let mut elements = Elements::new(file).map_err(io)?;
        let header = header::read(&mut elements, path)?;
        elements.at = header.cluster_at;
        Ok(Self {
            path: path.into(),
            elements,
            ahead: Ahead::new(header.timebase, Some(header.origin_ticks), header.track.frame_ticks.unwrap_or(0)),
            frame_ticks: header.track.frame_ticks.unwrap_or_else(|| ticks(header.timebase, 40_000_000)),
            track: header.track,
            cluster_ticks: None,
            stills: StillReader::default(),
            after_loss: false,
            events: VecDeque::new(),
            earliest_next_pts_ns: None,
            ended: false,
        })
    }

    fn read_element(&mut self) -> std::io::Result<()> {
        let at = self.elements.at;
        let element = match self.elements.next()? {
            NextElement::Element(element) => element,
            NextElement::Damaged => return self.resume_behind(at),
            NextElement::End => {
                if let Some(end) = self.elements.is_cut_before() {
                    let detail = format!("the file ends early at byte {at}: its segment ends at byte {end}");
                    self.events.push_back(SourceEvent::Loss(Loss::of(LossOf::Parts, "truncated", 1, detail)));
                }
                self.ended = true;
                return Ok(());
            }
        };
        if element.id == Cluster::ID {
            self.cluster_ticks = None;
        } else if element.id == Segment::ID {
        } else if header::begins_file(&element) {
            let detail = "another Matroska file follows within this one, and is not read; split them";
            self.events.push_back(SourceEvent::Loss(Loss::of(LossOf::Parts, "unread_segment", 1, detail)));
            self.ended = true;
        } else if !self.elements.holds(&element) {
            return self.resume_behind(at);
        } else if element.id == Timestamp::ID {
            let body = self.elements.body(&element)?.unwrap_or_default();
            self.cluster_ticks = contained(|| Timestamp::decode_body(&mut &body[..])).ok().map(|ticks| *ticks);
        } else if element.id == SimpleBlock::ID || element.id == BlockGroup::ID {
            self.block(&element)?;
        } else {
            self.elements.skip(&element);
        }
        Ok(())
    }

    /// What is at `at` is damaged, or the file ends within it: goes on with the next cluster.
    fn resume_behind(&mut self, at: u64) -> std::io::Result<()> {
        self.after_loss = true;
        let loss = if self.elements.find_cluster(at + 1)? {
            let detail = format!("what is at byte {at} is no element; reading goes on with the next cluster");
            Loss::of(LossOf::Parts, "damaged_cluster", 1, detail)
        } else {
            self.ended = true;
            Loss::of(LossOf::Parts, "truncated", 1, format!("the file ends within the element at byte {at}"))
        };
        self.events.push_back(SourceEvent::Loss(loss));
        Ok(())
    }

    fn block(&mut self, element: &Element) -> std::io::Result<()> {
        let damaged =
            |what: &str| Loss::new("damaged_sample", 1, format!("the block at byte {} {what}", element.body_at));
        let Some(body) = self.elements.body(element)? else {
            self.elements.skip(element);
            self.lose(damaged("is larger than any picture"));
            return Ok(());
        };
        let Some(ticks) = self.cluster_ticks else {
            self.lose(damaged("is in a cluster without a time"));
            return Ok(());
        };
        let block = contained(|| {
            let mut body = &body[..];
            Ok::<ClusterBlock, mkv_element::Error>(if element.id == SimpleBlock::ID {
                SimpleBlock::decode_body(&mut body)?.into()
            } else {
                BlockGroup::decode_body(&mut body)?.into()
            })
        });
        let Ok(block) = block else {
            self.lose(damaged("is not readable"));
            return Ok(());
        };
        let cluster = Cluster { timestamp: Timestamp(ticks), blocks: vec![block], ..Cluster::default() };
        let frames = contained(|| cluster.frames().collect::<Result<Vec<_>, _>>());
        let Ok(frames) = frames else {
            self.lose(damaged("is not readable"));
            return Ok(());
        };
        let number = self.track.number;
        for frame in frames.iter().filter(|frame| frame.track_number == number) {
            match &frame.data {
                FrameData::Single(data) => self.sample(data, frame.timestamp, frame.is_keyframe, element),
                FrameData::Multiple(laced) => {
                    for (n, data) in laced.iter().enumerate() {
                        let pts = frame.timestamp.saturating_add(self.frame_ticks.saturating_mul(n as i64));
                        self.sample(data, pts, frame.is_keyframe, element);
                    }
                }
            }
        }
        Ok(())
    }

    /// One picture.
    fn sample(&mut self, data: &[u8], pts: i64, is_key: bool, element: &Element) {
        let whole;
        let data = if self.track.prefix.is_empty() {
            data
        } else {
            whole = [&self.track.prefix[..], data].concat();
            &whole
        };
        if self.track.codec == PacketCodec::Jpeg {
            match self.stills.unit(self.track.codec, data.to_vec()) {
                Ok(unit) => self.ahead.push(unit, pts, false),
                Err(why) => {
                    let loss = unreadable(&why);
                    let detail = format!("the block at byte {}: {}", element.body_at, loss.detail);
                    self.lose(Loss { detail, ..loss });
                }
            }
            return;
        }
        let units = &mut self.track.units;
        units.sync = is_key;
        let (nals, is_cut) = match self.track.length_bytes {
            Some(length_bytes) => length_prefixed(data, length_bytes),
            None => (annexb_nals(data).collect(), false),
        };
        let (unit, lost) = units.sample(nals);
        let lost = lost + u64::from(is_cut);
        let detail = || format!("the block at byte {} does not hold exactly one readable picture", element.body_at);
        match unit {
            Some(unit) if lost == 0 => {
                let after_loss = std::mem::take(&mut self.after_loss);
                self.ahead.push(unit, pts, after_loss);
            }
            unit => {
                let Some(unit) = unit.filter(|_| !is_cut) else {
                    let loss = units.loss(LossOf::Pictures, "damaged_sample", 1, detail());
                    return self.lose(loss);
                };
                let loss = units.loss(LossOf::Parts, "damaged_slice", lost.max(1), detail());
                self.lose(loss);
                self.ahead.push(unit, pts, true);
            }
        }
    }

    fn lose(&mut self, loss: Loss) {
        self.after_loss = true;
        self.events.push_back(SourceEvent::Loss(loss));
    }
}

impl Source for Mkv {
    fn earliest_next_pts_ns(&self) -> Option<i64> {
        self.earliest_next_pts_ns
    }

    fn orientation(&self) -> Result<Orientation, IngestError> {
        let refused = |reason| header::refusal(&self.path, reason, ORIENTATION_FIX);
        self.track.orientation.clone().map_err(refused)
    }

    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Some((event, earliest_next_pts_ns)) = self.ahead.next(self.ended) {
                self.earliest_next_pts_ns = earliest_next_pts_ns;
                return Ok(event);
            }
            if self.ended {
                return Ok(SourceEvent::End);
            }
            let offset_bytes = self.elements.at;
            self.read_element().map_err(|cause| IngestError::Read { path: self.path.clone(), offset_bytes, cause })?;
        }
    }
}

/// So many nanoseconds in ticks.
fn ticks(timebase: Timebase, ns: i64) -> i64 {
    let per_second = i128::from(timebase.num) * 1_000_000_000;
    (i128::from(ns) * i128::from(timebase.den) / per_second.max(1)) as i64
}
