//! Outputs of which an engine has left out the candidates that cannot become boxes.

use super::RawTensor;
use super::sink::ROUNDING;
use crate::model::Scores;
use millrace_kernels::cuda::{Candidates, KeptPlaces, Layout, NoBox};
use std::ops::Range;

/// How the first output of a head spells candidates of which each has its score: what an engine has to know to leave some out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    /// The numbers. A candidate's score is that of the largest deciding one at most.
    pub candidates: Candidates,
    /// What the deciding ones are.
    pub scores: Scores,
}

/// A sigmoid in `f32` is wrong by less than this.
const SIGMOID_ERROR: f64 = 1e-6;

impl Grid {
    /// A row for each candidate.
    pub(super) fn rows(numbers: usize, deciding: Range<usize>, scores: Scores) -> Self {
        Self { candidates: Candidates { layout: Layout::Rows, numbers, deciding }, scores }
    }

    /// A plane for each number.
    pub(super) fn planes(numbers: usize, deciding: Range<usize>, scores: Scores) -> Self {
        Self { candidates: Candidates { layout: Layout::Planes, numbers, deciding }, scores }
    }

    /// The largest deciding numbers with which a candidate is nothing but counted by a head whose boxes have at least this score.
    pub fn no_box(&self, score: f32) -> NoBox {
        match self.scores {
            // what is less is no probability, and is reported
            Scores::Probabilities => NoBox { from: -ROUNDING, below: score },
            Scores::Logits => {
                let least = f64::from(score) - SIGMOID_ERROR;
                // of 0 or less minus infinity: each may be a box
                let below = if least > 0.0 { (least / (1.0 - least)).ln() as f32 } else { f32::NEG_INFINITY };
                NoBox { from: f32::MIN, below }
            }
        }
    }
}

impl<'a> RawTensor<'a> {
    /// An output that is all here.
    pub fn whole(name: &'a str, shape: &'a [usize], data: &'a [f32]) -> Self {
        Self { name, shape, data, kept: None }
    }

    /// How many elements are here, of an output that has so many.
    pub(super) fn elements_here(&self, all: usize) -> usize {
        self.kept.map_or(all, |kept| all / kept.all.max(1) * kept.places.len())
    }

    /// Of what belongs to the candidates, one after the other, that of those which are here.
    pub(super) fn here<I>(&self, mut of_each: impl Iterator<Item = I>) -> impl Iterator<Item = I> {
        let mut places = self.kept.map(|KeptPlaces { places, .. }| places.iter());
        let mut next = 0;
        std::iter::from_fn(move || match &mut places {
            None => of_each.next(),
            Some(places) => {
                let place = *places.next()? as usize;
                let between = place.checked_sub(next)?;
                next = place + 1;
                of_each.nth(between)
            }
        })
    }
}
