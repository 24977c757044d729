//! MP4 and MOV files: samples by the sample tables, length prefixes to start codes, times by the edit list.

use super::mp4_boxes::{Bounded, MAX_SAMPLES, outline};
use super::mp4_order as order;
use super::{Source, SourceEvent, Times};
use crate::syntax::UnitBuilder;
use crate::syntax::nal::length_prefixed;
use crate::{IngestError, Loss, LossOf};
use millrace_frame::{PacketCodec, Timebase};
use re_mp4::StsdBoxContent;
use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// More than any level allows for a picture.
const MAX_SAMPLE_BYTES: u64 = 64 << 20;

pub(super) struct Sample {
    offset_bytes: u64,
    len_bytes: u64,
    pub(super) times: Times,
    sync: bool,
}

#[cfg(test)]
impl Sample {
    pub(super) fn for_test(times: Times) -> Self {
        Self { offset_bytes: 0, len_bytes: 0, times, sync: false }
    }
}

pub(crate) struct Mp4 {
    file: File,
    path: PathBuf,
    len_bytes: u64,
    samples: Vec<Sample>,
    /// Of each sample: when the earliest picture behind it is shown.
    earliest_next_pts_ns: Vec<i64>,
    next: usize,
    length_bytes: usize,
    units: UnitBuilder,
    after_loss: bool,
    queued: Option<Loss>,
    buf: Vec<u8>,
}

impl Mp4 {
    pub(crate) fn open(file: File, path: &Path) -> Result<Self, IngestError> {
        let read = |cause| IngestError::Read { path: path.into(), offset_bytes: 0, cause };
        let container = |reason: String, fix| IngestError::Container { path: path.into(), reason, fix };
        let len_bytes = file.metadata().map_err(read)?.len();
        let outline = outline(&mut BufReader::new(&file), len_bytes).map_err(read)?;
        if !outline.has_index {
            let fix = "the recording was cut short before its index (moov) was written; recover it with another tool";
            return Err(container("it has no index".into(), fix));
        }
        if outline.samples > MAX_SAMPLES {
            let reason = format!("it claims {} samples, more than {MAX_SAMPLES}", outline.samples);
            return Err(container(reason, "the file is damaged"));
        }
        // The parser refuses a box that ends behind the file, and indexes tables without looking whether they agree.
        let size = outline.declared_end.max(len_bytes);
        let mut reader = Bounded::new(BufReader::new(&file), len_bytes.saturating_sub(outline.media_bytes));
        std::io::Seek::rewind(&mut reader).map_err(read)?;
        let parsed = catch_unwind(AssertUnwindSafe(|| re_mp4::Mp4::read(reader, size)));
        let damaged = "the file is damaged; remux it with another tool";
        let mp4 = match parsed {
            Ok(Ok(mp4)) => mp4,
            Ok(Err(e)) => return Err(container(e.to_string(), damaged)),
            Err(_) => return Err(container("its sample tables contradict each other".into(), damaged)),
        };
        let mut other = None;
        for track in mp4.tracks().values() {
            let trak = track.trak(&mp4);
            let (codec, length_bytes, sets) = match &trak.mdia.minf.stbl.stsd.contents {
                StsdBoxContent::Avc1(avc) => {
                    let c = &avc.avcc.contents;
                    let sets = c.sequence_parameter_sets.iter().chain(&c.picture_parameter_sets);
                    (PacketCodec::H264, c.length_size_minus_one & 3, sets.map(|s| &s.bytes[..]).collect::<Vec<_>>())
                }
                StsdBoxContent::Hvc1(hevc) | StsdBoxContent::Hev1(hevc) => {
                    let c = &hevc.hvcc.contents;
                    let sets = c.arrays.iter().flat_map(|a| &a.nalus).map(|n| &n.data[..]).collect();
                    (PacketCodec::H265, c.length_size_minus_one & 3, sets)
                }
                _ => {
                    other = other.or_else(|| track.codec_string(&mp4).filter(|c| !c.starts_with("mp4a")));
                    continue;
                }
            };
            let mut units = UnitBuilder::new(codec);
            sets.into_iter().for_each(|set| units.out_of_band(set));
            let mut samples = samples(track, &mp4);
            let earliest_next_pts_ns = order::earliest_next_pts_ns(&samples);
            order::decode_as_late_as_possible(&mut samples, &earliest_next_pts_ns);
            return Ok(Self {
                samples,
                earliest_next_pts_ns,
                file,
                path: path.into(),
                len_bytes,
                next: 0,
                length_bytes: usize::from(length_bytes) + 1,
                units,
                after_loss: false,
                queued: None,
                buf: Vec::new(),
            });
        }
        let reason = match other {
            Some(codec) => format!("its video is '{codec}'"),
            None => "it has no video track that is known here".into(),
        };
        Err(container(reason, "H.264 (avc1) or H.265 (hvc1, hev1) is expected; transcode it"))
    }

    fn lose(&mut self, cause: &'static str, detail: String) -> SourceEvent {
        self.after_loss = true;
        SourceEvent::Loss(Loss::new(cause, 1, detail))
    }
}

/// The samples of a track with their times on the presentation's own clock (ISO/IEC 14496-12, 8.6.6: the first edit that
/// shows media says which media time is shown when).
fn samples(track: &re_mp4::Track, mp4: &re_mp4::Mp4) -> Vec<Sample> {
    let trak = track.trak(mp4);
    let timescale = u32::try_from(track.timescale).unwrap_or(u32::MAX).max(1);
    let timebase = Timebase { num: 1, den: timescale };
    let movie_timescale = i128::from(mp4.moov.mvhd.timescale.max(1));
    let to_media = |movie: u64| (i128::from(movie) * i128::from(timescale) / movie_timescale) as i64;
    let (mut delay, mut start, mut length) = (0i64, 0i64, i64::MAX);
    let edits = trak.edts.as_ref().and_then(|e| e.elst.as_ref()).map_or(&[][..], |e| &e.entries[..]);
    let empty = |media_time: u64| media_time == u64::MAX || media_time == u64::from(u32::MAX);
    for (n, edit) in edits.iter().enumerate() {
        if empty(edit.media_time) {
            delay = delay.saturating_add(to_media(edit.segment_duration));
            continue;
        }
        start = i64::try_from(edit.media_time).unwrap_or(0);
        if edit.segment_duration > 0 {
            length = to_media(edit.segment_duration);
        }
        if n + 1 < edits.len() {
            tracing::warn!(edits = edits.len(), "the edit list has further edits, of which only the first is followed");
        }
        break;
    }
    // The parser moves the times of a track that is not fragmented so that the smallest is 0; the edit list speaks of
    // them unmoved. The first sample's own time is its composition offset.
    let moved = match (track.samples.first(), &trak.mdia.minf.stbl.ctts) {
        (Some(first), ctts) if trak.mdia.minf.stbl.stsz.sample_count > 0 => {
            let offset = ctts.as_ref().and_then(|c| c.entries.first()).map_or(0, |e| i64::from(e.sample_offset));
            offset.wrapping_sub(first.composition_timestamp)
        }
        _ => 0,
    };
    let shift = moved.wrapping_sub(start);
    track
        .samples
        .iter()
        .map(|s| {
            let shown_at = s.composition_timestamp.wrapping_add(shift);
            Sample {
                offset_bytes: s.offset,
                len_bytes: s.size,
                sync: s.is_sync,
                times: Times {
                    pts_ns: timebase.to_ns(shown_at.wrapping_add(delay)),
                    dts_ns: timebase.to_ns(s.decode_timestamp.wrapping_add(shift).wrapping_add(delay)),
                    duration_ns: timebase.to_ns(s.duration.min(i64::MAX as u64) as i64),
                    timebase,
                    shown: (0..length).contains(&shown_at),
                },
            }
        })
        .collect()
}

impl Source for Mp4 {
    fn earliest_next_pts_ns(&self) -> Option<i64> {
        self.next.checked_sub(1).and_then(|last| self.earliest_next_pts_ns.get(last)).copied()
    }

    fn next(&mut self) -> Result<SourceEvent, IngestError> {
        if let Some(loss) = self.queued.take() {
            return Ok(SourceEvent::Loss(loss));
        }
        let Some(sample) = self.samples.get(self.next) else { return Ok(SourceEvent::End) };
        self.next += 1;
        let number = self.next;
        let (offset_bytes, len_bytes, times) = (sample.offset_bytes, sample.len_bytes, sample.times);
        self.units.sync = sample.sync;
        if len_bytes > MAX_SAMPLE_BYTES {
            return Ok(self.lose("oversized_unit", format!("sample {number} claims {len_bytes} bytes")));
        }
        if offset_bytes.saturating_add(len_bytes) > self.len_bytes {
            let detail = format!(
                "sample {number} ends at byte {}, the file has {}",
                offset_bytes.saturating_add(len_bytes),
                self.len_bytes
            );
            return Ok(self.lose("truncated", detail));
        }
        let mut buf = std::mem::take(&mut self.buf);
        buf.resize(len_bytes as usize, 0);
        if let Err(cause) = self.file.read_exact_at(&mut buf, offset_bytes) {
            if cause.kind() == std::io::ErrorKind::UnexpectedEof {
                return Ok(self.lose("truncated", format!("the file was shortened before sample {number}")));
            }
            return Err(IngestError::Read { path: self.path.clone(), offset_bytes, cause });
        }
        let (nals, cut) = length_prefixed(&buf, self.length_bytes);
        let (unit, lost) = self.units.sample(nals);
        let lost = lost + u64::from(cut);
        self.buf = buf;
        let after_loss = std::mem::take(&mut self.after_loss);
        match unit {
            Some(unit) if lost == 0 => Ok(SourceEvent::Unit { unit, times: Some(times), after_loss }),
            unit => {
                let detail = format!("sample {number} does not hold exactly one readable picture");
                self.after_loss = true;
                let Some(unit) = unit.filter(|_| !cut) else {
                    let loss = self.units.loss(LossOf::Pictures, "damaged_sample", 1, detail);
                    return Ok(SourceEvent::Loss(loss));
                };
                self.queued = Some(self.units.loss(LossOf::Parts, "damaged_slice", lost.max(1), detail));
                Ok(SourceEvent::Unit { unit, times: Some(times), after_loss: true })
            }
        }
    }
}
