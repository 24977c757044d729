//! Detectors that compute several frames at the same time.

use crate::detector::Found;
use crate::{DetectError, Detector, Engine};
use millrace_detect::Model;
use millrace_detect::model::Thresholds;
use millrace_node::Lease;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// One detector on the caller's thread, and each further one on a thread of its own.
pub(crate) struct Workers<E> {
    here: Detector<E>,
    elsewhere: Vec<Worker>,
}

struct Worker {
    work: Sender<Work>,
    answers: Receiver<Vec<Answer>>,
}

/// What a worker is told, in this order.
enum Work {
    Frames(Vec<Lease>),
    Thresholds(Thresholds),
}

/// What became of a frame.
pub(crate) struct Answer {
    pub(crate) lease: Lease,
    pub(crate) found: Result<Found, DetectError>,
    pub(crate) took_ns: u64,
}

impl Answer {
    /// The leases are held until the detector has done with them, on a GPU too.
    fn of<E: Engine>(detector: &mut Detector<E>, leases: Vec<Lease>) -> Vec<Self> {
        let begun = Instant::now();
        let found = detector.detect_all(&leases);
        let took_ns = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        leases.into_iter().zip(found).map(|(lease, found)| Self { lease, found, took_ns }).collect()
    }
}

impl<E: Engine> Workers<E> {
    /// `here` works on the caller's thread; the threads of the others end when this is dropped.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(here: Detector<E>, others: Vec<Detector<E>>) -> std::io::Result<Self> {
        let start = |(n, mut detector): (usize, Detector<E>)| {
            let (to, work) = channel();
            let (done, answers) = channel();
            let turn = move || {
                while let Ok(work) = work.recv() {
                    match work {
                        Work::Thresholds(thresholds) => detector.set_thresholds(thresholds),
                        Work::Frames(leases) => {
                            if done.send(Answer::of(&mut detector, leases)).is_err() {
                                return;
                            }
                        }
                    }
                }
            };
            std::thread::Builder::new().name(format!("worker-{}", n + 1)).spawn(turn)?;
            Ok(Worker { work: to, answers })
        };
        let elsewhere = others.into_iter().enumerate().map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { here, elsewhere })
    }

    /// The model's description.
    pub(crate) fn model(&self) -> &Model {
        self.here.model()
    }

    /// What counts as found from the next frame on, whoever computes it.
    pub(crate) fn set_thresholds(&mut self, thresholds: Thresholds) {
        self.here.set_thresholds(thresholds);
        for worker in &self.elsewhere {
            // one that has panicked is found at the next frame
            let _ = worker.work.send(Work::Thresholds(thresholds));
        }
    }

    /// How many frames are computed at the same time at most: so many by each detector.
    pub(crate) fn most(&self) -> usize {
        (1 + self.elsewhere.len()) * self.here.batch()
    }

    /// Computes at most [`most`](Self::most) frames and gives the answers in the same order; `None` in place of one whose
    /// worker has panicked.
    pub(crate) fn detect(&mut self, leases: Vec<Lease>) -> Vec<Option<Answer>> {
        assert!(leases.len() <= self.most(), "no more than were asked for");
        let each = share(leases.len(), 1 + self.elsewhere.len());
        let mut leases = leases.into_iter();
        let here: Vec<Lease> = leases.by_ref().take(each[0]).collect();
        let busy: Vec<(&Worker, usize)> = self
            .elsewhere
            .iter()
            .zip(&each[1..])
            .filter(|(_, n)| **n > 0)
            .map(|(worker, &n)| {
                // one that has panicked takes nothing, and gives no answer below
                let _ = worker.work.send(Work::Frames(leases.by_ref().take(n).collect()));
                (worker, n)
            })
            .collect();
        let mut answers: Vec<Option<Answer>> = Answer::of(&mut self.here, here).into_iter().map(Some).collect();
        for (worker, n) in busy {
            match worker.answers.recv() {
                Ok(done) => answers.extend(done.into_iter().map(Some)),
                Err(_) => answers.extend((0..n).map(|_| None)),
            }
        }
        answers
    }
}

/// How many of `frames` each of `workers` takes: as many as the next, or one more.
fn share(frames: usize, workers: usize) -> Vec<usize> {
    (0..workers).map(|n| frames / workers + usize::from(n < frames % workers)).collect()
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn frames_are_dealt_evenly_and_all() {
        assert_eq!(share(0, 2), [0, 0]);
        assert_eq!(share(1, 3), [1, 0, 0]);
        assert_eq!(share(7, 3), [3, 2, 2]);
        assert_eq!(share(8, 2), [4, 4]);
    }
}
