//! A file through ingest and a session, each picture mapped.

use millrace_cuda::nvdec::{Codec, Mapped, Nvdec, NvdecError, Picture, Session, SessionOptions, Sink};
use millrace_cuda::{Gpu, Stream};
use millrace_frame::PacketCodec;
use millrace_ingest::{AccessUnit, Admission, Admitted, AdmittedUnit, Event, Ingest};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The GPU and how it is to decode.
pub(crate) struct Player {
    pub(crate) gpu: Gpu,
    nvdec: Nvdec,
    options: SessionOptions,
    map_on_feed: bool,
}

/// Takes the mapped pictures in presentation order.
pub(crate) type Take = Box<dyn FnMut(&AdmittedUnit, Mapped, &Stream) -> Result<(), String> + Send>;

/// What a file came to.
#[derive(Debug, Default)]
pub(crate) struct Played {
    /// Lost, by cause.
    pub(crate) lost: BTreeMap<&'static str, u64>,
}

/// More pictures than a decoder can hold.
const QUEUE: usize = 64;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Maps pictures and passes them on, on whichever thread.
struct Mapper {
    stream: Stream,
    take: Take,
    failed: Option<String>,
}

impl Mapper {
    fn picture(&mut self, shown: &AdmittedUnit, picture: Picture) {
        if self.failed.is_some() {
            return;
        }
        let mapped = picture.map(&self.stream).map_err(|e| e.to_string());
        if let Err(e) = mapped.and_then(|mapped| (self.take)(shown, mapped, &self.stream)) {
            self.failed = Some(e);
        }
    }
}

impl Player {
    pub(crate) fn open(device: u32, low_delay: bool, map_on_feed: bool) -> Result<Self, String> {
        let gpu = Gpu::open(device).map_err(|e| e.to_string())?;
        let nvdec = Nvdec::open().map_err(|e| e.to_string())?;
        let options = SessionOptions { low_delay, ..SessionOptions::default() };
        Ok(Self { gpu, nvdec, options, map_on_feed })
    }

    pub(crate) fn mapping(&self) -> &'static str {
        if self.map_on_feed { "feeding thread" } else { "own thread" }
    }

    /// Plays `clip` to its end, or again and again until a time.
    pub(crate) fn play(&self, clip: &str, until: Option<Instant>, take: Take) -> Result<Played, String> {
        let stream = Stream::new(&self.gpu).map_err(|e| e.to_string())?;
        let mapper = Arc::new(Mutex::new(Mapper { stream, take, failed: None }));
        let admission: Arc<Mutex<Admission>> = Arc::default();
        if self.map_on_feed {
            let (to, admission_in) = (mapper.clone(), admission.clone());
            let sink = move || -> Sink {
                let (to, admission) = (to.clone(), admission_in.clone());
                Box::new(move |picture| {
                    let shown = lock(&admission).came_out(picture.timestamp());
                    if let Some(shown) = shown {
                        lock(&to).picture(&shown, picture);
                    }
                })
            };
            let played = self.feed(clip, until, &admission, &mapper, &sink);
            return ended(played, &mapper);
        }
        let (pictures, from_feed) = sync_channel(QUEUE);
        let thread = std::thread::spawn({
            let mapper = mapper.clone();
            move || map_all(&from_feed, &mapper)
        });
        let played = {
            let admission_in = admission.clone();
            let sink = move || -> Sink {
                let (to, admission) = (pictures.clone(), admission_in.clone());
                Box::new(move |picture| {
                    let shown = lock(&admission).came_out(picture.timestamp());
                    if let Some(shown) = shown {
                        // the other end is there until all senders have gone
                        let _ = to.send((shown, picture));
                    }
                })
            };
            self.feed(clip, until, &admission, &mapper, &sink)
        };
        thread.join().map_err(|_| "the mapping thread panicked".to_owned())?;
        ended(played, &mapper)
    }

    fn feed(
        &self,
        clip: &str,
        until: Option<Instant>,
        admission: &Mutex<Admission>,
        mapper: &Mutex<Mapper>,
        sink: &dyn Fn() -> Sink,
    ) -> Result<Played, String> {
        let mut played = Played::default();
        let mut session: Option<(PacketCodec, Session)> = None;
        loop {
            let mut ingest =
                Ingest::open(clip, &millrace_ingest::IngestOptions::default()).map_err(|e| e.to_string())?;
            loop {
                // where mapping has a thread of its own, that one has the lock while it works: here it is only tried
                let broken = mapper.try_lock().is_ok_and(|mapper| mapper.failed.is_some());
                let over = until.is_some_and(|until| Instant::now() >= until);
                if broken || over {
                    break;
                }
                match ingest.next_event().map_err(|e| e.to_string())? {
                    Event::Unit(unit) => self.unit(&unit, admission, &mut session, sink)?,
                    Event::Loss(loss) => *played.lost.entry(loss.cause).or_default() += loss.count,
                    Event::Flush => flush(&mut session, admission)?,
                    Event::Wait(wait) => std::thread::sleep(wait),
                    // of cameras, which are not played here
                    Event::Counted(_) | Event::State(_) => {}
                    Event::End => break,
                }
                count(&mut lock(admission), &mut played);
            }
            flush(&mut session, admission)?;
            lock(admission).finish();
            count(&mut lock(admission), &mut played);
            if until.is_none_or(|until| Instant::now() >= until) || mapper.try_lock().is_ok_and(|m| m.failed.is_some())
            {
                return Ok(played);
            }
        }
    }

    fn unit(
        &self,
        unit: &AccessUnit,
        admission: &Mutex<Admission>,
        session: &mut Option<(PacketCodec, Session)>,
        sink: &dyn Fn() -> Sink,
    ) -> Result<(), String> {
        let admitted = lock(admission).admit(unit);
        let number = match admitted {
            Admitted::Leave => return Ok(()),
            Admitted::Stop => return flush(session, admission),
            Admitted::Begin(number) => {
                flush(session, admission)?;
                number
            }
            Admitted::Decode(number) => number,
        };
        if session.as_ref().is_none_or(|(codec, _)| *codec != unit.info.codec) {
            let codec = match unit.info.codec {
                PacketCodec::H264 => Codec::H264,
                PacketCodec::H265 => Codec::H265,
                other => return Err(format!("{other} is not decoded here")),
            };
            let made = Session::new(self.nvdec, &self.gpu, codec, self.options, sink());
            *session = Some((unit.info.codec, made.map_err(|e| e.to_string())?));
        }
        let Some((_, decoder)) = session else { return Ok(()) };
        lock(admission).decoding(number, unit);
        match decoder.feed(&unit.data, number, unit.timing.pts_ns) {
            Ok(()) => Ok(()),
            Err(e @ NvdecError::Unsupported { .. }) => Err(e.to_string()),
            Err(e) => {
                eprintln!("gpu_decode: unit {number}: {e}");
                lock(admission).failed(e.to_string());
                flush(session, admission)
            }
        }
    }
}

fn map_all(from_feed: &Receiver<(AdmittedUnit, Picture)>, mapper: &Mutex<Mapper>) {
    while let Ok((shown, picture)) = from_feed.recv() {
        lock(mapper).picture(&shown, picture);
    }
}

fn flush(session: &mut Option<(PacketCodec, Session)>, admission: &Mutex<Admission>) -> Result<(), String> {
    if let Some((_, decoder)) = session {
        decoder.flush().map_err(|e| e.to_string())?;
    }
    lock(admission).ended();
    Ok(())
}

fn count(admission: &mut Admission, played: &mut Played) {
    while let Some(loss) = admission.take_loss() {
        *played.lost.entry(loss.cause).or_default() += loss.count;
    }
}

fn ended(played: Result<Played, String>, mapper: &Mutex<Mapper>) -> Result<Played, String> {
    match lock(mapper).failed.take() {
        Some(e) => Err(e),
        None => played,
    }
}
