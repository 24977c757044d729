//! Edit lists (ISO/IEC 14496-12, 8.6.6): which part of the recording is shown when.

use super::Refusal;
use super::movie::DAMAGED;
use super::samples::{LATEST_S, Sample};
use mp4_atom::{Atom, Elst};
use std::ops::Range;

/// More edits than any program writes. What a list of them costs grows with the file.
const MOST_EDITS: usize = 4096;

/// A part of the recording that is shown, in ticks of the track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// The part, by composition times.
    pub from: i64,
    pub until: i64,
    /// When it is shown.
    pub at: i64,
}

impl Edit {
    /// When a composition time is shown.
    pub(super) fn shown_at(&self, time: i64) -> i64 {
        self.at.saturating_add(time.saturating_sub(self.from))
    }
}

/// The edits of a track. `movie_timescale` counts their durations, `timescale` their places in the recording.
/// `index_end`: where the samples of the index end, in a file that has fragments behind it.
pub(super) fn read(
    elst: Option<&[u8]>,
    movie_timescale: Option<u32>,
    timescale: u32,
    samples: &[Sample],
    index_end: Option<i64>,
) -> Result<Vec<Edit>, Refusal> {
    let refused = |reason, fix| Err(Refusal { reason, fix });
    let entries = match elst.map(|mut body| Elst::decode_body(&mut body)) {
        None => Vec::new(),
        Some(Ok(elst)) => elst.entries,
        Some(Err(e)) => {
            return refused(format!("its edit list cannot be read: {e}"), "remux it with another tool");
        }
    };
    if entries.len() > MOST_EDITS {
        let reason = format!("its edit list has {} edits, more than {MOST_EDITS}", entries.len());
        return refused(reason, "render what is to be shown with an editor");
    }
    // one part needs no duration: it is shown to its end
    let parts = entries.iter().filter(|entry| entry.media_time.is_some()).count();
    let scale = movie_timescale.filter(|&scale| scale > 0);
    if scale.is_none() && parts > 1 {
        let reason =
            format!("its edit list has {parts} parts, and the movie's time scale, which their durations need, is 0");
        return refused(reason, DAMAGED);
    }
    let movie_timescale = i128::from(scale.unwrap_or(timescale));
    let to_track = |ticks: i128| {
        let doubled = ticks * i128::from(timescale) * 2 + movie_timescale;
        i64::try_from(doubled / (2 * movie_timescale)).unwrap_or(i64::MAX)
    };
    // An edit as long as the recording leaves nothing out at its end, whatever the composition offsets are.
    let recorded = match samples {
        [first, .., last] => last.dts.saturating_sub(first.dts).saturating_add(i64::from(last.duration)),
        _ => i64::MAX,
    };
    let mut edits = Vec::new();
    let mut at = 0i128;
    for (n, entry) in entries.iter().enumerate() {
        let duration = if scale.is_some() { i128::from(entry.segment_duration) } else { 0 };
        if at > movie_timescale * i128::from(LATEST_S) {
            let reason = format!("edit {} of its edit list is shown later than any recording is", n + 1);
            return refused(reason, DAMAGED);
        }
        if let Some(from) = entry.media_time {
            let rate = &entry.media_rate;
            if (rate.integer(), rate.decimal()) != (1, 0) {
                let rate = f64::from(rate.integer()) + f64::from(rate.decimal() as u16) / 65536.0;
                let reason = format!("edit {} of its edit list plays at {rate} times the speed", n + 1);
                return refused(reason, "only parts at their own speed are read; render it with an editor");
            }
            let from = i64::try_from(from).unwrap_or(i64::MAX);
            // A list that was written with the index cannot know how long the fragments behind it are; a duration of 0
            // says so.
            let until = from.saturating_add(to_track(duration));
            let covers_all = to_track(duration + 1) >= recorded;
            let is_open = n + 1 == entries.len()
                && (duration == 0 || covers_all || index_end.is_some_and(|end| end > 0 && until <= end));
            edits.push(Edit { from, until: if is_open { i64::MAX } else { until }, at: to_track(at) });
        }
        at = at.saturating_add(duration);
    }
    if edits.is_empty() {
        // all of it; composition times may begin below 0
        let first = samples.iter().map(Sample::pts).min().unwrap_or(0).min(0);
        edits.push(Edit { from: first, until: i64::MAX, at: to_track(at) });
    }
    let times = || samples.iter().map(Sample::pts);
    if let (Some(first), Some(end)) = (times().min(), times().max())
        && edits.iter().all(|edit| edit.from > end || edit.until <= first)
    {
        let seconds = |ticks: i64| ticks as f64 / f64::from(timescale);
        let [from, end] = [edits[0].from, end].map(seconds);
        let reason = format!(
            "its edit list shows none of its pictures: it begins at {from:.3} s, and its last picture is at {end:.3} s"
        );
        return refused(reason, "remux it without its edit list, or correct the list with an editor");
    }
    Ok(edits)
}

/// Splits edits into passes over the recording: an edit that shows again what one before it has shown, or something before
/// that, begins another.
pub(super) fn passes(edits: &[Edit]) -> Vec<Vec<Edit>> {
    edits.chunk_by(|one, next| one.until <= next.from).map(<[Edit]>::to_vec).collect()
}

/// One pass over the recording.
#[derive(Debug)]
pub(super) struct Pass {
    edits: Vec<Edit>,
    /// The samples that are decoded. Between two parts the decoder begins again.
    pub parts: Vec<Range<usize>>,
    /// For each sample: the earliest composition time of those behind it that are shown; `i64::MAX` where none is.
    pub earliest_next: Vec<i64>,
}

impl Pass {
    pub(super) fn new(edits: Vec<Edit>, samples: &[Sample]) -> Self {
        let mut pass = Self { edits, parts: Vec::new(), earliest_next: Vec::new() };
        let mut next = i64::MAX;
        let mut earliest_next = vec![next; samples.len()];
        for (sample, earliest_next) in samples.iter().zip(&mut earliest_next).rev() {
            *earliest_next = next;
            if sample.is_there() && pass.edit_of(sample.pts()).1 {
                next = next.min(sample.pts());
            }
        }
        pass.earliest_next = earliest_next;
        pass.parts = pass.find_parts(samples);
        pass
    }

    /// The edit that a composition time belongs to, and whether it is shown. A time between two edits belongs to the later
    /// one, since what is decoded for it is.
    pub(super) fn edit_of(&self, time: i64) -> (&Edit, bool) {
        let next = self.edits.partition_point(|edit| edit.until <= time).min(self.edits.len() - 1);
        let edit = &self.edits[next];
        (edit, (edit.from..edit.until).contains(&time))
    }

    /// Whether a sample is shown, or may hold something that is: what is in it, and when, is not known of a fragment that
    /// cannot be read.
    fn wants(&self, sample: &Sample) -> bool {
        let may_be = || sample.is_unknown() && self.edits.iter().any(|edit| sample.dts < edit.until);
        self.edit_of(sample.pts()).1 || may_be()
    }

    /// What has to be decoded: for each part that is shown, from the last sample before it that a decoder can start at.
    fn find_parts(&self, samples: &[Sample]) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        // where nothing says otherwise each sample is one to start at, also in files of which that is not true
        let trusted = samples.iter().any(|sample| !sample.sync);
        let mut decoded = 0;
        for (n, sample) in samples.iter().enumerate() {
            if !self.wants(sample) {
                continue;
            }
            // nothing that is shown may precede the start in presentation order
            let earliest = self.earliest_next[n].min(sample.pts());
            let starts = |s: &usize| samples[*s].sync && samples[*s].pts() <= earliest;
            let start = (decoded..=n).rev().filter(|_| trusted).find(starts);
            match (start, parts.last_mut()) {
                (Some(start), Some(_)) if start > decoded => parts.push(start..n + 1),
                (_, Some(part)) => part.end = n + 1,
                (start, None) => parts.push(start.unwrap_or(0)..n + 1),
            }
            decoded = n + 1;
        }
        parts
    }
}
