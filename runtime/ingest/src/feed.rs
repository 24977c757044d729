//! A source's access units at their times, once or again and again, and what was lost on the way.

use crate::{AccessUnit, Counted, Event, FeedSettings, Ingest, IngestError, Loss, Pace, SourceState, redact_url};
use millrace_frame::CameraState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What comes next.
#[derive(Clone, Debug)]
pub enum FeedStep {
    /// An access unit: it is to be decoded now.
    Unit(Arc<AccessUnit>),
    /// Something was lost. It is counted already for the feed's own report.
    Loss(Loss),
    /// Something happened that is counted and no loss.
    Counted(Counted),
    /// What a camera is doing, at each change and after each attempt to connect; a file is live with its first unit. That
    /// a file is over is known by [`Next::Over`].
    State(SourceState),
    /// The connection has ended or stalled. Flush the decoder now; it begins again at a key picture.
    Flush,
    /// Nothing before this time has passed.
    Wait(Duration),
    /// The file has been read to its end: flush the decoder, tell of its pictures, then ask [`Feed::end`].
    End,
}

/// What follows the end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It begins again.
    Again,
    /// It is over.
    Over,
}

/// Why a source gives nothing any more.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each field")]
pub enum FeedError {
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(
        "nothing in '{source_name}' could be decoded: {units} access units were read, {losses}; is the file whole?"
    )]
    Nothing { source_name: String, units: u64, losses: String },
}

/// A source, paced and repeated as its settings say.
pub struct Feed {
    source: String,
    settings: FeedSettings,
    ingest: Ingest,
    /// Read and waiting for its time.
    early: Option<AccessUnit>,
    /// A camera reports its states itself; a file is live with its first unit.
    is_announced: bool,
    pace: Option<Clock>,
    /// What is added to a file's times each time it is repeated, and where the file ends by then.
    offset_ns: i64,
    end_ns: i64,
    units: u64,
    pictures: u64,
    pictures_in_this_run: u64,
    lost: BTreeMap<&'static str, u64>,
}

/// When a unit is due, by its decoding time, and a picture, by its presentation time: both counted from the first
/// unit's decoding time, which no presentation time precedes.
struct Clock {
    start: Instant,
    first_dts_ns: i64,
}

/// A paced source that has fallen behind by more than this stops trying to catch up.
const MAX_BEHIND: Duration = Duration::from_secs(1);

impl Feed {
    /// Opens a file or an `rtsp://` URL.
    ///
    /// # Errors
    /// As [`Ingest::open`].
    pub fn open(source: &str, settings: &FeedSettings) -> Result<Self, IngestError> {
        Ok(Self {
            ingest: Ingest::open(source, &settings.options())?,
            source: source.to_owned(),
            settings: settings.clone(),
            early: None,
            is_announced: crate::source::is_rtsp(source),
            pace: None,
            offset_ns: 0,
            end_ns: 0,
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
    pub fn step(&mut self) -> Result<FeedStep, FeedError> {
        let unit = match self.early.take() {
            Some(unit) => unit,
            None => match self.ingest.next_event()? {
                Event::Unit(unit) => self.moved(*unit),
                Event::Loss(loss) => {
                    self.lost(&loss);
                    return Ok(FeedStep::Loss(loss));
                }
                Event::Counted(counted) => return Ok(FeedStep::Counted(counted)),
                Event::State(state) => return Ok(FeedStep::State(state)),
                Event::Flush => return Ok(FeedStep::Flush),
                Event::Wait(wait) => return Ok(FeedStep::Wait(wait)),
                Event::End => return Ok(FeedStep::End),
            },
        };
        if !std::mem::replace(&mut self.is_announced, true) {
            self.early = Some(unit);
            return Ok(FeedStep::State(SourceState { state: CameraState::Live, ..SourceState::default() }));
        }
        if self.settings.pace == Pace::Realtime {
            let wait = self.until_due(&unit);
            if wait > Duration::ZERO {
                self.early = Some(unit);
                return Ok(FeedStep::Wait(wait));
            }
        }
        Ok(FeedStep::Unit(Arc::new(unit)))
    }

    /// The unit with its times in this repetition.
    fn moved(&mut self, mut unit: AccessUnit) -> AccessUnit {
        unit.timing.pts_ns = unit.timing.pts_ns.saturating_add(self.offset_ns);
        unit.dts_ns = unit.dts_ns.saturating_add(self.offset_ns);
        self.end_ns = self.end_ns.max(unit.timing.pts_ns.saturating_add(unit.duration_ns));
        self.units += 1;
        unit
    }

    /// Counts what the decoder lost, for the report of a file in which nothing can be decoded.
    pub fn lost(&mut self, loss: &Loss) {
        *self.lost.entry(loss.cause).or_default() += loss.count;
    }

    /// Counts pictures that came out.
    pub fn shown(&mut self, pictures: u64) {
        self.pictures += pictures;
        self.pictures_in_this_run += pictures;
    }

    /// After [`FeedStep::End`], with the decoder flushed: begins the file again, or ends.
    ///
    /// # Errors
    /// No picture at all came out; the file cannot be opened again.
    pub fn end(&mut self) -> Result<Next, FeedError> {
        if self.pictures == 0 {
            let lost: Vec<String> = self.lost.iter().map(|(cause, n)| format!("{n} lost by {cause}")).collect();
            let losses = if lost.is_empty() { "none lost".to_owned() } else { lost.join(", ") };
            let source_name = redact_url(&self.source);
            return Err(FeedError::Nothing { source_name, units: self.units, losses });
        }
        // a file that has become unreadable is not repeated for ever
        if !self.settings.repeat || self.pictures_in_this_run == 0 {
            return Ok(Next::Over);
        }
        self.ingest = Ingest::open(&self.source, &self.settings.options())?;
        self.pictures_in_this_run = 0;
        self.offset_ns = self.end_ns;
        Ok(Next::Again)
    }

    /// How long a picture has to wait for its time; a decoder gives out its pictures in bursts, a camera does not.
    pub fn until_shown(&self, pts_ns: i64) -> Duration {
        self.pace.as_ref().map_or(Duration::ZERO, |clock| clock.until(pts_ns))
    }

    /// When a picture is to be shown, where the source is paced.
    pub fn due(&self, pts_ns: i64) -> Option<Instant> {
        self.pace.as_ref().map(|clock| clock.due(pts_ns))
    }

    fn until_due(&mut self, unit: &AccessUnit) -> Duration {
        let now = Instant::now();
        let clock = self.pace.get_or_insert(Clock { start: now, first_dts_ns: unit.dts_ns });
        let behind = now.saturating_duration_since(clock.due(unit.dts_ns));
        if behind > MAX_BEHIND {
            clock.start += behind;
        }
        clock.until(unit.dts_ns)
    }
}

impl Clock {
    fn due(&self, time_ns: i64) -> Instant {
        self.start + Duration::from_nanos(time_ns.saturating_sub(self.first_dts_ns).max(0) as u64)
    }

    fn until(&self, time_ns: i64) -> Duration {
        self.due(time_ns).saturating_duration_since(Instant::now())
    }
}
