//! The access units of a source at their times, once or in a loop, and what was lost on the way.

use crate::{AccessUnit, Counted, Event, Ingest, IngestError, Loss, Pace, SourceSettings, SourceState, redact_url};
use millrace_frame::{CameraState, Timing, monotonic_ns, unix_ns};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The next step of a [`PacedSource`].
#[derive(Clone, Debug)]
pub enum PacedStep {
    /// An access unit: it is to be decoded now.
    Unit(Arc<AccessUnit>),
    /// Something was lost. It is already counted for the source's own report.
    Loss(Loss),
    /// Something happened that is counted and no loss.
    Counted(Counted),
    /// What a camera is doing, at each change and after each attempt to connect; a file is live with its first unit. That
    /// a file is over is known by [`AfterEnd::Over`].
    State(SourceState),
    /// The connection has ended or stalled, or a file goes on at another place. Flush the decoder now; it begins again at a
    /// key picture.
    Flush,
    /// Nothing before this time has passed.
    Wait(Duration),
    /// The file has been read to its end: flush the decoder, tell of its pictures, then ask [`PacedSource::end`].
    End,
}

/// What follows the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterEnd {
    /// It begins again.
    Again,
    /// It is over.
    Over,
}

/// Why a source gives nothing any more.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum PacedSourceError {
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error("nothing in '{source_name}' could be decoded: {units} access units were read, {losses}; {fix}")]
    Nothing { source_name: String, units: u64, losses: String, fix: &'static str },
}

/// A source that gives its access units at their times, and begins again at its end, as its settings say.
pub struct PacedSource {
    source: OsString,
    settings: SourceSettings,
    ingest: Ingest,
    /// Read and waiting for its time.
    early: Option<AccessUnit>,
    /// A camera reports its states itself; a file is live with its first unit.
    is_announced: bool,
    clock: Option<Clock>,
    /// What is added to a file's times each time it is repeated, and where the file ends by then.
    offset_ns: i64,
    end_ns: i64,
    /// When the file's first picture is shown, by its own time.
    begin_ns: Option<i64>,
    units: u64,
    pictures: u64,
    pictures_in_this_run: u64,
    /// What was lost, by cause: how many, and what happened at first.
    lost: BTreeMap<&'static str, (u64, String)>,
}

/// When a unit is due, by its decoding time, and a picture, by its presentation time: both counted from the decoding time
/// of the first unit that is shown, which no presentation time precedes.
struct Clock {
    /// On `CLOCK_MONOTONIC`.
    start_ns: i64,
    first_dts_ns: i64,
    /// So much later than that pictures are shown, because some are decoded only then.
    late_ns: i64,
    /// When the first picture is shown that was not complete with the units so far.
    next_pts_ns: Option<i64>,
}

/// A paced source that has fallen behind by more than this stops trying to catch up.
const MAX_BEHIND_NS: i64 = 1_000_000_000;

impl PacedSource {
    /// Opens a file or an `rtsp://` URL.
    ///
    /// # Errors
    /// As [`Ingest::open`].
    pub fn open<S: AsRef<OsStr> + ?Sized>(source: &S, settings: &SourceSettings) -> Result<Self, IngestError> {
        let source = source.as_ref();
        Ok(Self {
            ingest: Ingest::open(source, &settings.options())?,
            source: source.to_owned(),
            settings: settings.clone(),
            early: None,
            is_announced: crate::source::is_camera(source),
            clock: None,
            offset_ns: 0,
            end_ns: 0,
            begin_ns: None,
            units: 0,
            pictures: 0,
            pictures_in_this_run: 0,
            lost: BTreeMap::new(),
        })
    }

    /// The next step.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn step(&mut self) -> Result<PacedStep, PacedSourceError> {
        let mut unit = match self.early.take() {
            Some(unit) => unit,
            None => match self.ingest.next_event()? {
                Event::Unit(unit) => self.moved(*unit),
                Event::Loss(loss) => {
                    self.lost(&loss);
                    return Ok(PacedStep::Loss(loss));
                }
                Event::Counted(counted) => return Ok(PacedStep::Counted(counted)),
                Event::State(state) => return Ok(PacedStep::State(state)),
                Event::Flush => return Ok(PacedStep::Flush),
                Event::Wait(wait) => return Ok(PacedStep::Wait(wait)),
                Event::End => return Ok(PacedStep::End),
            },
        };
        if !std::mem::replace(&mut self.is_announced, true) {
            self.early = Some(unit);
            return Ok(PacedStep::State(SourceState { state: CameraState::Live, ..SourceState::default() }));
        }
        if self.is_paced() && unit.shown {
            let (due_ns, now_ns) = (self.due_to_decode_ns(&unit), monotonic_ns());
            if due_ns > now_ns {
                self.early = Some(unit);
                return Ok(PacedStep::Wait(Duration::from_nanos((due_ns - now_ns) as u64)));
            }
            unit.timing = Timing { arrival_ns: due_ns, capture_ns: unix_ns() - (now_ns - due_ns), ..unit.timing };
        } else if !self.ingest.is_live() {
            // a file's units are there when they are asked for
            unit.timing = Timing { arrival_ns: monotonic_ns(), capture_ns: unix_ns(), ..unit.timing };
        }
        Ok(PacedStep::Unit(Arc::new(unit)))
    }

    /// A file at its own speed. A camera has its speed already.
    fn is_paced(&self) -> bool {
        self.settings.pace == Pace::Realtime && !self.ingest.is_live()
    }

    /// The unit with its times in this repetition.
    fn moved(&mut self, mut unit: AccessUnit) -> AccessUnit {
        if unit.shown {
            self.begin_ns = Some(self.begin_ns.unwrap_or(i64::MAX).min(unit.timing.pts_ns));
        }
        let moved = |time_ns: i64| time_ns.saturating_add(self.offset_ns);
        unit.timing.pts_ns = moved(unit.timing.pts_ns);
        unit.dts_ns = moved(unit.dts_ns);
        unit.earliest_next_pts_ns = unit.earliest_next_pts_ns.map(moved);
        if unit.shown {
            self.end_ns = self.end_ns.max(unit.timing.pts_ns.saturating_add(unit.duration_ns));
        }
        self.units += 1;
        unit
    }

    /// Ends the source: see [`Ingest::close`].
    pub fn close(self) -> Vec<Loss> {
        self.ingest.close()
    }

    /// Counts what the decoder lost, for the report of a file in which nothing can be decoded.
    pub fn lost(&mut self, loss: &Loss) {
        let (count, _) = self.lost.entry(loss.cause).or_insert_with(|| (0, loss.detail.clone()));
        *count += loss.count;
    }

    /// Counts pictures that came out.
    pub fn count_shown(&mut self, pictures: u64) {
        self.pictures += pictures;
        self.pictures_in_this_run += pictures;
    }

    /// After [`PacedStep::End`], with the decoder flushed: begins the file again, or ends.
    ///
    /// # Errors
    /// No picture at all came out; the file cannot be opened again.
    pub fn end(&mut self) -> Result<AfterEnd, PacedSourceError> {
        if self.pictures == 0 {
            let lost: Vec<String> =
                self.lost.iter().map(|(cause, (n, detail))| format!("{n} lost by {cause} ({detail})")).collect();
            let losses = if lost.is_empty() { "none lost".to_owned() } else { lost.join(", ") };
            let source_name = redact_url(&self.source.to_string_lossy());
            let fix = self.what_helps();
            return Err(PacedSourceError::Nothing { source_name, units: self.units, losses, fix });
        }
        // a file that has become unreadable is not repeated for ever
        if !self.settings.repeat || self.pictures_in_this_run == 0 {
            return Ok(AfterEnd::Over);
        }
        self.ingest = Ingest::open(&self.source, &self.settings.options())?;
        self.pictures_in_this_run = 0;
        // a part of a longer recording does not begin at 0
        self.offset_ns = self.end_ns.saturating_sub(self.begin_ns.unwrap_or(0));
        Ok(AfterEnd::Again)
    }

    /// What to do about a file in which nothing can be decoded.
    fn what_helps(&self) -> &'static str {
        let lost = |cause| self.lost.contains_key(cause);
        if lost("scrambled") {
            "the stream is scrambled: record it without scrambling"
        } else if self.units == 0 && self.lost.is_empty() {
            "it holds parameter sets and no picture: record longer, or name another file"
        } else if lost("unreadable_parameter_set") {
            "its parameter sets are damaged: take them from another recording of the same camera, or remux it"
        } else if lost("raw_macroblocks") {
            "its pictures have raw macroblocks (I_PCM): set the encoder to a lower quality, or transcode the file"
        } else if lost("waiting_for_key") || lost("recovering") {
            "no picture in it is one that a decoder can begin with: record from a key picture (IDR) on, or longer"
        } else {
            "is the file whole?"
        }
    }

    /// How long a picture has to wait for its time; a decoder gives out its pictures in bursts, a camera does not.
    pub fn until_shown(&self, pts_ns: i64) -> Duration {
        let left_ns = self.due_ns(pts_ns).map_or(0, |due_ns| due_ns.saturating_sub(monotonic_ns()));
        Duration::from_nanos(left_ns.max(0) as u64)
    }

    /// When a picture is to be shown, where the source is paced.
    pub fn due(&self, pts_ns: i64) -> Option<Instant> {
        self.clock.as_ref().map(|_| Instant::now() + self.until_shown(pts_ns))
    }

    /// The same on `CLOCK_MONOTONIC`, in nanoseconds.
    pub fn due_ns(&self, pts_ns: i64) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.at_ns(pts_ns.saturating_add(clock.late_ns)))
    }

    /// When a unit is to be decoded.
    fn due_to_decode_ns(&mut self, unit: &AccessUnit) -> i64 {
        let now_ns = monotonic_ns();
        let clock = self.clock.get_or_insert(Clock {
            start_ns: now_ns,
            first_dts_ns: unit.dts_ns,
            late_ns: 0,
            next_pts_ns: None,
        });
        clock.expect(unit);
        let behind_ns = now_ns.saturating_sub(clock.at_ns(unit.dts_ns));
        if behind_ns > MAX_BEHIND_NS {
            clock.start_ns += behind_ns;
        }
        clock.at_ns(unit.dts_ns)
    }
}

impl Clock {
    fn at_ns(&self, time_ns: i64) -> i64 {
        self.start_ns.saturating_add(time_ns.saturating_sub(self.first_dts_ns).max(0))
    }

    /// Looks whether a picture that is complete with this unit is decoded later than it is to be shown: a byte stream has
    /// no times, and the ones that are made up for it leave no room for its reordering.
    fn expect(&mut self, unit: &AccessUnit) {
        let Some(earliest_next_pts_ns) = unit.earliest_next_pts_ns else { return };
        let complete_from_ns = self.next_pts_ns.replace(earliest_next_pts_ns).unwrap_or(unit.timing.pts_ns);
        if complete_from_ns < earliest_next_pts_ns {
            self.late_ns = self.late_ns.max(unit.dts_ns.saturating_sub(complete_from_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_live_with_its_first_unit_and_says_so_once() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/bt2020.264");
        let mut source =
            PacedSource::open(path, &SourceSettings { repeat: true, ..SourceSettings::default() }).unwrap();
        let mut steps = Vec::new();
        while steps.len() < 30 {
            match source.step().unwrap() {
                PacedStep::State(state) => steps.push(state.state.as_str()),
                PacedStep::Unit(_) => {
                    steps.push("unit");
                    source.count_shown(1);
                }
                PacedStep::End => assert_eq!(source.end().unwrap(), AfterEnd::Again),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(steps[..2], ["live", "unit"]);
        assert!(steps[1..].iter().all(|step| *step == "unit"), "{steps:?}");
    }
}
