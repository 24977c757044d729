//! A source and a decoder as one row of steps: what to publish next, when, and what was lost.

use crate::config::{Pace, Settings};
use millrace_ingest::{AccessUnit, Decoded, Event, Ingest, IngestError, Loss, Picture, SoftwareDecoder, redact_url};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What comes next.
pub(crate) enum Step {
    /// An access unit, before it is decoded.
    Packet(Arc<AccessUnit>),
    /// A picture, in presentation order.
    Picture(Box<Picture>),
    /// Something was lost.
    Loss(Loss),
    /// Nothing before this time has passed.
    Wait(Duration),
    /// The file is over, and everything has come out.
    End,
}

/// Why the node cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Ingest(#[from] IngestError),
    #[error(
        "nothing in '{source_name}' could be decoded: {units} access units were read, {losses}; is the file whole?"
    )]
    Nothing { source_name: String, units: u64, losses: String },
}

pub(crate) struct Feed {
    settings: Settings,
    ingest: Ingest,
    decoder: SoftwareDecoder,
    /// Read and waiting for its time.
    early: Option<AccessUnit>,
    /// Decoded and waiting for its time: a decoder gives out its pictures in bursts, a camera does not.
    shown_next: Option<Box<Picture>>,
    /// Given out as a packet, not yet decoded.
    next: Option<Arc<AccessUnit>>,
    pace: Option<Clock>,
    /// What is added to a file's times each time it is repeated, and where the file ends by then.
    offset_ns: i64,
    end_ns: i64,
    units: u64,
    pictures: u64,
    pictures_in_this_run: u64,
    lost: BTreeMap<&'static str, u64>,
    ended: bool,
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
    pub(crate) fn open(settings: &Settings) -> Result<Self, IngestError> {
        Ok(Self {
            ingest: Ingest::open(&settings.source, &settings.options())?,
            settings: settings.clone(),
            decoder: SoftwareDecoder::new(),
            early: None,
            shown_next: None,
            next: None,
            pace: None,
            offset_ns: 0,
            end_ns: 0,
            units: 0,
            pictures: 0,
            pictures_in_this_run: 0,
            lost: BTreeMap::new(),
            ended: false,
        })
    }

    /// The next step.
    pub(crate) fn step(&mut self) -> Result<Step, FeedError> {
        loop {
            if let Some(picture) = self.shown_next.take() {
                let wait = self.pace.as_ref().map_or(Duration::ZERO, |clock| clock.until(picture.pts_ns));
                if wait > Duration::ZERO {
                    self.shown_next = Some(picture);
                    return Ok(Step::Wait(wait));
                }
                return Ok(Step::Picture(picture));
            }
            match self.decoder.take() {
                Some(Decoded::Picture(picture)) => {
                    self.pictures += 1;
                    self.pictures_in_this_run += 1;
                    self.shown_next = Some(picture);
                    continue;
                }
                Some(Decoded::Loss(loss)) => return Ok(self.lose(loss)),
                None => {}
            }
            if let Some(unit) = self.next.take() {
                self.decoder.push(&unit)?;
                continue;
            }
            if self.ended {
                return self.end();
            }
            if let Some(unit) = self.early.take() {
                let wait = self.until_due(&unit);
                if wait > Duration::ZERO {
                    self.early = Some(unit);
                    return Ok(Step::Wait(wait));
                }
                return Ok(self.packet(unit));
            }
            match self.ingest.next_event()? {
                Event::Unit(unit) => {
                    let mut unit = *unit;
                    unit.pts_ns = unit.pts_ns.saturating_add(self.offset_ns);
                    unit.dts_ns = unit.dts_ns.saturating_add(self.offset_ns);
                    self.end_ns = self.end_ns.max(unit.pts_ns.saturating_add(unit.duration_ns));
                    self.units += 1;
                    if self.settings.pace == Pace::Realtime {
                        self.early = Some(unit);
                        continue;
                    }
                    return Ok(self.packet(unit));
                }
                Event::Loss(loss) => return Ok(self.lose(loss)),
                Event::Wait(wait) => return Ok(Step::Wait(wait)),
                Event::End => {
                    self.decoder.flush();
                    self.ended = true;
                }
            }
        }
    }

    fn packet(&mut self, unit: AccessUnit) -> Step {
        let unit = Arc::new(unit);
        self.next = Some(unit.clone());
        Step::Packet(unit)
    }

    fn lose(&mut self, loss: Loss) -> Step {
        *self.lost.entry(loss.cause).or_default() += loss.count;
        Step::Loss(loss)
    }

    /// The file is over: begins it again, or ends.
    fn end(&mut self) -> Result<Step, FeedError> {
        if self.pictures == 0 {
            let lost: Vec<String> = self.lost.iter().map(|(cause, n)| format!("{n} lost by {cause}")).collect();
            let losses = if lost.is_empty() { "none lost".to_owned() } else { lost.join(", ") };
            let source_name = redact_url(&self.settings.source);
            return Err(FeedError::Nothing { source_name, units: self.units, losses });
        }
        // a file that has become unreadable is not repeated for ever
        if !self.settings.repeat || self.pictures_in_this_run == 0 {
            return Ok(Step::End);
        }
        self.ingest = Ingest::open(&self.settings.source, &self.settings.options())?;
        (self.ended, self.pictures_in_this_run) = (false, 0);
        self.offset_ns = self.end_ns;
        Ok(Step::Wait(Duration::ZERO))
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
