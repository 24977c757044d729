//! A viewer of an RTSP camera: what it saw, lost and was told.
#![allow(clippy::unwrap_used, dead_code)]

use super::{Frame, frame_of};
use millrace_frame::{CameraState, Timing, monotonic_ns};
use millrace_ingest::{Decoded, Event, Ingest, IngestOptions, ReorderPolicy, SoftwareDecoder, SourceState};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A frame that was seen, and when.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) frame: Frame,
    pub(crate) timing: Timing,
    pub(crate) at_ns: i64,
}

pub(crate) struct Viewer {
    ingest: Ingest,
    decoder: SoftwareDecoder,
    pub(crate) seen: Vec<Seen>,
    pub(crate) lost: BTreeMap<&'static str, u64>,
    pub(crate) counted: BTreeMap<&'static str, u64>,
    pub(crate) states: Vec<(Instant, SourceState)>,
    /// How many frames had been seen at each flush.
    pub(crate) flushes: Vec<usize>,
}

impl Viewer {
    pub(crate) fn open(url: &str, options: &IngestOptions) -> Self {
        Self {
            ingest: Ingest::open(url, options).unwrap(),
            decoder: SoftwareDecoder::new(ReorderPolicy::Live),
            seen: Vec::new(),
            lost: BTreeMap::new(),
            counted: BTreeMap::new(),
            states: Vec::new(),
            flushes: Vec::new(),
        }
    }

    /// Watches until `done` or the limit; whether it was done.
    pub(crate) fn watch(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + limit;
        while !done(self) {
            if Instant::now() > until {
                return false;
            }
            let mut flush = false;
            match self.ingest.next_event().unwrap() {
                Event::Unit(unit) => self.decoder.push(&unit).unwrap(),
                Event::Loss(loss) => *self.lost.entry(loss.cause).or_default() += loss.count,
                Event::Counted(counted) => *self.counted.entry(counted.name).or_default() += counted.count,
                Event::State(state) => self.states.push((Instant::now(), state)),
                Event::Flush => {
                    self.decoder.flush();
                    flush = true;
                }
                Event::Wait(wait) => std::thread::sleep(wait),
                Event::End => panic!("a camera has no end"),
            }
            while let Some(out) = self.decoder.take() {
                match out {
                    Decoded::Picture(picture) => {
                        let (frame, timing) = (frame_of(&picture), picture.timing);
                        self.seen.push(Seen { frame, timing, at_ns: monotonic_ns() });
                    }
                    Decoded::Loss(loss) => *self.lost.entry(loss.cause).or_default() += loss.count,
                }
            }
            if flush {
                self.flushes.push(self.seen.len());
            }
        }
        true
    }

    pub(crate) fn watch_frames(&mut self, count: usize, limit: Duration) {
        let done = self.watch(limit, |v| v.seen.len() >= count);
        assert!(done, "{} of {count} frames; lost {:?}; {:?}", self.seen.len(), self.lost, self.state());
    }

    pub(crate) fn watch_state(&mut self, wanted: CameraState, limit: Duration) {
        let done = self.watch(limit, |v| v.state().state == wanted);
        assert!(done, "not {wanted:?}: {:?}", self.states);
    }

    /// Frames that come within a time.
    pub(crate) fn watch_for(&mut self, time: Duration) {
        self.watch(time, |_| false);
    }

    pub(crate) fn state(&self) -> SourceState {
        self.states.last().map(|(_, state)| state.clone()).unwrap_or_default()
    }

    pub(crate) fn md5s(&self) -> Vec<&str> {
        self.seen.iter().map(|seen| &seen.frame.md5[..]).collect()
    }

    pub(crate) fn pts_ns(&self) -> Vec<i64> {
        self.seen.iter().map(|seen| seen.timing.pts_ns).collect()
    }
}
