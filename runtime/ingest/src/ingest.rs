//! A source as a row of access units with their presentation times.

use crate::ranks::Ranks;
use crate::reorder::PresentationOrder;
use crate::source::{Source, SourceEvent, Times};
use crate::syntax::ParsedUnit;
use crate::{Counted, IngestError, Order, SourceState, StreamInfo, source};
use millrace_frame::{Orientation, Timebase, Timing, monotonic_ns, unix_ns};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How RTSP carries the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RtspTransport {
    /// Interleaved in the RTSP connection.
    #[default]
    Tcp,
    /// Datagrams of their own.
    Udp,
}

/// How a source is read, as the user sets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct IngestOptions {
    /// Frames per second of a source without times, over what it states; 25 where neither says anything. One that has times
    /// keeps them, and says so.
    pub frame_rate: Option<f64>,
    /// For `rtsp://` sources.
    pub rtsp_transport: RtspTransport,
    /// A camera that gives no picture for this long has stalled: it is connected to again. 2.5 s where nothing is set.
    pub stall_timeout: Option<Duration>,
    /// What has to be done to the pictures so that they are upright, over what the source says.
    pub orientation: Option<Orientation>,
}

/// The cause of pictures on their way when a camera, or its node, is stopped.
pub const CAMERA_STOPPED: &str = "camera_stopped";

/// The counter of sources that have times of their own, where the user gave a frame rate.
pub const FRAME_RATE_IGNORED: &str = "frame_rate_ignored";

/// What a loss counts. Only pictures add up: `received` is what was passed on and the lost pictures of all causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossOf {
    /// Pictures: each is an access unit that was received and is not passed on.
    Pictures,
    /// Received pictures that nobody wants, since the camera was stopped. They are left out on purpose.
    LeftOut,
    /// Parts of pictures which are counted by themselves, or of none.
    Parts,
    /// RTP packets.
    Packets,
    /// Connections.
    Connections,
}

/// What did not make it, by cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// A name that stays: it is a metric's label.
    pub cause: &'static str,
    /// How many of what [`Self::of`] says.
    pub count: u64,
    /// What is counted.
    pub of: LossOf,
    /// What happened, for the log.
    pub detail: String,
}

impl Loss {
    /// Pictures that are lost.
    pub(crate) fn new(cause: &'static str, count: u64, detail: impl Into<String>) -> Self {
        Self::of(LossOf::Pictures, cause, count, detail)
    }

    pub(crate) fn of(of: LossOf, cause: &'static str, count: u64, detail: impl Into<String>) -> Self {
        Self { cause, count, of, detail: detail.into() }
    }

    /// How many received pictures are not passed on because of it.
    pub fn pictures(&self) -> u64 {
        if matches!(self.of, LossOf::Pictures | LossOf::LeftOut) { self.count } else { 0 }
    }

    /// A picture that [`Reorder`](crate::Reorder) got too late.
    pub fn reordered_late() -> Self {
        let detail = "a picture that is shown before one that is out already; more pictures are held back from now on";
        Self::new("reordered_late", 1, detail)
    }
}

/// One encoded picture, in decoding order, as Annex-B with the parameter sets in front of each key picture.
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// The bytes.
    pub data: Vec<u8>,
    /// What its parameter sets say.
    pub info: Arc<StreamInfo>,
    /// Its place in presentation order.
    pub order: Order,
    /// A decoder can start here.
    pub key: bool,
    /// Nothing after it refers to anything before it, nor is shown before it.
    pub closed: bool,
    /// Nothing after it is shown before it.
    pub first_shown: bool,
    /// The earliest time at which a unit behind this one is shown, where the source knows it: files do.
    pub earliest_next_pts_ns: Option<i64>,
    /// A decoder that starts here is exact so many frames later, by the count of [`Self::frame`].
    pub recovery_frames: Option<u32>,
    /// Its number among the frames that are referred to.
    pub frame: u64,
    /// Something that it may refer to is missing.
    pub after_loss: bool,
    /// Part of it is missing.
    pub damaged: bool,
    /// False for pictures that are only decoded, by an edit list or by the stream's own word.
    pub shown: bool,
    /// When it is shown, and when it arrived.
    pub timing: Timing,
    /// Decoding time on the same clock; paces a file as a camera would.
    pub dts_ns: i64,
    /// How long it is shown; 0 where nothing says so.
    pub duration_ns: i64,
    /// Found in its slices: why a software decoder cannot decode it.
    pub unsupported: Option<&'static str>,
    /// The file that is this picture alone, in a folder of pictures.
    pub path: Option<Arc<Path>>,
}

/// What a source has to say next.
#[derive(Clone, Debug)]
pub enum Event {
    /// An access unit.
    Unit(Box<AccessUnit>),
    /// Something was lost; more follows.
    Loss(Loss),
    /// Something happened that is counted and no loss.
    Counted(Counted),
    /// What a live source is doing, at each change and after each attempt to connect.
    State(SourceState),
    /// The connection has ended or stalled, or a file goes on at another place. The decoder gives out what it holds now,
    /// before anything that follows; then it waits for a key picture.
    Flush,
    /// A live source has nothing now. Ask again after this long, or sooner.
    Wait(Duration),
    /// A file has ended.
    End,
}

impl AccessUnit {
    /// Why it is lost, with its file's name where it has one of its own.
    pub(crate) fn lost_since(&self, why: &str) -> String {
        self.path.as_ref().map_or_else(|| why.to_owned(), |path| format!("'{}': {why}", path.display()))
    }

    /// What is known of its place in presentation order. `begins`: a decoder begins with it.
    pub fn place(&self, begins: bool) -> PresentationOrder {
        PresentationOrder {
            order: self.order,
            // what would be shown before an open key picture cannot be decoded by a decoder that begins there
            first_shown: self.first_shown || begins && !self.closed,
            pts_ns: self.timing.pts_ns,
            earliest_next_pts_ns: self.earliest_next_pts_ns,
            max_reorder: self.info.max_reorder,
            origin: self.info.max_reorder_origin,
        }
    }
}

/// An open source.
pub struct Ingest {
    source: Box<dyn Source>,
    clock: FrameClock,
    ready: VecDeque<Event>,
    ended: bool,
    live: bool,
    upright: Upright,
    /// The user's frame rate, until it is known whether the source has times of its own.
    asked_rate: Option<f64>,
}

impl Ingest {
    /// Opens a file, whatever its name, or an `rtsp://` URL.
    ///
    /// # Errors
    /// When it cannot be opened or is not video that is known here. A camera that does not answer is no error: the source
    /// tries again until it does.
    pub fn open<S: AsRef<OsStr> + ?Sized>(source: &S, options: &IngestOptions) -> Result<Self, IngestError> {
        let source = source.as_ref();
        let live = source::is_camera(source);
        let source = source::open(source, options)?;
        let clock = FrameClock::new(options.frame_rate.and_then(timebase_of_rate).or_else(|| source.frame_rate()));
        let upright =
            Upright { orientation: options.orientation.map_or_else(|| source.orientation(), Ok)?, last: None };
        let asked_rate = options.frame_rate;
        Ok(Self { source, clock, ready: VecDeque::new(), ended: false, live, upright, asked_rate })
    }

    /// Its pictures arrive when they are made, as a camera's do; a file's are all there.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// Ends the source. What a camera had sent by then and nobody fetched is lost, and is given back as losses.
    pub fn close(mut self) -> Vec<Loss> {
        let mut unfetched = 0;
        let mut losses = Vec::new();
        for event in self.source.close() {
            match event {
                SourceEvent::Unit { .. } | SourceEvent::Arrived { .. } => unfetched += 1,
                SourceEvent::Loss(loss) => losses.push(loss),
                _ => {}
            }
        }
        if unfetched > 0 {
            let detail = "pictures that were not fetched before the camera was stopped";
            losses.push(Loss::of(LossOf::LeftOut, CAMERA_STOPPED, unfetched, detail));
        }
        losses
    }

    /// What comes next.
    ///
    /// # Errors
    /// When the file cannot be read any more. A camera's failures are states, and it is connected to again.
    pub fn next_event(&mut self) -> Result<Event, IngestError> {
        let mut event = self.read()?;
        if let Event::Unit(unit) = &mut event {
            self.upright.apply(&mut unit.info);
        }
        Ok(event)
    }

    fn read(&mut self) -> Result<Event, IngestError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if self.ended {
                return Ok(Event::End);
            }
            match self.source.next()? {
                SourceEvent::Unit { unit, times: Some(times), after_loss } => {
                    let next_pts_ns = self.source.earliest_next_pts_ns();
                    return Ok(self.with_times(access_unit(unit, times, after_loss, next_pts_ns)));
                }
                SourceEvent::Unit { unit, times: None, after_loss } => {
                    self.ready.extend(self.clock.push(unit, after_loss).into_iter().map(|u| Event::Unit(Box::new(u))));
                }
                SourceEvent::Arrived { unit, timing, after_loss } => {
                    return Ok(self.with_times(arrived(unit, timing, after_loss)));
                }
                SourceEvent::Repeated => self.clock.repeated += 1,
                SourceEvent::Loss(loss) => {
                    // of a source without times: what is lost had its time, too
                    self.clock.repeated += loss.pictures() as i64;
                    return Ok(Event::Loss(loss));
                }
                SourceEvent::Counted(counted) => return Ok(Event::Counted(counted)),
                SourceEvent::State(state) => return Ok(Event::State(state)),
                SourceEvent::Flush => return Ok(Event::Flush),
                SourceEvent::Wait(wait) => return Ok(Event::Wait(wait)),
                SourceEvent::End => {
                    self.ended = true;
                    self.ready.extend(self.clock.finish().into_iter().map(|u| Event::Unit(Box::new(u))));
                }
            }
        }
    }

    /// A unit of a source that has times. Where the user gave it a frame rate, that is said first.
    fn with_times(&mut self, unit: AccessUnit) -> Event {
        let unit = Event::Unit(Box::new(unit));
        let Some(rate) = self.asked_rate.take() else { return unit };
        self.ready.push_back(unit);
        let detail = format!(
            "FRAME_RATE is {rate} and changes nothing here: the pictures have times of their own, as those of MP4, Matroska, \
             transport streams and cameras do; remove FRAME_RATE"
        );
        Event::Counted(Counted { name: FRAME_RATE_IGNORED, count: 1, detail })
    }
}

/// What has to be done to a source's pictures. The parameter sets know nothing of it.
struct Upright {
    orientation: Orientation,
    /// A stream as its parameter sets have it, and as it is shown.
    last: Option<[Arc<StreamInfo>; 2]>,
}

impl Upright {
    fn apply(&mut self, info: &mut Arc<StreamInfo>) {
        if self.orientation == Orientation::Upright {
            return;
        }
        let [_, oriented] = match self.last.take() {
            Some(last) if Arc::ptr_eq(&last[0], info) => self.last.insert(last),
            _ => self.last.insert([info.clone(), Arc::new(info.oriented(self.orientation))]),
        };
        *info = oriented.clone();
    }
}

fn access_unit(unit: ParsedUnit, times: Times, after_loss: bool, earliest_next_pts_ns: Option<i64>) -> AccessUnit {
    let facts = unit.facts;
    AccessUnit {
        data: unit.data,
        order: facts.order,
        key: facts.key,
        closed: facts.closed,
        first_shown: facts.first_shown,
        earliest_next_pts_ns,
        recovery_frames: facts.recovery_frames,
        frame: facts.frame,
        after_loss: after_loss || facts.gap,
        damaged: unit.damaged_nals > 0,
        shown: times.shown && facts.output,
        timing: Timing {
            pts_ns: times.pts_ns,
            timebase: times.timebase,
            capture_ns: unix_ns(),
            arrival_ns: monotonic_ns(),
            ready_ns: 0,
            sender_ns: None,
        },
        dts_ns: times.dts_ns,
        duration_ns: times.duration_ns,
        unsupported: facts.info.unsupported.or(facts.unsupported),
        info: facts.info,
        path: unit.path,
    }
}

/// A picture of a live source: it has no decoding time and no duration.
fn arrived(unit: ParsedUnit, timing: Timing, after_loss: bool) -> AccessUnit {
    let Timing { pts_ns, timebase, .. } = timing;
    let times = Times { pts_ns, dts_ns: pts_ns, duration_ns: 0, timebase, stated: pts_ns, shown: true };
    AccessUnit { timing, ..access_unit(unit, times, after_loss, None) }
}

/// Times for a byte stream, which has none: pictures follow each other at a constant rate in presentation order.
struct FrameClock {
    set: Option<Timebase>,
    timebase: Option<Timebase>,
    waiting: Ranks<Waiting>,
    /// How often a picture is shown once more, up to now, and up to the pictures that are not out yet, by their place in
    /// presentation order.
    repeated: i64,
    repeated_before: BTreeMap<i64, i64>,
    pushed: i64,
    decoded: i64,
    /// Numbers of pictures that were given out although an earlier one was not; the earliest that was not.
    ahead: BTreeSet<i64>,
    next_shown: i64,
}

struct Waiting {
    unit: ParsedUnit,
    after_loss: bool,
    repeated: i64,
}

impl FrameClock {
    fn new(set: Option<Timebase>) -> Self {
        Self {
            set,
            timebase: None,
            waiting: Ranks::new(),
            repeated: 0,
            repeated_before: BTreeMap::new(),
            pushed: 0,
            decoded: 0,
            ahead: BTreeSet::new(),
            next_shown: 0,
        }
    }

    fn push(&mut self, unit: ParsedUnit, after_loss: bool) -> Vec<AccessUnit> {
        if self.timebase.is_none() {
            let stated = unit.facts.info.frame_rate.filter(|&(n, d)| n / 1000 <= d && d / 1000 <= n);
            let vui = stated.map(|(num, den)| Timebase { num: den, den: num });
            self.timebase = self.set.or(vui);
        }
        if unit.facts.output {
            self.repeated_before.insert(self.pushed, self.repeated);
            self.pushed += 1;
        }
        let facts = unit.facts.clone();
        self.waiting.push(&facts, Waiting { unit, after_loss, repeated: self.repeated });
        self.emit()
    }

    fn emit(&mut self) -> Vec<AccessUnit> {
        let mut out = Vec::new();
        let timebase = self.timebase.unwrap_or(Timebase { num: 1, den: 25 });
        let shown_at =
            |before: &BTreeMap<i64, i64>, rank: i64| timebase.to_ns(rank + before.get(&rank).unwrap_or(&self.repeated));
        while let Some((Waiting { unit, after_loss, repeated }, rank)) = self.waiting.next() {
            let times = Times {
                pts_ns: shown_at(&self.repeated_before, rank),
                dts_ns: timebase.to_ns(self.decoded + repeated),
                duration_ns: timebase.to_ns(1),
                timebase,
                stated: rank,
                shown: true,
            };
            if unit.facts.output {
                self.ahead.insert(rank);
                while self.ahead.remove(&self.next_shown) {
                    self.repeated_before.remove(&self.next_shown);
                    self.next_shown += 1;
                }
            }
            self.decoded += 1;
            let next_pts_ns = shown_at(&self.repeated_before, self.next_shown);
            out.push(access_unit(unit, times, after_loss, Some(next_pts_ns)));
        }
        out
    }

    fn finish(&mut self) -> Vec<AccessUnit> {
        self.waiting.finish();
        self.emit()
    }
}

/// The duration of a frame as a fraction: exact for whole rates and for those over 1.001 (29.97 is 30000/1001).
fn timebase_of_rate(fps: f64) -> Option<Timebase> {
    if !(0.001..=1000.0).contains(&fps) {
        return None;
    }
    if fps.fract() == 0.0 {
        return Some(Timebase { num: 1, den: fps as u32 });
    }
    let whole = (fps * 1.001).round();
    if (whole / 1.001 - fps).abs() < 0.005 && whole >= 1.0 {
        return Some(Timebase { num: 1001, den: whole as u32 * 1000 });
    }
    Some(Timebase { num: 1_000_000, den: (fps * 1e6).round() as u32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_rates_become_exact_fractions() {
        let ns = |fps| timebase_of_rate(fps).map(|t| (t.num, t.den));
        assert_eq!(ns(25.0), Some((1, 25)));
        assert_eq!(ns(30.0), Some((1, 30)));
        assert_eq!(ns(29.97), Some((1001, 30_000)));
        assert_eq!(ns(23.976), Some((1001, 24_000)));
        assert_eq!(ns(59.94), Some((1001, 60_000)));
        assert_eq!(ns(12.5), Some((1_000_000, 12_500_000)));
        assert_eq!(ns(0.0), None);
        assert_eq!(ns(f64::NAN), None);
    }
}
