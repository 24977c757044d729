//! Detectors that compute several frames at the same time.

use crate::detector::Found;
use crate::{DetectError, Detector, Engine};
use millrace_node::Lease;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// One detector on the caller's thread, and each further one on a thread of its own.
pub(crate) struct Workers<E> {
    here: Detector<E>,
    elsewhere: Vec<Worker>,
}

struct Worker {
    frames: Sender<Lease>,
    answers: Receiver<Answer>,
}

/// What became of a frame.
pub(crate) struct Answer {
    pub(crate) lease: Lease,
    pub(crate) found: Result<Found, DetectError>,
    pub(crate) took_ns: u64,
}

impl Answer {
    fn of<E: Engine>(detector: &mut Detector<E>, lease: Lease) -> Self {
        let begun = Instant::now();
        let found = detector.detect(lease.item(), lease.bytes());
        let took_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Self { lease, found, took_ns }
    }
}

impl<E: Engine> Workers<E> {
    /// `here` works on the caller's thread; the threads of the others end when this is dropped.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(here: Detector<E>, others: Vec<Detector<E>>) -> std::io::Result<Self> {
        let start = |(n, mut detector): (usize, Detector<E>)| {
            let (frames, work) = channel();
            let (done, answers) = channel();
            let turn = move || {
                while let Ok(lease) = work.recv() {
                    if done.send(Answer::of(&mut detector, lease)).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new().name(format!("worker-{}", n + 1)).spawn(turn)?;
            Ok(Worker { frames, answers })
        };
        let elsewhere = others.into_iter().enumerate().map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { here, elsewhere })
    }

    /// How many frames are computed at the same time.
    pub(crate) fn count(&self) -> usize {
        1 + self.elsewhere.len()
    }

    /// Computes at most [`count`](Self::count) frames and gives the answers in the same order; `None` in place of one
    /// whose worker has panicked.
    pub(crate) fn detect(&mut self, leases: Vec<Lease>) -> Vec<Option<Answer>> {
        assert!(leases.len() <= self.count(), "no more than were asked for");
        let mut leases = leases.into_iter();
        let first = leases.next();
        let busy: Vec<&Worker> = leases
            .zip(&self.elsewhere)
            .map(|(lease, worker)| {
                // one that has panicked takes nothing, and gives no answer below
                let _ = worker.frames.send(lease);
                worker
            })
            .collect();
        let here = first.map(|lease| Some(Answer::of(&mut self.here, lease)));
        here.into_iter().chain(busy.into_iter().map(|worker| worker.answers.recv().ok())).collect()
    }
}
