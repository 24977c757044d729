//! Movie fragments (ISO/IEC 14496-12, 8.8): what a recorder appends while it records.

use super::boxes::{child, children};
use super::samples::{Facts, Samples, TooMany};
use mp4_atom::{Atom, Mfhd, Tfdt, Tfhd, Tkhd, Trex, Trun, TrunEntry};
use std::collections::{BTreeMap, BTreeSet};

/// A sample that says so in its flags is no place to start at; so is one that depends on others.
const NOT_SYNC: u32 = 0x0101_0000;

/// The fragments of a file, read one by one.
pub(super) struct Fragments {
    track: u32,
    of_track: BTreeMap<u32, Trex>,
    /// All tracks that the index has.
    known: BTreeSet<u32>,
    numbers: Numbers,
    /// Where in the file data begin that a fragment refers to.
    pub places: Vec<u64>,
}

/// What a fragment of the track could not be read for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooMany,
    Damaged(String),
}

impl From<TooMany> for Fault {
    fn from(_: TooMany) -> Self {
        Self::TooMany
    }
}

impl Fragments {
    /// Fragments of a track behind this `moov` box. A default that cannot be read is none.
    pub(super) fn new(track: u32, moov: &[u8]) -> Self {
        let mvex = child(moov, b"mvex").unwrap_or_default();
        let trex = children(mvex).filter(|(kind, _)| &kind.0 == b"trex");
        let trex = trex.filter_map(|(_, mut body)| Trex::decode_body(&mut body).ok());
        let of_track: BTreeMap<_, _> = trex.map(|trex| (trex.track_id, trex)).collect();
        let traks = children(moov).filter(|(kind, _)| &kind.0 == b"trak");
        let ids: Option<BTreeSet<u32>> = traks
            .map(|(_, trak)| Tkhd::decode_body(&mut child(trak, b"tkhd")?).ok().map(|tkhd| tkhd.track_id))
            .collect();
        // a track that cannot be read has its number there, too
        let known = ids.unwrap_or_else(|| of_track.keys().copied().chain([track]).collect());
        Self { track, of_track, known, numbers: Numbers::default(), places: Vec::new() }
    }

    fn defaults(&self, track: u32) -> Trex {
        let none = || Trex { track_id: track, default_sample_description_index: 1, ..Trex::default() };
        self.of_track.get(&track).cloned().unwrap_or_else(none)
    }

    /// Appends the samples of the track that a `moof` box names, which begins at `start` in the file. The data of the tracks
    /// follow each other where nothing else is said, so the other tracks' are counted, too. Tells whether the fragment states
    /// a time that cannot follow: then its samples follow those before it.
    pub(super) fn read(&mut self, moof: &[u8], start: u64, samples: &mut Samples) -> Result<bool, Fault> {
        let (mut fault, mut strange) = (None, None);
        let (mut goes_back, mut has_own) = (false, false);
        let mut data_end = Some(start);
        self.numbers.next(child(moof, b"mfhd").and_then(|mut body| Mfhd::decode_body(&mut body).ok()));
        for (kind, traf) in children(moof) {
            if &kind.0 != b"traf" {
                if children(traf).next().is_some_and(|(first, _)| &first.0 == b"tfhd") {
                    strange = Some(format!("it has a box '{kind}' where 'traf' is expected"));
                }
                continue;
            }
            let tfhd = child(traf, b"tfhd").ok_or_else(|| "it has no 'tfhd'".to_owned());
            let tfhd = tfhd.and_then(|mut body| Tfhd::decode_body(&mut body).map_err(|e| format!("its 'tfhd': {e}")));
            let tfhd = match tfhd {
                Ok(tfhd) => tfhd,
                Err(why) => {
                    // nobody knows whose it was
                    fault = fault.or(Some(Fault::Damaged(why)));
                    data_end = None;
                    continue;
                }
            };
            let base = match tfhd.base_data_offset {
                Some(base) => Some(base),
                None if tfhd.default_base_is_moof => Some(start),
                None => data_end,
            };
            let id = tfhd.track_id;
            if !self.known.contains(&id) {
                strange = Some(format!("it is of track {id}, which the index does not have"));
            }
            let mut run = Run { defaults: self.defaults(id), tfhd, base, at: base, places: &mut self.places };
            let own = id == self.track;
            let read = if own {
                has_own = true;
                run.append(traf, start, &mut self.numbers, samples)
            } else {
                run.step_over(traf).map_err(Fault::Damaged)
            };
            data_end = run.at;
            match read {
                Err(Fault::TooMany) => return Err(Fault::TooMany),
                Err(why) if own => fault = fault.or(Some(why)),
                // a track that is not read spoils none that is
                Err(_) => data_end = None,
                Ok(back) => goes_back |= back,
            }
        }
        let strange = strange.filter(|_| !has_own).map(Fault::Damaged);
        fault.or(strange).map_or(Ok(goes_back), Err)
    }
}

/// The numbers of the fragments, which count up by one. They begin anywhere, and anew where recordings are joined. Where some
/// are left out and no time is, they say nothing: a file may have been made of one track of several.
#[derive(Debug, Default)]
struct Numbers {
    last: Option<u32>,
    /// Fragments that are missing by their numbers, since the last of the track.
    left_out: u32,
    /// One number has followed another.
    count_up: bool,
    say_nothing: bool,
}

impl Numbers {
    fn next(&mut self, mfhd: Option<Mfhd>) {
        let number = mfhd.map(|mfhd| mfhd.sequence_number);
        let step = number.zip(self.last).map_or(0, |(number, last)| number.saturating_sub(last));
        self.count_up |= step == 1;
        self.left_out = self.left_out.saturating_add(step.saturating_sub(1));
        self.last = number;
    }

    /// How many fragments are missing in front of the one that is read. `pause`: whether time is left out, too, where the
    /// fragment states its time.
    fn missing(&mut self, pause: Option<bool>) -> u32 {
        let left_out = std::mem::take(&mut self.left_out);
        self.say_nothing |= left_out > 0 && pause == Some(false);
        let is_sign = pause.unwrap_or(self.count_up) && !self.say_nothing;
        if is_sign { left_out } else { 0 }
    }
}

/// The samples of a track in a fragment.
struct Run<'a> {
    tfhd: Tfhd,
    defaults: Trex,
    /// What the runs' offsets count from, and where the next sample is; `None` where that is not known.
    base: Option<u64>,
    at: Option<u64>,
    places: &'a mut Vec<u64>,
}

impl Run<'_> {
    fn append(&mut self, traf: &[u8], start: u64, numbers: &mut Numbers, samples: &mut Samples) -> Result<bool, Fault> {
        let mut goes_back = false;
        let tfdt = child(traf, b"tfdt").map(|mut body| Tfdt::decode_body(&mut body));
        let tfdt = tfdt.transpose().map_err(|e| Fault::Damaged(format!("its 'tfdt': {e}")))?;
        let dts = tfdt.map(|tfdt| i64::try_from(tfdt.base_media_decode_time).unwrap_or(i64::MAX));
        let missing = numbers.missing(dts.map(|dts| samples.is_pause(dts)));
        if missing > 0 {
            samples.push_missing_fragments(start, missing)?;
        }
        if let Some(dts) = dts {
            goes_back = !samples.continue_at(dts);
        }
        if self.tfhd.duration_is_empty {
            samples.pause(i64::from(self.duration(None)));
        }
        for trun in truns(traf) {
            let trun = trun.map_err(Fault::Damaged)?;
            self.begin(&trun);
            let same = matches!(trun.samples, mp4_atom::TrunSamples::Inherited { .. });
            let count = trun.samples.len() as u32;
            for (n, entry) in (0u32..).zip(trun.samples.iter()) {
                let facts = self.facts(&entry);
                if same && n > 0 && (facts.len == 0 || samples.absent(&facts).is_some()) {
                    // nothing bounds their number, and none of those behind it is there either
                    let ticks = i64::from(facts.duration).saturating_mul(i64::from(count - n));
                    match samples.absent(&facts).filter(|_| facts.len > 0) {
                        Some(why) => samples.push_absent(&facts, count - n, ticks, why)?,
                        None => samples.pause(ticks),
                    }
                    self.step(u64::from(facts.len).saturating_mul(u64::from(count - n)));
                    break;
                }
                samples.push(facts)?;
                self.step(u64::from(facts.len));
            }
        }
        Ok(goes_back)
    }

    /// Looks only where the data end.
    fn step_over(&mut self, traf: &[u8]) -> Result<bool, String> {
        for trun in truns(traf) {
            let trun = trun?;
            self.begin(&trun);
            let bytes = match &trun.samples {
                mp4_atom::TrunSamples::Inherited { count, .. } => {
                    u64::from(self.len(None)).saturating_mul(u64::from(*count))
                }
                mp4_atom::TrunSamples::Explicit(entries) => {
                    entries.iter().map(|entry| u64::from(self.len(entry.size))).sum()
                }
            };
            self.step(bytes);
        }
        Ok(false)
    }

    fn begin(&mut self, trun: &Trun) {
        if let Some(offset) = trun.data_offset {
            self.at = self.base.and_then(|base| base.checked_add_signed(i64::from(offset)));
        }
        if !trun.samples.is_empty() {
            self.places.extend(self.at);
        }
    }

    fn step(&mut self, bytes: u64) {
        self.at = self.at.and_then(|at| at.checked_add(bytes));
    }

    fn len(&self, own: Option<u32>) -> u32 {
        own.or(self.tfhd.default_sample_size).unwrap_or(self.defaults.default_sample_size)
    }

    fn duration(&self, own: Option<u32>) -> i32 {
        own.or(self.tfhd.default_sample_duration).unwrap_or(self.defaults.default_sample_duration) as i32
    }

    fn facts(&self, entry: &TrunEntry) -> Facts {
        let flags = entry.flags.or(self.tfhd.default_sample_flags).unwrap_or(self.defaults.default_sample_flags);
        let description = self.tfhd.sample_description_index;
        Facts {
            offset: self.at,
            len: self.len(entry.size),
            // offsets below 0 are written also where the version says that there are none
            composition: entry.cts.map_or(0, |offset| offset as i32),
            duration: self.duration(entry.duration),
            description: description.unwrap_or(self.defaults.default_sample_description_index),
            sync: flags & NOT_SYNC == 0,
        }
    }
}

fn truns(traf: &[u8]) -> impl Iterator<Item = Result<Trun, String>> {
    let truns = children(traf).filter(|(kind, _)| &kind.0 == b"trun");
    truns.map(|(_, mut body)| Trun::decode_body(&mut body).map_err(|e| format!("its 'trun': {e}")))
}
