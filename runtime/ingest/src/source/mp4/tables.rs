//! The sample tables of a track (ISO/IEC 14496-12, 8.6 and 8.7).

use super::boxes::child;
use super::samples::{Absent, Facts, Samples, TooMany};
use mp4_atom::{Atom, Co64, Ctts, Stco, Stsc, StscEntry, Stss, Stsz, StszSamples, Stts};

/// Appends the samples that the `stbl` box of a track names; the reason where its tables cannot be read.
pub(super) fn read(stbl: &[u8], samples: &mut Samples) -> Result<(), String> {
    let mut tables = Tables::of(stbl)?;
    tables.append(samples).map_err(|TooMany| "it names more samples than the file can hold".to_owned())
}

/// Decodes a box of the tables; `None` where there is none.
fn decoded<T: Atom>(stbl: &[u8]) -> Result<Option<T>, String> {
    let kind: [u8; 4] = T::KIND.into();
    let read = |mut body: &[u8]| T::decode_body(&mut body);
    child(stbl, &kind).map(read).transpose().map_err(|e| format!("its table '{}' cannot be read: {e}", T::KIND))
}

/// Where the chunks of a track begin.
pub(super) fn chunks(stbl: &[u8]) -> Result<Vec<u64>, String> {
    Ok(match decoded::<Co64>(stbl)? {
        Some(co64) => co64.entries,
        None => decoded::<Stco>(stbl)?.map_or_else(Vec::new, |s| s.entries.into_iter().map(u64::from).collect()),
    })
}

enum Sizes {
    Same { size: u32, count: u32 },
    Each(Vec<u32>),
}

impl Sizes {
    fn of(stbl: &[u8]) -> Result<Self, String> {
        if let Some(Stsz { samples }) = decoded(stbl)? {
            return Ok(match samples {
                StszSamples::Identical { count, size } => Self::Same { size, count },
                StszSamples::Different { sizes } => Self::Each(sizes),
            });
        }
        child(stbl, b"stz2").map_or_else(|| Ok(Self::Each(Vec::new())), Self::compact)
    }

    /// An `stz2` box: sizes of 4, 8 or 16 bits.
    fn compact(body: &[u8]) -> Result<Self, String> {
        let cut = || "its table 'stz2' ends before its last sample".to_owned();
        let (head, table) = body.split_first_chunk::<12>().ok_or_else(cut)?;
        let count = u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let bits = usize::from(head[7]);
        let table = table.get(..count.saturating_mul(bits).div_ceil(8)).ok_or_else(cut)?;
        let mut sizes: Vec<u32> = match bits {
            4 => table.iter().flat_map(|&two| [u32::from(two >> 4), u32::from(two & 15)]).collect(),
            8 => table.iter().map(|&size| u32::from(size)).collect(),
            16 => table.chunks_exact(2).map(|size| u32::from(size[0]) << 8 | u32::from(size[1])).collect(),
            _ => return Err(format!("its table 'stz2' has sizes of {bits} bits; 4, 8 or 16 are expected")),
        };
        sizes.truncate(count);
        Ok(Self::Each(sizes))
    }

    fn count(&self) -> u32 {
        match self {
            Self::Same { count, .. } => *count,
            Self::Each(sizes) => sizes.len() as u32,
        }
    }
}

/// A table of runs: so many samples have the same value.
struct Runs {
    runs: std::vec::IntoIter<(u32, i32)>,
    left: u32,
    value: i32,
    /// The value of samples that the table does not reach.
    beyond: Option<i32>,
}

impl Runs {
    fn new(runs: Vec<(u32, i32)>, beyond: Option<i32>) -> Self {
        Self { runs: runs.into_iter(), left: 0, value: 0, beyond }
    }

    fn next(&mut self) -> i32 {
        while self.left == 0 {
            let Some((left, value)) = self.runs.next() else {
                self.value = self.beyond.unwrap_or(self.value);
                return self.value;
            };
            (self.left, self.value) = (left, value);
        }
        self.left -= 1;
        self.value
    }

    /// Steps over samples; the sum of their values.
    fn skip(&mut self, mut samples: u32) -> i64 {
        let mut sum = 0i64;
        while samples > 0 {
            let value = i64::from(self.next());
            let more = if self.runs.len() == 0 && self.left == 0 { samples - 1 } else { self.left.min(samples - 1) };
            self.left -= more.min(self.left);
            sum = sum.saturating_add(value.saturating_mul(i64::from(more) + 1));
            samples -= more + 1;
        }
        sum
    }
}

struct Tables {
    sizes: Sizes,
    chunks: Vec<u64>,
    /// The chunks that are alike, each from its first on; the first is number 1.
    alike: Vec<StscEntry>,
    /// So many samples have a duration.
    timed: u32,
    durations: Runs,
    compositions: Runs,
    /// Numbers of the samples that a decoder can start at, from 1, in order. Without a table, that is every sample.
    sync: Option<Vec<u32>>,
}

impl Tables {
    fn of(stbl: &[u8]) -> Result<Self, String> {
        let sizes = Sizes::of(stbl)?;
        let chunks = chunks(stbl)?;
        let alike = decoded::<Stsc>(stbl)?.map_or_else(Vec::new, |stsc| stsc.entries);
        if sizes.count() > 0 && alike.first().is_none_or(|first| first.first_chunk != 1)
            || alike.windows(2).any(|two| two[0].first_chunk >= two[1].first_chunk)
        {
            return Err("its table 'stsc' does not say for each chunk what is in it".to_owned());
        }
        // Both tables are signed in QuickTime, and recorders write offsets below 0 also where the version says that there
        // are none. Times of 2^31 ticks are no one's.
        let durations = decoded::<Stts>(stbl)?.map_or_else(Vec::new, |stts| stts.entries);
        let timed = durations.iter().fold(0u32, |sum, run| sum.saturating_add(run.sample_count));
        let durations = durations.iter().map(|run| (run.sample_count, run.sample_delta as i32)).collect();
        let compositions = decoded::<Ctts>(stbl)?.map_or_else(Vec::new, |ctts| ctts.entries);
        let compositions: Vec<_> =
            compositions.iter().map(|run| (run.sample_count, run.sample_offset as i32)).collect();
        // The first picture is shown first: its offset is the delay that all have.
        let delay = compositions.iter().find(|(samples, _)| *samples > 0).map_or(0, |(_, offset)| *offset);
        let sync = decoded::<Stss>(stbl)?.map(|stss| {
            let mut numbers = stss.entries;
            numbers.sort_unstable();
            numbers
        });
        Ok(Self {
            sizes,
            chunks,
            alike,
            timed,
            // a table that is too short goes on as it ends
            durations: Runs::new(durations, None),
            compositions: Runs::new(compositions, Some(delay)),
            sync,
        })
    }

    fn append(&mut self, samples: &mut Samples) -> Result<(), TooMany> {
        let count = self.sizes.count();
        let mut alike = 0;
        let (mut done, mut in_chunks) = (0, 0u32);
        for (number, start) in (1u32..).zip(std::mem::take(&mut self.chunks)) {
            while self.alike.get(alike + 1).is_some_and(|next| next.first_chunk <= number) {
                alike += 1;
            }
            let Some(StscEntry { samples_per_chunk, sample_description_index, .. }) = self.alike.get(alike) else {
                break;
            };
            in_chunks = in_chunks.saturating_add(*samples_per_chunk);
            let in_chunk = (*samples_per_chunk).min(count - done);
            self.chunk(start, done, in_chunk, *sample_description_index, samples)?;
            done += in_chunk;
        }
        if done < count {
            // more sizes than the chunks have samples
            let facts = self.next(None, done, self.alike.first().map_or(1, |alike| alike.sample_description_index));
            let ticks = self.durations.skip(count - done - 1).saturating_add(i64::from(facts.duration));
            samples.push_absent(&facts, count - done, ticks, Absent::NoPlace)?;
        }
        // two tables that agree know of more samples than there are sizes
        let stated = self.timed.min(in_chunks);
        if stated > count {
            let facts = self.next(None, count, 1);
            samples.push_absent(&facts, stated - count, i64::from(facts.duration), Absent::NoPlace)?;
        }
        Ok(())
    }

    /// The samples of a chunk, the first of which has the number `from`, counted from 0.
    fn chunk(&mut self, start: u64, from: u32, count: u32, description: u32, to: &mut Samples) -> Result<(), TooMany> {
        let mut offset = start;
        for n in 0..count {
            let facts = self.next(Some(offset), from + n, description);
            if let (Sizes::Same { .. }, Some(why)) = (&self.sizes, to.absent(&facts)) {
                // nothing bounds their number, and none of those behind it in the chunk is there either
                let ticks = self.durations.skip(count - n - 1).saturating_add(i64::from(facts.duration));
                self.compositions.skip(count - n - 1);
                return to.push_absent(&facts, count - n, ticks, why);
            }
            to.push(facts)?;
            offset = offset.saturating_add(u64::from(facts.len));
        }
        Ok(())
    }

    /// What the tables say of a sample, each of which is asked for once and in order.
    fn next(&mut self, offset: Option<u64>, number: u32, description: u32) -> Facts {
        let len = match &self.sizes {
            Sizes::Same { size, .. } => *size,
            Sizes::Each(sizes) => sizes.get(number as usize).copied().unwrap_or(0),
        };
        Facts {
            offset,
            len,
            composition: self.compositions.next(),
            duration: self.durations.next(),
            description,
            sync: self.sync.as_ref().is_none_or(|numbers| numbers.binary_search(&(number + 1)).is_ok()),
        }
    }
}
