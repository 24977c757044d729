//! The samples of the track, in decoding order, whether its tables name them or its fragments.

use super::entry::Entry;

/// A day of video at 100 frames a second has 9 million.
const MOST_SAMPLES: usize = 10_000_000;

/// More than any level allows for a picture.
const MOST_SAMPLE_BYTES: u32 = 64 << 20;

/// Some recorders count from 1904. Nanoseconds in 64 bits reach twice as far.
pub(super) const LATEST_S: i64 = 4_600_000_000;

/// So much longer than a recording its composition offsets may reach.
const SPARE_S: i64 = 10;

/// No coded picture has fewer bytes, so a file has room for a number of samples that is known.
const LEAST_SAMPLE_BYTES: u64 = 4;

/// A sample, or a run of samples that are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub offset: u64,
    pub content: Content,
    /// Decoding time and composition offset, in ticks of the track.
    pub dts: i64,
    pub composition: i32,
    pub duration: i32,
    /// Number of its sample description, from 0.
    pub entry: u32,
    pub sync: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Bytes(u32),
    Absent { samples: u32, why: Absent },
}

/// Why a sample cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// It ends behind the end of the file.
    BehindTheEnd,
    /// The tables, or the fragment, do not say where it is.
    NoPlace,
    Oversized,
    /// It refers to a sample description that is not there or not read.
    OtherDescription,
    /// What is in the fragment that begins at its offset is not known.
    Fragment,
    /// Fragments are missing in front of the one that begins at its offset.
    MissingFragments,
    /// Nothing says what is in the data that begin at its offset.
    Unnamed,
}

impl Sample {
    pub(super) fn pts(&self) -> i64 {
        self.dts.saturating_add(i64::from(self.composition))
    }

    /// Which pictures it stands for is not known.
    pub(super) fn is_unknown(&self) -> bool {
        let Content::Absent { why, .. } = self.content else { return false };
        matches!(why, Absent::Fragment | Absent::MissingFragments | Absent::Unnamed)
    }

    pub(super) fn is_there(&self) -> bool {
        matches!(self.content, Content::Bytes(_))
    }
}

/// What one or several samples have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// `None`: nothing says where they are.
    pub offset: Option<u64>,
    pub len: u32,
    pub composition: i32,
    pub duration: i32,
    /// Number of the sample description as the file counts, from 1. Some recorders write 0 for the first.
    pub description: u32,
    pub sync: bool,
}

impl Facts {
    fn nothing_at(offset: u64) -> Self {
        Self { offset: Some(offset), len: 0, composition: 0, duration: 0, description: 1, sync: false }
    }
}

/// A file names more samples than it can hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

/// Collects the samples. Its size is bounded by that of the file, whatever the tables claim.
#[derive(Debug)]
pub(super) struct Samples {
    pub list: Vec<Sample>,
    file_bytes: u64,
    most: usize,
    /// Which descriptions are read.
    described: Vec<bool>,
    /// Decoding time of the next sample.
    next_dts: i64,
    /// No time of a recording is later.
    latest_dts: i64,
}

impl Samples {
    pub(super) fn new(file_bytes: u64, entries: &[Entry], timescale: u32) -> Self {
        let room = usize::try_from(file_bytes / LEAST_SAMPLE_BYTES).unwrap_or(usize::MAX);
        Self {
            list: Vec::new(),
            file_bytes,
            most: room.min(MOST_SAMPLES),
            described: entries.iter().map(|entry| matches!(entry, Entry::Video(_))).collect(),
            next_dts: 0,
            latest_dts: i64::from(timescale).saturating_mul(LATEST_S),
        }
    }

    /// When the next sample is decoded, as far as those before it say.
    pub(super) fn next_dts(&self) -> i64 {
        self.next_dts
    }

    /// Whether a sample that is decoded at `dts` leaves time out behind those before it.
    pub(super) fn is_pause(&self, dts: i64) -> bool {
        let last = self.list.last().filter(|_| dts <= self.latest_dts);
        last.is_some_and(|last| dts.saturating_sub(self.next_dts) > i64::from(last.duration.max(0) / 2))
    }

    /// Nothing comes for a while.
    pub(super) fn pause(&mut self, ticks: i64) {
        self.next_dts = self.next_dts.saturating_add(ticks);
    }

    /// The next sample is decoded at `dts`, unless others are decoded later already, or no recording has such a time: then
    /// time goes on by the durations. Tells which.
    pub(super) fn continue_at(&mut self, dts: i64) -> bool {
        let goes_on = dts <= self.latest_dts && self.list.last().is_none_or(|last| dts > last.dts);
        if goes_on {
            self.next_dts = dts;
        }
        goes_on
    }

    /// Appends a sample. One without bytes is none: no picture is missing, time goes on.
    pub(super) fn push(&mut self, facts: Facts) -> Result<(), TooMany> {
        if facts.len == 0 && facts.offset.is_some() {
            self.pause(i64::from(facts.duration));
            return Ok(());
        }
        match self.absent(&facts) {
            Some(why) => self.push_absent(&facts, 1, i64::from(facts.duration), why),
            None => self.add(&facts, Content::Bytes(facts.len), i64::from(facts.duration)),
        }
    }

    /// Appends samples that are not there, which last so many ticks together.
    pub(super) fn push_absent(&mut self, facts: &Facts, samples: u32, ticks: i64, why: Absent) -> Result<(), TooMany> {
        if let Some(Sample { content: Content::Absent { samples: run, why: of }, .. }) = self.list.last_mut()
            && *of == why
            && let Some(longer) = run.checked_add(samples)
        {
            *run = longer;
            self.pause(ticks);
            return Ok(());
        }
        self.add(facts, Content::Absent { samples, why }, ticks)
    }

    /// A fragment that begins at `start` cannot be read to its end.
    pub(super) fn push_damaged_fragment(&mut self, start: u64) -> Result<(), TooMany> {
        self.add(&Facts::nothing_at(start), Content::Absent { samples: 1, why: Absent::Fragment }, 0)
    }

    /// So many fragments are missing in front of the one that begins at `start`.
    pub(super) fn push_missing_fragments(&mut self, start: u64, fragments: u32) -> Result<(), TooMany> {
        // in front of the first there is nothing to miss
        if self.list.is_empty() {
            return Ok(());
        }
        let content = Content::Absent { samples: fragments, why: Absent::MissingFragments };
        self.add(&Facts::nothing_at(start), content, 0)
    }

    /// In so many places, the first of which is `start`, there are data that nothing refers to.
    pub(super) fn insert_unnamed(&mut self, start: u64, places: u32) {
        let at = self.list.iter().position(|sample| sample.offset > start).unwrap_or(self.list.len());
        let Some(near) = self.list.get(at).or(self.list.last()) else { return };
        let content = Content::Absent { samples: places, why: Absent::Unnamed };
        self.list.insert(at, Sample { offset: start, content, composition: 0, duration: 0, ..near.clone() });
    }

    /// Why a sample cannot be read, where that is known before.
    pub(super) fn absent(&self, facts: &Facts) -> Option<Absent> {
        let described = self.described.get(facts.description.saturating_sub(1) as usize);
        let end = facts.offset.map(|offset| offset.saturating_add(u64::from(facts.len)));
        match end {
            None => Some(Absent::NoPlace),
            Some(end) if end > self.file_bytes => Some(Absent::BehindTheEnd),
            _ if described != Some(&true) => Some(Absent::OtherDescription),
            _ => (facts.len > MOST_SAMPLE_BYTES).then_some(Absent::Oversized),
        }
    }

    fn add(&mut self, facts: &Facts, content: Content, ticks: i64) -> Result<(), TooMany> {
        if self.list.len() >= self.most {
            return Err(TooMany);
        }
        // A decoding time that goes back, as a duration below 0 says, is one tick behind the last.
        let dts = match self.list.last() {
            Some(last) if self.next_dts < last.dts => last.dts.saturating_add(1),
            _ => self.next_dts,
        };
        self.list.push(Sample {
            offset: facts.offset.unwrap_or(u64::MAX),
            content,
            dts,
            composition: facts.composition,
            duration: facts.duration,
            entry: facts.description.saturating_sub(1),
            sync: facts.sync,
        });
        self.pause(ticks);
        Ok(())
    }

    /// Composition offsets that lead out of the recording are damaged. How many there are: they get the first picture's, which
    /// is the delay that all have.
    pub(super) fn bound_offsets(&mut self) -> u64 {
        let mut offsets: Vec<i32> = self.list.iter().map(|sample| sample.composition).collect();
        let (Some(first), Some(last), middle) = (self.list.first(), self.list.last(), offsets.len() / 2) else {
            return 0;
        };
        let most = last.dts.saturating_sub(first.dts).saturating_add(self.latest_dts / LATEST_S * SPARE_S);
        let (_, &mut usual, _) = offsets.select_nth_unstable(middle);
        let is_sound = |sample: &Sample| (i64::from(sample.composition) - i64::from(usual)).abs() <= most;
        let mut delay = i64::from(first.composition);
        if !is_sound(first) {
            // it is shown for as long as it lasts before the next one is
            let next = self.list.iter().filter(|sample| is_sound(sample)).map(Sample::pts).min().unwrap_or(first.dts);
            delay = next.saturating_sub(first.dts).saturating_sub(i64::from(first.duration));
        }
        let delay = i32::try_from(delay).unwrap_or(usual);
        let mut damaged = 0;
        for sample in self.list.iter_mut().filter(|sample| !is_sound(sample)) {
            sample.composition = delay;
            damaged += 1;
        }
        damaged
    }

    /// The samples, the last of which lasts as long as the one before where nothing says how long. Nothing where all have the
    /// same time: then the file has no times.
    pub(super) fn finish(mut self) -> (Vec<Sample>, bool) {
        let timed = match &self.list[..] {
            [first, .., last] => first.dts < last.dts,
            _ => true,
        };
        if let [.., before, last] = &mut self.list[..]
            && last.duration <= 0
        {
            last.duration = i32::try_from(last.dts - before.dts).unwrap_or(i32::MAX);
        }
        (self.list, timed)
    }
}
