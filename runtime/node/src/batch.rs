//! Items on their way to the node together, and how long they wait for more.

use crate::inputs::{Input, Inputs};
use std::time::{Duration, Instant};

/// What is gathered for the node's next step.
#[derive(Default)]
pub(crate) struct Batch {
    items: Vec<(&'static str, Input)>,
    since: Option<Instant>,
}

impl Batch {
    /// Takes what is there, up to `most`.
    pub(crate) fn fill(&mut self, inputs: &mut Inputs, most: usize) {
        let room = most.saturating_sub(self.items.len());
        self.items.extend(std::iter::from_fn(|| inputs.next()).take(room));
        if !self.items.is_empty() {
            self.since.get_or_insert_with(Instant::now);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How much longer it waits for more, where the first item waits for `wait` at most; `None`: not at all.
    pub(crate) fn patience(&self, wait: Duration, most: usize) -> Option<Duration> {
        let left = wait.checked_sub(self.since?.elapsed())?;
        (self.items.len() < most && !left.is_zero()).then_some(left)
    }

    /// All of it, and how long the first item has waited.
    pub(crate) fn take(&mut self) -> (Vec<(&'static str, Input)>, Duration) {
        let waited = self.since.take().map(|since| since.elapsed()).unwrap_or_default();
        (std::mem::take(&mut self.items), waited)
    }
}
