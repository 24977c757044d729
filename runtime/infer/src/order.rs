//! Frames in work, and their answers in the order in which each camera's frames came.

use std::collections::{BTreeSet, VecDeque};

/// Which batch, and how many were accepted before it.
pub(crate) type BatchId = u64;

/// Batches may be answered in any order: an answer waits for those of earlier frames of its camera, and for no others.
#[derive(Debug)]
pub(crate) struct InOrder<T> {
    frames: VecDeque<InWork<T>>,
}

#[derive(Debug)]
struct InWork<T> {
    batch: BatchId,
    frame: Frame,
    answer: Option<T>,
}

/// A frame in work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) source: String,
    pub(crate) seq: u64,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self { frames: VecDeque::new() }
    }
}

impl<T> InOrder<T> {
    /// Frames that have no answer yet, or one that waits.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn accept(&mut self, batch: BatchId, frames: impl Iterator<Item = Frame>) {
        self.frames.extend(frames.map(|frame| InWork { batch, frame, answer: None }));
    }

    /// The answers of a batch, one for each of its frames in their order. Those of frames that were given up are ignored.
    pub(crate) fn answer(&mut self, batch: BatchId, answers: Vec<T>) {
        let of_batch = self.frames.iter_mut().filter(|frame| frame.batch == batch);
        of_batch.zip(answers).for_each(|(frame, answer)| frame.answer = Some(answer));
    }

    /// Takes the answers that have their turn.
    pub(crate) fn take(&mut self) -> Vec<(Frame, T)> {
        let mut taken = Vec::new();
        let mut waited_for = BTreeSet::new();
        let mut left = VecDeque::with_capacity(self.frames.len());
        for mut frame in std::mem::take(&mut self.frames) {
            let has_turn = !waited_for.contains(&frame.frame.source);
            match frame.answer.take() {
                Some(answer) if has_turn => taken.push((frame.frame, answer)),
                answer => {
                    if has_turn {
                        waited_for.insert(frame.frame.source.clone());
                    }
                    left.push_back(InWork { answer, ..frame });
                }
            }
        }
        self.frames = left;
        taken
    }

    /// Gives up all frames.
    pub(crate) fn give_up(&mut self) -> Vec<Frame> {
        self.frames.drain(..).map(|frame| frame.frame).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(of: &[(&str, u64)]) -> impl Iterator<Item = Frame> {
        of.iter().map(|(source, seq)| Frame { source: (*source).to_owned(), seq: *seq })
    }

    fn taken(order: &mut InOrder<char>) -> Vec<(String, u64, char)> {
        order.take().into_iter().map(|(frame, answer)| (frame.source, frame.seq, answer)).collect()
    }

    #[test]
    fn a_late_batch_holds_up_the_cameras_that_are_in_it_and_no_other() {
        let mut order = InOrder::default();
        order.accept(0, frames(&[("a", 1), ("b", 1)]));
        order.accept(1, frames(&[("a", 2), ("c", 1)]));
        order.accept(2, frames(&[("c", 2), ("a", 3)]));
        order.answer(2, vec!['x', 'y']);
        assert_eq!(taken(&mut order), []);
        order.answer(1, vec!['p', 'q']);
        assert_eq!(taken(&mut order), [("c".to_owned(), 1, 'q'), ("c".to_owned(), 2, 'x')]);
        order.answer(0, vec!['m', 'n']);
        let all = taken(&mut order).into_iter().map(|(source, seq, answer)| format!("{source}{seq}{answer}"));
        assert_eq!(all.collect::<Vec<_>>(), ["a1m", "b1n", "a2p", "a3y"]);
        assert_eq!(order.len(), 0);
    }

    #[test]
    fn what_was_given_up_is_not_answered() {
        let mut order = InOrder::default();
        order.accept(0, frames(&[("a", 1), ("b", 1)]));
        assert_eq!(order.give_up(), frames(&[("a", 1), ("b", 1)]).collect::<Vec<_>>());
        order.answer(0, vec!['m', 'n']);
        assert_eq!((order.len(), taken(&mut order)), (0, vec![]));
    }
}
