//! Where a head's boxes go, and what shows there that the head is not the model's.

use super::{Canvas, HeadError};
use crate::doubt::{Alike, Tally};
use crate::model::Scores;
use crate::nms::Candidate;
use millrace_kernels::cuda::KeptPlaces;

/// Probabilities may miss 0 and 1 by rounding.
pub(super) const ROUNDING: f32 = 0.01;
/// So many logits without a negative one, or one above 1, are probabilities.
const FEW_LOGITS: u64 = 32;

/// Collects boxes: drops those below the score, those that are not finite (counted) and those without area.
pub struct Sink<'a> {
    found: &'a mut Vec<Candidate>,
    /// Room for the best class of each place.
    pub(super) best: &'a mut Vec<(f32, u32)>,
    canvas: Canvas,
    min_score: f32,
    pub(super) tally: Tally,
    alike: Alike,
    not_probability: Option<f32>,
    logits: u64,
    is_logits: bool,
}

impl<'a> Sink<'a> {
    pub(super) fn new(
        found: &'a mut Vec<Candidate>,
        best: &'a mut Vec<(f32, u32)>,
        canvas: Canvas,
        min_score: f32,
    ) -> Self {
        let (tally, alike) = (Tally::default(), Alike::default());
        Self { found, best, canvas, min_score, tally, alike, not_probability: None, logits: 0, is_logits: false }
    }

    /// The probability that a number of the model means.
    pub(super) fn probability(&mut self, x: f32, scores: Scores) -> f32 {
        if scores == Scores::Probabilities {
            return x;
        }
        self.logits += 1;
        self.is_logits |= !(0.0..=1.0).contains(&x);
        // an infinite logit is a fault of the model, not a certainty
        if x.is_finite() { 1.0 / (1.0 + (-x).exp()) } else { f32::NAN }
    }

    /// Whether a box of this score is wanted. A score that is not finite is counted here.
    pub(super) fn wants(&mut self, score: f32) -> bool {
        if !score.is_finite() {
            self.tally.not_finite += 1;
            return false;
        }
        if !(-ROUNDING..=1.0 + ROUNDING).contains(&score) {
            self.not_probability = Some(score);
        }
        self.tally.places += 1;
        score >= self.min_score
    }

    /// As [`wants`](Self::wants), of the score of a place whose objectness was asked for before.
    pub(super) fn wants_again(&mut self, score: f32) -> bool {
        let places = self.tally.places;
        let wants = self.wants(score);
        self.tally.places = places;
        wants
    }

    /// As [`wants`](Self::wants), of a list whose unused rows may have any score below 0.
    pub(super) fn wants_of_list(&mut self, score: f32) -> bool {
        self.wants(if score < 0.0 && score.is_finite() { 0.0 } else { score })
    }

    /// A box with its edges in model pixels; `index` is its place in the output.
    pub(super) fn push(&mut self, index: usize, class_id: u32, score: f32, edges: [f32; 4]) {
        self.push_turned(index, class_id, score, edges, 0.0);
    }

    /// As [`push`](Self::push), of a box that is turned about its centre.
    pub(super) fn push_turned(
        &mut self,
        index: usize,
        class_id: u32,
        score: f32,
        [x1, y1, x2, y2]: [f32; 4],
        angle_rad: f32,
    ) {
        if [x1, y1, x2, y2, angle_rad].iter().any(|v| !v.is_finite()) {
            self.tally.not_finite += 1;
            return;
        }
        self.tally.add([x1, y1, x2, y2], self.canvas.size);
        self.alike.add([x1, y1, x2, y2], self.canvas.size);
        self.tally.alike = self.alike.outnumber();
        if x2 > x1 && y2 > y1 {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            self.found.push(Candidate { x1, y1, x2, y2, angle_rad, score: score.min(1.0), class_id, index });
        }
    }

    /// A class of the whole picture.
    pub(super) fn push_class(&mut self, class_id: u32, score: f32) {
        let score = score.min(1.0);
        self.found.push(Candidate {
            x1: 0.0,
            y1: 0.0,
            x2: 0.0,
            y2: 0.0,
            angle_rad: 0.0,
            score,
            class_id,
            index: class_id,
        });
    }

    /// The class that a number of the model names.
    pub(super) fn class(&self, value: f32) -> Result<u32, HeadError> {
        let classes = self.canvas.classes;
        if value.fract() == 0.0 && (0.0..classes as f32).contains(&value) {
            return Ok(value as u32);
        }
        let (labels, last) = (self.canvas.labels(), classes.saturating_sub(1));
        Err(HeadError::NotAClass { value: value.to_string(), labels, last })
    }

    /// Counts the candidates that an engine has left out: what [`probability`](Self::probability) and [`wants`](Self::wants) do of
    /// each, which has less than the score.
    pub(super) fn left_out(&mut self, kept: KeptPlaces<'_>, scores: Scores) {
        let many = kept.all.saturating_sub(kept.places.len()) as u64;
        self.tally.places += many;
        if scores == Scores::Logits {
            self.logits += many;
            self.is_logits |= kept.outside;
        }
    }

    /// Whether the scores were what the head takes them for.
    pub(super) fn judge(&self, kind: &'static str) -> Result<(), HeadError> {
        if let Some(value) = self.not_probability {
            return Err(HeadError::NotProbability { kind, value: value.to_string() });
        }
        if self.logits >= FEW_LOGITS && !self.is_logits {
            return Err(HeadError::NotLogits { kind, scores: self.logits });
        }
        Ok(())
    }
}
