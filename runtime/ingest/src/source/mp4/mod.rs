//! MP4 and QuickTime files: samples by the sample tables and the fragments, lengths to start codes, times by the edit list.

mod boxes;
mod edits;
mod entry;
mod fragments;
mod index;
mod matrix;
mod movie;
mod order;
mod projection;
mod samples;
mod tables;

use super::{Source, SourceEvent};
use crate::syntax::nal::{find_start_code, length_prefixed};
use crate::syntax::still::StillReader;
use crate::syntax::{ParsedUnit, StatedSize, UnitBuilder, annexb_nals};
use crate::{IngestError, Loss, LossOf};
use entry::Entry;
use millrace_frame::{Orientation, PacketCodec, Timebase};
use order::{Player, Step};
use samples::{Absent, Content, Sample};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Why a file, or one of its tracks, is not read, and what the user can do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal {
    reason: String,
    fix: &'static str,
}

pub(crate) struct Mp4 {
    file: File,
    path: PathBuf,
    len_bytes: u64,
    entries: Vec<Entry>,
    samples: Vec<Sample>,
    /// The samples have times.
    timed: bool,
    player: Player,
    orientation: Result<Orientation, Refusal>,
    earliest_next_pts_ns: Option<i64>,
    /// What is reported before the next sample.
    queued: VecDeque<SourceEvent>,
    /// What is reported behind the last sample.
    at_the_end: Vec<Loss>,
    /// Why fragments cannot be read, by where they begin.
    damaged: BTreeMap<u64, String>,
    /// The sample description in use, and what it configures.
    entry: Option<usize>,
    length_bytes: Option<usize>,
    codec: PacketCodec,
    units: UnitBuilder,
    stills: StillReader,
    after_loss: bool,
    buf: Vec<u8>,
}

impl Mp4 {
    pub(crate) fn open(file: File, path: &Path) -> Result<Self, IngestError> {
        let read = |cause| IngestError::Read { path: path.into(), offset_bytes: 0, cause };
        let refused = |Refusal { reason, fix }: Refusal| IngestError::Container { path: path.into(), reason, fix };
        let len_bytes = file.metadata().map_err(read)?.len();
        let index = index::read(&file, len_bytes).map_err(read)?.map_err(refused)?;
        let track = movie::read(&file, &index, len_bytes).map_err(read)?.map_err(refused)?;
        let timebase = Timebase { num: 1, den: track.timescale };
        let is_whole = !track.samples.iter().any(|sample| matches!(sample.content, Content::Absent { .. }));
        let player = Player::new(&track.edits, &track.samples, timebase);
        Ok(Self {
            file,
            path: path.into(),
            len_bytes,
            entries: track.entries,
            samples: track.samples,
            timed: track.timed,
            player,
            orientation: track.orientation,
            earliest_next_pts_ns: None,
            queued: track.counted.into_iter().map(SourceEvent::Counted).collect(),
            at_the_end: [
                ("damaged_fragment", index.lost),
                ("truncated", index.short.or(index.cut.filter(|_| is_whole))),
                ("unread_recording", index.unread),
            ]
            .into_iter()
            .filter_map(|(cause, detail)| Some(Loss::of(LossOf::Parts, cause, 1, detail?)))
            .collect(),
            damaged: track.damaged,
            entry: None,
            length_bytes: None,
            codec: PacketCodec::H264,
            units: UnitBuilder::new(PacketCodec::H264),
            stills: StillReader::default(),
            after_loss: false,
            buf: Vec::new(),
        })
    }

    /// Takes over the sample description of a sample: its parameter sets count from here on, as if they were in the stream.
    /// Tells whether the codec is another one.
    fn describe(&mut self, entry: usize) -> bool {
        let (Some(Entry::Video(video)), true) = (self.entries.get(entry), Some(entry) != self.entry) else {
            return false;
        };
        let is_first = self.entry.is_none();
        // nothing refers to a picture of another description
        self.after_loss |=
            self.entry.is_some_and(|old| !matches!(&self.entries[old], Entry::Video(old) if old.sets == video.sets && old.codec == video.codec));
        self.entry = Some(entry);
        self.length_bytes = video.length_bytes;
        let other_codec = video.codec != self.codec;
        if other_codec {
            (self.codec, self.units) = (video.codec, UnitBuilder::new(video.codec));
        }
        video.sets.iter().for_each(|set| self.units.out_of_band(set));
        let [width_px, height_px] = video.size_px.map(u32::from);
        self.units.stated = StatedSize::new(width_px, height_px);
        other_codec && !is_first
    }

    fn sample(&mut self, number: usize) -> Result<SourceEvent, IngestError> {
        let sample = self.samples[number].clone();
        let times = self.player.times(&sample);
        self.earliest_next_pts_ns = self.timed.then(|| self.player.earliest_next_pts_ns(number));
        let len = match sample.content {
            Content::Bytes(len) => len,
            Content::Absent { samples, why } => return Ok(self.absent(&sample, samples, why)),
        };
        let mut buf = std::mem::take(&mut self.buf);
        buf.resize(len as usize, 0);
        if let Err(cause) = self.file.read_exact_at(&mut buf, sample.offset) {
            if cause.kind() == std::io::ErrorKind::UnexpectedEof {
                let detail = format!("the file was shortened to less than {} bytes", sample.offset + u64::from(len));
                return Ok(self.lose(Loss::new("truncated", 1, detail)));
            }
            return Err(IngestError::Read { path: self.path.clone(), offset_bytes: sample.offset, cause });
        }
        self.units.sync = sample.sync;
        let (unit, lost, cut) = self.unit(&buf);
        self.buf = buf;
        let times = self.timed.then_some(times);
        let after_loss = std::mem::take(&mut self.after_loss);
        match unit {
            Some(unit) if lost == 0 => Ok(SourceEvent::Unit { unit, times, after_loss }),
            unit => {
                let detail = format!("the sample at byte {} does not hold exactly one readable picture", sample.offset);
                self.after_loss = true;
                let Some(unit) = unit.filter(|_| !cut) else {
                    let loss = self.units.loss(LossOf::Pictures, "damaged_sample", 1, detail);
                    return Ok(SourceEvent::Loss(loss));
                };
                let loss = self.units.loss(LossOf::Parts, "damaged_slice", lost.max(1), detail);
                self.queued.push_back(SourceEvent::Loss(loss));
                Ok(SourceEvent::Unit { unit, times, after_loss: true })
            }
        }
    }

    /// The picture of a sample, how many parts are lost, and whether a length in it is wrong.
    fn unit(&mut self, sample: &[u8]) -> (Option<ParsedUnit>, u64, bool) {
        if self.codec == PacketCodec::Jpeg {
            let unit = self.stills.unit(self.codec, sample.to_vec()).ok();
            let lost = u64::from(unit.is_none());
            return (unit, lost, false);
        }
        let (nals, cut) = length_prefixed(sample, self.length_bytes.unwrap_or(4));
        let has_start_codes = || find_start_code(sample, 0).is_some_and(|at| sample[..at].iter().all(|&b| b == 0));
        if cut && self.length_bytes.is_none() && has_start_codes() {
            let (unit, lost) = self.units.sample(annexb_nals(sample));
            return (unit, lost, false);
        }
        let (unit, lost) = self.units.sample(nals);
        (unit, lost + u64::from(cut), cut)
    }

    fn lose(&mut self, loss: Loss) -> SourceEvent {
        self.after_loss = true;
        SourceEvent::Loss(loss)
    }

    fn absent(&mut self, sample: &Sample, samples: u32, why: Absent) -> SourceEvent {
        let (cause, detail) = match why {
            Absent::BehindTheEnd => {
                let (end, start) = (self.len_bytes, sample.offset);
                (
                    "truncated",
                    format!("the file ends early at byte {end}, inside of or before the sample at byte {start}"),
                )
            }
            Absent::NoPlace => ("damaged_sample", "the tables do not say where the sample is".to_owned()),
            Absent::Oversized => {
                ("oversized_unit", format!("the sample at byte {} claims more than 64 MiB", sample.offset))
            }
            Absent::Fragment => {
                let start = sample.offset;
                let why = self.damaged.get(&start).map_or("", String::as_str);
                ("damaged_fragment", format!("the fragment at byte {start} cannot be read: {why}"))
            }
            Absent::MissingFragments => {
                let start = sample.offset;
                (
                    "missing_fragment",
                    format!("fragments are missing in front of the one at byte {start}, by its number"),
                )
            }
            Absent::Unnamed => {
                let start = sample.offset;
                ("damaged_fragment", format!("no fragment that can be read names the data at byte {start}"))
            }
            Absent::OtherDescription => {
                let why = match self.entries.get(sample.entry as usize) {
                    Some(Entry::Other(refusal)) => refusal.reason.clone(),
                    _ => "it is not in the file".to_owned(),
                };
                ("unreadable_description", format!("sample description {}: {why}", u64::from(sample.entry) + 1))
            }
        };
        let of = if sample.is_unknown() { LossOf::Parts } else { LossOf::Pictures };
        self.lose(Loss::of(of, cause, u64::from(samples), detail))
    }
}

impl Source for Mp4 {
    fn earliest_next_pts_ns(&self) -> Option<i64> {
        self.earliest_next_pts_ns
    }

    fn orientation(&self) -> Result<Orientation, IngestError> {
        let refused = |Refusal { reason, fix }| IngestError::Container { path: self.path.clone(), reason, fix };
        self.orientation.clone().map_err(refused)
    }

    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        if let Some(event) = self.queued.pop_front() {
            return Ok(event);
        }
        match self.player.step(&self.samples) {
            Step::Sample(number) => {
                let other_codec = self.samples[number].is_there() && self.describe(self.samples[number].entry as usize);
                let event = self.sample(number)?;
                if other_codec {
                    // what was decoded so far goes out before the other decoder begins
                    self.queued.push_front(event);
                    return Ok(SourceEvent::Flush);
                }
                Ok(event)
            }
            Step::Jump => {
                // the samples may have replaced parameter sets of their description
                self.entry = None;
                Ok(SourceEvent::Flush)
            }
            Step::End => Ok(self.at_the_end.pop().map_or(SourceEvent::End, SourceEvent::Loss)),
        }
    }
}
